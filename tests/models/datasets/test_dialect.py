"""Tables as programs write them: the same numbers whatever the dialect."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.datasets import Dataset, DatasetError, load

ROWS = [[1.5, -2.25, 30.0], [4.5, 5.125, 60.0], [7.5, 8.5, 90.0]]


def write(path: Path, separator: str = ",", decimal: str = ".", names: str = "t,flow,load") -> Path:
    lines = [names.replace(",", separator)] if names else []
    lines += [separator.join(str(cell).replace(".", decimal) for cell in row) for row in ROWS]
    path.write_bytes("\n".join([*lines, ""]).encode("latin-1"))
    return path


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("semicolon.csv", {"separator": ";"}),
        ("decimal_comma.csv", {"separator": ";", "decimal": ","}),
        ("tabs.csv", {"separator": "\t"}),
        ("tabs.tsv", {"separator": "\t"}),
        ("bars.csv", {"separator": "|"}),
        ("upper.CSV", {}),
        ("spaces.csv", {"names": "t, flow , load"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_dialects_hold_the_same_numbers(tmp_path: Path, name: str, written: dict[str, str]) -> None:
    data = load(str(write(tmp_path / name, **written)))
    np.testing.assert_array_equal(data.x, ROWS)
    assert data.columns == ("t", "flow", "load")


def test_latin_1_names_are_read(tmp_path: Path) -> None:
    data = load(str(write(tmp_path / "t.csv", names="Température,débit (m³),load")))
    assert data.columns == ("Température", "débit (m³)", "load")
    np.testing.assert_array_equal(data.x, ROWS)


@pytest.mark.parametrize("name", ["t.csv.gz", "t.CSV.GZ", "t.TSV.Gz"])
def test_compressed_text_is_read_however_its_name_is_written(tmp_path: Path, name: str) -> None:
    text = write(tmp_path / "t.csv", separator="\t").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(text))
    np.testing.assert_array_equal(load(str(tmp_path / name)).x, ROWS)


def test_utf_16_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n", encoding="utf-16")
    with pytest.raises(DatasetError, match="expected UTF-8 text, got UTF-16; save it as UTF-8"):
        load(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("value", ["1,234.5", "1 234", "-12'345'678.25", "1.234.567"])
def test_thousands_separators_are_refused_by_their_name(tmp_path: Path, value: str) -> None:
    (tmp_path / "t.csv").write_text(f'a,price\n1,"{value}"\n2,5.5\n')
    with pytest.raises(DatasetError, match="column 'price' holds numbers with thousands") as error:
        load(str(tmp_path / "t.csv"))
    assert str(error.value).endswith(f"as {value!r}; write them without")


def test_words_are_not_taken_for_numbers_with_separators(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,city\n1,"1,234"\n2,Rome\n')
    with pytest.raises(DatasetError, match=r"leave it out with \?drop=city"):
        load(str(tmp_path / "t.csv"))


def test_an_index_of_pandas_is_no_feature_whatever_its_name(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    pandas_metadata = {"pandas": json.dumps({"index_columns": ["id"], "columns": []})}
    table = pa.table({"a": [1.0, 2.0], "b": [3.0, 5.0], "id": [70, 10]}, metadata=pandas_metadata)
    pq.write_table(table, path)
    data = load(path)
    assert (data.columns, data.ignored) == (("a", "b"), ("id",))
    assert load(f"{path}?columns=a,id").columns == ("a", "id")
    assert load(path, features=("id", "b")).columns == ("id", "b")


@pytest.mark.parametrize("mark", ["?", "NA", ""])
def test_missing_values_are_refused_by_row_and_column(tmp_path: Path, mark: str) -> None:
    (tmp_path / "t.csv").write_text(f"a,b\n1,2\n3,{mark}\n")
    with pytest.raises(DatasetError, match=r"1 of 2 rows .*first: row 1, column 1 'b'"):
        load(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("content", "options", "x", "labels"),
    [
        ("1.5,2,hot\n3,4,cold\n5,6,hot\n", "label=3", [[1.5, 2], [3, 4], [5, 6]], ("cold", "hot")),
        ("1.5,1.5\n3,4\n", "", [[1.5, 1.5], [3, 4]], ()),
    ],
    ids=["class", "twins"],
)
def test_no_row_is_lost_without_a_line_of_names(
    tmp_path: Path, content: str, options: str, x: list[list[float]], labels: tuple[str, ...]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"first line holds numbers .* say \?header=no"):
        load(str(path))
    data = load(f"{path}?header=no&{options}".rstrip("&"))
    np.testing.assert_array_equal(data.x, x)
    assert data.label_names == labels
    assert data.columns == ()


def test_names_may_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("2019,2020\n1,2\n")
    assert load(f"{path}?header=yes").columns == ("2019", "2020")
    path.write_text("id,2019,2020\nx,1,2\ny,3,4\n")
    assert load(f"{path}?drop=id").columns == ("2019", "2020")


def test_an_index_that_pandas_wrote_is_no_feature(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS, columns=["t", "flow", "load"], index=[7, 3, 5])
    frame.to_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet")
    pd.read_csv(tmp_path / "t.csv").to_csv(tmp_path / "u.csv", index=False)  # Unnamed: 0
    for name in ("t.csv", "t.parquet", "u.csv"):
        data = load(str(tmp_path / name))
        assert data.columns == ("t", "flow", "load"), name
        np.testing.assert_array_equal(data.x, ROWS)
    assert load(f"{tmp_path}/u.csv?columns=Unnamed: 0,t").columns == ("Unnamed: 0", "t")


def test_a_separator_at_the_end_of_lines_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,\n1,2,\n3,4,\n")
    assert load(str(tmp_path / "t.csv")).columns == ("a", "b")


def test_a_file_of_names_alone_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n")
    with pytest.raises(DatasetError, match="no rows, only a line of names"):
        load(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("kind", ["<f2", ">f4", ">f8", ">i4", ">i8"])
def test_arrays_of_every_width_and_byte_order(tmp_path: Path, kind: str) -> None:
    values = np.array([[1, -2], [3, 4]]) * (1 if "i" in kind else 0.5)
    np.save(tmp_path / "t.npy", values.astype(kind))
    data = load(str(tmp_path / "t.npy"))
    np.testing.assert_array_equal(data.x, values)
    assert data.x.dtype.isnative
    assert data.x.dtype != np.float16


def test_what_float32_cannot_hold_is_refused_by_row_and_column() -> None:
    x = np.array([[1.0, 2.0], [3.0, -1e39]])
    with pytest.raises(DatasetError, match=r"row 1, column 1 'b' holds -1e\+39"):
        Dataset("t", x, columns=("a", "b"))
    assert len(Dataset("t", np.array([[1e38, 2.0]]))) == 1
