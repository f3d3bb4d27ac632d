"""This server against others with the same flow, and against what the cores can do without one.

Model A is a RealNVP (D = 8, 8 couplings 128x2), model B a Glow (3x32x32, L3 K8, hidden 128), model
C an FFJORD (D = 2, 64x3), which peers with torch solve as its public code does; weights are seeded,
saved once and exported once. digits-glow ships with the project. Ours is `pushforward serve FOLDER`
with no other setting, and beside it with one instance, with two workers and with torch. The others:
naive FastAPI, LitServe, BentoML and mosec with the flow in torch; mosec and miraserver with the
graphs that we export, in two processes; the floor, which is one row on the event loop and nothing
else; a bare ASGI echo of the same bodies; and, without a server, the graph alone in this process,
on one thread and on one a core. wrk (one thread) makes the load and shares the cores with the
server. All servers of a workload are up and take turns, and so does the graph alone; who has not
the turn is stopped, since some of them spin while they wait. Ours has two turns a round: how much
it differs from itself is the noise. `--before` adds the server of another checkout.

    python -m benchmarks.bench_serving [--quick] [--only "A, one row"] [--servers "floor+mosec"]
        [--before CHECKOUT]
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.ceiling import GraphAlone, matrix_product, multiplications
from benchmarks.harness import machine
from benchmarks.peers import load
from benchmarks.servers import OURS, Field, candidates, started
from benchmarks.serving_report import AGAIN, draw, report
from benchmarks.workloads import (
    CEILING,
    ONE_THREAD,
    WORKLOADS,
    Workload,
    body_of,
    headers_of,
    write_model,
)

OUT = Path("runs/benchmarks/serving.json")
# Of a window, the pause behind it.
SETTLE = 0.1


def measure(work: Workload, scratch: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Start everybody, take turns, and give the windows of each at each concurrency."""
    folder = write_model(work.flow, scratch)
    one, all_cores = (GraphAlone(folder, work, n) for n in (1, os.cpu_count() or 1))
    body = scratch / "body"
    body.write_bytes(body_of(work))
    names = candidates(work, asked.before)
    if asked.servers:
        names = [OURS, *(name for name in names[1:] if name in asked.servers.split("+"))]
    gflops = [matrix_product()]
    with started(names, work, folder, scratch, asked.before) as servers:
        alone = {ONE_THREAD: one, CEILING: all_cores}
        windows = {
            concurrency: _take_turns(work, concurrency, servers, alone, body, asked)
            for concurrency in work.concurrencies
        }
        peaks = {name: load.peak_bytes(server.pid) for name, server in servers.up.items()}
    gflops.append(matrix_product())
    ceiling = {
        "batch": all_cores.batch,
        # Another program at the time takes from it, none adds to it.
        "matrix_gflops": max(gflops),
        "gflop": multiplications(folder, work),
    }
    return {
        "windows": windows,
        "peaks": peaks,
        "up": servers.up,
        "failed": servers.failed,
        "ceiling": ceiling,
    }


def _take_turns(
    work: Workload,
    concurrency: int,
    servers: Field,
    alone: dict[str, GraphAlone],
    body: Path,
    asked: argparse.Namespace,
) -> dict[str, list[load.Window]]:
    """Let everybody have a short turn to warm up and one in each round."""
    headers, pids = headers_of(work), [server.pid for server in servers.up.values()]
    seconds = work.seconds / (2 if asked.quick else 1)
    turns = [*servers.up, AGAIN, *alone]
    taken: dict[str, list[load.Window]] = {name: [] for name in turns}

    def window(name: str, length: float) -> load.Window:
        server = servers.up.get(OURS if name == AGAIN else name)
        for pid in pids:
            is_next = server is not None and pid == server.pid
            load.signal_all(pid, signal.SIGCONT if is_next else signal.SIGSTOP)
        if server is None:
            return load.Window(alone[name].rate(length), 0.0, 0.0, 0)
        kind, accept = headers["Content-Type"], headers["Accept"]
        found = load.closed_loop(server.url, body, kind, accept, concurrency, length)
        # What is still being computed for a client that left: stopped in the middle of it, a server
        # would take the others' turns for its own slowness, and refuse.
        time.sleep(SETTLE * work.seconds)
        return found

    try:
        for turn in range(-1, asked.rounds):
            first = turn % len(turns)
            for name in turns[first:] + turns[:first]:
                found = window(name, seconds if turn >= 0 else 1.0)
                if turn >= 0:
                    taken[name].append(found)
    finally:
        for pid in pids:
            load.signal_all(pid, signal.SIGCONT)
    return taken


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    load.require_wrk()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short window of each")
    parser.add_argument("--rounds", type=int, help="windows of each; 3, or 1 with --quick")
    parser.add_argument("--only", default="", help="workloads whose names begin so")
    parser.add_argument("--servers", default="", help="beside ours, joined by '+'; unset: all")
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (1 if asked.quick else 3)
    results: dict[str, Any] = {"workloads": {}}
    if (asked.only or asked.servers) and OUT.exists():
        results = json.loads(OUT.read_text(encoding="utf-8"))
    results["machine"] = machine()
    with tempfile.TemporaryDirectory() as scratch:
        for work in WORKLOADS:
            if not work.name.startswith(asked.only):
                continue
            found = report(work, measure(work, Path(scratch), asked))
            results["workloads"][work.name] = found
            OUT.parent.mkdir(parents=True, exist_ok=True)
            OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(results["workloads"], OUT.with_suffix(".png"))


if __name__ == "__main__":
    main()
