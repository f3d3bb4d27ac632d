"""Lines 20 to 24: overload, mixed sizes, clients that leave, deadlines."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from benchmarks.peers.openloop import Lines, Reply, closed_loop, open_loop
from benchmarks.process import RunningServer, serving
from tests.e2e.test_hostile import NPY, saved
from tests.reliability.registry import ZOO, Ground, expect, suite, trial

IMAGES = saved(np.full((16, 1, 28, 28), 3, np.float32))
HEADERS = {"Content-Type": NPY, "Accept": NPY}
JSON = {"Content-Type": "application/json"}
FACTOR = 10


def _good(replies: list[Reply], start: float, seconds: float) -> float:
    done = [r for r in replies if r.status == 200 and start <= r.done < start + seconds]
    return len(done) / seconds


async def _overload(server: RunningServer, seconds: float) -> str:
    lines = Lines(f"{server.url}/log_prob?model=digits-glow", IMAGES, HEADERS)
    await closed_loop(lines, 16, 2.0)
    start = time.monotonic()
    capacity = _good(await closed_loop(lines, 16, 4.0), start, 4.0)
    resident, start = server.resident_bytes(), time.monotonic()
    replies = await open_loop(lines, FACTOR * capacity, seconds)
    growth, after = server.resident_bytes() - resident, time.monotonic()
    recovered = _good(await closed_loop(lines, 16, 2.0), after, 2.0)
    lines.close()
    statuses = {r.status for r in replies}
    refused = [r.latency for r in replies if r.status == 429]
    accepted = [r.latency for r in replies if r.status == 200]
    goodput = _good(replies, start, seconds)
    expect(statuses <= {200, 429}, f"statuses {statuses}")
    expect(growth < 200 * 2**20, f"resident memory grew by {growth / 2**20:.0f} MiB")
    expect(recovered > 0.5 * capacity, f"{recovered:.0f} of {capacity:.0f} a second afterwards")
    return (
        f"{len(replies):,} requests at {FACTOR}x of {capacity:.0f}/s for {seconds:.0f} s: "
        f"{len(accepted):,} answered (p99 {np.percentile(accepted, 99):.1f} s), {len(refused):,} "
        f"refused (p99 {1e3 * np.percentile(refused, 99):.0f} ms), goodput "
        f"{100 * goodput / capacity:.0f} %, memory {growth / 2**20:+.0f} MiB, "
        f"{100 * recovered / capacity:.0f} % of the rate afterwards"
    )


@trial(20, "10x overload for a minute, 16 pictures a request")
def overload(ground: Ground) -> str:
    with serving(ground.folder / "overload.log", str(ZOO / "digits-glow")) as server:
        return asyncio.run(_overload(server, ground.seconds(60, 5)))


@trial(21, "one-row requests beside requests of 10,000 rows")
def mixed(ground: Ground) -> str:
    seconds = ground.seconds(15, 3)

    async def run(server: RunningServer) -> str:
        small = Lines(f"{server.url}/log_prob", b'{"x": [[0.5, 1.0]]}', JSON)
        rows = saved(np.ones((10_000, 2), np.float32))
        large = Lines(f"{server.url}/log_prob", rows, HEADERS)
        await closed_loop(small, 16, 1.0)
        alone = await closed_loop(small, 16, seconds)
        beside, huge = await asyncio.gather(
            closed_loop(small, 16, seconds), closed_loop(large, 2, seconds)
        )
        small.close()
        large.close()
        expect({r.status for r in (*beside, *huge)} == {200}, "not everything was answered")
        p99 = [
            1e3 * float(np.percentile([r.latency for r in part], 99)) for part in (alone, beside)
        ]
        expect(p99[1] < 250, f"p99 {p99[1]:.0f} ms beside large requests")
        return (
            f"p99 of one row {p99[0]:.1f} ms alone, {p99[1]:.1f} ms beside {len(huge):,} requests "
            "of 10,000 rows"
        )

    with serving(ground.folder / "mixed.log", str(ZOO / "moons")) as server:
        return asyncio.run(run(server))


suite(
    22,
    "clients that leave: queued rows are never computed",
    "tests/e2e/test_faults.py::test_the_rows_of_a_client_that_left_are_never_computed",
    "tests/service/batcher/test_limits.py",
)


@trial(23, "1,000 clients with a timeout of 1 ms, then normal load", hostile=True)
def impatient(ground: Ground) -> str:
    clients, left = ground.count(1000, 200), 0
    body = {"model": "digits-glow", "num_samples": 4}

    def leave(_: int) -> int:
        try:
            with ground.client() as http:
                http.post("/sample", json=body, timeout=httpx.Timeout(60, read=0.001))
            return 0
        except httpx.TimeoutException:
            return 1

    with ThreadPoolExecutor(32) as pool:
        left = sum(pool.map(leave, range(clients)))
    with ground.client() as http, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.post("/sample", json=body), range(200)))
    codes = {answer.status_code for answer in answers}
    expect(codes == {200}, codes)
    return f"{left:,} of {clients:,} left; 200 of 200 answered afterwards"


@trial(24, "a deadline of 50 ms behind seconds of work", hostile=True)
def deadlines(ground: Ground) -> str:
    long = {"model": "digits-glow", "num_samples": 2_000, "seed": 1}
    short = {"model": "digits-glow", "num_samples": 1}
    took = []
    with ground.client() as http, ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        running = pool.submit(http.post, "/sample", json=long)
        time.sleep(0.5)
        for _ in range(5):
            asked = time.monotonic()
            answer = http.post("/sample", json=short, headers={"X-Timeout-Seconds": "0.05"})
            if running.done():
                break
            expect(answer.status_code in (504, 429), answer.text)
            took.append(time.monotonic() - asked)
        expect(running.result().status_code == 200, running.result().text[:200])
        seconds = time.monotonic() - began
    expect(len(took) > 0, "the long request was over too soon")
    expect(max(took) < 0.5, f"504 after {1e3 * max(took):.0f} ms")
    return (
        f"{len(took)} x 504 after at most {1e3 * max(took):.0f} ms beside {seconds:.1f} s of work"
    )
