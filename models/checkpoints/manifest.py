"""The manifest of a model folder, config.json, and the names of the files beside it; no torch."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.checkpoints.errors import CheckpointError
from models.checkpoints.files import check_regular, sha256

FORMAT_VERSION: Literal[1] = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
GOLDEN_FILE = "golden.safetensors"
# Of what the model's scores mean, bound to its weights; see `models.scoring.storage`.
CALIBRATION_FILES = ("calibration.json", "calibration.safetensors")
# Of the hidden file in which a training run keeps its state.
STATE_SUFFIX = ".training.safetensors"
MAX_CONFIG_BYTES = 4 * 2**20

_Size = Annotated[int, Field(gt=0)]


class Manifest(BaseModel):
    """The content of config.json."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format_version: Literal[1]
    family: str
    config: dict[str, Any]
    event_shape: tuple[_Size, ...]
    context_shape: tuple[_Size, ...] | None = None
    dtype: Literal["float32", "float64"] = "float32"
    provenance: dict[str, Any] = {}
    accuracy: dict[str, float] = {}


def read_manifest(folder: Path) -> Manifest:
    """Read and validate config.json.

    Raises:
        CheckpointError: if it is missing, too large, not JSON, or has missing, unknown or bad keys.
    """
    path = folder / CONFIG_FILE
    try:
        check_regular(path, MAX_CONFIG_BYTES)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(f"{path}: {where}: {first['msg']}") from None


def digest(folder: str | os.PathLike[str]) -> str:
    """SHA-256 of the weights file, in hex: what an export is bound to."""
    return sha256(Path(folder) / WEIGHTS_FILE)
