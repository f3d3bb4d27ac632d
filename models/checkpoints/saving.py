"""Saving a flow as a model folder: what `load` would refuse is not written."""

import copy
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from models.checkpoints import golden
from models.checkpoints.accuracy import measure_accuracy
from models.checkpoints.errors import CheckpointError
from models.checkpoints.files import content_of, try_folder, write_folder
from models.checkpoints.loading import with_weights
from models.checkpoints.manifest import (
    CALIBRATION_FILES,
    CONFIG_FILE,
    FORMAT_VERSION,
    GOLDEN_FILE,
    STATE_SUFFIX,
    WEIGHTS_FILE,
    Manifest,
)
from models.checkpoints.proof import (
    check_decodes,
    check_inverse,
    replay_exact,
    replay_served,
)
from models.checkpoints.tensor_file import contiguous
from models.flow import Flow
from models.registry import build

_log = logging.getLogger(__name__)


def save(
    flow: Flow,
    folder: str | os.PathLike[str],
    *,
    rows: golden.Inputs | golden.Record | None = None,
    provenance: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    accuracy: Mapping[str, float] | None = None,
) -> None:
    """Write a flow as a model folder; an existing model folder is replaced in one step.

    Args:
        flow: a flow made by `models.build` (it knows its family and config).
        folder: where the files go.
        rows: x (n, *event_shape) and, for a conditional flow, context, to be stored as golden rows;
            left out, rows are drawn from the flow itself. A record of this flow in float64 is taken
            as it is, and the flow that is written must reproduce it.
        provenance: where the weights come from; plain JSON. Left out, the flow's own is kept.
        dtype: what the flow should compute in when served, float32 or float64; left out, the dtype
            of its weights. Weights are stored in the precision they have.
        accuracy: what `models.checkpoints.accuracy.measure_accuracy` found; left out, it is
            measured, without held-out rows.

    Raises:
        ValueError: if the flow was not made by `models.build`.
        CheckpointError: if `load` would refuse it (it is not finite on its golden rows, it does not
            reproduce or invert them, or it is too steep for `dtype`), or the folder holds something
            that is not a model.
        OSError: if it cannot be written; a model that was there before still is.
    """
    if not flow.family:
        raise ValueError("flow: expected one made by models.build, got one without family")
    target = Path(folder)
    _check_target(target)
    weights = contiguous({key: value.detach().cpu() for key, value in flow.state_dict().items()})
    record = _golden_record(target, flow, rows)
    served = _replayed(target, flow, weights, record, dtype)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        family=flow.family,
        config=flow.config,
        event_shape=flow.event_shape,
        context_shape=flow.context_shape,
        dtype="float64" if served.dtype == torch.float64 else "float32",
        provenance=dict(flow.provenance if provenance is None else provenance),
        accuracy=dict(
            measure_accuracy(flow, record, dtype=served.dtype) if accuracy is None else accuracy
        ),
    )
    metadata = {"format": "pt", "family": flow.family, "format_version": str(FORMAT_VERSION)}
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, allow_nan=False)
    content = {
        WEIGHTS_FILE: to_bytes(weights, metadata),
        GOLDEN_FILE: to_bytes(contiguous(record), metadata),
        CONFIG_FILE: f"{text}\n".encode(),
    }
    was_calibrated = (target / CALIBRATION_FILES[0]).exists()
    write_folder(target, content, last=CONFIG_FILE)
    if was_calibrated:
        _drop_calibration(target)


def _drop_calibration(target: Path) -> None:
    """Drop what the scores of other weights meant, where it is still there, and say so."""
    for name in CALIBRATION_FILES:
        (target / name).unlink(missing_ok=True)
    _log.warning(
        "%s: the calibration of the model that was there before is gone: calibrate the new one "
        "with pushforward calibrate",
        target,
    )


def _golden_record(
    target: Path, flow: Flow, rows: golden.Inputs | golden.Record | None
) -> golden.Record:
    """The golden rows to be stored, which the flow inverts in float64."""
    exact = copy.deepcopy(flow).to("cpu", torch.float64).eval()
    record = rows if isinstance(rows, dict) else golden.record(exact, rows)
    if not golden.is_finite(record):
        raise CheckpointError("golden rows: expected finite z and log_prob; check the weights")
    check_inverse(target, exact, record)
    return record


def _replayed(
    target: Path,
    flow: Flow,
    weights: Mapping[str, Tensor],
    record: golden.Record,
    dtype: torch.dtype | None,
) -> Flow:
    """Build what `load` will, and replay the golden rows with it, exact and as they are served."""
    with torch.random.fork_rng(devices=[]):  # its weights are not wanted
        built = build(flow.family, flow.config)
    served = with_weights(target, built, weights)
    _, answers = replay_exact(target, served, record)
    served.to(torch.float64 if flow.needs_float64 else dtype or flow.dtype)
    answers = replay_served(target, served, record, answers)
    check_decodes(target, served, record, answers)
    return served


def check_target(folder: str | os.PathLike[str], *, replaces: bool = False) -> None:
    """See, before the work that leads to it, that a model can be saved as `folder`.

    Args:
        folder: of the model to be.
        replaces: whether it may take the place of another.

    Raises:
        CheckpointError: it holds a model or other files, or it cannot be written.
    """
    target = Path(folder)
    try:
        _check_target(target)
        is_taken = (target / CONFIG_FILE).exists()
        if not is_taken:
            try_folder(target)
    except FileNotFoundError:
        raise CheckpointError(
            f"{target}: cannot be written: there is no folder {target.absolute().parent}; make it "
            "first"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from None
    if is_taken and not replaces:
        raise CheckpointError(f"{target}: holds a model; delete it or choose another folder")


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target}: expected a folder to write, got a file")
    others = [path for path in content_of(target) if not _is_state(path)]
    if others and not (target / CONFIG_FILE).is_file():
        raise CheckpointError(f"{target}: expected a model folder or none, got other files")


def _is_state(path: Path) -> bool:
    """Whether this is what an unfinished run keeps in a folder that is a mount point."""
    return path.name.endswith(STATE_SUFFIX)
