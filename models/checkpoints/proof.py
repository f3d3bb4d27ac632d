"""What a flow must do to be saved and to be loaded: give its golden rows again, and invert them."""

import copy
import math
from pathlib import Path

import torch

from models.checkpoints import golden
from models.checkpoints.errors import CheckpointError
from models.flow import Flow

# How much more float32 is off than float64 where rounding is to blame: its unit is 5e8 times as
# large, but what is off by much is not off by so much more.
_ROUNDING_GROWS = 100


def replay_exact(source: Path, flow: Flow, record: golden.Record) -> tuple[Flow, golden.Answers]:
    """Replay the golden rows in float64.

    Returns:
        The flow in float64, and what it answers.

    Raises:
        CheckpointError: they do not come out.
    """
    exact = copy.deepcopy(flow).double()
    answers = golden.replay(exact, record)
    drift = answers.drift(record)
    if not drift <= exact.reproduces_to:  # a NaN must fail too
        raise CheckpointError(
            f"{source}: the flow does not reproduce its golden rows in {exact.dtype}: off by "
            f"{drift:.3g}, at most {exact.reproduces_to:.3g} is allowed (relative to "
            "max(1, |value|)); the weights, the config or the code that reads them have changed: "
            "save or import it again"
        )
    return exact, answers


def replay_served(
    source: Path, flow: Flow, record: golden.Record, exact: golden.Answers
) -> golden.Answers:
    """Replay the golden rows as they are served, where float64 has reproduced them.

    Args:
        exact: what `replay_exact` gave; in float64 on a CPU it would be computed again.

    Returns:
        What the flow answers in that precision.

    Raises:
        CheckpointError: that precision is too short for these weights.
    """
    is_done = flow.dtype == torch.float64 and flow.device.type == "cpu"
    answers = exact if is_done else golden.replay(flow, record)
    drift = answers.drift(record)
    if not drift <= golden.COMPUTE_TOLERANCE:
        raise CheckpointError(
            f"{source}: {_too_steep(flow)}: it does not reproduce its golden rows, off by "
            f"{drift:.3g}, at most {golden.COMPUTE_TOLERANCE:.3g} is allowed (relative to "
            "max(1, |value|))"
        )
    return answers


def check_decodes(source: Path, flow: Flow, record: golden.Record, answers: golden.Answers) -> None:
    """See that the golden rows are decoded to something finite in the precision that serves.

    Raises:
        CheckpointError: they are not.
    """
    if not golden.is_decoded(flow, record, answers):
        raise CheckpointError(
            f"{source}: {_too_steep(flow)}: decode(encode(x)) of its golden rows is not finite"
        )


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
    # A wrong mask or order is off by as much in any precision; rounding is not, and it moves encode
    # by itself: where the error cannot grow, as between the bounds of a spline, that decides.
    single = copy.deepcopy(flow).float()
    is_rounding = (
        not math.isfinite(error)
        or not golden.inverse_error(single, record) <= _ROUNDING_GROWS * error
        or not golden.drift(single, record) <= golden.COMPUTE_TOLERANCE
    )
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
