"""Rows a second of Ray Data with 1, 2 and 4 actors, the command over files, and the graph alone.

    python -m benchmarks.bench_ray [--rows 1000000] [--rounds 3]

The same million rows of `magic` (ten columns of Parquet) are scored to Parquet by
`examples/ray_data.py` on a cluster of this machine, and by what `pushforward score` runs; the graph
alone computes them from memory, one thread a core, and writes nothing. The rates of Ray count from
the first batch that an actor is given: its start takes seconds, and is told beside them. Where the
processor time of a job went is summed over its processes.
"""

import argparse
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import ray

from benchmarks.harness import take_turns
from benchmarks.ray_cluster import descendants
from examples import ray_data
from models.onnx.runtime import load_runtime
from pushforward.batch import Scorer
from pushforward.batch.job import run
from pushforward.batch.plan import FilePlan

_MODEL = Path(__file__).resolve().parent.parent / "models" / "zoo" / "magic"
_FILES = 8
_SLICE = 16_384
_COMMAND, _GRAPH = "pushforward score", "the graph alone"
_TICKS = os.sysconf("SC_CLK_TCK")
# What a process is, by how its title begins.
_KINDS = {"ray::MapWorker": "actors", "ray::": "reading and writing", "": "Ray itself"}


class TimedScorer(Scorer):
    """A `Scorer` that leaves the time of its first batch in a file."""

    started: Path

    def __call__(self, batch: Any) -> Any:
        """Compute the rows of a batch."""
        if self._session is None:
            self.started.with_suffix(f".{os.getpid()}").write_text(str(time.time()))
        return super().__call__(batch)


class RayJobs:
    """Jobs on a cluster, and what is known of them besides how long they take.

    Attributes:
        start_seconds: by the number of actors, until the first batch of each job.
        cpu_seconds: by the number of actors, of each kind of process, for each job.
    """

    def __init__(self, folder: Path, rows: list[str]) -> None:
        self._folder, self._rows = folder, rows
        self.start_seconds: dict[int, list[float]] = {}
        self.cpu_seconds: dict[int, list[dict[str, float]]] = {}

    def measure(self, actors: int) -> float:
        """Run a job.   -> seconds from its first batch to its end."""
        out = self._folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        for old in self._folder.glob("started.*"):
            old.unlink()
        begun = time.time()
        with _cpu_seconds() as used:
            ray_data.score(
                str(_MODEL), self._rows, str(out), actors=actors, block_rows=65_536, cores=0.25
            )
        ended = time.time()
        first = min(float(file.read_text()) for file in self._folder.glob("started.*"))
        self.start_seconds.setdefault(actors, []).append(first - begun)
        self.cpu_seconds.setdefault(actors, []).append(used)
        return ended - first

    def check(self, expected: Any) -> None:
        """Compare the rows of the last job with those of the command, whatever their order."""
        table = pyarrow.dataset.dataset(self._folder / "out").to_table()
        got, wanted = (np.sort(each.column("score").to_numpy()) for each in (table, expected))
        assert np.array_equal(got, wanted), "the rows are not those of the command"


@contextmanager
def _cpu_seconds() -> Iterator[dict[str, float]]:
    """Sum the processor time of all processes that this one has started, by kind."""
    used: dict[str, float] = defaultdict(float)
    before = {pid: seconds for pid, (_, seconds) in _processes().items()}
    latest: dict[int, tuple[str, float]] = {}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.1):
            for pid, (kind, seconds) in _processes().items():
                known = latest.get(pid, (kind, 0.0))[0]
                # The process of an actor has been an idle one before.
                latest[pid] = (known if known == "actors" else kind, seconds)

    thread = threading.Thread(target=watch)
    thread.start()
    own = time.process_time()
    try:
        yield used
    finally:
        is_over.set()
        thread.join()
        for pid, (kind, seconds) in latest.items():
            used[kind] += seconds - before.get(pid, 0.0)
        used["driver"] = time.process_time() - own


def _processes() -> dict[int, tuple[str, float]]:
    """The kind and the processor seconds of every process that this one has started."""
    found = {}
    for pid in descendants(os.getpid()):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        kind = next(kind for start, kind in _KINDS.items() if title.startswith(start))
        found[pid] = (kind, (int(fields[11]) + int(fields[12])) / _TICKS)
    return found


def _command(folder: Path, rows: list[str]) -> Callable[[], float]:
    plan = FilePlan("score", _MODEL, folder / "scored.parquet", tuple(rows), overwrite=True)

    def measure() -> float:
        begun = time.perf_counter()
        run(plan)
        return time.perf_counter() - begun

    return measure


def _graph(rows: list[str]) -> Callable[[], float]:
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(
        _MODEL / "encode.onnx", options, providers=["CPUExecutionProvider"]
    )
    tables = [pq.read_table(file) for file in rows]
    x = np.concatenate([np.stack([*map(np.asarray, table.columns)], 1) for table in tables])
    x = x.astype(np.float32)
    starts = range(0, len(x), _SLICE)
    name = session.get_inputs()[0].name

    def measure() -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda at: session.run(None, {name: x[at : at + _SLICE]}), starts))
        return time.perf_counter() - begun

    return measure


def _write_rows(folder: Path, total: int) -> list[str]:
    """Draw rows of the model into files of equal size."""
    drawn = folder / "drawn.parquet"
    run(FilePlan("sample", _MODEL, drawn, num_samples=total, fields={"seed": 1}))
    table = pq.read_table(drawn).drop_columns(["log_prob", "status"]).replace_schema_metadata()
    size = total // _FILES
    names = [str(folder / f"rows-{number}.parquet") for number in range(_FILES)]
    for number, name in enumerate(names):
        pq.write_table(table.slice(number * size, size), name)
    return names


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rows = _write_rows(folder, given.rows)
        TimedScorer.started = folder / "started"
        vars(ray_data)["Scorer"] = TimedScorer
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        jobs = RayJobs(folder, rows)
        measures = {_COMMAND: _command(folder, rows), _GRAPH: _graph(rows)}
        measures |= {
            f"Ray Data, actors: {count}": partial(jobs.measure, count) for count in (1, 2, 4)
        }
        try:
            measures[_COMMAND]()
            jobs.measure(2)
            jobs.check(pq.read_table(folder / "scored.parquet"))
            ratios = take_turns(measures, rounds=given.rounds, rows=given.rows)
        finally:
            ray.shutdown()
    print(ratios.table())
    print("\n| actors | start, s | processor seconds of a job |\n|---|---|---|")
    for count, used in jobs.cpu_seconds.items():
        kinds = sorted({kind for each in used for kind in each})
        told = ", ".join(f"{kind} {median(each[kind] for each in used):.1f}" for kind in kinds)
        print(f"| {count} | {median(jobs.start_seconds[count]):.1f} | {told} |")
    ratios.write("runs/benchmarks/ray.json")


if __name__ == "__main__":
    main()
