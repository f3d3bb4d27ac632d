"""The column that orders rows in time."""

from pathlib import Path

import numpy as np
import pytest

from models.datasets import DatasetError, load
from models.datasets.order import read_order, without_column


def write(path: Path, times: list[str]) -> str:
    path.write_text("\n".join(["a,time,b", *(f"{i},{t},{i}.5" for i, t in enumerate(times))]))
    return str(path)


@pytest.mark.parametrize(
    "times",
    [
        ["3", "1", "2.5"],
        ["2026-02-03", "2026-02-01", "2026-02-02"],
        ["2026-02-03T10:00:00Z", "2026-02-03T10:00:00+01:00", "2026-02-03T10:30:00+01:00"],
        ["2026-02-03 10:00:00", "2026-01-03 09:00:00", "2026-02-03 09:30:00"],
    ],
    ids=["numbers", "dates", "zones", "times"],
)
@pytest.mark.parametrize("has_pyarrow", [True, False])
def test_numbers_and_times_order_rows(
    tmp_path: Path, times: list[str], has_pyarrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_pyarrow:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    order = read_order(write(tmp_path / "t.csv", times), "time")
    assert np.argsort(order).tolist() == [1, 2, 0]


def test_what_is_no_time_is_refused(tmp_path: Path) -> None:
    text = write(tmp_path / "t.csv", ["late", "early", "now"])
    with pytest.raises(DatasetError, match="expected numbers or times as ISO 8601"):
        read_order(text, "time")
    with pytest.raises(DatasetError, match="has no such column; its columns are a, time, b"):
        read_order(text, "when")
    with pytest.raises(DatasetError, match=r"1 rows of .* have no value there"):
        read_order(write(tmp_path / "gap.csv", ["1", "", "2"]), "time")
    with pytest.raises(DatasetError, match="expected a table whose columns have names"):
        read_order("two_moons", "time")


def test_the_column_is_left_out_of_the_features(tmp_path: Path) -> None:
    text = write(tmp_path / "t.csv", [f"2026-01-{day:02}" for day in range(1, 21)])
    assert load(without_column(text, "time")).columns == ("a", "b")
    assert load(without_column(f"{text}?drop=a", "time")).columns == ("b",)
    assert without_column(f"{text}?drop=time", "time") == f"{text}?drop=time"
