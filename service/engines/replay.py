"""The golden rows, replayed on the engine that serves, against the flow in float64.

A graph says itself what it is a graph of; this looks at what it does. It is held to the errors that
its certificate measured, so that one constant that is off by some percent is seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.checkpoints import golden
from models.flow import Flow
from models.noise import base_log_prob_torch
from models.ode.transform import is_continuous
from models.onnx.certificate import CONTINUOUS, TOLERANCES
from service.contracts import Array
from service.engines.engine import Engine

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


def worst_misfit(
    engine: Engine, exact: Flow, record: golden.Record, certificate: Mapping[str, Any]
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
    dtype = np.dtype(engine.dtype)
    x, z = (record[name].numpy().astype(dtype) for name in ("x", "z"))
    context = record["context"].numpy().astype(dtype) if "context" in record else None
    tolerance = CONTINUOUS if is_continuous(exact) else TOLERANCES[getattr(torch, engine.dtype)]
    kind = engine.device.partition(":")[0]
    times = _TIMES_MEASURED.get(kind, max(_TIMES_MEASURED.values()))
    floor = _ROUNDING_UNITS * float(np.finfo(dtype).eps)

    def judge(what: str, got: Tensor, wanted: Tensor, measured: float, most: float) -> Misfit:
        scale = wanted.abs().clamp(min=1)
        allowed = times * measured + floor * scale
        allowed = torch.minimum(allowed, _TIMES_TOLERANCE * most * scale)
        error = (got - wanted).abs()
        index = int((error / allowed).flatten().argmax())  # NaN counts as the largest
        return Misfit(what, float(error.flatten()[index]), float(allowed.flatten()[index]))

    got_z, got_log_prob = _run(engine.encode, x, context, decoding=False)
    with torch.no_grad():
        wanted_z, log_det = exact.encode(*_wide(x, context))
        wanted_log_prob = base_log_prob_torch(wanted_z) + log_det
    got_x, got_sample = _run(engine.decode, z, context, decoding=True)
    with torch.no_grad():
        wide, given = _wide(z, context)
        wanted_x, log_det = exact.decode(wide, given)
        wanted_sample = base_log_prob_torch(wide) - log_det
    held = (
        ("log_prob", got_log_prob, wanted_log_prob, "log_prob", tolerance.log_prob),
        ("z", got_z, wanted_z, "z", tolerance.x),
        ("log_prob of samples", got_sample, wanted_sample, "sample_log_prob",
         tolerance.sample_log_prob),
        ("x", got_x, wanted_x, "x", tolerance.x),
    )  # fmt: skip
    found = [
        judge(what, got, wanted, _measured(certificate, name), most)
        for what, got, wanted, name, most in held
    ]
    return max(found, key=_severity)


def _severity(misfit: Misfit) -> float:
    ratio = misfit.error / misfit.allowed
    return math.inf if math.isnan(ratio) else ratio


def _measured(certificate: Mapping[str, Any], name: str) -> float:
    try:
        return float(certificate[name]["max"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the certificate of the graphs has no largest error of {name}") from None


def _run(call: Any, rows: Array, context: Array | None, *, decoding: bool) -> tuple[Tensor, Tensor]:
    value, log_det, *_ = call(rows, context)
    values, log_dets = torch.from_numpy(value).double(), torch.from_numpy(log_det).double()
    if decoding:
        return values, base_log_prob_torch(torch.from_numpy(rows).double()) - log_dets
    return values, base_log_prob_torch(values) + log_dets


def _wide(rows: Array, context: Array | None) -> tuple[Tensor, Tensor | None]:
    given = None if context is None else torch.from_numpy(context).double()
    return torch.from_numpy(rows).double(), given
