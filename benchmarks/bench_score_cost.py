"""What a score costs beside a log-density: POST /score over POST /log_prob, in turns.

The zoo's `magic` with its own calibration, served by `pushforward serve FOLDER`: one row as JSON
over 64 connections, and 1,000 rows as npy over 4; without a decision and with alpha. wrk shares the
cores with the server. Each round asks both, so that the machine's phases meet both.

    python -m benchmarks.bench_score_cost [ROUNDS]
"""

import io
import json
import signal
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness import machine
from benchmarks.peers import load
from benchmarks.process import serving
from benchmarks.workloads import TYPES

OUT = Path("runs/benchmarks/score_cost.json")
MODEL = Path("models/zoo/magic")
MOST = 1.1
ALPHA = 0.01
SECONDS = 1.0
# Connections of each form of a request.
CONNECTIONS = {"json": 64, "npy": 4}
ROWS = {"json": 1, "npy": 1000}


def bodies(rows: np.ndarray[Any, np.dtype[np.float32]], form: str) -> tuple[bytes, bytes, bytes]:
    """The same rows for /log_prob, for /score, and for /score with alpha."""
    if form == "npy":
        file = io.BytesIO()
        np.save(file, rows)
        return (file.getvalue(),) * 3
    fields = {"x": rows.round(3).tolist()}
    plain = json.dumps(fields).encode()
    return plain, plain, json.dumps({**fields, "alpha": ALPHA}).encode()


def paths(form: str) -> tuple[str, str, str]:
    """Where they go; npy has its fields in the query."""
    return "/log_prob", "/score", f"/score?alpha={ALPHA}" if form == "npy" else "/score"


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    load.require_wrk()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    found: dict[str, Any] = {}
    scale = json.loads((MODEL / "config.json").read_text())["config"]["preprocessing"][0]
    noise = np.random.default_rng(0).normal(size=(1000, len(scale["mean"])))
    rows = (np.array(scale["mean"]) + 0.5 * np.array(scale["std"]) * noise).astype(np.float32)
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name) / "log", str(MODEL), "--log-level", "warning") as server,
    ):
        print("| request | connections | log_prob, 1/s | over score | over score with alpha |")
        print("|---|---|---|---|---|")
        for form, connections in CONNECTIONS.items():
            asked = []
            for at, (path, body) in enumerate(
                zip(paths(form), bodies(rows[: ROWS[form]], form), strict=True)
            ):
                file = Path(name) / f"{form}{at}"
                file.write_bytes(body)
                asked.append((server.url + path, file))
            rates = np.array(
                [
                    [
                        load.closed_loop(*one, TYPES[form], TYPES[form], connections, SECONDS).rate
                        for one in asked
                    ]
                    for _ in range(rounds + 1)
                ]
            )[1:]
            cells = [
                f"{ROWS[form]:,} rows, {form}",
                f"{connections}",
                f"{median(rates[:, 0]):,.0f}",
            ]
            found[form] = {"rates": rates.tolist()}
            for other in (1, 2):
                ratio = rates[:, 0] / rates[:, other]
                low, middle, high = np.percentile(ratio, (25, 50, 75))
                outcome = "met" if middle <= MOST else "MISSED"
                cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f}; at most {MOST}: {outcome})")
            print(f"| {' | '.join(cells)} |", flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "found": found}
    OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
