"""The queue alone under overload: an engine that only sleeps, so that the cores do not matter.

A batch sleeps for 0.8 ms and 2.6 ms a row, as a Glow of 3 x 32 x 32 computes, in two instances of
at most 64 rows. Requests of one row come at four times the closed loop's rate, come what may.
Then every refused request is sent again after its Retry-After.

    python -m benchmarks.bench_queue [SECONDS]
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine
from service.batcher import Batcher, ComputeSlots, EngineCall, QueuePolicy
from service.contracts import Array
from service.errors import Overloaded
from service.telemetry import Metrics

OUT = Path("runs/benchmarks/queue.json")
FIXED, PER_ROW, BATCH, INSTANCES = 0.0008, 0.0026, 64, 2
FACTOR, RETURN_SECONDS = 4, 2.0
ROW = np.zeros((1, 1), np.float32)


def _sleep(rows: Array, _: Array | None) -> tuple[Array, Array]:
    time.sleep(FIXED + PER_ROW * len(rows))
    return rows + 1, rows.sum(1)


async def _start(max_queue_seconds: float) -> Batcher:
    policy = QueuePolicy(
        BATCH, 32 * BATCH, instances=INSTANCES, max_queue_seconds=max_queue_seconds
    )
    call = EngineCall(_sleep, (1,), (1,), None, "float32")
    counters = Metrics().queue("m", "encode", "sleep")
    queue = Batcher(call, policy, counters, name="m.encode", slots=ComputeSlots(INSTANCES))
    queue.start()
    for rows in (BATCH // 2, 1, BATCH):
        await queue.warm_up(np.zeros((rows, 1), np.float32), None)
    return queue


async def _ask(queue: Batcher) -> int:
    """Send a row.   -> 0, or after how many seconds to come back."""
    try:
        await queue.submit(ROW, None, time.monotonic() + 60)
    except Overloaded as error:
        return error.retry_after or 0
    return 0


async def _open_loop(ask: Callable[[], Awaitable[None]], rate: float, seconds: float) -> None:
    start, running = time.monotonic(), list[asyncio.Future[None]]()
    while (passed := time.monotonic() - start) < seconds:
        running += [asyncio.ensure_future(ask()) for _ in range(int(passed * rate) - len(running))]
        await asyncio.sleep(0.002)
    await asyncio.gather(*running)


async def _capacity(queue: Batcher, seconds: float) -> float:
    end, answered = time.monotonic() + seconds, 0

    async def one() -> None:
        nonlocal answered
        while time.monotonic() < end:
            is_answered = await _ask(queue) == 0
            answered += is_answered  # not in one line: others count while it is awaited

    await asyncio.gather(*(one() for _ in range(16)))
    return answered / seconds


async def overload(max_queue_seconds: float, seconds: float) -> dict[str, float]:
    """Latencies and rates at `FACTOR` times the capacity."""
    queue = await _start(max_queue_seconds)
    capacity = await _capacity(queue, 2.0)
    accepted, refused, start = list[float](), list[float](), time.monotonic()
    in_time = 0

    async def one() -> None:
        nonlocal in_time
        began = time.monotonic()
        is_refused = await _ask(queue)
        (refused if is_refused else accepted).append(time.monotonic() - began)
        in_time += not is_refused and time.monotonic() < start + seconds

    await _open_loop(one, FACTOR * capacity, seconds)
    await queue.drain()
    return {
        "closed_loop_rate": capacity,
        "greatest_rate": INSTANCES * BATCH / (FIXED + PER_ROW * BATCH),
        "answered_rate": in_time / seconds,
        "accepted_p50_seconds": float(np.percentile(accepted, 50)),
        "accepted_p99_seconds": float(np.percentile(accepted, 99)),
        "wanted_p99_seconds": max_queue_seconds + FIXED + PER_ROW * BATCH,
        "refused_p99_seconds": float(np.percentile(refused, 99)),
    }


async def come_back(max_queue_seconds: float) -> dict[str, float]:
    """Part of the refused requests that are accepted when they come back as they were told."""
    queue = await _start(max_queue_seconds)
    rate = FACTOR * await _capacity(queue, 2.0)
    waits, accepted = list[int](), 0

    async def one() -> None:
        nonlocal accepted
        if wait := await _ask(queue):
            waits.append(wait)
            await asyncio.sleep(wait)
            is_accepted = await _ask(queue) == 0
            accepted += is_accepted

    await _open_loop(one, rate, RETURN_SECONDS)
    await queue.drain()
    return {
        "refused": len(waits),
        "accepted_on_return": accepted / len(waits),
        "longest_retry_after": max(waits),
    }


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    found: dict[str, Any] = {"machine": machine(), "seconds": seconds}
    for limit in (1.0, 0.2, 5.0):
        values = asyncio.run(overload(limit, seconds)) | asyncio.run(come_back(limit))
        found[str(limit)] = values
        print(f"\n| max_queue_seconds {limit:g} | |\n|---|---|")
        for what, value in values.items():
            print(f"| {what} | {value:,.4g} |", flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
