"""Native checkpoints: a folder of JSON and safetensors that proves itself when it is loaded.

    config.json          format_version, family, config, shapes, dtype, provenance, accuracy
    model.safetensors    weights and buffers, under the names of the flow's state dict
    golden.safetensors   a few rows x [, context] with their z and log_prob, in float64

Loading rebuilds the flow from `family` and `config`, compares every key, shape and dtype, and
replays the golden rows: a flow that does not reproduce itself is refused. Nothing executable is
ever read.
"""

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save as to_bytes
from torch import Tensor

from models.checkpoints import golden
from models.checkpoints.accuracy import measure_accuracy
from models.checkpoints.budget import Budget
from models.checkpoints.files import check_regular, content_of, try_folder, write_folder
from models.checkpoints.proof import (
    CheckpointError,
    check_decodes,
    check_inverse,
    replay_exact,
    replay_served,
)
from models.checkpoints.reference import log_prob_errors
from models.checkpoints.tensor_file import contiguous, read_shapes, read_tensors
from models.flow import Flow
from models.ode.transform import is_continuous
from models.registry import build

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

FORMAT_VERSION: Literal[1] = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
GOLDEN_FILE = "golden.safetensors"
# Of the hidden file in which a training run keeps its state.
STATE_SUFFIX = ".training.safetensors"
MAX_CONFIG_BYTES = 4 * 2**20

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_Shapes = Mapping[str, tuple[int, ...]]
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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder as it was loaded.

    flow: in evaluation mode, where and in what it will compute. exact: the same flow in float64 on
    the CPU. record: its golden rows.
    """

    folder: Path
    flow: Flow
    exact: Flow
    record: golden.Record


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
    reference = copy.deepcopy(flow).to("cpu", torch.float64).eval()
    record = rows if isinstance(rows, dict) else golden.record(reference, rows)
    if not golden.is_finite(record):
        raise CheckpointError("golden rows: expected finite z and log_prob; check the weights")
    check_inverse(target, reference, record)
    with torch.random.fork_rng(devices=[]):  # its weights are not wanted
        built = build(flow.family, flow.config)
    served = _assemble(target, built, weights)
    _, answers = replay_exact(target, served, record)
    served.to(torch.float64 if flow.needs_float64 else dtype or flow.dtype)
    answers = replay_served(target, served, record, answers)
    check_decodes(target, served, record, answers)
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
    write_folder(target, content, last=CONFIG_FILE)


def load(
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> Flow:
    """Read a model folder and check that the flow reproduces its golden rows.

    Args:
        folder: holds config.json, model.safetensors and golden.safetensors.
        dtype: what to compute in; left out, what config.json says, but float64 where the data need
            it (`Flow.needs_float64`).
        device: where to put the flow.

    Returns:
        The flow in evaluation mode, with `provenance` and `accuracy` filled in.

    Raises:
        CheckpointError: names the file, the first thing that is wrong, and what to do about it.
    """
    return load_checkpoint(folder, dtype=dtype, device=device).flow


def load_checkpoint(
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> Checkpoint:
    """Read a model folder as `load` does, and keep what its flow was compared with.

    Raises:
        CheckpointError: as `load`.
    """
    source = Path(folder)
    manifest = read_manifest(source)
    flow, record = _read(source, manifest)
    # The stored weights first, in float64: this is the flow's identity. Then as it will be served.
    exact, answers = replay_exact(source, flow, record)
    check_inverse(source, exact, record)
    flow.to(device, _compute_dtype(source, flow, dtype, manifest))
    answers = replay_served(source, flow, record, answers)
    flow.provenance = manifest.provenance
    check_decodes(source, flow, record, answers)
    is_same = flow.dtype == DTYPES[manifest.dtype]
    is_known = is_same and "round_trip_max_abs_error" in manifest.accuracy
    if is_known and is_continuous(flow):  # to measure what its folder tells takes seconds of solves
        here = answers.errors(record)
    else:
        here = golden.accuracy(flow, record, answers)
    if not is_same or "log_prob_promised_relative_error" not in manifest.accuracy:
        here |= log_prob_errors(flow, exact, record)
    flow.accuracy = _accuracy(here, manifest, is_same=is_same)
    return Checkpoint(source, flow, exact, record)


def _accuracy(here: dict[str, float], manifest: Manifest, *, is_same: bool) -> dict[str, float]:
    """What was measured when the model was saved, and on its golden rows here, whichever is more.

    In another dtype than that of then (not `is_same`), golden rows alone speak.
    """
    if not is_same:
        return here
    then = manifest.accuracy
    return {**then, **{name: max(error, then.get(name, 0.0)) for name, error in here.items()}}


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


def read_golden(folder: str | os.PathLike[str], flow: Flow) -> golden.Record:
    """Read the golden rows of a model folder, in float64.

    Raises:
        CheckpointError: if they are missing or do not fit the flow.
    """
    path = Path(folder) / GOLDEN_FILE
    return _golden_record(path, read_tensors(path), flow)


def _golden_record(path: Path, record: golden.Record, flow: Flow) -> golden.Record:
    """See that the tensors of a file are golden rows of a flow; give them in float64."""
    expected = golden.shapes(flow, rows=len(record.get("x", ())))
    got = golden.shapes_of(record)
    if got != expected or not len(record["x"]):
        raise CheckpointError(f"{path}: expected golden rows of shapes {expected}, got {got}")
    return {key: tensor.double() for key, tensor in record.items()}


def digest(folder: str | os.PathLike[str]) -> str:
    """SHA-256 of the weights file, in hex: what an export is bound to."""
    with (Path(folder) / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from None
    if is_taken and not replaces:
        raise CheckpointError(f"{target}: holds a model; delete it or choose another folder")


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target}: expected a folder to write, got a file")
    strangers = [path for path in content_of(target) if not _is_state(path)]
    if strangers and not (target / CONFIG_FILE).is_file():
        raise CheckpointError(f"{target}: expected a model folder or none, got other files")


def _is_state(path: Path) -> bool:
    """Whether this is what an unfinished run keeps in a folder that is a mount point."""
    return path.name.endswith(STATE_SUFFIX)


def _read(source: Path, manifest: Manifest) -> tuple[Flow, golden.Record]:
    """Build the flow of a folder and give it its weights, as they are stored.

    Returns:
        The flow, and its golden rows.
    """
    weight_shapes = read_shapes(source / WEIGHTS_FILE)
    tensors = read_tensors(source / GOLDEN_FILE)
    flow = _build(source, manifest, weight_shapes, golden.shapes_of(tensors))
    weights = _read_weights(source / WEIGHTS_FILE, flow.state_dict())
    flow = _assemble(source / WEIGHTS_FILE, flow, weights)
    return flow, _golden_record(source / GOLDEN_FILE, tensors, flow)


def _build(source: Path, manifest: Manifest, weights: _Shapes, rows: _Shapes) -> Flow:
    """Build what config.json asks for, if that can be worth the numbers of the other files."""
    path = source / CONFIG_FILE
    if "x" in rows and rows["x"][1:] != manifest.event_shape:
        raise CheckpointError(
            f"{path}: event_shape: expected that of the golden rows, {rows['x'][1:]}, got "
            f"{manifest.event_shape}; event_shape and context_shape belong to another model"
        )
    budget = Budget([*weights.values(), *rows.values()])
    try:
        budget.check(manifest.config)
        with budget:
            flow = build(manifest.family, manifest.config)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path}: {_reason(error)}") from None
    if flow.event_shape != manifest.event_shape or flow.context_shape != manifest.context_shape:
        raise CheckpointError(
            f"{path}: event_shape and context_shape: expected what the config "
            f"builds, {flow.event_shape} and {flow.context_shape}; got {manifest.event_shape} and "
            f"{manifest.context_shape}"
        )
    return flow


def _reason(error: Exception) -> str:
    """One line for people: no trace of another language, no empty text."""
    lines = str(error).splitlines()
    if isinstance(error, MemoryError) or "alloc" in str(error):
        return "there is not enough memory for what it asks for"
    return lines[0] if lines else f"it cannot be built ({type(error).__name__})"


def _assemble(path: Path, flow: Flow, weights: Mapping[str, Tensor]) -> Flow:
    """Give a flow that was built its weights."""
    try:
        flow.load_state_dict(weights, assign=True)
    except (ValueError, RuntimeError) as error:  # a transform's own check, say of a permutation
        raise CheckpointError(f"{path}: {error}") from None
    return flow.requires_grad_(False).eval()


def _compute_dtype(
    source: Path, flow: Flow, asked: torch.dtype | None, manifest: Manifest
) -> torch.dtype:
    """What a flow computes in; float64 if it must, also where it was saved for float32."""
    if not flow.needs_float64:
        return asked or DTYPES[manifest.dtype]
    if asked is not None and asked != torch.float64:
        raise CheckpointError(
            f"{source}: dtype: expected float64, got {str(asked).removeprefix('torch.')}: the mean "
            "of a column is so far from 0, in its standard deviations, that its values fall "
            "together in float32"
        )
    return torch.float64


def _read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = read_tensors(path)
    for key in expected:
        if key not in found:
            raise CheckpointError(
                f"{path}: {key}: missing ({len(found.keys() & expected.keys())} of {len(expected)} "
                "tensors are there); the config may be that of another model"
            )
    for key in found:
        if key not in expected:
            raise CheckpointError(f"{path}: {key}: not part of this flow; remove it or the config")
    for key, tensor in found.items():
        _check_tensor(path, key, tensor, expected[key])
    return found


def _check_tensor(path: Path, key: str, got: Tensor, expected: Tensor) -> None:
    if got.shape != expected.shape:
        raise CheckpointError(
            f"{path}: {key}: expected shape {tuple(expected.shape)}, got {tuple(got.shape)}"
        )
    floating = expected.is_floating_point() and got.dtype in DTYPES.values()
    if got.dtype != expected.dtype and not floating:
        wanted = "float32 or float64" if expected.is_floating_point() else str(expected.dtype)
        raise CheckpointError(f"{path}: {key}: expected dtype {wanted}, got {got.dtype}")
    if got.is_floating_point() and not got.isfinite().all():
        count = int((~got.isfinite()).sum())
        raise CheckpointError(f"{path}: {key}: {count} of {got.numel()} values are not finite")
