"""Where `service.client` of 0.1.0 lay: it goes on until 0.3.0."""

import sys
import warnings
from importlib import import_module
from typing import Any

from pushforward import client as _home

warnings.warn(
    "service.client goes with pushforward 0.3.0: write "
    "`from pushforward import Client, AsyncClient` (errors: `from pushforward.client import ...`)",
    DeprecationWarning,
    stacklevel=2,
)


# Its modules, so that an exception has one class under both names.
for _name in ("calls", "clients", "errors", "retries"):
    sys.modules[f"{__name__}.{_name}"] = import_module(f"pushforward.client.{_name}")


def __getattr__(name: str) -> Any:
    return getattr(_home, name)
