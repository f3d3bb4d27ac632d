"""Files of rows: the default command against the engine alone, a client loop, Ray Data and ECOD.

    python -m benchmarks.bench_files [--rows 1000000] [--rounds 3] [--pyod PYTHON] [--memory]

All read one Parquet file of `magic` (10 columns, float64) and write a value a row. Each is timed
from the start of its process to its end; the engine alone has its rows in memory, in this process,
one thread a core: it is what no command can pass. The server of the client loop runs before.
PYTHON is an interpreter whose environment has pyod and pyarrow. --memory measures the most that
the command holds of 1,000,000 and 10,000,000 rows, sampled every 50 ms with all its processes.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.files.memory import Run, run
from benchmarks.files.rows import EngineAlone, write_rows
from benchmarks.harness import take_turns
from benchmarks.process import command, serving

MODEL = Path("models/zoo/magic")
OUT = Path("runs/benchmarks/files.json")
_MIB = 2**20
_ALONE, _OURS = "engine alone", "pushforward log-prob"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pyod", type=Path, help="an interpreter that has pyod")
    parser.add_argument("--only", action="append", help="a candidate, as often as wanted")
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given.memory:
            _measure_memory(folder)
            return
        path = folder / "rows.parquet"
        write_rows(MODEL, path, given.rows)
        with _candidates(path, given.rows, given.pyod) as found:
            chosen = {
                name: measure
                for name, measure in found.items()
                if name == _ALONE or not given.only or name in given.only
            }
            ratios = take_turns(chosen, rounds=given.rounds, rows=given.rows)
        _compare_answers(path)
    print(ratios.table())
    ratios.write(OUT)


@contextmanager
def _candidates(
    path: Path, rows: int, pyod: Path | None
) -> Iterator[dict[str, Callable[[], float]]]:
    """Those that can run here, each with what measures its seconds; says why others cannot."""
    alone = EngineAlone(MODEL, path, os.cpu_count() or 1)
    found = {_ALONE: lambda: alone.seconds(rows), _OURS: _timed(ours(path))}
    module = [sys.executable, "-m"]
    if importlib.util.find_spec("ray") is None:
        print("Ray Data: skipped, ray is not installed")
    else:
        out = str(path.with_name("ray"))
        words = [*module, "benchmarks.files.ray_flow", str(MODEL), str(path), out]
        found["Ray Data, torch flow"] = _timed(words)
    script = str(Path(__file__).with_name("files") / "ecod.py")
    if pyod is None or subprocess.run([pyod, "-c", "import pyod, pyarrow"], check=False).returncode:
        print("ECOD: skipped, --pyod names no interpreter that has pyod and pyarrow")
    else:
        found["PyOD ECOD"] = _timed([str(pyod), script, str(path), str(path.with_name("ecod.npy"))])
    with serving(path.with_name("server.log"), "--model-repository", str(MODEL)) as server:
        out = str(path.with_name("client.parquet"))
        words = [*module, "benchmarks.files.client_loop", server.url, "magic", str(path), out]
        found["pandas and the client"] = _timed(words)
        yield found


def ours(path: Path) -> list[str]:
    """The command as a user gives it."""
    out = str(path.with_name("ours.parquet"))
    return [*command("log-prob", str(MODEL), str(path), "-o", out, "--overwrite")]


def _timed(words: list[str]) -> Callable[[], float]:
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        return time.perf_counter() - began

    return seconds


def _compare_answers(path: Path) -> None:
    """Check that those who gave densities gave the same; of torch, as far as it promises."""
    wanted = pq.read_table(path.with_name("ours.parquet"))["log_prob"].to_numpy()
    client, actors = path.with_name("client.parquet"), path.with_name("ray")
    if client.exists():
        assert np.array_equal(pq.read_table(client)["log_prob"].to_numpy(), wanted)
    if actors.exists():  # in the order in which actors were done
        found = pq.read_table(actors)["log_prob"].to_numpy()[-len(wanted) :]
        assert np.allclose(np.sort(found), np.sort(wanted), rtol=1e-4, atol=1e-3)


def _measure_memory(folder: Path) -> None:
    runs: dict[int, Run] = {}
    for rows in (1_000_000, 10_000_000):
        path = folder / f"rows-{rows}.parquet"
        write_rows(MODEL, path, rows)
        runs[rows] = run(ours(path))
        print(
            f"{rows:,} rows: {rows / runs[rows].seconds:,.0f} rows/s, at most "
            f"{runs[rows].peak_bytes / _MIB:.0f} MiB"
        )
    found = {str(rows): done._asdict() for rows, done in runs.items()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.with_name("files-memory.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
