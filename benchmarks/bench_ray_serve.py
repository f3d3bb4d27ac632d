"""What Ray Serve costs a request: `examples/ray_serve.py` beside `pushforward serve`, one machine.

A RealNVP (D = 8, 8 couplings 128x2), one process of the server, then two; Ray with one replica and
with two, each of one processor, behind its one proxy, and with its own settings for throughput. wrk
(one thread) makes the load and shares the cores with the servers. All are up and take turns; who
has not the turn is stopped. The default of `pushforward serve` has two turns a round: how much it
differs from itself is the noise. Needs the extra `ray`.

    python -m benchmarks.bench_ray_serve [--rounds N]
"""

import argparse
import json
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

import models
from benchmarks.bench_fast_path import FLOW
from benchmarks.harness import machine
from benchmarks.onnx_candidates import make_flow
from benchmarks.peers import load
from benchmarks.process import serving
from benchmarks.ray_cluster import serving_by_ray
from models.onnx.export import export_folder

OUT = Path("runs/benchmarks/ray_serve.json")
SECONDS = 2.0
# Ray's own settings for more requests a second: fewer threads between a proxy and a replica.
FASTER = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
JSON, NPY = "application/json", "application/x-npy"
PLAIN, AGAIN = "pushforward serve", "pushforward serve again"
# rows, media type, connections
CASES = ((1, JSON, 1), (1, JSON, 64), (1000, NPY, 8))


def start(folder: Path, scratch: Path, stack: ExitStack) -> dict[str, tuple[str, int]]:
    """Start who takes part: the url and the first process of each."""
    up: dict[str, tuple[str, int]] = {}
    for name, options in ((PLAIN, ()), (f"{PLAIN} --workers 2", ("--workers", "2"))):
        log = scratch / f"{len(up)}.log"
        server = stack.enter_context(serving(log, str(folder), "--log-level", "warning", *options))
        up[name] = (server.url, server.process.pid)
    for replicas, env in ((1, {}), (2, {}), (1, FASTER)):
        asked = {"min_replicas": replicas, "max_replicas": replicas}
        arguments = json.dumps({"model_repository": str(folder), **asked})
        log = scratch / f"{len(up)}.log"
        cluster = stack.enter_context(serving_by_ray(log, arguments, replicas, env))
        up[f"Ray Serve, replicas: {replicas}{', for throughput' if env else ''}"] = (
            cluster.url,
            cluster.driver,
        )
    return up


def measure(up: dict[str, tuple[str, int]], bodies: dict[int, Path], rounds: int) -> dict[str, Any]:
    """Take turns: the windows of each, by case."""
    turns = [*up, AGAIN]
    found: dict[str, Any] = {}
    for rows, form, connections in CASES:
        windows: dict[str, list[load.Window]] = {name: [] for name in turns}
        for turn in range(-1, rounds):
            first = turn % len(turns)
            for name in turns[first:] + turns[:first]:
                url, pid = up[PLAIN if name == AGAIN else name]
                for _, other in up.values():
                    load.signal_all(other, signal.SIGCONT if other == pid else signal.SIGSTOP)
                taken = load.closed_loop(
                    f"{url}/log_prob", bodies[rows], form, form, connections, SECONDS
                )
                if taken.errors:
                    raise RuntimeError(f"{name}: {taken.errors} errors at {connections}")
                if turn >= 0:
                    windows[name].append(taken)
        found[f"{rows} rows, {form}, {connections} connections"] = windows
    for _, pid in up.values():
        load.signal_all(pid, signal.SIGCONT)
    return found


def report(found: dict[str, Any]) -> None:
    """Print a table for each case."""
    for case, windows in found.items():
        rates = {name: [one.rate for one in taken] for name, taken in windows.items()}
        print(f"\n### {case}\n\n| server | requests/s | of the default | p50 ms | p99 ms |")
        print("|---|---|---|---|---|")
        for name, taken in windows.items():
            pairs = zip(rates[name], rates[PLAIN], strict=True)
            ratio = median(a / b for a, b in pairs)
            p50, p99 = (median(getattr(one, key) for one in taken) for key in ("p50", "p99"))
            print(f"| {name} | {median(rates[name]):,.0f} | {ratio:.3f} | {p50:.1f} | {p99:.1f} |")


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    load.require_wrk()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        scratch = Path(name)
        folder = scratch / "A"
        models.save(make_flow("realnvp", FLOW), folder)
        export_folder(folder).write(folder)
        bodies = {rows: scratch / f"body{rows}" for rows in (1, 1000)}
        one = rng.standard_normal((1, 8)).astype(np.float32).round(5)
        bodies[1].write_text(json.dumps({"x": one.tolist()}))
        with bodies[1000].open("wb") as file:
            np.save(file, rng.standard_normal((1000, 8)).astype(np.float32))
        up = start(folder, scratch, stack)
        headers = {"Content-Type": JSON}
        answers = {
            httpx.post(f"{url}/log_prob", content=bodies[1].read_bytes(), headers=headers).content
            for url, _ in up.values()
        }
        if len(answers) != 1:
            raise RuntimeError(f"the answers differ: {answers}")
        found = measure(up, bodies, asked.rounds)
    report(found)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    taken = {
        case: {name: [(one.rate, one.p50, one.p99) for one in each] for name, each in sides.items()}
        for case, sides in found.items()
    }
    OUT.write_text(json.dumps({"machine": machine(), "taken": taken}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
