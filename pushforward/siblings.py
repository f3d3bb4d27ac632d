"""The packages that lie beside `pushforward`: `models` and `service`.

Their names are common. In a project that has folders of these names of its own, first on
`sys.path`, `import models` finds the project's; what is here finds ours.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

SIBLINGS = ("models", "service")

_ROOT = Path(__file__).resolve().parent.parent


class ShadowedError(ImportError):
    """Another package has been imported under the name of one of ours."""


def import_sibling(name: str) -> ModuleType:
    """Import `models` or `service` from beside this package, whatever stands first on `sys.path`.

    A name means one package in a process. A foreign one that is already imported stays what it is:
    the code that uses it must go on working.

    Raises:
        ShadowedError: a foreign package of that name is already imported; names its folder.
    """
    loaded = sys.modules.get(name)
    if loaded is None:
        return _load(name)
    folder = _folder(loaded)
    if folder != _ROOT / name:
        raise ShadowedError(
            f"pushforward needs its own package {name!r}, but {folder} is imported under that "
            "name: rename that folder, use pushforward before it is imported, or in another process"
        )
    return loaded


def prefer_siblings() -> None:
    """Import both packages, and have the processes that this one starts find them too.

    For a process of our own, such as a command: what stands first on `sys.path` and has a folder of
    one of the names goes to its end, and spawned processes take over the order.

    Raises:
        ShadowedError: a foreign package of one of the names is already imported.
    """
    shadowing = [entry for entry in sys.path if _is_shadowing(entry)]
    sys.path[:] = [entry for entry in sys.path if entry not in shadowing] + shadowing
    for name in SIBLINGS:
        import_sibling(name)


def _is_shadowing(entry: str) -> bool:
    if Path(entry).resolve() == _ROOT:
        return False
    return any(PathFinder.find_spec(name, [entry]) is not None for name in SIBLINGS)


def _load(name: str) -> ModuleType:
    spec = PathFinder.find_spec(name, [str(_ROOT)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{_ROOT} has no package {name!r}: install pushforward again")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _folder(module: ModuleType) -> Path:
    """Where a package or a module lies; one without a file is told by its first folder."""
    file = getattr(module, "__file__", None)
    if file is not None:
        path = Path(file).resolve()
        return path.parent if path.name == "__init__.py" else path
    return Path(next(iter(module.__path__))).resolve()
