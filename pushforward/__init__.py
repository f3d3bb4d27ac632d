"""Serve trained normalizing flows over HTTP, train them, look into them: the public names.

    from pushforward import Client

    with Client("http://127.0.0.1:8000", model="moons") as client:
        x = client.sample(1000, seed=7).x
        log_prob = client.log_prob(x)

Every name is imported when it is first used: the clients need httpx and numpy, `load`, `save`,
`build` and `import_checkpoint` torch (extras cpu and gpu).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models import build, import_checkpoint, load, save
    from pushforward.client import AsyncClient, Client

_MODULES = {
    "AsyncClient": "pushforward.client",
    "Client": "pushforward.client",
    "build": "models",
    "import_checkpoint": "models",
    "load": "models",
    "save": "models",
}

__all__ = ["AsyncClient", "Client", "build", "import_checkpoint", "load", "save"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pushforward' has no attribute {name!r}")
    from importlib import import_module

    module = _MODULES[name]
    if module == "models":
        from pushforward.siblings import import_sibling

        return getattr(import_sibling(module), name)
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
