"""Discrete columns: which are found, what is said of them, and which are marked by `?discrete=`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.datasets import Dataset, DatasetError, load
from models.datasets.discrete import find_discrete, mark_discrete, warnings_of
from models.datasets.schema import match

ROWS = 400
RNG = np.random.default_rng(0)
TABLE = Dataset(
    name="patients",
    x=np.stack(
        [
            RNG.normal(size=ROWS),
            RNG.integers(0, 2, ROWS).astype(float),
            RNG.integers(0, 3, ROWS) / 2,
            np.where(RNG.random(ROWS) < 0.3, 0.0, RNG.gamma(2.0, size=ROWS)),
            RNG.permutation(ROWS).astype(float),
        ],
        axis=1,
    ),
    columns=("weight", "smoker", "grade", "claims", "number"),
)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "patients.csv"
    lines = [",".join(map(str, row)) for row in TABLE.x]
    path.write_text("\n".join([",".join(TABLE.columns), *lines]))
    return path


def test_columns_are_told_apart_by_what_they_hold() -> None:
    found = {column.name: column.kind for column in find_discrete(TABLE)}
    assert found == {"smoker": "whole", "grade": "few", "claims": "atom"}


def test_many_values_or_few_rows_a_value_are_no_warning() -> None:
    x = RNG.integers(0, 40, (ROWS, 1)).astype(float)
    assert find_discrete(Dataset(name="ages", x=x)) == []
    assert find_discrete(Dataset(name="few", x=np.arange(30.0)[:, None] // 3)) == []


def test_pixels_are_none_and_anomalies_do_not_count() -> None:
    pixels = Dataset(name="p", x=RNG.integers(0, 2, (ROWS, 4)).astype(np.uint8), num_levels=2)
    assert find_discrete(pixels) == []
    x = np.concatenate([RNG.normal(size=(90, 1)), np.zeros((90, 1))])
    assert [column.kind for column in find_discrete(Dataset(name="a", x=x))] == ["atom"]
    assert find_discrete(Dataset(name="a", x=x, anomaly=x[:, 0] == 0)) == []


def test_each_kind_is_a_line_that_names_the_column_and_the_mend() -> None:
    whole, few, atom = warnings_of(TABLE)
    assert "column 'smoker' (2 values)" in whole
    assert "?discrete=smoker behind --data" in whole
    assert "?label=smoker with --set num_classes=2" in whole
    assert "column 'grade' (3 values)" in few
    assert "rescale them to whole numbers" in few
    assert "column 'claims' (0 in " in atom
    assert "?drop=claims" in atom
    assert warnings_of(replace(TABLE, discrete=(1,))) == [few, atom]


def test_the_mend_can_be_typed_whatever_the_column_is_called(csv: Path) -> None:
    names = ("weight", "R&D + 5%", "grade", "claims", "number")
    csv.write_text(csv.read_text().replace("smoker", "R&D + 5%"))
    assert "say ?discrete=R%26D %2B 5%25 behind" in warnings_of(replace(TABLE, columns=names))[0]
    assert load(f"{csv}?discrete=R%26D %2B 5%25").discrete == (1,)
    names = ("weight", "yes,no", "grade", "claims", "number")
    assert "say ?discrete=auto behind" in warnings_of(replace(TABLE, columns=names))[0]


@pytest.mark.parametrize(
    ("option", "marked"),
    [("smoker", (1,)), ("number,smoker", (1, 4)), ("auto", (1,)), ("smoker&drop=weight", (0,))],
    ids=["one", "two", "auto", "drop"],
)
def test_the_option_marks_columns(csv: Path, option: str, marked: tuple[int, ...]) -> None:
    assert load(f"{csv}?discrete={option}").discrete == marked


def test_marks_follow_the_columns_of_a_model(csv: Path) -> None:
    data = load(f"{csv}?discrete=smoker", features=("smoker", "weight"))
    assert (data.columns, data.discrete) == (("smoker", "weight"), (0,))
    data = match(load(f"{csv}?discrete=smoker,number"), ("number", "weight"))
    assert (data.columns, data.discrete) == (("number", "weight"), (0,))


def test_arrays_have_columns_by_index(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", TABLE.x)
    assert load(f"{tmp_path / 'x.npy'}?discrete=1,4").discrete == (1, 4)
    with pytest.raises(DatasetError, match=r"no column '9'; its columns are 0 \.\. 4"):
        load(f"{tmp_path / 'x.npy'}?discrete=9")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["age"], "no column 'age'; its columns are weight, smoker"),
        (["grade"], r"whole numbers .* column 'grade', row \d+ holds 0.5; round or rescale"),
    ],
    ids=["unknown", "halves"],
)
def test_what_cannot_be_marked_is_named(names: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        mark_discrete(TABLE, names)


def test_pixels_are_not_marked() -> None:
    pixels = Dataset(name="p", x=np.zeros((20, 4), np.uint8), num_levels=2)
    with pytest.raises(DatasetError, match="expected a table of columns"):
        mark_discrete(pixels, ["auto"])
