"""Columns by name, classes by name, and the rows that a model was trained on."""

from pathlib import Path

import numpy as np
import pytest

from models.datasets import Dataset, DatasetError, load, schema, split
from models.datasets.rows import ROWS_FILE, is_among, read_rows, row_digests, write_rows

RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 3)) * [1, 10, 100]


def table(columns: tuple[str, ...] = ("a [kg]", "b", "c"), order: tuple[int, ...] = (0, 1, 2)):
    x = X[:, list(order)]
    return Dataset(name="t", x=x, columns=tuple(columns[index] for index in order))


def test_a_schema_has_names_kinds_units_and_ranges() -> None:
    data = Dataset(name="t", x=np.array([[1.0, 2.5]] * 9 + [[4.0, -1.0]]), columns=("n", "m (s)"))
    columns = schema.describe(data)
    assert columns == (
        schema.Column("n", "integer", None, 1.0, 4.0),
        schema.Column("m (s)", "real", "s", -1.0, 2.5),
    )
    assert schema.columns_of({schema.COLUMNS_KEY: schema.to_json(columns)}) == columns
    assert schema.feature_names({schema.COLUMNS_KEY: schema.to_json(columns)}) == ("n", "m (s)")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_columns_come_in_the_models_order_whatever_theirs(order: tuple[int, ...]) -> None:
    names = table().columns
    assert np.array_equal(schema.match(table(order=order), names).x, X)


def test_a_missing_column_is_named_and_another_left_out() -> None:
    with pytest.raises(DatasetError, match=r"needs the column 'd', .* does not know: 'b'"):
        schema.match(table(), ("a [kg]", "c", "d"))
    matched = schema.match(table(), ("c", "a [kg]"))
    assert matched.columns == ("c", "a [kg]")
    assert matched.ignored == ("b",)
    assert np.array_equal(matched.x, X[:, [2, 0]])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_are_read_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    if suffix == ".csv":
        lines = [f"{c},x y,{a},{b}" for a, b, c in X.tolist()]
        path.write_text("\n".join(["c,note,a,b", *lines]))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = {"c": X[:, 2], "note": ["x y"] * len(X), "a": X[:, 0], "b": X[:, 1]}
        parquet.write_table(pyarrow.table(columns), path)
    data = load(str(path), features=("a", "b", "c"))
    assert np.array_equal(data.x, X)
    assert data.ignored == ("note",)
    with pytest.raises(DatasetError, match="needs the columns 'd', 'e'"):
        load(str(path), features=("a", "d", "e"))


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "b"), ("a", "", "c")])
def test_given_names_must_be_one_a_feature(names: tuple[str, ...]) -> None:
    with pytest.raises(DatasetError, match="feature names: expected 3"):
        schema.named(names, 3)


def test_classes_are_matched_by_name() -> None:
    labels = np.array([0, 1, 1] * 10)
    data = Dataset(name="t", x=X[:30], labels=labels, label_names=("bad", "good"))
    matched = schema.match_classes(data, ("awful", "bad", "good"))
    assert matched.labels is not None
    assert matched.labels.tolist() == (labels + 1).tolist()
    with pytest.raises(DatasetError, match="no class 'bad'; the model's classes are good"):
        schema.match_classes(data, ("good",))


def test_string_labels_lose_their_blanks(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "1, bad \n2,good\n3,bad\n" * 4)
    assert load(f"{path}?label=y").label_names == ("bad", "good")


# Rows


def test_a_row_is_named_by_its_values_alone() -> None:
    digests = row_digests(X)
    assert len(set(digests.tolist())) == len(X)
    assert np.array_equal(row_digests(X[::-1]), digests[::-1])
    floats = X.astype(np.float32)
    assert np.array_equal(row_digests(floats), row_digests(floats.astype(">f8")))
    changed = X.copy()
    changed[5, 1] = np.nextafter(changed[5, 1], np.inf)
    assert np.flatnonzero(row_digests(changed) != digests).tolist() == [5]
    assert row_digests(np.array([[0.0]])) == row_digests(np.array([[-0.0]]))


def test_rows_are_found_in_any_order_and_as_often_as_they_were_there(tmp_path: Path) -> None:
    x = np.concatenate([X, X[:5]])
    data = Dataset(name="t", x=x)
    parts = split(data, validation=0.2, test=0.2, seed=1)
    write_rows(tmp_path, parts)
    kept = read_rows(tmp_path)
    assert kept is not None
    found = {name: is_among(data, kept[name]) for name in kept}
    sizes = {name: len(getattr(parts, name)) for name in kept}
    assert {name: int(rows.sum()) for name, rows in found.items()} == sizes
    test = {tuple(row) for row in parts.test.x}
    assert {tuple(row) for row in x[found["test"]]} == test
    assert not is_among(Dataset(name="t", x=x + 1), kept["train"]).any()


def test_a_damaged_file_of_digests_is_named(tmp_path: Path) -> None:
    assert read_rows(tmp_path) is None
    (tmp_path / ROWS_FILE).write_bytes(b"x" * 100)
    with pytest.raises(DatasetError, match=ROWS_FILE):
        read_rows(tmp_path)
