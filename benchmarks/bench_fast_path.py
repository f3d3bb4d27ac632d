"""What the fast path earns, and whether another checkout was faster: one row of JSON over HTTP.

The same server with the fast path and without it (`without_fast_path`), with one process and with
two; with `--before` the server of another checkout beside it. The model is a RealNVP (D = 8, 8
couplings 128x2), wrk (one thread) makes the load and shares the cores with the servers. All are up
and take turns; who has not the turn is stopped. Ours has two turns a round: how much it differs
from itself is the noise. Beside the rates stands the processor time that a request takes of the
server, which other work on the machine disturbs less.

    python -m benchmarks.bench_fast_path [--rounds N] [--before CHECKOUT]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

import models
from benchmarks.harness import machine
from benchmarks.onnx_candidates import make_flow
from benchmarks.peers import load
from benchmarks.process import cpu_seconds, free_port, wait_until_ready

OUT = Path("runs/benchmarks/fast_path.json")
CONCURRENCIES = (1, 16, 64, 256)
SECONDS = 2.0
JSON = "application/json"
ON, OFF, BEFORE, AGAIN = "fast path", "without", "before", "fast path again"
FLOW: dict[str, Any] = {
    "event_shape": [8],
    "num_layers": 8,
    "conditioner": {"kind": "mlp", "widths": [128, 128]},
}
# The command of a checkout, whatever its layout.
ANY_COMMAND = """
import sys
try:
    from pushforward.cli.main import main
except ImportError:
    from service.cli import main
main()
"""


@dataclass(frozen=True, slots=True)
class Side:
    """One server: the arguments of its interpreter, the checkout it runs, and its processes."""

    launcher: tuple[str, ...]
    root: Path
    workers: int


@contextmanager
def running(side: Side, folder: Path, log: Path) -> Iterator[tuple[str, int]]:
    """Start a server; its url and its process id."""
    port = free_port()
    options = ("serve", str(folder), "--port", str(port), "--log-level", "warning")
    workers = ("--workers", str(side.workers))
    with log.open("w") as output:
        process = subprocess.Popen(
            (sys.executable, *side.launcher, *options, *workers),
            cwd=side.root,
            env={**os.environ, "PYTHONPATH": str(side.root)},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process, log)
            yield f"{url}/log_prob", process.pid
        finally:
            load.signal_all(process.pid, signal.SIGCONT)
            process.terminate()
            process.wait(timeout=60)


def sides(before: Path | None) -> dict[str, Side]:
    """Who takes part."""
    here = Path(__file__).resolve().parent.parent
    on = ("-c", ANY_COMMAND)
    off = ("-m", "benchmarks.without_fast_path")
    found = {
        ON: Side(on, here, 1),
        OFF: Side(off, here, 1),
        f"{ON}, 2 workers": Side(on, here, 2),
        f"{OFF}, 2 workers": Side(off, here, 2),
    }
    if before is not None:
        found[BEFORE] = Side(on, before, 1)
        found[f"{BEFORE}, 2 workers"] = Side(on, before, 2)
    return found


def measure(up: dict[str, tuple[str, int]], body: Path, rounds: int) -> dict[int, Any]:
    """Take turns: rates and microseconds of processor time a request, by concurrency and side."""
    turns = [*up, AGAIN]
    found: dict[int, Any] = {}
    for concurrency in CONCURRENCIES:
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
        for turn in range(-1, rounds):
            first = turn % len(turns)
            for name in turns[first:] + turns[:first]:
                url, pid = up[ON if name == AGAIN else name]
                for _, other in up.values():
                    load.signal_all(other, signal.SIGCONT if other == pid else signal.SIGSTOP)
                spent = cpu_seconds(pid)
                window = load.closed_loop(url, body, JSON, JSON, concurrency, SECONDS)
                if window.errors:
                    raise RuntimeError(f"{name}: {window.errors} errors at {concurrency}")
                cost = 1e6 * (cpu_seconds(pid) - spent) / (window.rate * SECONDS)
                if turn >= 0:
                    taken[name].append((window.rate, cost))
        found[concurrency] = taken
    for _, pid in up.values():
        load.signal_all(pid, signal.SIGCONT)
    return found


def report(found: dict[int, Any]) -> None:
    """Print a table for each concurrency."""
    for concurrency, taken in found.items():
        rates = {name: [rate for rate, _ in windows] for name, windows in taken.items()}
        ours = {1: rates[ON], 2: rates[f"{ON}, 2 workers"]}
        print(f"\n### One row, JSON, concurrency {concurrency}\n")
        print("| server | requests/s | us of processor | fast path / it |")
        print("|---|---|---|---|")
        for name, rate in rates.items():
            mine = ours[2 if name.endswith("2 workers") else 1]
            ratio = median(a / b for a, b in zip(mine, rate, strict=True))
            cost = median(cost for _, cost in taken[name])
            shown = "" if name.endswith("2 workers") else f"{cost:.0f}"  # the parent's says nothing
            print(f"| {name} | {median(rate):,.0f} | {shown} | {ratio:.2f} |")
        pairs = zip(rates[ON], rates[AGAIN], strict=True)
        noise = median(abs(first / second - 1) for first, second in pairs)
        print(f"\nNoise: the fast path differs from itself by {100 * noise:.0f} %.", flush=True)


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    load.require_wrk()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder, body = Path(scratch) / "A", Path(scratch) / "body"
        models.save(make_flow("realnvp", FLOW), folder)
        x = rng.standard_normal((1, 8)).astype(np.float32).round(5)
        body.write_text(json.dumps({"x": x.tolist()}))
        up, answers = {}, []
        for number, (name, side) in enumerate(sides(asked.before).items()):
            log = Path(scratch) / f"{number}.log"
            up[name] = stack.enter_context(running(side, folder, log))
            headers = {"Content-Type": JSON}
            answer = httpx.post(up[name][0], content=body.read_bytes(), headers=headers)
            answers.append(answer.raise_for_status().content)
        if len(set(answers)) != 1:
            raise RuntimeError(f"the answers differ: {set(answers)}")
        found = measure(up, body, asked.rounds)
    report(found)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "taken": found}
    OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
