"""Where `models.checkpoint` of 0.1.0 lay: it goes on until 0.3.0."""

import os
import warnings
from typing import Any

from models.checkpoints import folder as _home
from models.flow import Flow

warnings.warn(
    "models.checkpoint goes with pushforward 0.3.0: write `from pushforward import load, save`",
    DeprecationWarning,
    stacklevel=2,
)


def load_exact(folder: str | os.PathLike[str]) -> Flow:
    """Read a model folder in float64.

    Raises:
        CheckpointError: as `load`.
    """
    return _home.load_checkpoint(folder).exact


def __getattr__(name: str) -> Any:
    return getattr(_home, name)
