"""The default command of this tree against that of another one, the commit before, in turns.

    git archive COMMIT | tar x -C /tmp/before
    python -m benchmarks.bench_before /tmp/before [--rounds 5] [--only "one row"] [--option=...]

Every workload is sent by wrk, one thread, which shares the cores with the server. All that counts
is the ratio inside a round: both trees have their turn in it, this one a second turn, and how much
it differs from itself is the noise. Options after `--` are given to this tree's server alone.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import models
from benchmarks.bench_ffjord import make_flow as make_ffjord
from benchmarks.harness import machine, take_turns
from benchmarks.onnx_candidates import make_flow
from benchmarks.peers import load
from benchmarks.process import RunningServer, cpu_seconds, serving
from benchmarks.workloads import FLOWS, TYPES, Workload, body_of

OUT = Path("runs/benchmarks/before.json")
# Where the machine is busy, `auto` may take another one for one of the two.
SAME_ENGINE = ["--engine", "onnx"]
THIS, BEFORE = "this tree", "before"
WORKLOADS = (
    Workload("1,000 rows, npy", "A", 1000, "npy", (8,), {}),
    Workload("1,000 rows, JSON", "A", 1000, "json", (8,), {}),
    Workload("one image, npy", "B", 1, "npy", (16,), {}),
    Workload("one image, JSON", "B", 1, "json", (16,), {}),
    Workload("16 samples, npy", "B", 16, "npy", (4,), {}, "sample"),
    Workload("16 samples, JSON", "B", 16, "json", (4,), {}, "sample"),
    Workload("one row, JSON", "A", 1, "json", (1, 16, 64, 256), {}),
    Workload("one row of an FFJORD, JSON", "C", 1, "json", (32,), {}),
)


def _turn(
    server: RunningServer,
    work: Workload,
    body: Path,
    concurrency: int,
    seconds: float,
    spent: list[float],
) -> Callable[[], float]:
    kind = TYPES["json"] if work.call == "sample" else TYPES[work.form]
    url, accept = f"{server.url}/{work.call}", TYPES[work.form]

    def measure() -> float:
        before = cpu_seconds(server.process.pid)
        window = load.closed_loop(url, body, kind, accept, concurrency, seconds)
        if window.errors:
            raise RuntimeError(f"{work.name}: {window.errors} requests were not answered 200")
        spent.append((cpu_seconds(server.process.pid) - before) / (window.rate * seconds))
        return 1 / window.rate

    return measure


def compare(
    work: Workload, scratch: Path, other: Path, options: list[str], rounds: int, seconds: float
) -> dict[int, dict[str, Any]]:
    """Concurrency -> rates of both, and the ratio of this tree's over the other's."""
    body, folder = scratch / "body", str(scratch / work.flow)
    body.write_bytes(body_of(work))
    found = {}
    with ExitStack() as stack:
        before, this = (
            stack.enter_context(serving(scratch / "log", folder, *given, env={"PYTHONPATH": path}))
            for path, given in (
                (str(other.resolve()), SAME_ENGINE),
                (str(Path.cwd()), [*SAME_ENGINE, *options]),
            )
        )
        for concurrency in work.concurrencies:
            servers = {BEFORE: before, THIS: this}
            spent: dict[str, list[float]] = {name: [] for name in servers}
            measures = {
                name: _turn(server, work, body, concurrency, seconds, spent[name])
                for name, server in servers.items()
            }
            take_turns(measures, rounds=1)
            ratios = take_turns(measures, rounds=rounds)
            found[concurrency] = {
                "ratio": ratios.speedup(THIS),
                "quartiles": ratios.spread(THIS),
                "noise": ratios.noise,
                "rates": {name: [1 / s for s in turns] for name, turns in ratios.seconds.items()},
                "processor_ms": {name: 1e3 * median(seconds) for name, seconds in spent.items()},
                "peak_mib": {
                    name: load.peak_bytes(server.process.pid) / 2**20
                    for name, server in servers.items()
                },
            }
    return found


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    load.require_wrk()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="the other tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument("--only", default="", help="workloads whose names begin so")
    parser.add_argument("options", nargs="*", help="of this tree's server")
    asked = parser.parse_args()
    results: dict[str, Any] = {"machine": machine()}
    print(
        "| work | connections | before, 1/s | this tree, 1/s | ratio (quartiles) | "
        "processor ms a request, both | MiB, both |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name, (family, config) in FLOWS.items():
            is_solved = family == "ffjord"
            flow = make_ffjord(*config["event_shape"]) if is_solved else make_flow(family, config)
            models.save(flow, Path(scratch) / name)
        for work in WORKLOADS:
            if not work.name.startswith(asked.only):
                continue
            found = compare(
                work, Path(scratch), asked.before, asked.options, asked.rounds, asked.seconds
            )
            results[work.name] = found
            for concurrency, one in found.items():
                rates = {name: sorted(r)[len(r) // 2] for name, r in one["rates"].items()}
                low, high = one["quartiles"]
                peaks, spent = one["peak_mib"], one["processor_ms"]
                print(
                    f"| {work.name} | {concurrency} | {rates[BEFORE]:,.0f} | {rates[THIS]:,.0f} | "
                    f"{one['ratio']:.2f} ({low:.2f} to {high:.2f}; noise {one['noise']:.2f}) | "
                    f"{spent[BEFORE]:.3g} / {spent[THIS]:.3g} | "
                    f"{peaks[BEFORE]:.0f} / {peaks[THIS]:.0f} |",
                    flush=True,
                )
            OUT.parent.mkdir(parents=True, exist_ok=True)
            OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
