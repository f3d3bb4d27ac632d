"""Rows in, batches to the engine, rows out: a row's answer never depends on its neighbours.

    submit ──admit──> FairQueue ──take──> BatchExecutor ──engine──> split ──deliver──> reply
    event loop                            worker thread                       event loop

The worker takes the next batch at the moment it is free, so a batch is as full as load makes it
and no timer tunes it; the event loop only appends rows, and one wake-up a batch brings all its
replies back.
"""

from service.batcher.batcher import Batcher
from service.batcher.executor import EngineCall
from service.batcher.policy import QueuePolicy

__all__ = ["Batcher", "EngineCall", "QueuePolicy"]
