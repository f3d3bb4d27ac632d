"""What an answer says about the equations that a continuous flow solved for its rows."""

from typing import Any

import numpy as np

from service.codec.media import JSON, NPZ
from service.codec.tensors import Array
from service.contracts import InferenceResult
from service.errors import InvalidParameter

FAILED = "solver_failed"
# By the numbers of `models.ode.solver.SolveStatus`.
REASONS = ("solved", "budget_spent", "step_underflow", "non_finite")

EVALUATIONS = "return_evaluations"
NO_SPREAD = "the trace is estimated with one probe (divergence.num_probes), which shows no spread"


def tell_solves(
    answer: InferenceResult, outputs: dict[str, Array], media: str, *, with_evaluations: bool
) -> dict[str, Any]:
    """Add what there is to say to the outputs.   -> what there is to add to the head.

    log_prob_se is there for estimated log-dets, null with a reason where nothing is known of their
    error; evaluations for those who ask. JSON lists the rows that failed, with the reason; other
    forms hold a status for every row.

    Raises:
        InvalidParameter: evaluations were asked of a flow that solves no equations.
    """
    solves = answer.solves
    if solves is None:
        if with_evaluations:
            raise InvalidParameter(
                f"{EVALUATIONS}: this model is no continuous flow", at=f"/{EVALUATIONS}"
            )
        return {}
    said: dict[str, Any] = {}
    errors = solves.log_det_se[solves.status == 0]
    if np.any(errors != 0):
        outputs["log_prob_se"] = solves.log_det_se
    if np.isnan(errors).any() and media in (JSON, NPZ):
        said["log_prob_se_reason"] = NO_SPREAD
    if with_evaluations:
        outputs["evaluations"] = solves.evaluations
    failed = np.flatnonzero(solves.status)
    if not len(failed):
        return said
    if media != JSON:
        outputs["status"] = solves.status
        return said
    said["failures"] = [
        {
            "row": int(row),
            "status": FAILED,
            "reason": REASONS[solves.status[row]],
            "evaluations": int(solves.evaluations[row]),
        }
        for row in failed
    ]
    return said
