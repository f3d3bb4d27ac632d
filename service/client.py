"""Where `service.client` of 0.1.0 lay: it goes on until 0.3.0."""

import warnings
from typing import Any

from pushforward import client as _home

warnings.warn(
    "service.client goes with pushforward 0.3.0: write "
    "`from pushforward import Client, AsyncClient` (errors: `from pushforward.client import ...`)",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    return getattr(_home, name)
