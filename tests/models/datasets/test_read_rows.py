"""Rows to ask a model about: every file that training reads, by the same reader."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from models.datasets import DatasetError, load
from models.datasets.tables import read_rows

NAMES = ("flow", "load")
VALUES = [[1.0, 10.0], [2.0, 20.0]]
TABLE = pa.table({"load": [10, 20], "kind": ["a", "b"], "flow": [1.0, 2.0]})


def names() -> Sequence[str]:
    return NAMES


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(TABLE, path)
    elif path.suffix == ".feather":
        feather.write_feather(TABLE, str(path))
    elif path.suffix == ".arrow":
        make = pa.ipc.new_stream if "stream" in path.name else pa.ipc.new_file
        with make(str(path), TABLE.schema) as writer:
            writer.write_table(TABLE)
    else:
        path.write_text("load;kind;flow\n10;a;1,0\n20;b;2,0\n")
    return path


@pytest.mark.parametrize(
    "name", ["t.csv", "t.tsv", "t.parquet", "t.feather", "t.arrow", "stream.arrow"]
)
def test_tables_are_read_as_training_reads_them(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    rows = read_rows(str(path), names)
    np.testing.assert_array_equal(rows.values, VALUES)
    assert (rows.columns, rows.ignored) == (NAMES, ("kind",))
    trained = load(str(path), features=NAMES)
    np.testing.assert_array_equal(trained.x, rows.values)
    assert (trained.columns, trained.ignored) == (rows.columns, rows.ignored)


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.arrow"])
def test_what_is_no_such_file_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nonsense, and more of it")
    with pytest.raises(DatasetError, match=f"{name}: not a readable"):
        read_rows(str(tmp_path / name), names)


def test_a_missing_value_is_nan_here_and_refused_by_training(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("flow,load\n1,\n2,20\n")
    np.testing.assert_array_equal(read_rows(str(path), names).values, [[1, np.nan], [2, 20]])
    with pytest.raises(DatasetError, match="hold NaN"):
        load(str(path))


def test_options_of_training_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    rows = read_rows(f"{path}?label=kind&normal=a&discrete=auto", names)
    assert (rows.columns, rows.ignored) == (NAMES, ())
    with pytest.raises(DatasetError, match="unknown option 'lable'"):
        read_rows(f"{path}?lable=kind", names)


def test_a_model_without_names_is_told_which_columns_it_takes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match=r"t\.parquet\?columns=load,kind,flow"):
        read_rows(str(path), lambda: ())
    rows = read_rows(f"{path}?columns=flow,load", lambda: ())
    np.testing.assert_array_equal(rows.values, VALUES)
    assert rows.columns == ()


def test_a_file_whose_name_has_a_question_mark_is_found(tmp_path: Path) -> None:
    path = tmp_path / "what?.npy"
    np.save(path, VALUES)
    np.testing.assert_array_equal(read_rows(str(path)).values, VALUES)


def test_an_archive_holds_the_array_that_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.zeros(3), z=VALUES)
    np.testing.assert_array_equal(read_rows(str(tmp_path / "t.npz"), array="z").values, VALUES)
    with pytest.raises(DatasetError, match="expected an array named 'context', got x, z"):
        read_rows(str(tmp_path / "t.npz"), array="context")


def test_a_first_line_of_numbers_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("1,10\n2,20\n")
    rows = read_rows(str(path), lambda: pytest.fail("no names are needed"))
    np.testing.assert_array_equal(rows.values, VALUES)
    assert rows.columns == ()
    assert read_rows(f"{path}?header=yes", lambda: ("10", "1")).values.tolist() == [[20.0, 2.0]]
