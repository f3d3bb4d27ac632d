"""The thread budget of a process: bounded, in turns, and no short batch behind a long one."""

import threading
import time
from queue import SimpleQueue

from service.batcher.slots import SHORT_SECONDS, STALLED_SECONDS, ComputeSlots
from tests.service.engines.fakes import Clock

LONG = 1.0


def held(slot: int | None) -> int:
    assert slot is not None
    return slot


def waiter(slots: ComputeSlots, name: str, got: "SimpleQueue[tuple[str, int]]") -> threading.Thread:
    def wait() -> None:
        got.put((name, slots.acquire()))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not slots.waiting:
        time.sleep(0.001)
    return thread


def test_no_more_batches_than_the_budget() -> None:
    slots = ComputeSlots(2)
    first = held(slots.try_acquire(LONG, is_first=True))
    held(slots.try_acquire(LONG))
    assert slots.free == 0
    assert slots.try_acquire(LONG, is_first=True) is None
    slots.release(first)
    assert slots.free == 1
    assert slots.try_acquire(LONG) is not None


def test_who_waits_has_its_turn_before_who_comes() -> None:
    slots, got = ComputeSlots(1), SimpleQueue[tuple[str, int]]()
    first = held(slots.try_acquire(LONG))
    waiter(slots, "a", got)
    waiting = slots.waiting
    thread = threading.Thread(target=lambda: got.put(("b", slots.acquire())), daemon=True)
    thread.start()
    while slots.waiting == waiting:
        time.sleep(0.001)
    slots.release(first)
    name, slot = got.get(timeout=10)
    assert name == "a"
    assert slots.try_acquire(LONG) is None
    slots.release(slot)
    assert slots.try_acquire(LONG) is None
    name, slot = got.get(timeout=10)
    assert name == "b"
    slots.release(slot)
    assert slots.free == 1


def test_a_short_batch_does_not_wait_for_long_ones_of_others() -> None:
    slots = ComputeSlots(2)
    for _ in range(2):
        held(slots.try_acquire(LONG, is_first=True))
    assert slots.try_acquire(SHORT_SECONDS) is None  # a model has one in turn already
    assert slots.try_acquire(0.0, is_first=True) is None  # nothing is known of it
    for _ in range(2):
        held(slots.try_acquire(SHORT_SECONDS, is_first=True))
    assert slots.try_acquire(SHORT_SECONDS, is_first=True) is None


def test_what_hangs_does_not_keep_its_slot() -> None:
    clock = Clock()
    slots = ComputeSlots(1, clock)
    hanging = held(slots.try_acquire(LONG))
    assert slots.try_acquire(LONG, is_first=True) is None
    clock.now += STALLED_SECONDS + 1
    other = held(slots.try_acquire(LONG, is_first=True))
    slots.release(hanging)
    assert slots.try_acquire(LONG) is None
    slots.release(other)
    assert slots.free == 1
