"""Golden rows as graphs take them, what an engine answers to them, and what the flow does.

The rows are rounded to what the graphs take before the flow sees them in float64, so that what is
compared is the graphs' own error. Without torch, but for `exact_answers`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.noise import base_log_prob

if TYPE_CHECKING:
    from torch import Tensor

    from models.flow import Flow

Array = NDArray[Any]


class ReplayEngine(Protocol):
    """What can answer golden rows: value (n, ...) and log_det (n,) come first."""

    def encode(self, x: Array, context: Array | None) -> tuple[Any, ...]:
        """Map data to latents."""
        ...

    def decode(self, z: Array, context: Array | None) -> tuple[Any, ...]:
        """Map latents to data."""
        ...


class ReplayRows(NamedTuple):
    """Golden rows, rounded to what an engine takes: x (n, *event_shape), z (n, D), context."""

    x: Array
    z: Array
    context: Array | None

    @classmethod
    def of(cls, record: Mapping[str, Array], dtype: str) -> "ReplayRows":
        """Round the golden rows of a model folder."""
        context = record.get("context")
        given = None if context is None else context.astype(dtype)
        return cls(record["x"].astype(dtype), record["z"].astype(dtype), given)


class ReplayAnswers(NamedTuple):
    """What is answered to golden rows, in float64, in nats.

    z, log_prob: of encode. x, sample_log_prob: of decode, the latter is that of the decoded rows.
    """

    z: Array
    log_prob: Array
    x: Array
    sample_log_prob: Array


def replay(engine: ReplayEngine, rows: ReplayRows) -> ReplayAnswers:
    """Let an engine answer golden rows in both directions."""
    z, log_det, *_ = engine.encode(rows.x, rows.context)
    x, back_log_det, *_ = engine.decode(rows.z, rows.context)
    return ReplayAnswers(
        z.astype(np.float64),
        base_log_prob(z) + log_det.astype(np.float64),
        x.astype(np.float64),
        base_log_prob(rows.z) - back_log_det.astype(np.float64),
    )


def exact_answers(exact: "Flow", rows: ReplayRows) -> ReplayAnswers:
    """Let a flow in float64 on a CPU answer them, by torch."""
    return replay(_FlowEngine(exact), rows)


class _FlowEngine:
    def __init__(self, exact: "Flow") -> None:
        self._exact = exact

    def encode(self, x: Array, context: Array | None) -> tuple[Any, ...]:
        return self._numpy(*self._exact.encode(*self._wide(x, context)))

    def decode(self, z: Array, context: Array | None) -> tuple[Any, ...]:
        return self._numpy(*self._exact.decode(*self._wide(z, context)))

    @staticmethod
    def _wide(rows: Array, context: Array | None) -> "tuple[Tensor, Tensor | None]":
        import torch

        given = None if context is None else torch.from_numpy(context).double()
        return torch.from_numpy(rows).double(), given

    @staticmethod
    def _numpy(*values: "Tensor") -> tuple[Any, ...]:
        return tuple(value.detach().numpy() for value in values)


def accuracy_of(
    engine: ReplayEngine,
    record: Mapping[str, Array],
    rows: ReplayRows,
    got: ReplayAnswers,
    *,
    is_round_trip_measured: bool,
) -> dict[str, float]:
    """What `models.checkpoints.golden.accuracy` says of a flow, of the engine that serves.

    Args:
        engine: gave `got`.
        record: golden rows in float64; `rows` as the engine takes them.
        is_round_trip_measured: whether decode(encode(x)) is run too: of a continuous flow another
            solve.
    """
    found = {
        "golden_rows": float(len(record["x"])),
        "log_prob_max_abs_error": float(np.abs(got.log_prob - record["log_prob"]).max()),
        "z_max_abs_error": float(np.abs(got.z - record["z"]).max()),
    }
    if is_round_trip_measured:
        back = engine.decode(got.z.astype(rows.z.dtype), rows.context)[0].astype(np.float64)
        found["round_trip_max_abs_error"] = float(np.abs(back - record["x"]).max())
    return found
