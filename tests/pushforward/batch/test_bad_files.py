"""A table of files that are not what they should be, and what each of them gets."""

import datetime
import decimal
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pushforward.batch import Scorer
from pushforward.cli import app as cli

MOONS = Path(__file__).resolve().parents[3] / "models" / "zoo" / "moons"
X = np.array([[0.5, -0.25], [1.0, 0.125], [-1.5, 0.75], [2.0, 1.0]])
GOOD = {"x1": X[:, 0], "x2": X[:, 1]}
TEXT = "x1,x2\n0.5,-0.25\n1.0,0.125\n-1.5,0.75\n2.0,1.0\n"


class Case(NamedTuple):
    """A file, and what becomes of it.

    write: writes it. name: of the file. code: the exit code. told: in the error, or the statuses of
    its rows.
    """

    label: str
    write: Callable[[Path], Any]
    name: str = "in.parquet"
    code: int = 0
    told: str | list[str] = ""


def parquet(columns: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table(columns), path, **options)


def duplicate_names(path: Path) -> None:
    names = ["x1", "x1", "x2"]
    pq.write_table(pa.Table.from_arrays([pa.array(X[:, 0])] * 2 + [pa.array(X[:, 1])], names), path)


def truncated(path: Path) -> None:
    parquet(GOOD)(path)
    path.write_bytes(path.read_bytes()[:-30])


def damaged(path: Path) -> None:
    """A file whose footer is whole and whose pages are not."""
    rows = np.random.default_rng(0).normal(size=5000)
    parquet({"x1": rows, "x2": rows}, use_dictionary=False, compression="snappy")(path)
    content = bytearray(path.read_bytes())
    content[4:20_000] = bytes(range(250)) * 79 + bytes(246)
    path.write_bytes(content)


def text(content: str | bytes) -> Callable[[Path], int]:
    content = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(content)


DECIMALS = pa.array([decimal.Decimal(str(value)) for value in X[:, 0]], pa.decimal128(5, 3))
TIMES = pa.array([datetime.datetime(2026, 1, 1)] * 4)
NULLS = pa.array([0.5, None, -1.5, None])
MISSING = ["", "invalid_input: missing", "", "invalid_input: missing"]
ROW_2 = ["", "", "invalid_input: text", ""]

CASES = (
    Case("truncated Parquet", truncated, code=2, told="not readable"),
    Case("damaged pages", damaged, code=2, told="not readable"),
    Case("no Parquet", text(TEXT), code=2, told="not readable"),
    Case("empty file", text(""), code=2, told="not readable"),
    Case("another order of columns", parquet({"x2": X[:, 1], "x1": X[:, 0]})),
    Case("a renamed column", parquet({"X1": X[:, 0], "x2": X[:, 1]}), code=2, told="'x1'"),
    Case("a column is missing", parquet({"x2": X[:, 1]}), code=2, told="the model needs the"),
    Case("further columns", parquet({**GOOD, "name": ["a", "b", "c", "d"]})),
    Case("zero columns", parquet({}), code=2, told="needs the columns 'x1', 'x2'"),
    Case("zero rows", parquet({name: v[:0] for name, v in GOOD.items()}), told=[]),
    Case("strings", parquet({**GOOD, "x1": ["1", "2", "3", "4"]}), code=2, told="holds string"),
    Case("booleans", parquet({**GOOD, "x1": [True] * 4}), code=2, told="holds bool"),
    Case("timestamps", parquet({**GOOD, "x1": TIMES}), code=2, told="holds timestamp"),
    Case("decimals", parquet({**GOOD, "x1": DECIMALS})),
    Case("nulls", parquet({**GOOD, "x1": NULLS}), code=3, told=MISSING),
    Case(
        "a column of nulls alone",
        parquet({**GOOD, "x1": pa.nulls(4)}),
        code=3,
        told=["invalid_input: missing"] * 4,
    ),
    Case(
        "NaN and infinities",
        parquet({**GOOD, "x1": [0.5, np.nan, np.inf, 1e300]}),
        code=3,
        told=["", *(f"invalid_input: {reason}" for reason in ("nan", "infinite", "too_large"))],
    ),
    Case("nested", parquet({**GOOD, "x1": [{"a": 1.0}] * 4}), code=2, told="holds struct"),
    Case("lists", parquet({**GOOD, "x1": [[1.0]] * 4}), code=2, told="holds list"),
    Case("dictionaries", parquet({**GOOD, "x1": pa.array(X[:, 0]).dictionary_encode()})),
    Case("two columns of one name", duplicate_names, code=2, told="two columns are called 'x1'"),
    Case("float16 and integers", parquet({"x1": np.float16(X[:, 0]), "x2": X[:, 1]})),
    Case("many small row groups", parquet(GOOD, row_group_size=1)),
    Case("CSV with a byte order mark", text(b"\xef\xbb\xbf" + TEXT.encode()), "in.csv"),
    Case("CSV with semicolons", text(TEXT.replace(",", ";")), "in.csv"),
    Case("CSV with decimal commas", text(TEXT.replace(",", ";").replace(".", ",")), "in.csv"),
    Case("CSV with quoted numbers", text(TEXT.replace("0.125", '"0.125"')), "in.csv"),
    Case(
        "CSV with thousands separators",
        text(TEXT.replace("-1.5", '"1,234"')),
        "in.csv",
        code=3,
        told=ROW_2,
    ),
    Case("CSV with mixed line ends", text(TEXT.replace("5\n1", "5\r\n1")), "in.csv"),
    Case("CSV of an old Mac", text(TEXT.replace("\n", "\r")), "in.csv"),
    Case("CSV with empty lines", text(TEXT.replace("\n", "\n\n") + "\n \n"), "in.csv"),
    Case("CSV without a last line end", text(TEXT.rstrip()), "in.csv"),
    Case("CSV with signs and blanks", text(TEXT.replace("0.5,", " +0.5 ,")), "in.csv"),
    Case("CSV without header", text(TEXT[6:]), "in.csv", code=2, told="?header=no"),
    Case("CSV said to have none", text(TEXT[6:]), "in.csv?header=no", code=2, told="'x1', 'x2'"),
    Case("CSV of a header alone", text("x1,x2\n"), "in.csv", told=[]),
    Case("CSV in UTF-16", text(TEXT.encode("utf-16")), "in.csv", code=2, told="UTF-16"),
    Case("a word in place of a number", text(TEXT.replace("-1.5", "n.a.!")), "in.csv", 3, ROW_2),
    Case("gzip that is none", text(TEXT), "in.csv.gz", code=2, told="not a readable"),
    Case(
        "gzip cut off", text(gzip.compress(TEXT.encode())[:-12]), "in.csv.gz", 2, "not a readable"
    ),
    Case("an array of text", lambda p: np.save(p, np.array(["a"])), "in.npy", 2, "of numbers"),
    Case("an array of other rows", lambda p: np.save(p, X[:, :1]), "in.npy", 2, "of shape"),
    Case("a pickle", lambda p: np.save(p, np.array([{}]), True), "in.npy", 2, "Python objects"),
    Case("another kind", text(TEXT), "in.xlsx", code=2, told="expected .parquet"),
)


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    return Scorer(MOONS, "log_prob")({"x": X})["log_prob"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_a_file_gets_what_the_table_says(tmp_path: Path, wanted: np.ndarray, case: Case) -> None:
    case.write(tmp_path / case.name.partition("?")[0])
    out = tmp_path / "out.parquet"
    words = ["log-prob", str(MOONS), str(tmp_path / case.name), "-o", str(out), "--json"]
    done = CliRunner().invoke(cli.build(words), words)
    assert done.exit_code == case.code, done.output
    if case.code == 2:
        assert isinstance(case.told, str)
        assert case.told in " ".join(done.output.split())
        assert len(done.output.splitlines()) == 1
        assert not out.exists()
        return
    table = pq.read_table(out)
    statuses = case.told if isinstance(case.told, list) else [""] * 4
    assert table["status"].to_pylist() == statuses
    assert json.loads(done.stdout)["bad_rows"] == sum(map(bool, statuses))
    known = [None if status else value for status, value in zip(statuses, wanted, strict=False)]
    assert table["log_prob"].to_pylist() == known


def test_no_file(tmp_path: Path) -> None:
    for name in ("no.parquet", "no-*.parquet"):
        words = ["log-prob", str(MOONS), str(tmp_path / name), "-o", str(tmp_path / "out.csv")]
        done = CliRunner().invoke(cli.build(words), words)
        assert done.exit_code == 2
        assert name in done.output
