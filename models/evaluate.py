"""Where `models.evaluate` of 0.1.0 lay: it goes on until 0.3.0."""

import warnings
from typing import Any

from models.training import evaluate as _home

warnings.warn(
    "models.evaluate goes with pushforward 0.3.0: write models.training.evaluate",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    return getattr(_home, name)
