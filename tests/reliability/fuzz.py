"""Lines 39 and 40: broken requests for minutes at every endpoint, mixed load for an hour."""

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.process import RunningServer
from tests.e2e.test_hostile import NPY, PIXELS, PNG, ROWS, head, picture, saved
from tests.reliability.registry import Ground, expect, trial

HANG_SECONDS = 10.0
FUZZ_GROWTH_BYTES = 70 * 2**20
FUZZ_RATE = 60.0  # requests a second at each endpoint, at most: others share the machine
SOAK_RATE = 20.0  # requests a second of each of eight clients, at most
ROW = saved(np.ones((2, 2), np.float32))
TENSOR = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1.0]}

Request = tuple[str, str, str, bytes]
VALID: dict[str, list[Request]] = {
    "/log_prob": [
        ("POST", "/log_prob", "application/json", b'{"model": "moons", "x": [[0.5, 1.0]]}'),
        ("POST", PIXELS, PNG, picture(28, 28, b"x\x9c\x03\x00\x00\x00\x00\x01")),
    ],
    "/encode": [
        ("POST", "/encode", "application/json", b'{"model": "pinwheel", "x": [[0.5, 1.0]]}'),
        ("POST", ROWS, NPY, ROW),
    ],
    "/decode": [
        ("POST", "/decode", "application/json", b'{"model": "moons", "z": [[0.5, 1.0]]}'),
        ("POST", "/decode?model=moons", NPY, ROW),
    ],
    "/sample": [
        (
            "POST",
            "/sample",
            "application/json",
            b'{"model": "moons", "num_samples": 3, "seed": 7, "temperature": 0.5}',
        )
    ],
    "/v2 infer": [
        (
            "POST",
            "/v2/models/moons/infer",
            "application/json",
            json.dumps({"id": "a", "inputs": [TENSOR]}).encode(),
        )
    ],
    "/v2 repository": [
        ("POST", "/v2/repository/index", "application/json", b'{"ready": true}'),
        ("POST", "/v2/repository/models/moons/load", "application/json", b"{}"),
    ],
    "GET": [
        ("GET", path, "application/json", b"")
        for path in ("/", "/models", "/models/moons", "/v2", "/v2/models/moons", "/health/ready")
    ],
}
TOKENS = (
    b"NaN",
    b"-1",
    b"1e999",
    b"null",
    b"[[]]",
    b'""',
    b"{}",
    b"9" * 40,
    b"\x00",
    b"\xff",
    b"true",
)


def _spoiled(request: Request, rng: random.Random) -> bytes:
    """A request whose body, path or head is broken in one to four places."""
    method, path, media, body = request
    whole = head(path, method=method, **{"Content-Type": media, "Content_Length": len(body)}) + body
    if rng.random() < 0.6 and body:  # a broken body in a sound head
        body = _bytes(body, rng)
        fields: dict[str, Any] = {"Content-Type": media, "Content_Length": len(body)}
        return head(path, method=method, **fields) + body
    return _bytes(whole, rng)


def _bytes(content: bytes, rng: random.Random) -> bytes:
    spoiled = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place, kind = rng.randrange(len(spoiled) + 1), rng.random()
        if kind < 0.3:
            spoiled[place : place + 1] = bytes([rng.randrange(256)])
        elif kind < 0.5:
            del spoiled[place : place + rng.randint(1, 20)]
        elif kind < 0.7:
            spoiled[place:place] = spoiled[place : place + rng.randint(1, 50)]
        else:
            spoiled[place : place + rng.randint(0, 4)] = rng.choice(TOKENS)
    return bytes(spoiled)


async def _send(port: int, request: bytes) -> int:
    """Send one request on a connection of its own. -> status; 0: closed without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(HANG_SECONDS):
            line = await reader.readline()
            await reader.read()
        return int(line.split(b" ", 2)[1]) if line.startswith(b"HTTP/1.1 ") else 0
    except (ConnectionError, IndexError, ValueError):
        return 0
    finally:
        writer.close()


async def _fuzz(port: int, requests: list[Request], seed: int, seconds: float) -> Counter[int]:
    rng, counts = random.Random(seed), Counter[int]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(rng.expovariate(FUZZ_RATE))
        sent = _spoiled(rng.choice(requests), rng)
        try:
            status = await _send(port, sent)
        except TimeoutError:
            raise AssertionError(f"no answer within {HANG_SECONDS} s to {sent[:300]!r}") from None
        expect(status < 500, f"{status} to {sent[:300]!r}")
        counts[status] += 1
    return counts


@trial(39, "broken requests at every endpoint, ten minutes each, side by side")
def fuzz(ground: Ground) -> str:
    port = int(ground.server.url.rpartition(":")[2])
    before, resident = ground.control(), ground.server.resident_bytes()
    seconds = ground.seconds(600, 5)

    async def all_of_them() -> list[Counter[int]]:
        return await asyncio.gather(
            *(_fuzz(port, requests, seed, seconds) for seed, requests in enumerate(VALID.values()))
        )

    counts = asyncio.run(all_of_them())
    expect(ground.control() == before, "the control row has another answer")
    growth = ground.server.resident_bytes() - resident
    expect(growth < FUZZ_GROWTH_BYTES, f"resident memory grew by {growth / 2**20:.0f} MiB")
    expect("Traceback" not in ground.server.log.read_text(), "a traceback in the log")
    total: Counter[int] = sum(counts, Counter())
    shown = ", ".join(
        f"{count:,} x {status or 'closed'}" for status, count in sorted(total.items())
    )
    return (
        f"{total.total():,} requests in {seconds:.0f} s: {shown}; memory {growth / 2**20:+.0f} MiB"
    )


def _state(server: RunningServer) -> tuple[int, int, int]:
    """Resident bytes, descriptors and threads of the server."""
    process = Path(f"/proc/{server.process.pid}")
    return (
        server.resident_bytes(),
        len(os.listdir(process / "fd")),
        len(os.listdir(process / "task")),
    )


SOAK: list[Request] = [
    *(
        request
        for name in ("/log_prob", "/encode", "/decode", "/sample")
        for request in VALID[name]
    ),
    *VALID["/v2 infer"],
    ("POST", "/log_prob?model=magic", NPY, saved(np.ones((300, 10), np.float32))),
    ("POST", "/sample?model=digits-glow&num_samples=4&seed=1", "application/json", b""),
    ("POST", "/log_prob", "application/json", b'{"model": "moons", "x": [[1]]}'),
]


async def _soak(port: int, seed: int, end: float) -> Counter[int]:
    rng, counts = random.Random(seed), Counter[int]()
    while time.monotonic() < end:
        await asyncio.sleep(rng.expovariate(SOAK_RATE))
        method, path, media, body = rng.choice(SOAK)
        fields: dict[str, Any] = {"Content-Type": media, "Content_Length": len(body)}
        if rng.random() < 0.02:  # a client that leaves at once
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head(path, method=method, **fields) + body)
                writer.close()
            continue
        counts[
            await _send(port, head(path, method=method, Connection="close", **fields) + body)
        ] += 1
    return counts


@trial(40, "an hour of mixed requests: memory, descriptors and threads")
def soak(ground: Ground) -> str:
    port = int(ground.server.url.rpartition(":")[2])
    seconds, samples = ground.seconds(3600, 12), []
    end = time.monotonic() + seconds

    async def all_of_them() -> list[Counter[int]]:
        clients = [asyncio.create_task(_soak(port, seed, end)) for seed in range(8)]
        while time.monotonic() < end:
            await asyncio.sleep(seconds / 120)
            samples.append((time.monotonic(), *_state(ground.server)))
        return await asyncio.gather(*clients)

    total: Counter[int] = sum(asyncio.run(all_of_them()), Counter())
    settled = np.array(samples[len(samples) // 4 :])
    hours = (settled[:, 0] - settled[0, 0]) / 3600
    slope = float(np.polyfit(hours, settled[:, 1] / 2**20, 1)[0])
    expect(not any(status >= 500 for status in total), total)
    if not ground.is_quick:
        expect(slope < 20, f"resident memory grows by {slope:.1f} MiB an hour")
    descriptors, threads = np.ptp(settled[:, 2]), np.ptp(settled[:, 3])
    expect(threads <= 4, f"threads vary by {threads}")
    expect(descriptors <= 40, f"descriptors vary by {descriptors}")
    return (
        f"{total.total():,} requests in {seconds:.0f} s ({dict(sorted(total.items()))}): "
        f"{slope:+.1f} MiB an hour, descriptors within {descriptors:.0f}, "
        f"threads within {threads:.0f}"
    )
