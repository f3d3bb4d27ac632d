"""What an answer says about the equations that a continuous flow solved for its rows."""

from typing import Any

import numpy as np

from service.codec.media import JSON, NPZ
from service.codec.tensors import Array
from service.contracts import InferenceResult
from service.errors import InvalidParameter
from service.operations.fields import RETURN_EVALUATIONS, Output, number_output, scalar_output

NO_SPREAD = "the trace is estimated with one probe (divergence.num_probes), which shows no spread"

EVALUATIONS = "evaluations"

SOLVER_OUTPUTS = (
    Output(
        EVALUATIONS,
        {
            "type": "array",
            "items": {"type": "integer"},
            "description": "Of the vector field of a continuous flow, or passes of the networks of "
            "one with decoding=jacobi or passes, a row each, if asked for.",
        },
        is_always=False,
    ),
    number_output(
        "log_prob_se",
        "Standard error of log_prob or log_det where the trace is estimated; null where nothing is "
        "known of it.",
        is_always=False,
    ),
    scalar_output("log_prob_se_reason", "string", "Why log_prob_se is null.", is_always=False),
)


def add_solver_stats(
    result: InferenceResult, outputs: dict[str, Array], media: str, *, with_evaluations: bool
) -> dict[str, Any]:
    """Add to the outputs what is known of the solves.

    log_prob_se is there for estimated log-dets, null with a reason where nothing is known of their
    error; evaluations for those who ask.

    Returns:
        The scalars that there are to add.

    Raises:
        InvalidParameter: evaluations were asked of a flow that counts none.
    """
    stats = result.solver_stats
    if stats is None:
        if with_evaluations:
            name = RETURN_EVALUATIONS.name
            raise InvalidParameter(
                f"{name}: this model is no continuous flow, nor one with decoding=jacobi or passes",
                at=f"/{name}",
            )
        return {}
    scalars: dict[str, Any] = {}
    errors = stats.log_det_se[stats.status == 0]
    if np.any(errors != 0):
        outputs["log_prob_se"] = stats.log_det_se
    if np.isnan(errors).any() and media in (JSON, NPZ):
        scalars["log_prob_se_reason"] = NO_SPREAD
    if with_evaluations:
        outputs[EVALUATIONS] = stats.evaluations
    return scalars
