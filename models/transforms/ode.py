"""Where `models.transforms.ode` of 0.1.0 lay: it goes on until 0.3.0."""

import warnings
from typing import Any

from models.ode import transform as _home

warnings.warn(
    "models.transforms.ode goes with pushforward 0.3.0: write models.ode.transform",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    return getattr(_home, name)
