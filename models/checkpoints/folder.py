"""Native checkpoints: a folder of JSON and safetensors that proves itself when it is loaded.

    config.json          format_version, family, config, shapes, dtype, provenance, accuracy
    model.safetensors    weights and buffers, under the names of the flow's state dict
    golden.safetensors   a few rows x [, context] with their z and log_prob, in float64

Loading rebuilds the flow from `family` and `config`, compares every key, shape and dtype, and
replays the golden rows: a flow that does not reproduce itself is refused. Nothing executable is
ever read.
"""

from models.checkpoints.errors import CheckpointError
from models.checkpoints.loading import DTYPES, Checkpoint, load, load_checkpoint, read_golden
from models.checkpoints.manifest import (
    CONFIG_FILE,
    GOLDEN_FILE,
    STATE_SUFFIX,
    WEIGHTS_FILE,
    Manifest,
    digest,
    read_manifest,
)
from models.checkpoints.saving import check_target, save

__all__ = [
    "CONFIG_FILE",
    "DTYPES",
    "GOLDEN_FILE",
    "STATE_SUFFIX",
    "WEIGHTS_FILE",
    "Checkpoint",
    "CheckpointError",
    "Manifest",
    "check_target",
    "digest",
    "load",
    "load_checkpoint",
    "read_golden",
    "read_manifest",
    "save",
]
