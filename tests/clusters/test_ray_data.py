"""`examples/ray_data.py` on two worker processes, one of which is killed in the middle."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.clusters.rows import ALPHA, make_rows, read_rows

# `make show` has a million.
TOTAL = int(os.environ.get("RAY_ROWS", "100000"))
ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 240


def test_a_killed_worker_costs_no_row(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, "magic", TOTAL, files=4)
    out, died = tmp_path / "out", tmp_path / "died"
    words = [rows.model, out, died, ALPHA, *rows.files]
    command = [sys.executable, "-m", "tests.clusters.lossy_ray", *map(str, words)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as driver:  # fmt: skip
        try:
            told, _ = driver.communicate(timeout=_SECONDS)
        finally:
            if driver.poll() is None:
                os.killpg(driver.pid, signal.SIGKILL)
    assert driver.returncode == 0, told
    assert died.exists(), "no worker was killed"
    got, expected = read_rows(out), rows.expected.combine_chunks()
    assert got.equals(expected)
    is_bad = [status != "" for status in got.column("status").to_pylist()]
    assert sum(is_bad) == got.column("score").null_count == TOTAL // 100
