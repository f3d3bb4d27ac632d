"""What an operator decides about a queue."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The limits of one batcher; rows are the unit.

    max_delay_seconds: how long the oldest row may wait for a full batch; 0 takes what is there.
    is_fixed: run every batch at exactly `max_batch_rows` (see `BatchExecutor`).
    instances: threads that take batches, at most.
    max_queue_seconds: how long a request may be predicted to wait for its first batch.
    max_inline_seconds: what is predicted to take no longer is computed on the event loop itself.
    """

    max_batch_rows: int
    max_queue_rows: int
    max_delay_seconds: float = 0.0
    is_fixed: bool = False
    instances: int = 1
    max_queue_seconds: float = math.inf
    max_inline_seconds: float = 0.0
