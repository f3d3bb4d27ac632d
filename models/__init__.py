"""The mathematics of normalizing flows: torch and numpy, nothing of HTTP.

Everything here is imported on first use, so that `import models` costs no torch import.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.checkpoints.folder import load, save
    from models.flow import Flow
    from models.importers.run import import_checkpoint
    from models.registry import build

# MKL, by which torch multiplies matrices on CPUs, else rounds a row by its place in the batch on
# some processors (those of AMD). It reads this when it is used first; what the user has set stays.
os.environ.setdefault("MKL_CBWR", "AUTO")

_HOMES = {
    "Flow": "models.flow",
    "build": "models.registry",
    "import_checkpoint": "models.importers.run",
    "load": "models.checkpoints.folder",
    "save": "models.checkpoints.folder",
}

__all__ = ["Flow", "build", "import_checkpoint", "load", "save"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
