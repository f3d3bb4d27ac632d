"""The selection of an engine: the named one, that of the folder's graphs, or the fastest."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from models.onnx.load import has_export
from service.contracts import Array
from service.engines.device_errors import device_fault
from service.engines.engine import Engine
from service.engines.probe import PROBES
from service.engines.registry import AUTO, CHOICES, ENGINES, FLOAT32
from service.engines.selection import (
    EngineConfig,
    EngineSelection,
    EngineUnavailable,
    dtype_name,
)

# How long one call may take while engines are compared, and all calls at one point.
_MAX_SECONDS_A_CALL = 0.1
_SECONDS_A_POINT = 0.03
_ROUNDS = 2
# The engine of the graphs in a model folder.
_GRAPHS = "onnx"

_log = logging.getLogger(__name__)

TimeCall = Callable[[Callable[[], object]], float]


def select_engine(
    name: str, config: EngineConfig, *, time_call: TimeCall | None = None
) -> EngineSelection:
    """Make the engine that is named; for "auto" that of the folder's graphs, or the fastest.

    Args:
        name: one of `ENGINES`, or "auto".
        config: what it is made of.
        time_call: gives the seconds of a call where engines are compared.

    Raises:
        EngineUnavailable: there is no such engine, or it cannot serve this model.
        EngineOutOfMemory, EngineLost: no engine can, on this device.
    """
    if config.precision != FLOAT32:
        return _select_in_precision(name, config)
    if name == AUTO:
        return _select_fastest(config, time_call or best_seconds)
    if name not in ENGINES:
        raise EngineUnavailable(f"engine {name}: expected one of {', '.join(CHOICES)}")
    try:
        selection: EngineSelection = ENGINES[name].load()(config)
    except (ValueError, RuntimeError) as error:
        _raise_fault(config, error)
        raise EngineUnavailable(f"engine {name}: {error}") from error
    return selection


def _select_in_precision(name: str, config: EngineConfig) -> EngineSelection:
    """Make the engine that is named, or the first that can compute networks in that precision."""
    device = config.flow.device.type
    able = [one for one, spec in ENGINES.items() if spec.takes_precision and spec.serves(device)]
    if name not in (AUTO, *able):
        raise EngineUnavailable(
            f"engine {name} computes in the model's own precision: for {config.precision} choose "
            f"{', '.join(able)} or {AUTO}"
        )
    reasons = []
    # Captured graphs and kernels come behind plain torch in the table, and before it here.
    for one in reversed(able) if name == AUTO else [name]:
        try:
            selection: EngineSelection = ENGINES[one].load()(config)
        except (ValueError, RuntimeError) as error:
            _raise_fault(config, error)
            reasons.append(str(error))
        else:
            return selection
    raise EngineUnavailable(reasons[-1])


def best(seconds: Mapping[str, Mapping[str, float]]) -> str:
    """The engine with the least geometric mean over operations and batch sizes.

    Args:
        seconds: engine -> point -> seconds a call; all engines have the same points.
    """
    means = {
        name: math.exp(sum(map(math.log, points.values())) / len(points)) / ENGINES[name].lead
        for name, points in seconds.items()
    }
    return min(means, key=lambda name: means[name])


def _select_fastest(config: EngineConfig, time_call: TimeCall) -> EngineSelection:
    """Take the folder's graphs, if they are those of the model; else compare all engines.

    torch.compile is none of them: it takes 20 to 70 seconds to start, and again at other sizes.
    """
    refused: dict[str, str] = {}
    if _has_graphs(config):
        try:
            certified: EngineSelection = ENGINES[_GRAPHS].load()(config)
        except (ValueError, RuntimeError) as error:
            refused[_GRAPHS] = _refuse(config, _GRAPHS, error)
        else:
            return replace(certified, comparison={"seconds_a_call": {}, "refused": {}})
    rows = _GoldenRows.of(config)
    device = config.flow.device.type
    first, *others = (name for name, spec in ENGINES.items() if spec.serves(device))
    rivals = [name for name in others if name not in refused]
    candidates: dict[str, EngineSelection] = {first: ENGINES[first].load()(config)}
    calls = rows.calls(candidates[first].engine, 1)
    measured = {point: time_call(call) for point, call in calls.items()}
    row_seconds = max(measured.values())
    for name in rivals:
        try:
            candidates[name] = ENGINES[name].load()(replace(config, row_seconds=row_seconds))
        except (ValueError, RuntimeError) as error:
            refused[name] = _refuse(config, name, error)
    sizes = _sizes(candidates, config, row_seconds)
    if len(candidates) == 1 and sizes == [1]:  # measured already, and one call may take seconds
        seconds = {first: measured}
    else:
        seconds = _compare(candidates, rows, sizes, time_call)
    fastest = candidates[best(seconds)]
    comparison = {**fastest.comparison, "seconds_a_call": seconds, "refused": refused}
    return replace(fastest, comparison=comparison)


def _sizes(
    candidates: Mapping[str, EngineSelection], config: EngineConfig, row_seconds: float
) -> list[int]:
    """The batch sizes at which engines are compared: one row, and a batch that is not too long.

    On a device a row takes as long as many, so its time says nothing of a full batch: where an
    engine computes batches of some sizes alone, these are compared, else one row and a full batch.
    """
    if config.flow.device.type == "cpu":
        return sorted({1, max(1, min(config.max_rows, int(_MAX_SECONDS_A_CALL / row_seconds)))})
    captured = [one.batch_sizes for one in candidates.values() if one.batch_sizes]
    if not captured:
        return sorted({1, config.max_rows})
    # One may have found less memory than another.
    most = min(map(max, captured))
    return sorted({size for sizes in captured for size in sizes if size <= most})


def _raise_fault(config: EngineConfig, error: Exception) -> None:
    """Raise what is no reason against an engine: too little memory on a device, or a lost one.

    On a CPU another engine may take less.
    """
    device = str(config.flow.device)
    if device != "cpu" and (fault := device_fault(error, PROBES.of(device))) is not None:
        raise fault from None


def _has_graphs(config: EngineConfig) -> bool:
    """Whether the folder's own graphs are taken uncompared: on CPUs none was ever slower."""
    return config.flow.device.type == "cpu" and has_export(config.checkpoint.folder)


def _refuse(config: EngineConfig, name: str, error: Exception) -> str:
    """Log why an engine is no candidate; give the reason.

    Raises:
        EngineOutOfMemory, EngineLost: the device is at fault.
    """
    _raise_fault(config, error)
    _log.info("%s: engine %s is no candidate: %s", config.checkpoint.folder.name, name, error)
    return str(error)


@dataclass(frozen=True, slots=True)
class _GoldenRows:
    """The golden rows of a model, in its precision."""

    x: Array
    z: Array
    context: Array | None

    @classmethod
    def of(cls, config: EngineConfig) -> "_GoldenRows":
        record = config.checkpoint.record
        dtype = np.dtype(dtype_name(config.flow.dtype))
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
    candidates: Mapping[str, EngineSelection],
    rows: _GoldenRows,
    sizes: list[int],
    time_call: TimeCall,
) -> dict[str, dict[str, float]]:
    """Seconds a call: the least of some rounds in which all candidates take turns."""
    found: dict[str, dict[str, float]] = {name: {} for name in candidates}
    for size in sizes:
        calls = {name: rows.calls(one.engine, size) for name, one in candidates.items()}
        _warm_up(calls, candidates)
        for _ in range(_ROUNDS):
            for name, points in calls.items():
                for point, call in points.items():
                    found[name][point] = min(time_call(call), found[name].get(point, math.inf))
    return found


def _warm_up(
    calls: Mapping[str, Mapping[str, Callable[[], object]]],
    candidates: Mapping[str, EngineSelection],
) -> None:
    """Call all on a device once: it takes memory and chooses algorithms for each new size."""
    for name, points in calls.items():
        if candidates[name].engine.device != "cpu":
            for call in points.values():
                call()


def best_seconds(call: Callable[[], object]) -> float:
    """The least time of a call, among as many as fit into a moment."""
    least, spent = math.inf, 0.0
    while spent < _SECONDS_A_POINT / _ROUNDS:
        began = time.perf_counter()
        call()
        took = time.perf_counter() - began
        least, spent = min(least, took), spent + took
    return least
