"""Which engine serves a model: the one that was named, or the fastest on the model itself."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from models.checkpoints.folder import Checkpoint, digest
from models.flow import Flow
from models.fold import fold
from models.ode.transform import is_continuous
from models.onnx.export import PRECISIONS, export
from models.onnx.load import SerialisedExport, has_export, read_export
from service.contracts import Array
from service.engines.engine import Engine
from service.engines.onnx import OnnxEngine
from service.engines.replay import worst_misfit
from service.engines.torch import TorchEngine

# A graph that is not in the folder is made and certified on the spot, unless torch takes longer
# than this for a row: the certificate asks torch for a hundred rows in float64. Far above what a
# Glow of 32 x 32 pixels takes on a busy machine: how busy it is should not choose the engine.
_SLOW_ROW_SECONDS = 0.1
# The same of a continuous flow, whose row alone takes torch nearly as long as a hundred.
_SLOW_SOLVE_SECONDS = 1.0
_RANDOM_ROWS = 8
# How long one call may take while engines are compared, and all calls at one point.
_MOST_SECONDS_A_CALL = 0.1
_SECONDS_A_POINT = 0.03
_ROUNDS = 2
# onnx gives every row the same bits in every batch, and minds busy neighbours less: another engine
# must be this much faster to be taken.
_LEAD = 1.05

_log = logging.getLogger(__name__)


class EngineUnavailable(RuntimeError):
    """The engine that was named cannot serve this model; the message says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """A model that wants an engine.

    threads: of one call of an onnx engine. max_rows: the largest batch.
    """

    checkpoint: Checkpoint
    threads: int
    max_rows: int

    @property
    def flow(self) -> Flow:
        """The model's, where it will compute."""
        return self.checkpoint.flow


@dataclass(frozen=True, slots=True)
class EngineSelection:
    """An engine, and what is known of it.

    certificate: of an onnx engine's graphs, empty for others.
    comparison: where engines were compared, the seconds a call of each, and why one was left out.
    is_batch_invariant: whether a row has the same bits in every batch.
    """

    engine: Engine
    certificate: dict[str, Any] = field(default_factory=dict)
    comparison: dict[str, Any] = field(default_factory=dict)
    is_batch_invariant: bool = False


def choose(name: str, job: Job) -> EngineSelection:
    """Make the engine that is named; for "auto" the fastest of those that work.

    Raises:
        EngineUnavailable: the engine that was named cannot serve this model.
    """
    if name == "torch":
        return EngineSelection(TorchEngine(job.flow))
    if name == "auto":
        return _fastest(job)
    try:
        return _folded(job) if name == "folded" else _onnx(job, _stored(job) or _made(job))
    except (ValueError, RuntimeError) as error:
        raise EngineUnavailable(f"engine {name}: {error}") from error


def best(seconds: Mapping[str, Mapping[str, float]]) -> str:
    """The engine with the least geometric mean over operations and batch sizes.

    Args:
        seconds: engine -> point -> seconds a call; all engines have the same points.
    """
    means = {
        name: math.exp(sum(map(math.log, points.values())) / len(points))
        for name, points in seconds.items()
    }
    if "onnx" in means:
        means["onnx"] /= _LEAD
    return min(means, key=lambda name: means[name])


def _fastest(job: Job) -> EngineSelection:
    """Compare torch, torch on the folded flow, and onnx.

    torch.compile is no candidate: it takes 20 to 70 seconds to start, and again at other sizes.
    """
    rows = _Rows.of(job)
    candidates = {"torch": EngineSelection(TorchEngine(job.flow))}
    calls = rows.calls(candidates["torch"].engine, 1)
    first = {point: _seconds(call) for point, call in calls.items()}
    row_seconds = max(first.values())
    rivals: dict[str, Callable[[], EngineSelection]] = {
        "folded": lambda: _folded(job),
        "onnx": lambda: _onnx(job, _stored(job) or _made_at_once(job, row_seconds)),
    }
    refused = {}
    for name, make in rivals.items():
        try:
            candidates[name] = make()
        except (ValueError, RuntimeError) as error:
            _log.info("%s: engine %s is no candidate: %s", job.checkpoint.folder.name, name, error)
            refused[name] = str(error)
    most = max(1, min(job.max_rows, int(_MOST_SECONDS_A_CALL / row_seconds)))
    if len(candidates) == 1 and most == 1:  # measured already, and one call may take seconds
        seconds = {"torch": first}
    else:
        seconds = _compare(candidates, rows, sorted({1, most}))
    comparison = {"seconds_a_call": seconds, "refused": refused}
    return replace(candidates[best(seconds)], comparison=comparison)


def _folded(job: Job) -> EngineSelection:
    if is_continuous(job.flow):
        raise EngineUnavailable("continuous flows fold for onnx alone")
    return EngineSelection(TorchEngine(fold(job.flow), name="folded"))


def _onnx(job: Job, graphs: SerialisedExport) -> EngineSelection:
    """Make an engine that has replayed the golden rows."""
    dtype = _name(job.flow.dtype)
    if graphs.certificate["precision"] != dtype:
        raise EngineUnavailable(
            f"the graphs are in {graphs.certificate['precision']} and the model is served in "
            f"{dtype}: export it again with the other --precision"
        )
    engine = OnnxEngine(graphs, str(job.flow.device), job.threads)
    checkpoint = job.checkpoint
    misfit = worst_misfit(engine, checkpoint.exact, checkpoint.record, graphs.certificate)
    if not misfit.is_allowed:
        raise EngineUnavailable(
            f"the graphs do not reproduce the golden rows: {misfit.what} is off by "
            f"{misfit.error:.3g}, at most {misfit.allowed:.3g} is allowed: export the model again"
        )
    is_same = bool(graphs.certificate["is_batch_invariant"])
    is_same = is_same and engine.device == "cpu" and job.threads == 1
    return EngineSelection(engine, graphs.certificate, is_batch_invariant=is_same)


def _stored(job: Job) -> SerialisedExport | None:
    folder = job.checkpoint.folder
    if not has_export(folder):
        return None
    found = read_export(folder, job.flow, digest(folder))
    if job.flow.needs_float64 and found.certificate["precision"] != _name(job.flow.dtype):
        # Exported before such data were kept in float64: others are made.
        _log.info("%s: its graphs take float32, which its data need more than", folder.name)
        return None
    return found


def _made_at_once(job: Job, row_seconds: float) -> SerialisedExport:
    bound = _SLOW_SOLVE_SECONDS if is_continuous(job.flow) else _SLOW_ROW_SECONDS
    if row_seconds > bound:
        raise EngineUnavailable(
            "its folder holds no graphs, and they take long to make: run pushforward export"
        )
    return _made(job)


def _made(job: Job) -> SerialisedExport:
    """Export in memory: the folder is the operator's, and the server does not write into it."""
    precision = next(name for name, dtype in PRECISIONS.items() if dtype == job.flow.dtype)
    made = export(
        job.checkpoint.exact,
        precision=precision,
        record=job.checkpoint.record,
        random_rows=_RANDOM_ROWS,
    )
    return SerialisedExport.of(made)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The golden rows of a model, in its precision."""

    x: Array
    z: Array
    context: Array | None

    @classmethod
    def of(cls, job: Job) -> "_Rows":
        record = job.checkpoint.record
        dtype = np.dtype(_name(job.flow.dtype))
        context = record.get("context")
        return cls(
            record["x"].numpy().astype(dtype),
            record["z"].numpy().astype(dtype),
            None if context is None else context.numpy().astype(dtype),
        )

    def calls(self, engine: Engine, size: int) -> dict[str, Callable[[], object]]:
        """Both operations on a batch of `size` rows, the golden ones as often as needed."""
        taken = np.arange(size) % len(self.x)
        x, z = self.x[taken], self.z[taken]
        context = None if self.context is None else self.context[taken]
        return {
            f"encode_{size}": lambda: engine.encode(x, context),
            f"decode_{size}": lambda: engine.decode(z, context),
        }


def _compare(
    candidates: Mapping[str, EngineSelection], rows: _Rows, sizes: list[int]
) -> dict[str, dict[str, float]]:
    """Seconds a call: the least of some rounds in which all candidates take turns."""
    found: dict[str, dict[str, float]] = {name: {} for name in candidates}
    for size in sizes:
        calls = {name: rows.calls(choice.engine, size) for name, choice in candidates.items()}
        for _ in range(_ROUNDS):
            for name, points in calls.items():
                for point, call in points.items():
                    found[name][point] = min(_seconds(call), found[name].get(point, math.inf))
    return found


def _seconds(call: Callable[[], object]) -> float:
    """The least time of a call, among as many as fit into a moment."""
    least, spent = math.inf, 0.0
    while spent < _SECONDS_A_POINT / _ROUNDS:
        began = time.perf_counter()
        call()
        took = time.perf_counter() - began
        least, spent = min(least, took), spent + took
    return least


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
