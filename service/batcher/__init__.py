"""Rows in, batches to the engine, rows out: a row's answer never depends on its neighbours.

    submit ──admit──> FairQueue ──take──> BatchExecutor ──engine──> split ──deliver──> reply
    event loop                       thread of an instance                    event loop

An instance takes the next batch at the moment it is free, so a batch is as full as load makes it
and no timer tunes it; the event loop only appends rows, and one wake-up a batch brings all its
replies back. One more instance starts where all rows are then done earlier (`rows_to_start`).
"""

from service.batcher.batcher import Batcher
from service.batcher.executor import EngineCall
from service.batcher.policy import QueuePolicy
from service.batcher.slots import ComputeSlots

__all__ = ["Batcher", "ComputeSlots", "EngineCall", "QueuePolicy"]
