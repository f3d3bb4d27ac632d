"""One row in a hundred is broken: the others are scored, and each of these is named."""

from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pushforward.batch import Scorer
from tests.pushforward.batch.broken_rows import KINDS, write_broken_csv
from tests.pushforward.batch.test_files import MOONS, run


def test_each_broken_row_is_named_and_the_others_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushforward.batch.text.BLOCK_BYTES", 20_000)
    broken = write_broken_csv(tmp_path / "in.csv", 100 * len(KINDS) * 2)
    assert {*broken.values()} == {f"invalid_input: {reason}" for _, reason in KINDS}
    out = tmp_path / "out.parquet"
    done = run("log-prob", MOONS, tmp_path / "in.csv", "-o", out)
    assert done.exit_code == 3
    assert f"{len(broken)} rows have no answer" in done.output
    table = pq.read_table(out)
    statuses = table["status"].to_pylist()
    assert {row: status for row, status in enumerate(statuses) if status} == broken
    x = np.random.default_rng(0).normal(size=(len(statuses), 2))
    wanted = Scorer(MOONS, "log_prob")({"x": x})["log_prob"].tolist()
    wanted = [None if row in broken else value for row, value in enumerate(wanted)]
    assert table["log_prob"].to_pylist() == wanted


def test_lines_that_are_not_rows_one_by_one_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = pyarrow.csv.read_csv
    monkeypatch.setattr(pyarrow.csv, "read_csv", lambda *given: read(*given).slice(1))
    (tmp_path / "in.csv").write_text("x1,x2\n1,2\n1,7\n3,4\n")
    done = run("log-prob", MOONS, tmp_path / "in.csv", "-o", tmp_path / "out.csv")
    assert done.exit_code == 2
    assert "in.csv: not readable: expected a row a line, got 2 rows of 3 lines" in done.output
