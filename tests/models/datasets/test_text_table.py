"""Text is the same table with pyarrow and without it."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from models.datasets import DatasetError
from models.datasets.spec import Spec
from models.datasets.table_files import TableFile, open_table

TEXTS = {
    "plain": "a,b\n1,2.5\n-3e5,+4\n",
    "semicolons": "a;b\n1,5;2\n3;4,25\n",
    "tabs": "a\tb\n1\t2\n\n3\t4\n",
    "missing": "a,b\n1,NA\n,4\n?,-\n",
    "spaces": " a , b\n 1.5 ,2\n3, 4\n",
    "quoted": '"a, with a comma","b"\n"1","2"\n3,4\n',
    "infinite": "a,b\ninf,-Infinity\nnan,1e400\n",
    "index": ",b\n0,2\n1,4\n",
    "unnamed": "Unnamed: 0,b\n7,2\n3,4\n",
    "trailing": "a,b,\n1,2,\n3,4,\n",
    "rows": "1,2\n3,4\n",
    "windows": "a,b\r\n1,2\r\n3,4\r\n",
    "latin": "Température,b\n1,2\n3,4\n",
    "words": "a,kind\n1,good\n2,bad\n",
    "flags": "a,flag\n1,true\n2,false\n",
    "underscores": "a,b\n1_0,1\n2,2\n",
    "grouped": 'a,b\n"1,234.5",1\n"2",2\n',
    "empty": "a,b\n1,\n2,\n",
    "ragged": "a,b\n1,2\n3\n",
    "names": "a,b\n",
    "twice": "a,a\n1,2\n",
}


def shown(table: TableFile) -> list[object]:
    """What is read of a table, or what is refused of it."""
    found: list[object] = [list(table.names), table.has_names, list(table.index)]
    for name in table.names:
        try:
            found.append(table.numbers(name).tolist())
        except DatasetError as error:
            found.append(str(error).partition(" holds ")[0])
    return found


def read(path: Path) -> list[object] | str:
    try:
        return shown(open_table(path, Spec.parse(str(path)), numbers_are_rows=True))
    except DatasetError as error:
        return str(error)[:60].partition("file: ")[0]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_text_is_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, suffix: str
) -> None:
    path = tmp_path / f"t{suffix}"
    content = text.encode("latin-1")
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    expected = read(path)
    for module in ("pyarrow", "pyarrow.csv"):
        monkeypatch.setitem(sys.modules, module, None)
    found = read(path)
    np.testing.assert_equal(found, expected)


def test_binary_tables_say_which_extra_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"reading \.parquet needs the package pyarrow.*files\]"):
        open_table(path, Spec.parse(str(path)))


def test_classes_are_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "t.csv"
    path.write_text("a,kind\n1,good\n2,bad\n")
    assert open_table(path, Spec.parse(str(path))).classes("kind").tolist() == ["good", "bad"]
    path.write_text("a,kind\n1,good\n2,\n")
    with pytest.raises(DatasetError, match="1 rows have no 'kind'"):
        open_table(path, Spec.parse(str(path))).classes("kind")
