"""The version of this package, which pyproject.toml alone states; the standard library is enough.

An installed distribution repeats it. A checkout that was only put on `PYTHONPATH` has none, or one
that is not of this code: its own pyproject.toml is asked first.
"""

from functools import cache
from pathlib import Path

# Of a copy of the packages alone.
UNKNOWN = "0+unknown"

_NAME = "pushforward"
_ROOT = Path(__file__).resolve().parent.parent


@cache
def package_version(root: Path = _ROOT) -> str:
    """The version; `UNKNOWN` where neither a checkout nor a distribution says it.

    Args:
        root: the folder that holds our packages; a checkout, where pyproject.toml lies in it.
    """
    version = _version_of_checkout(root)
    if version is not None:
        return version
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of(_NAME)
    except PackageNotFoundError:
        return UNKNOWN


def _version_of_checkout(root: Path) -> str | None:
    try:
        text = (root / "pyproject.toml").read_text("utf-8")
    except OSError:
        return None
    import tomllib

    try:
        project = tomllib.loads(text).get("project", {})
    except tomllib.TOMLDecodeError:
        return None
    # Packages may be copied into another project.
    return str(project["version"]) if project.get("name") == _NAME else None
