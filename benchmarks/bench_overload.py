"""This server beyond its capacity, and small requests beside huge ones.

Overload: Glow 3x32x32, one image a request (npy), open loop at 4x the closed-loop rate. Mixed:
RealNVP D = 8, one row a request at concurrency 16, alone and beside two clients of 10,000 rows.
Then what `--batching invariant` costs. The client shares the cores with the server.

    python -m benchmarks.bench_overload [SECONDS]
"""

import asyncio
import gc
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import models
from benchmarks.harness import machine, take_turns
from benchmarks.onnx_candidates import make_flow
from benchmarks.peers import load
from benchmarks.peers.openloop import Lines, Reply, closed_loop, open_loop
from benchmarks.process import RunningServer, serving
from benchmarks.workloads import FLOWS, TYPES, WORKLOADS, Workload, body_of

OUT = Path("runs/benchmarks/overload.json")
FACTOR = 4


def _headers(form: str) -> dict[str, str]:
    return {"Content-Type": TYPES[form], "Accept": TYPES[form]}


def _percentile(values: list[float], percent: float) -> float:
    return 1e3 * float(np.percentile(values, percent)) if values else 0.0


def _rate(replies: list[Reply], start: float, seconds: float) -> float:
    return sum(start <= r.done < start + seconds and r.status == 200 for r in replies) / seconds


def _rows_before(answered: list[Reply]) -> list[int]:
    """How many others of one row were answered while each waited: the wait in rows, not in time."""
    done = [reply.done for reply in answered]
    seen = np.searchsorted(np.sort(done), [[reply.due for reply in answered], done])
    return [int(count) for count in seen[1] - seen[0]]


async def overload(server: RunningServer, seconds: float) -> dict[str, Any]:
    """Capacity, the overload, and the second after it."""
    lines = Lines(
        f"{server.url}/log_prob", body_of(Workload("", "B", 1, "npy", (), {})), _headers("npy")
    )
    await closed_loop(lines, 16, 2.0)
    start = time.monotonic()
    capacity = _rate(await closed_loop(lines, 16, 4.0), start, 4.0)
    before, start = server.resident_bytes(), time.monotonic()
    replies = await open_loop(lines, FACTOR * capacity, seconds)
    peak = server.resident_bytes()
    # Every answer is in: what comes now is the time after the overload.
    after = time.monotonic()
    recovered = _rate(await closed_loop(lines, 16, 1.0), after, 1.0)
    lines.close()
    answered = [r for r in replies if r.status == 200]
    good = [r.latency for r in answered]
    refused = [r.latency for r in replies if r.status == 429]
    return {
        "capacity": capacity,
        "goodput": _rate(replies, start, seconds),
        "accepted_p50_ms": _percentile(good, 50),
        "accepted_p99_ms": _percentile(good, 99),
        "accepted_p99_rows_before": float(np.percentile(_rows_before(answered), 99)),
        "refused": len(refused),
        "refused_p50_ms": _percentile(refused, 50),
        "refused_p99_ms": _percentile(refused, 99),
        "other": sum(r.status not in (200, 429) for r in replies),
        "growth_bytes": peak - before,
        "first_second_after": recovered,
    }


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
            folder, body = str(scratch / work.flow), scratch / "body"
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
    load.require_wrk()
    # A collection of all that torch is made of would stop the load, not the server, for 0.3 s.
    gc.disable()
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    found: dict[str, Any] = {"machine": machine(), "seconds": seconds}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for flow, (family, config) in FLOWS.items():
            models.save(make_flow(family, config), scratch / flow)
        with serving(scratch / "b.log", str(scratch / "B")) as server:
            _report(found, "overload", asyncio.run(overload(server, seconds)))
        with serving(scratch / "a.log", str(scratch / "A")) as server:
            _report(found, "mixed", asyncio.run(mixed(server, min(seconds, 15.0))))
        _report(found, "fast_over_invariant", invariant_cost(scratch))


if __name__ == "__main__":
    main()
