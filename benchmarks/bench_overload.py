"""This server beyond its capacity, and small requests beside huge ones.

Overload: Glow 3x32x32, one image a request (npy), open loop at 4x the closed-loop rate, queues
bounded to 1, 0.2 and 5 s. First 2 s of it, every refused request sent again when it was told; then
for long; then 4 s and a quarter of the capacity behind them, to see when all is normal again.
Mixed: RealNVP D = 8, one row a request at concurrency 16, alone and beside two clients of 10,000
rows. Then what `--batching invariant` costs. The client shares the cores with the server.

    python -m benchmarks.bench_overload [SECONDS] [--only overload] [--limits 1,0.2,5]
"""

import argparse
import asyncio
import gc
import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from benchmarks.harness import machine, take_turns
from benchmarks.open_loop import Load, Request
from benchmarks.peers import load
from benchmarks.peers.openloop import Lines, closed_loop
from benchmarks.process import RunningServer, cpu_seconds, serving
from benchmarks.workloads import TYPES, WORKLOADS, Workload, body_of, headers_of, write_model

OUT = Path("runs/benchmarks/overload.json")
FACTOR = 4
OK, REFUSED = 200, 429


def _headers(form: str) -> dict[str, str]:
    return {"Content-Type": TYPES[form], "Accept": TYPES[form]}


def _percentile(values: list[float], percent: float) -> float:
    return 1e3 * float(np.percentile(values, percent)) if values else 0.0


def _rate(requests: list[Request], start: float, seconds: float) -> float:
    return sum(start <= r.done < start + seconds and r.status == OK for r in requests) / seconds


def _capacity(client: Load, seconds: float) -> float:
    """The greatest of the rates of two closed loops: of few connections, and of full batches."""
    rates = []
    for connections in (16, 128):
        start = time.monotonic()
        rates.append(_rate(client.closed_loop(connections, seconds), start, seconds))
    return max(rates)


def _batches(server: RunningServer) -> tuple[float, float]:
    """How many batches were computed so far, and how long all of them took."""
    text = httpx.get(f"{server.url}/metrics").text
    name = r"^pushforward_compute_duration_seconds_%s\{.*\} (\S+)$"
    count, total = (
        sum(map(float, re.findall(name % part, text, re.MULTILINE))) for part in ("count", "sum")
    )
    return count, total


def overload(server: RunningServer, client: Load, before: float, seconds: float) -> dict[str, Any]:
    """The overload, at `FACTOR` times the capacity `before` it, which is measured again after."""
    count, total = _batches(server)
    own, theirs = time.process_time(), cpu_seconds(server.process.pid)
    watch = MemoryWatch(server)
    start = time.monotonic()
    requests = client.open_loop(FACTOR * before, seconds, at_step=watch.look)
    end = start + seconds
    passed = time.monotonic() - start
    count, total = (now - old for now, old in zip(_batches(server), (count, total), strict=True))
    own, theirs = time.process_time() - own, cpu_seconds(server.process.pid) - theirs
    after = _capacity(client, 3.0)
    answered = [r for r in requests if r.status == OK]
    refused = [r for r in requests if r.status == REFUSED]
    capacity = (before + after) / 2
    return {
        "capacity_before": before,
        "capacity_after": after,
        "offered": len(requests) / seconds,
        "goodput": _rate(requests, start, seconds),
        "goodput_of_capacity": _rate(requests, start, seconds) / capacity,
        "batch_ms": 1e3 * total / count,
        "accepted_p50_ms": _percentile([r.seconds for r in answered], 50),
        "accepted_p99_ms": _percentile([r.seconds for r in answered], 99),
        "accepted_p99_ms_from_sent": _percentile([r.seconds_from_sent for r in answered], 99),
        "refused": len(refused),
        "refused_p50_ms": _percentile([r.seconds for r in refused], 50),
        "refused_p99_ms": _percentile([r.seconds for r in refused], 99),
        "other": len(requests) - len(answered) - len(refused),
        "client_late_p99_ms": _percentile([r.sent - r.due for r in requests], 99),
        "client_cores": own / passed,
        "server_cores": theirs / passed,
        "growth_mib_second_half": watch.growth_of_second_half(end) / 2**20,
    }


def recovery(client: Load, capacity: float, normal: float) -> dict[str, Any]:
    """An overload of 4 s and a quarter of the capacity behind it: when all is normal again."""
    quick = client.open_loop(capacity / 4, 2.0)
    usual = _percentile([r.seconds for r in quick], 99) / 1e3
    start = time.monotonic()
    requests = client.open_loop(FACTOR * capacity, 4.0, then=(capacity / 4, 8.0))
    late = [r for r in requests if r.due >= start + 4.0]
    odd = [r.due for r in late if r.status != OK or r.seconds > 2 * usual + normal]
    return {
        "usual_p99_ms": 1e3 * usual,
        "last_refusal_after_s": max((r.due for r in late if r.status != OK), default=start + 4)
        - start - 4,
        "normal_after_s": max(odd, default=start + 4.0) - start - 4.0,
    }  # fmt: skip


def come_back(client: Load, capacity: float) -> dict[str, Any]:
    """2 s of overload, every refused request sent again when it was told."""
    requests = client.open_loop(FACTOR * capacity, 2.0, comes_back=True)
    again = [r.again for r in requests if r.again is not None]
    waits = [r.retry_after for r in requests if r.again is not None]
    return {
        "came_back": len(again),
        "accepted_on_return": sum(r.status == OK for r in again) / max(1, len(again)),
        "longest_retry_after": max(waits, default=0),
    }


class MemoryWatch:
    """The memory of a server, looked at a few times a second."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._seen: list[tuple[float, int]] = []

    def look(self, now: float) -> None:
        """Take note of it, if that was a while ago."""
        if not self._seen or now > self._seen[-1][0] + 0.25:
            self._seen.append((now, self._server.resident_bytes()))

    def growth_of_second_half(self, end: float) -> int:
        """By how much the most of the second half, until `end`, is above that of the first."""
        middle = (self._seen[0][0] + end) / 2
        first = max(size for at, size in self._seen if at <= middle)
        return max(size for at, size in self._seen if middle < at <= end) - first


def overloads(folder: Path, limits: list[float], seconds: float) -> dict[str, dict[str, Any]]:
    """All of it for each bound of the queue: the first for `seconds`, the others for a third."""
    found = {}
    work = Workload("", "B", 1, "npy", (), {})
    for index, limit in enumerate(limits):
        arguments = (str(folder), "--max-queue-seconds", f"{limit:g}", "--log-level", "warning")
        with serving(folder.parent / "overload.log", *arguments) as server:
            client = Load(f"{server.url}/log_prob", body_of(work), headers_of(work))
            client.closed_loop(16, 1.0)
            capacity = _capacity(client, 3.0)
            returned = come_back(client, capacity)
            values = overload(
                server, client, capacity, seconds if index == 0 else max(seconds / 3, 5.0)
            )
            values |= recovery(client, values["capacity_after"], values["batch_ms"] / 1e3)
            values |= returned
            client.close()
        found[f"max_queue_seconds {limit:g}"] = values
    return found


async def mixed(server: RunningServer, seconds: float) -> dict[str, float]:
    """p99 of one-row requests, alone and beside huge ones."""
    url, form = f"{server.url}/log_prob", "json"
    small = Lines(url, body_of(Workload("", "A", 1, form, (), {})), _headers(form))
    large = Lines(url, body_of(Workload("", "A", 10_000, "npy", (), {})), _headers("npy"))
    await closed_loop(small, 16, 1.0)
    alone, beside, huge = [], [], 0
    for _ in range(5):
        found = await closed_loop(small, 16, seconds / 5)
        alone.append(_percentile([r.latency for r in found], 99))
        found, others = await asyncio.gather(
            closed_loop(small, 16, seconds / 5), closed_loop(large, 2, seconds / 5)
        )
        beside.append(_percentile([r.latency for r in found], 99))
        huge += len(others)
    small.close()
    large.close()
    return {
        "alone_p99_ms": median(alone),
        "beside_p99_ms": median(beside),
        "beside_over_alone": median(b / a for a, b in zip(alone, beside, strict=True)),
        "noise": max(alone) / min(alone) - 1,
        "huge_requests": huge,
    }


def invariant_cost(scratch: Path) -> dict[str, float]:
    """Rate under `fast` / rate under `invariant`, of both engines, by wrk at concurrency 64."""

    def turn(server: RunningServer, body: Path) -> Callable[[], float]:
        url, form = f"{server.url}/log_prob", TYPES["json"]
        return lambda: 1 / load.closed_loop(url, body, form, form, 64, 1).rate

    costs = {}
    for engine in ("auto", "torch"):
        for work in (WORKLOADS[0], WORKLOADS[3]):
            folder, body = str(write_model(work.flow, scratch)), scratch / "body"
            body.write_bytes(body_of(work))
            given = (folder, "--engine", engine, "--batching")
            with (
                serving(scratch / "fast.log", *given, "fast") as fast,
                serving(scratch / "invariant.log", *given, "invariant") as invariant,
            ):
                measures = {"invariant": turn(invariant, body), "fast": turn(fast, body)}
                take_turns(measures, rounds=1)
                ratios = take_turns(measures, rounds=7)
            costs[f"{work.name}, engine {engine}"] = ratios.speedup("fast")
            costs[f"{work.name}, engine {engine}: noise"] = ratios.noise
    return costs


def _report(found: dict[str, Any], part: str, values: dict[str, Any]) -> None:
    """Print a part and write all so far."""
    found[part] = values
    print(f"\n| {part} | |\n|---|---|")
    for what, value in values.items():
        print(f"| {what} | {value:,.4g} |", flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0)
    parser.add_argument("--only", choices=("overload", "mixed", "invariant"))
    parser.add_argument("--limits", default="1,0.2,5", help="of the queue, in seconds")
    asked = parser.parse_args()
    # A collection of all that torch is made of would stop the load, not the server, for 0.3 s.
    gc.disable()
    found: dict[str, Any] = {"machine": machine(), "seconds": asked.seconds}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if asked.only in (None, "overload"):
            limits = [float(limit) for limit in asked.limits.split(",")]
            folder = write_model("B", scratch)
            for part, values in overloads(folder, limits, asked.seconds).items():
                _report(found, part, values)
        if asked.only in (None, "mixed"):
            with serving(scratch / "a.log", str(write_model("A", scratch))) as server:
                values = asyncio.run(mixed(server, min(asked.seconds, 15.0)))
                _report(found, "mixed", values)
        if asked.only in (None, "invariant"):
            load.require_wrk()
            _report(found, "fast_over_invariant", invariant_cost(scratch))


if __name__ == "__main__":
    main()
