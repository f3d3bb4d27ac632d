"""What a flow must do to be saved and to be loaded: give its golden rows again, and invert them."""

import copy
import math
from pathlib import Path

import torch

from models import golden
from models.flow import Flow

# How much more float32 is off than float64 where rounding is to blame: its unit is 5e8 times as
# large, but what is off by much is not off by so much more.
_ROUNDING_GROWS = 100


class CheckpointError(ValueError):
    """A checkpoint cannot be read, does not fit its configuration or does not reproduce itself."""


def replay_exact(source: Path, flow: Flow, record: golden.Record) -> Flow:
    """Replay the golden rows in float64.   -> the flow in it.

    Raises:
        CheckpointError: they do not come out.
    """
    exact = copy.deepcopy(flow).double()
    drift = golden.drift(exact, record)
    if not drift <= exact.reproduces_to:  # a NaN must fail too
        raise CheckpointError(
            f"{source}: the flow does not reproduce its golden rows in {exact.dtype}: off by "
            f"{drift:.3g}, at most {exact.reproduces_to:.3g} is allowed (relative to "
            "max(1, |value|)); the weights, the config or the code that reads them have changed: "
            "save or import it again"
        )
    return exact


def replay_served(source: Path, flow: Flow, record: golden.Record) -> None:
    """Replay the golden rows in the precision that serves, where float64 has reproduced them.

    Raises:
        CheckpointError: that precision is too short for these weights.
    """
    drift = golden.drift(flow, record)
    if not drift <= golden.COMPUTE_TOLERANCE:
        raise CheckpointError(
            f"{source}: {_too_steep(flow)}: it does not reproduce its golden rows, off by "
            f"{drift:.3g}, at most {golden.COMPUTE_TOLERANCE:.3g} is allowed (relative to "
            "max(1, |value|))"
        )


def measure(source: Path, flow: Flow, record: golden.Record) -> dict[str, float]:
    """What the precision that serves costs, see `golden.accuracy`.

    Raises:
        CheckpointError: it is not finite.
    """
    accuracy = golden.accuracy(flow, record)
    if not all(map(math.isfinite, accuracy.values())):
        raise CheckpointError(
            f"{source}: {_too_steep(flow)}: decode(encode(x)) of its golden rows is not finite"
        )
    return accuracy


def _too_steep(flow: Flow) -> str:
    short = str(flow.dtype).removeprefix("torch.")
    advice = "" if flow.dtype == torch.float64 else "; serve it in float64 (dtype in config.json)"
    return f"the weights are too ill-conditioned (steep) for {short}{advice}"


def check_inverse(source: Path, flow: Flow, record: golden.Record) -> None:
    """See that encode and decode are each other's inverse on the golden rows.

    Raises:
        CheckpointError: they are not; says whether rounding is to blame or the flow.
    """
    error = golden.inverse_error(flow, record)
    if error <= golden.INVERSE_TOLERANCE:
        return
    # A wrong mask or order is off by as much in any precision; rounding is not.
    rough = golden.inverse_error(copy.deepcopy(flow).float(), record)
    is_rounding = not math.isfinite(error) or not rough <= _ROUNDING_GROWS * error
    cause = (
        "the weights are too ill-conditioned (steep) to be inverted, even in float64: train with a "
        "lower learning rate or a bounded scale"
        if is_rounding
        else "a mask, an order or a permutation is not what the weights were trained with"
    )
    raise CheckpointError(
        f"{source}: encode and decode are not each other's inverse on the golden rows: off by "
        f"{error:.3g} in z, at most {golden.INVERSE_TOLERANCE:.3g} is allowed; {cause}"
    )
