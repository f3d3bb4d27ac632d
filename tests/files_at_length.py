"""What docs/files.md states of long files, at full length: `make show` runs it.

    python -m tests.files_at_length [--rows 10000000] [--draws 100000000]

A run over many rows is killed in the middle and resumed to the bytes of one that is not; a table of
text with a broken row in a hundred names each; a draw too long for any request has the rows of its
seed.
"""

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.files.rows import write_rows
from benchmarks.process import command
from pushforward.batch import Scorer
from tests.pushforward.batch.broken_rows import write_broken_csv

ZOO = Path(__file__).resolve().parents[1] / "models" / "zoo"
BROKEN_ROWS = 100_000
LAST = 1000


def main() -> None:
    """Try all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--draws", type=int, default=100_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        kill_and_resume(folder, given.rows)
        name_broken_rows(folder)
        draw(folder, given.draws)


def kill_and_resume(folder: Path, rows: int) -> None:
    """Kill a run once half of its parts are there, resume it, compare with one not killed."""
    given, out, whole = (folder / f"{name}.parquet" for name in ("rows", "out", "whole"))
    write_rows(ZOO / "magic", given, rows)
    words = ["log-prob", str(ZOO / "magic"), str(given), "-o"]
    began = time.perf_counter()
    subprocess.run(command(*words, str(whole)), check=True)
    seconds = time.perf_counter() - began
    parts, half = folder / ".out.parquet.partial", rows / 65_536 / 2
    with subprocess.Popen(command(*words, str(out))) as process:
        while len([*parts.glob("*.arrow")]) < half and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    left = len([*parts.glob("*.arrow")])
    resumed = subprocess.run(
        command(*words, str(out), "--resume", "--json"), check=True, stdout=subprocess.PIPE
    )
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (whole, out)]
    assert digests[0] == digests[1], "what was resumed has other bytes"
    done = json.loads(resumed.stdout)["resumed_rows"]
    print(
        f"{rows:,} rows in {seconds:.1f} s; killed with {left} parts, resumed from row {done:,}: "
        f"the same bytes, sha256 {digests[0][:16]}"
    )


def name_broken_rows(folder: Path) -> None:
    """Score a table of text of which one row in a hundred is broken."""
    broken = write_broken_csv(folder / "broken.csv", BROKEN_ROWS)
    out = folder / "broken.parquet"
    words = command("log-prob", str(ZOO / "moons"), str(folder / "broken.csv"), "-o", str(out))
    assert subprocess.run(words, check=False).returncode == 3
    statuses = pq.read_table(out)["status"].to_pylist()
    assert {row: status for row, status in enumerate(statuses) if status} == broken
    print(f"{BROKEN_ROWS:,} rows of text: {len(broken):,} broken, each named; the rest scored")


def draw(folder: Path, rows: int) -> None:
    """Draw more rows than memory would hold, and compare the first and the last of them."""
    out, began = folder / "drawn.parquet", time.perf_counter()
    words = ("sample", str(ZOO / "moons"), "-n", str(rows), "--seed", "7", "-o", str(out))
    subprocess.run(command(*words), check=True)
    seconds = time.perf_counter() - began
    scorer, file = Scorer(ZOO / "moons", "sample", seed=7), pq.ParquetFile(out)
    assert file.metadata.num_rows == rows
    for group, first in ((0, 0), (file.num_row_groups - 1, None)):
        table = file.read_row_group(group, columns=["x1", "x2"])
        begin = rows - table.num_rows if first is None else first
        count = min(LAST, table.num_rows)
        x = scorer({"row": np.arange(begin, begin + count)})["x"]
        drawn = np.stack([column.to_numpy()[:count] for column in table.columns], axis=1)
        assert np.array_equal(drawn, x), "a file has other rows than its seed"
    print(f"{rows:,} draws in {seconds:.1f} s, {rows / seconds:,.0f} a second: those of the seed")


if __name__ == "__main__":
    sys.exit(main())
