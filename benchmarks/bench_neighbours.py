"""What others feel while one client sends one-row requests as fast as it can.

Two RealNVPs (D = 8, 8 couplings 128x2) are served by `pushforward serve FOLDER`. wrk sends rows of
the first over 1, 16, 64 and 256 connections; beside it one connection asks for /health/live and one
sends a row of the second model, each a few hundred times a second. wrk and this process share the
cores with the server: what they wait for a core counts.

    python -m benchmarks.bench_neighbours [SECONDS]
"""

import http.client
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.harness import machine
from benchmarks.peers import load
from benchmarks.process import serving
from benchmarks.workloads import TYPES, WORKLOADS, body_of, write_model

OUT = Path("runs/benchmarks/neighbours.json")
CONNECTIONS = (0, 1, 16, 64, 256)
PAUSE_SECONDS = 0.004
MOST_MILLISECONDS = 5.0


def ask(url: str, body: bytes | None, until: float, taken: list[float]) -> None:
    """Send one request after another, with pauses; their milliseconds into `taken`."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    method = "GET" if body is None else "POST"
    headers = {} if body is None else {"Content-Type": TYPES["json"]}
    while (began := time.perf_counter()) < until:
        connection.request(method, parts.path, body, headers)
        response = connection.getresponse()
        response.read()
        taken.append(1e3 * (time.perf_counter() - began))
        if response.status != http.client.OK:
            raise RuntimeError(f"{url}: {response.status}")
        time.sleep(PAUSE_SECONDS)
    connection.close()


def beside(url: str, bodies: dict[str, Path], connections: int, seconds: float) -> dict[str, Any]:
    """Percentiles of both while the load runs, in ms, and its rate."""
    health: list[float] = []
    rows: list[float] = []
    rate: list[float] = []
    until = time.perf_counter() + seconds

    def flood() -> None:
        arguments = (TYPES["json"], TYPES["json"], connections, seconds)
        rate.append(load.closed_loop(f"{url}/log_prob", bodies["loud"], *arguments).rate)

    asking = [
        threading.Thread(target=ask, args=(f"{url}/health/live", None, until, health)),
        threading.Thread(
            target=ask, args=(f"{url}/log_prob", bodies["quiet"].read_bytes(), until, rows)
        ),
        *([threading.Thread(target=flood)] if connections else []),
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    found: dict[str, Any] = {"rate": rate[0] if rate else 0.0}
    for name, taken in (("health", health), ("rows", rows)):
        p50, p99 = np.percentile(taken, (50, 99))
        found |= {f"{name}_count": len(taken), f"{name}_p50": p50, f"{name}_p99": p99}
    return found


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    load.require_wrk()
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    found: dict[int, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch, served = Path(name), Path(name) / "served"
        folder = write_model("A", scratch)
        bodies = {}
        for model in ("loud", "quiet"):
            shutil.copytree(folder, served / model)
            bodies[model] = scratch / f"{model}.json"
            body = json.loads(body_of(WORKLOADS[0]))
            bodies[model].write_text(json.dumps({"model": model, **body}))
        with serving(scratch / "log", str(served), "--log-level", "warning") as server:
            beside(server.url, bodies, 16, 1.0)
            print("| connections | rows/s beside | /health/live p50, p99 ms | other p50, p99 ms |")
            print("|---|---|---|---|")
            for connections in CONNECTIONS:
                one = found[connections] = beside(server.url, bodies, connections, seconds)
                cells = [f"{connections}", f"{one['rate']:,.0f}"]
                for which in ("health", "rows"):
                    low, high = one[f"{which}_p50"], one[f"{which}_p99"]
                    outcome = "met" if high <= MOST_MILLISECONDS else "MISSED"
                    cells.append(
                        f"{low:.2f}, {high:.2f} (at most {MOST_MILLISECONDS:g}: {outcome})"
                    )
                print(f"| {' | '.join(cells)} |", flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "at": found}
    OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
