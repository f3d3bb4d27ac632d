"""Loading a model folder: the flow is rebuilt, and replays its golden rows or is refused."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints import golden
from models.checkpoints.budget import Budget
from models.checkpoints.errors import CheckpointError
from models.checkpoints.manifest import (
    CONFIG_FILE,
    GOLDEN_FILE,
    WEIGHTS_FILE,
    Manifest,
    read_manifest,
)
from models.checkpoints.proof import (
    check_decodes,
    check_inverse,
    replay_exact,
    replay_served,
)
from models.checkpoints.reference import log_prob_errors
from models.checkpoints.tensor_file import read_shapes, read_tensors
from models.flow import Flow
from models.ode.transform import is_continuous
from models.registry import build

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_Shapes = Mapping[str, tuple[int, ...]]


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

    Returns:
        The flow of `load`, its copy in float64 and its golden rows.

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
    if is_known and is_continuous(flow):  # to measure it again takes seconds of solves
        here = answers.errors(record)
    else:
        here = golden.accuracy(flow, record, answers)
    if not is_same or "log_prob_promised_relative_error" not in manifest.accuracy:
        here |= log_prob_errors(flow, exact, record)
    flow.accuracy = _accuracy(here, manifest, is_same=is_same)
    return Checkpoint(source, flow, exact, record)


def _accuracy(here: dict[str, float], manifest: Manifest, *, is_same: bool) -> dict[str, float]:
    """What was measured when the model was saved, and on its golden rows here, whichever is more.

    In another dtype than that of then (not `is_same`), golden rows alone count.
    """
    if not is_same:
        return here
    then = manifest.accuracy
    return {**then, **{name: max(error, then.get(name, 0.0)) for name, error in here.items()}}


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


def _read(source: Path, manifest: Manifest) -> tuple[Flow, golden.Record]:
    """Build the flow of a folder and give it its weights, as they are stored.

    Returns:
        The flow, and its golden rows.
    """
    weight_shapes = read_shapes(source / WEIGHTS_FILE)
    tensors = read_tensors(source / GOLDEN_FILE)
    flow = _build(source, manifest, weight_shapes, golden.shapes_of(tensors))
    weights = _read_weights(source / WEIGHTS_FILE, flow.state_dict())
    flow = with_weights(source / WEIGHTS_FILE, flow, weights)
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


def with_weights(path: Path, flow: Flow, weights: Mapping[str, Tensor]) -> Flow:
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
