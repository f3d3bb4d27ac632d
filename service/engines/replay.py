"""The golden rows, replayed on the engine that serves, against the flow in float64.

A graph says itself what it is a graph of; this looks at what it does. It is held to the errors that
its certificate measured, so that one constant that is off by some percent is seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.onnx.replay import ReplayAnswers, ReplayRows, exact_answers, replay
from models.onnx.tolerance import CONTINUOUS, TOLERANCES
from service.contracts import Array
from service.engines.engine import Engine

if TYPE_CHECKING:
    from models.checkpoints import golden
    from models.flow import Flow

# The golden rows are among those that the certificate measured. Other processors round otherwise,
# and GPUs add up in another order.
_TIMES_MEASURED = {"cpu": 8, "cuda": 64}
# Below this many units of the last place nothing can be distinguished.
_ROUNDING_UNITS = 16
# Whatever a certificate says, which comes with the graph: not beyond what certificates allow.
_TIMES_TOLERANCE = 2


@dataclass(frozen=True, slots=True)
class Misfit:
    """What an engine is worst in: an error, and what it may be at most (both of that number)."""

    what: str
    error: float
    allowed: float

    @property
    def is_allowed(self) -> bool:
        """Whether it fits; a NaN does not."""
        return self.error <= self.allowed

    def describe(self) -> str:
        """Say in one line that it does not, and what to do."""
        return (
            f"the graphs do not reproduce the golden rows: {self.what} is off by {self.error:.3g}, "
            f"at most {self.allowed:.3g} is allowed: export the model again"
        )


def worst_misfit(
    engine: Engine, exact: "Flow", record: "golden.Record", certificate: Mapping[str, Any]
) -> Misfit:
    """Run both directions on the golden rows, rounded to what the engine takes.

    Args:
        engine: of the graphs.
        exact: the model as stored, in float64 on a CPU.
        record: its golden rows.
        certificate: of the graphs, as JSON holds it.

    Raises:
        ValueError: the certificate does not say what was measured.
    """
    from models.ode.transform import is_continuous

    arrays = {name: tensor.numpy() for name, tensor in record.items()}
    rows = ReplayRows.of(arrays, engine.dtype)
    got, wanted = replay(engine, rows), exact_answers(exact, rows)
    return find_misfit(engine, got, wanted, certificate, is_continuous=is_continuous(exact))


def find_misfit(
    engine: Engine,
    got: ReplayAnswers,
    wanted: ReplayAnswers,
    certificate: Mapping[str, Any],
    *,
    is_continuous: bool,
) -> Misfit:
    """Compare what an engine answered to the golden rows with what the flow does in float64.

    Args:
        engine: of the graphs; gave `got`.
        wanted: of the flow, to the same rows.
        certificate: of the graphs, as JSON holds it.
        is_continuous: whether the flow solves equations.

    Raises:
        ValueError: the certificate does not say what was measured.
    """
    tolerance = CONTINUOUS if is_continuous else TOLERANCES[engine.dtype]
    kind = engine.device.partition(":")[0]
    times = _TIMES_MEASURED.get(kind, max(_TIMES_MEASURED.values()))
    floor = _ROUNDING_UNITS * float(np.finfo(engine.dtype).eps)

    def judge(what: str, got: Array, wanted: Array, name: str, most: float) -> Misfit:
        scale = np.maximum(np.abs(wanted), 1)
        allowed = times * _measured(certificate, name) + floor * scale
        allowed = np.minimum(allowed, _TIMES_TOLERANCE * most * scale)
        error = np.abs(got - wanted)
        index = int(np.argmax(error / allowed))  # NaN counts as the largest
        return Misfit(what, float(error.flat[index]), float(allowed.flat[index]))

    found = (
        judge("log_prob", got.log_prob, wanted.log_prob, "log_prob", tolerance.log_prob),
        judge("z", got.z, wanted.z, "z", tolerance.x),
        judge("log_prob of samples", got.sample_log_prob, wanted.sample_log_prob,
              "sample_log_prob", tolerance.sample_log_prob),
        judge("x", got.x, wanted.x, "x", tolerance.x),
    )  # fmt: skip
    return max(found, key=_severity)


def _severity(misfit: Misfit) -> float:
    ratio = misfit.error / misfit.allowed
    return math.inf if math.isnan(ratio) else ratio


def _measured(certificate: Mapping[str, Any], name: str) -> float:
    try:
        return float(certificate[name]["max"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the certificate of the graphs has no largest error of {name}") from None
