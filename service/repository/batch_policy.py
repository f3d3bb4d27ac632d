"""How large batches and queues are, where the settings leave it open."""

import math
from dataclasses import replace
from typing import NamedTuple

from service.batcher import QueuePolicy
from service.engines.selection import EngineSelection
from service.settings import Settings

_MIN_ROWS_IN_BATCH = 16
# A batch of one fixed size costs a lone row as much as a full batch, so it is small.
_ROWS_IN_FIXED_BATCH = 32
_BATCHES_IN_QUEUE = 32


class BatchLimits(NamedTuple):
    """How large batches are on a kind of device, where the settings leave it open.

    values: a batch of about this many numbers keeps an engine busy and is still answered soon.
    rows: at most. rows_in_solve: of a continuous flow, whose batch is there when its hardest row
    is.
    """

    values: int
    rows: int
    rows_in_solve: int


LIMITS = {
    "cpu": BatchLimits(values=3 * 2**16, rows=1024, rows_in_solve=128),
    # Estimated, not measured: what keeps a processor busy leaves most of a device idle.
    "cuda": BatchLimits(values=3 * 2**18, rows=8192, rows_in_solve=1024),
}


def make_policy(
    settings: Settings, features: int, *, is_solved: bool = False, device: str = "cpu"
) -> QueuePolicy:
    """Choose the limits of a model's batchers where the settings leave them open.

    Args:
        settings: of the model.
        features: numbers in a row.
        is_solved: whether the flow is continuous.
        device: where it computes, "cpu" or "cuda:N".
    """
    is_fixed = settings.batching == "invariant"
    limits = LIMITS[device.partition(":")[0]]
    fitting = max(1, limits.values // features)
    most = limits.rows_in_solve if is_solved else limits.rows
    chosen = min(max(2 ** int(math.log2(fitting)), _MIN_ROWS_IN_BATCH), most)
    rows = settings.max_batch_size or (min(chosen, _ROWS_IN_FIXED_BATCH) if is_fixed else chosen)
    queue_rows = settings.max_queue_rows or _BATCHES_IN_QUEUE * max(rows, chosen)
    return QueuePolicy(
        max_batch_rows=min(rows, queue_rows),
        max_queue_rows=queue_rows,
        max_delay_seconds=settings.max_batch_delay_seconds,
        is_fixed=is_fixed,
        max_queue_seconds=settings.max_queue_seconds,
        max_inline_seconds=settings.max_inline_seconds,
    )


def fit_policy(policy: QueuePolicy, selection: EngineSelection) -> QueuePolicy:
    """Lower the size that all batches have to the largest that the engine computes as one."""
    if not (policy.is_fixed and selection.batch_sizes):
        return policy
    most = max(selection.batch_sizes)
    return replace(policy, max_batch_rows=min(policy.max_batch_rows, most))
