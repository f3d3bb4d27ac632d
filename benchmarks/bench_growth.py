"""How the server grows: rows a request, models served, connections; and what bounds each end.

`pushforward serve FOLDER` with RealNVPs (D = 8, 8 couplings 128x2), wrk on the same cores. Every
line stands beside three bounds, measured in the same run: the cores (the graph alone, a thread a
core, in this process, in the best batches that so many connections can fill), the parser (orjson or
numpy reading that body, one core: the event loop parses in one thread) and the loop
(`peers/floor.py`, which computes one row on its event loop and does nothing else, over as many
connections). The least of them is what bounds.

    python -m benchmarks.bench_growth [--quick]
"""

import argparse
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from benchmarks.ceiling import GraphAlone
from benchmarks.harness import machine
from benchmarks.peers import environment, load
from benchmarks.process import serving
from benchmarks.workloads import TYPES, Workload, body_of, headers_of, write_model

OUT = Path("runs/benchmarks/growth.json")
ROWS = (1, 10, 100, 1000, 10_000)
CONNECTIONS = (1, 10, 100, 1000)
MODELS = (1, 8, 64)
# Enough that every core has work while others are on their way; of the largest requests fewer, as
# the queue is bounded in rows.
LARGE_CONNECTIONS, LARGEST_CONNECTIONS, SMALL_CONNECTIONS = 8, 2, 64

BOUNDS = ("cores", "parser", "loop")
HEADINGS = (
    "what",
    "connections",
    "requests/s",
    "rows/s",
    "p50 ms",
    "p99 ms",
    "errors",
    *(f"of the {bound}" for bound in BOUNDS),
    "bound by",
    "ready s",
    "peak MiB",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a workload, and over how many models its requests are spread."""

    what: str
    work: Workload
    models: int = 1


def lines() -> Iterator[Line]:
    """All of them."""
    for form in ("json", "npy"):
        for rows in ROWS:
            name = f"{rows:,} rows a request, {form}"
            connections = LARGEST_CONNECTIONS if rows == max(ROWS) else LARGE_CONNECTIONS
            yield Line(name, Workload(name, "A", rows, form, (connections,)))
    for connections in CONNECTIONS:
        name = f"{connections:,} connections"
        yield Line(name, Workload(name, "A", 1, "json", (connections,)))
    for models in MODELS:
        name = f"{models} models"
        yield Line(name, Workload(name, "A", 1, "json", (SMALL_CONNECTIONS,)), models)


def parser_rate(work: Workload, seconds: float) -> float:
    """Bodies a second that one core reads and does nothing else with."""
    body, calls, started = body_of(work), 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        if work.form == "json":
            np.asarray(orjson.loads(body)["x"], np.float32)
        else:
            np.load(io.BytesIO(body))
        calls += 1
    return calls / (time.perf_counter() - started)


@contextmanager
def floor(folder: Path, scratch: Path) -> Iterator[str]:
    """Start the floor."""
    one = Workload("", "A", 1, "json", (1,))
    env = {"FLOW_FOLDER": str(folder)}
    probe = (body_of(one), headers_of(one))
    with environment.running(environment.FLOOR, env, probe, scratch / "floor.log") as peer:
        yield peer.url


def measure(line: Line, scratch: Path, floor_url: str, rounds: int, seconds: float) -> Any:
    """The windows of one line, and its bounds in requests/s."""
    work, folder = line.work, write_model("A", scratch)
    (connections,) = work.concurrencies
    served = scratch / f"served-{line.models}"
    bodies = []
    for index in range(line.models):
        name = f"model{index}"
        if not (served / name).exists():
            shutil.copytree(folder, served / name)
        bodies.append(scratch / f"{name}.body")
        bodies[-1].write_bytes(_named(body_of(work), name) if line.models > 1 else body_of(work))
    plain = scratch / "plain.body"
    plain.write_bytes(body_of(Workload("", "A", 1, "json", (1,))))
    kind = TYPES[work.form]
    alone = GraphAlone(folder, work, os.cpu_count() or 1, line.models)
    windows: list[load.Window] = []
    bounds: dict[str, list[float]] = {name: [] for name in BOUNDS}
    with serving(scratch / "log", str(served), "--log-level", "warning") as server:
        url = f"{server.url}/log_prob"
        load.closed_loop_of(url, bodies, kind, kind, connections, 1.0)
        for _ in range(rounds):
            windows.append(load.closed_loop_of(url, bodies, kind, kind, connections, seconds))
            loop = load.closed_loop(
                floor_url, plain, TYPES["json"], TYPES["json"], connections, seconds
            )
            bounds["loop"].append(loop.rate)
            bounds["cores"].append(alone.rate(seconds / 2))
            bounds["parser"].append(parser_rate(work, seconds / 4))
        peak, ready = load.peak_bytes(server.process.pid), server.seconds_to_ready
    return {
        "rows": work.rows,
        "models": line.models,
        "connections": connections,
        "windows": [asdict(window) for window in windows],
        "bounds": {name: median(rates) for name, rates in bounds.items()},
        "peak_bytes": peak,
        "seconds_to_ready": ready,
    }


def _named(body: bytes, name: str) -> bytes:
    return orjson.dumps({"model": name, **orjson.loads(body)})


def show(line: Line, found: dict[str, Any]) -> None:
    """Print a line of the table."""
    windows, bounds = found["windows"], found["bounds"]
    rate, p50, p99 = (median(w[which] for w in windows) for which in ("rate", "p50", "p99"))
    least = min(bounds, key=lambda name: float(bounds[name]))
    cells = (
        line.what,
        f"{found['connections']:,}",
        f"{rate:,.0f}",
        f"{rate * line.work.rows:,.0f}",
        f"{p50:.2f}",
        f"{p99:.2f}",
        str(sum(w["errors"] for w in windows)),
        *(f"{rate / bounds[name]:.2f}" for name in BOUNDS),
        least,
        f"{found['seconds_to_ready']:.1f}",
        f"{found['peak_bytes'] / 2**20:.0f}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    load.require_wrk()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short window of each")
    parser.add_argument("--only", default="", help="lines that hold this")
    asked = parser.parse_args()
    rounds, seconds = (1, 1.0) if asked.quick else (3, 3.0)
    results: dict[str, Any] = {"machine": machine(), "lines": {}}
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        with floor(write_model("A", scratch), scratch) as floor_url:
            for line in lines():
                if asked.only not in line.what:
                    continue
                found = measure(line, scratch, floor_url, rounds, seconds)
                show(line, found)
                results["lines"][line.what] = found
                OUT.parent.mkdir(parents=True, exist_ok=True)
                OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
