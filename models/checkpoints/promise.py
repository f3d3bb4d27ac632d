"""What is promised of the accuracy of continuous flows, and whether a model keeps it; no torch."""

import math
from collections.abc import Mapping

# How far log_prob of a continuous flow may be from the exact integral, in nats, or in units of
# |log_prob| where that is larger: float32 has no more digits.
PROMISE = 1e-4

LOG_PROB_ERRORS = (
    "log_prob_max_abs_error",
    "log_prob_max_relative_error",
    "log_prob_promised_relative_error",
)


def broken_promise(accuracy: Mapping[str, float]) -> str:
    """Say of a model's accuracy that it misses what is promised; "" where it does not."""
    error = accuracy.get("log_prob_max_relative_error", 0.0)
    promised = accuracy.get("log_prob_promised_relative_error", math.inf)
    if error <= promised:
        return ""
    return (
        f"log_prob is off by up to {error:.1e} max(1, |log_prob|) nats, {promised:.0e} is "
        "promised: of an imported model, import the checkpoint again, which chooses solver.rtol, "
        "solver.atol and the dtype; of a trained one, train again without naming the solver, which "
        "chooses them too, or with lower tolerances and in float64"
    )
