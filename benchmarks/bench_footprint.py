"""What the service costs before it does anything: time to ready and to a first answer, memory.

Prints the table of docs/deploying.md. Run it on a quiet machine:

    python -m benchmarks.bench_footprint [--before CHECKOUT] [--runs 5]

CHECKOUT is a folder of another commit with an environment in `.venv`; both are started in turns.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks.process import command, serving, tree_bytes

REQUESTS_A_MODEL = 100
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one start of the zoo. The bytes are those of all its processes, shared pages once."""

    help_seconds: float
    seconds_to_ready: float
    cpu_seconds_to_ready: float
    seconds_to_answer: float
    models: float
    ready_bytes: float
    used_bytes: float


def measure(executable: Path, log: Path, requests: int) -> Footprint:
    """Start the zoo once, and send requests to each model."""
    began = time.perf_counter()
    subprocess.run([executable, "--help"], capture_output=True, check=True)
    help_seconds = time.perf_counter() - began
    with serving(log, executable=executable) as server, server.client(timeout=600) as http:
        cards = http.get("/models").json()["models"]
        ready = tree_bytes(server.process.pid)
        answered = 0.0
        for card in cards:
            for _ in range(requests):
                answer = http.post("/sample", json={"model": card["name"], "num_samples": 4})
                answer.raise_for_status()
                answered = answered or time.monotonic() - server.started
        return Footprint(
            help_seconds,
            server.seconds_to_ready,
            server.cpu_seconds_to_ready,
            answered,
            len(cards),
            ready,
            tree_bytes(server.process.pid),
        )


def median(runs: Sequence[Footprint]) -> Footprint:
    """Column by column."""
    return Footprint(*map(statistics.median, zip(*map(astuple, runs), strict=True)))


def rows(found: Footprint, requests: int) -> dict[str, str]:
    """The lines of the table, without their heads."""
    return {
        "`pushforward --help` answers after": f"{found.help_seconds:.2f} s",
        f"`pushforward serve` is ready after ({found.models:.0f} models)": (
            f"{found.seconds_to_ready:.1f} s"
        ),
        "processor time until then": f"{found.cpu_seconds_to_ready:.1f} s",
        "the first samples are answered after": f"{found.seconds_to_answer:.1f} s",
        "memory when ready": f"{found.ready_bytes / _MIB:.0f} MiB",
        f"memory after {requests} requests to each model": f"{found.used_bytes / _MIB:.0f} MiB",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another commit")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=REQUESTS_A_MODEL, help="to each model")
    chosen = parser.parse_args()
    executables = {"now": Path(command()[0])}
    if chosen.before is not None:
        executables = {"before": chosen.before / ".venv/bin/pushforward"} | executables
    found: dict[str, list[Footprint]] = {name: [] for name in executables}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(chosen.runs):
            for name, executable in executables.items():
                log = Path(scratch) / f"{name}.log"
                found[name].append(measure(executable, log, chosen.requests))
    tables = {name: rows(median(runs), chosen.requests) for name, runs in found.items()}
    print(f"| what | {' | '.join(tables)} |\n|{'---|' * (len(tables) + 1)}")
    for what in next(iter(tables.values())):
        print(f"| {what} | {' | '.join(table[what] for table in tables.values())} |")


if __name__ == "__main__":
    main()
