"""Rows of the benchmark: digits that no model of the zoo was trained on, and clothes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.scoring.measures import halves
from models.datasets import Dataset, Split, load, split
from models.training.options import TrainingOptions

MNIST, FASHION = "mnist", "fashion_mnist"
# As many as there are digits: the first ones of the file.
FASHION_ROWS = 5_000
_UNTOUCHED = TrainingOptions()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows that no model saw, by halves: one sets the thresholds, the other one is normal rows."""

    calibration: Dataset
    normal: Dataset


def read_data(name: str, fashion: str = FASHION) -> Dataset:
    """5,000 digits, or as many clothes.

    Args:
        name: `mnist` or `fashion_mnist`.
        fashion: what the latter is loaded by, with `?folder=` where it is not installed.
    """
    if name == MNIST:
        return load(MNIST)
    return load(fashion).take(np.arange(FASHION_ROWS))


def test_rows(data: Dataset) -> Dataset:
    """The 500 rows that the recipes of the zoo keep apart for their figures."""
    return _split(data).test


def training_rows(data: Dataset) -> Dataset:
    """The 4,000 rows that they train on."""
    return _split(data).train


def _split(data: Dataset) -> Split:
    options = _UNTOUCHED
    return split(
        data, validation=options.validation_fraction, test=options.test_fraction, seed=options.seed
    )


def held_out(data: Dataset) -> HeldOut:
    """The test rows by halves."""
    test = test_rows(data)
    first, second = halves(len(test))
    return HeldOut(test.take(first), test.take(second))


def data_of(folder: Path) -> str:
    """Which of the two a model was trained on, by its name."""
    return FASHION if folder.name.startswith("fashion") else MNIST
