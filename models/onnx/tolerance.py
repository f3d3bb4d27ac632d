"""The tolerances that graphs are held to, against the flow in float64; no torch."""

from dataclasses import dataclass

from models.checkpoints.promise import PROMISE


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What |graph - float64| may be, in units of max(1, |float64|).

    log_prob: of data, by encode. sample_log_prob: of samples, by decode: x is rounded before the
    networks see it, which costs digits where the flow is steep. x: of decoded values.
    """

    log_prob: float
    sample_log_prob: float
    x: float


# By what the graphs compute in.
TOLERANCES = {
    "float32": Tolerance(log_prob=1e-5, sample_log_prob=1e-4, x=1e-3),
    "float64": Tolerance(log_prob=1e-8, sample_log_prob=1e-7, x=1e-6),
}

# Continuous flows, against their reference; the graphs solve as the model says.
CONTINUOUS = Tolerance(log_prob=PROMISE, sample_log_prob=1e-3, x=1e-3)
