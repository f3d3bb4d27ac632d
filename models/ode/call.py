"""One call of a flow as the equations in it see it: what is asked of them, and what they say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor


class SolveStatus(IntEnum):
    """How the solve of a row ended."""

    SOLVED = 0
    BUDGET_SPENT = 1  # max_evaluations were not enough
    STEP_UNDERFLOW = 2  # the tolerance asks for steps below the resolution of the time
    NON_FINITE = 3  # the field is not finite, however small the step


@dataclass(frozen=True, slots=True)
class SolveReport:
    """What a solve outside training says about its rows, beyond the result.

    status: (B,) of `SolveStatus`; rows that are not SOLVED are NaN.
    evaluations: (B,) of the field.
    log_det_error: (B,) standard error of Hutchinson's estimate in nats; 0 where it is exact, NaN
        where one probe alone was asked, which shows no spread.
    estimates: (B, K) of the log-det by each probe; None where it is exact.
    """

    status: Tensor
    evaluations: Tensor
    log_det_error: Tensor
    estimates: Tensor | None = None


@dataclass(slots=True)
class SolveCall:
    """How the equations of one call are to be solved, and where each leaves its report.

    A call of a flow makes one solve for each of its continuous transforms:

        call = SolveCall()
        log_prob = flow.log_prob(x, call=call)
        evaluations = sum(report.evaluations for report in call.reports)

    Attributes:
        wants_log_det: False leaves the log-dets out of every solve outside training: they are NaN.
            The traces are most of the work, and nearly all of it in many dimensions. Steps are
            judged by the values alone, so these are as accurate as ever but not the same to the
            last bit.
        reports: of every solve outside training, in order.
        costs: of the path of every solve in train mode whose training settings have weights, (B,)
            each, on the scale of nats: see `models.ode.regularization`.
    """

    wants_log_det: bool = True
    reports: list[SolveReport] = field(default_factory=list)
    costs: list[Tensor] = field(default_factory=list)


def join_reports(reports: Sequence[SolveReport]) -> SolveReport | None:
    """What all solves of one call say together; None where there were none.

    Evaluations add up; the status is that of the first solve that failed. Blocks that are alike
    have the same probes, so their errors are not independent: what each probe says of all blocks is
    added first, and the error is the spread of these sums.
    """
    if not reports:
        return None
    joined, *others = reports
    for other in others:
        parts = [part for part in (joined.estimates, other.estimates) if part is not None]
        estimates = None if not parts else torch.stack(parts).sum(0)
        joined = SolveReport(
            status=torch.where(joined.status == SolveStatus.SOLVED, other.status, joined.status),
            evaluations=joined.evaluations + other.evaluations,
            log_det_error=standard_error(estimates, like=joined.log_det_error),
            estimates=estimates,
        )
    return joined


def standard_error(estimates: Tensor | None, *, like: Tensor) -> Tensor:
    """The standard error (B,) of the mean of K estimates (B, K), in nats; 0 where there are none.

    Args:
        estimates: None where the log-det is exact.
        like: (B,), for shape and dtype.
    """
    if estimates is None:
        return torch.zeros_like(like)
    count = estimates.shape[1]
    if count == 1:
        return torch.full_like(like, torch.nan)
    return estimates.detach().std(1) / math.sqrt(count)
