"""Calibration rows: none that the model was trained on, as far as its folder knows."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.datasets import Dataset, DatasetError, load, split
from models.datasets.rows import write_rows
from models.scoring.rows import check_unseen, last_in_order

X = np.random.default_rng(2).normal(size=(200, 3))
SPLIT = {"validation_fraction": 0.1, "test_fraction": 0.1, "seed": 0}


def data_of(x: np.ndarray) -> Dataset:
    return Dataset(name="t.csv", x=x)


def folder_of(path: Path, data: Dataset) -> Path:
    write_rows(path, split(data, validation=0.1, test=0.1, seed=0))
    return path


def test_rows_of_training_and_validation_are_refused_with_their_number(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, data_of(X))
    with pytest.raises(DatasetError, match=r"validated on 180 of these 200 rows.*--rows auto"):
        check_unseen(data_of(X), folder, {})
    parts = split(data_of(X), validation=0.1, test=0.1, seed=0)
    mixed = np.concatenate([parts.test.x, parts.validation.x[:1], X + 1])
    with pytest.raises(DatasetError, match="validated on 1 of these 221 rows"):
        check_unseen(data_of(mixed), folder, {})


def test_test_rows_and_new_ones_are_let_pass(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, data_of(X))
    test = split(data_of(X), validation=0.1, test=0.1, seed=0).test
    checked = check_unseen(data_of(np.concatenate([test.x, X + 1])), folder, {})
    assert checked.is_known
    assert checked.what.startswith("none of 220 rows is among the 180 rows")


def test_rows_that_equal_others_by_chance_are_let_pass_and_those_of_training_not(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    few = data_of(rng.integers(0, 25, size=(2000, 2)).astype(float))
    folder = folder_of(tmp_path, few)
    new = rng.integers(0, 25, size=(500, 2)).astype(float)
    checked = check_unseen(data_of(new), folder, {})
    assert "rows equal one of the 1800" in checked.what
    # Half of the values are continuous: a new row equals another by chance no more.
    half = np.where(np.arange(2000)[:, None] % 2, few.x, few.x + rng.random((2000, 2)))
    folder = folder_of(tmp_path, data_of(half))
    with pytest.raises(DatasetError, match="trained or validated on"):
        check_unseen(data_of(half[:1000]), folder, {})


def test_without_a_record_it_says_that_it_could_not_be_checked(tmp_path: Path) -> None:
    checked = check_unseen(data_of(X), tmp_path, {})
    assert not checked.is_known
    assert "could not be checked" in checked.what


def test_without_digests_the_data_of_training_are_known_by_their_own(tmp_path: Path) -> None:
    provenance = {"data_sha256": data_of(X).digest()}
    with pytest.raises(DatasetError, match="validated on 200 of these 200 rows"):
        check_unseen(data_of(X), tmp_path, provenance, whole=data_of(X))


def test_generated_rows_are_drawn_again_to_compare(tmp_path: Path) -> None:
    text = "two_moons?rows=100"
    data = load(text)
    (tmp_path / "training.json").write_text(json.dumps({"data": {"spec": text}}))
    provenance = {"data_sha256": data.digest(), "split": SPLIT}
    with pytest.raises(DatasetError, match="on 90 of these 100 rows"):
        check_unseen(data_of(data.x), tmp_path, provenance)
    assert check_unseen(load("two_moons?rows=100&seed=1"), tmp_path, provenance).is_known


def test_the_last_rows_in_time_are_taken() -> None:
    order = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    assert last_in_order(order, 0.4).tolist() == [4, 3]
    assert last_in_order(order, 0.01).tolist() == [3]
    assert last_in_order(np.zeros(4), 0.5).tolist() == [2, 3]
