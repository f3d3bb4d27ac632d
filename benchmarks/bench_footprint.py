"""What the service costs before it does anything: time to answer --help, time to ready, memory.

Prints the table of docs/deploying.md. On a quiet machine: python -m benchmarks.bench_footprint
"""

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.process import command, serving

RUNS = 5
REQUESTS_A_MODEL = 100


def seconds_of_help() -> float:
    """Median time of `pushforward --help`."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(command("--help"), capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def serve_the_zoo(log: Path) -> tuple[float, int, int, int]:
    """Start the zoo.

    Returns:
        Seconds to ready, models, bytes when ready, bytes after requests.
    """
    with serving(log) as server, server.client() as http:
        ready = server.resident_bytes()
        names = [card["name"] for card in http.get("/models").json()["models"]]
        for name in names:
            for _ in range(REQUESTS_A_MODEL):
                answer = http.post("/sample", json={"model": name, "num_samples": 4})
                answer.raise_for_status()
        return server.seconds_to_ready, len(names), ready, server.resident_bytes()


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = [serve_the_zoo(Path(scratch) / "server.log") for _ in range(RUNS)]
    seconds, models, ready, used = (statistics.median(column) for column in zip(*runs, strict=True))
    rows = {
        "`pushforward --help` answers after": f"{seconds_of_help():.2f} s",
        f"`pushforward serve` is ready after ({models:.0f} models)": f"{seconds:.1f} s",
        "memory when ready": f"{ready / 2**20:.0f} MiB",
        f"memory after {REQUESTS_A_MODEL} requests to each model": f"{used / 2**20:.0f} MiB",
    }
    print("| what | median |\n|---|---|")
    for what, figure in rows.items():
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
