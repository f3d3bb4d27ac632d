"""What every source of data becomes: finite numbers with a batch axis, and what is known."""

import hashlib
import importlib
import math
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.extras import install_command

MIN_ROWS = 10


class DatasetError(ValueError):
    """The data cannot be used as they are; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows x (N, *event_shape) with what training, evaluation and the model card need to know.

    Args:
        name: what users call it.
        x: finite numbers; pixels as 0 .. num_levels - 1, images as (N, C, H, W).
        labels: class of each row, 0 .. K - 1, where the data have classes.
        label_names: the K names of the classes.
        anomaly: True for rows a model of the normal data should find unlikely. They are never
            trained on.
        columns: names of the D columns of a table.
        num_levels: how many values a pixel takes, None where the data are not pixels.
        source: where the data come from, for the model card.
        licence: under which terms, for the model card.
        spec: the text `load` was given.
        recipe: of generated data, what they are drawn with. It names them in place of their values,
            whose last bits are those of the CPU that computed them.
        ignored: columns of the table that are not features.
        discrete: indices of the columns that are whole numbers and to be dequantised, ascending.

    Raises:
        DatasetError: if values are missing, not finite, not numbers, or rows disagree in number.
    """

    name: str
    x: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    label_names: tuple[str, ...] = ()
    anomaly: NDArray[np.bool_] | None = None
    columns: tuple[str, ...] = ()
    num_levels: int | None = None
    source: str = ""
    licence: str = ""
    spec: str = field(default="")
    recipe: str = ""
    ignored: tuple[str, ...] = ()
    discrete: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.x.ndim < 2:
            raise DatasetError(
                f"{self.name}: expected an array of rows (N, features), got shape {self.x.shape}; "
                "reshape a single column to (N, 1)"
            )
        if self.x.dtype.kind not in "uif":
            raise DatasetError(
                f"{self.name}: expected numbers, got dtype {self.x.dtype}; "
                "convert them to float or uint8"
            )
        for name, values in (("labels", self.labels), ("anomaly", self.anomaly)):
            if values is not None and values.shape != (len(self.x),):
                raise DatasetError(
                    f"{self.name}: expected {len(self.x)} {name}, one a row, got {values.shape}"
                )
        self._check_values()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.x.shape[1:])

    @property
    def num_classes(self) -> int:
        """K, 0 where rows carry no labels."""
        return len(self.label_names)

    def column(self, index: int) -> str:
        """What to call a feature in messages: by its index, and its name where it has one."""
        return f"column {index} {self.columns[index]!r}" if self.columns else f"value {index}"

    def digest(self) -> str:
        """SHA-256 that tells whether two runs saw the same rows, on any CPU.

        Of the recipe where the data are generated, else of shape, dtype and values.
        """
        if self.recipe:
            return hashlib.sha256(self.recipe.encode()).hexdigest()
        return self.values_digest()

    def values_digest(self) -> str:
        """SHA-256 over shape, dtype and values."""
        digest = hashlib.sha256(f"{self.x.shape} {self.x.dtype.str}".encode())
        digest.update(np.ascontiguousarray(self.x).data)
        return digest.hexdigest()

    def take(self, rows: NDArray[Any]) -> "Dataset":
        """The rows given by an index array or a boolean mask, in that order."""
        return replace(
            self,
            x=self.x[rows],
            labels=None if self.labels is None else self.labels[rows],
            anomaly=None if self.anomaly is None else self.anomaly[rows],
            recipe="",
        )

    def with_normal(self, normal: str) -> "Dataset":
        """Call every row whose label is not `normal` an anomaly."""
        if self.labels is None:
            raise DatasetError(f"{self.name}: 'normal={normal}' needs labels, and it has none")
        if normal not in self.label_names:
            known = ", ".join(self.label_names)
            raise DatasetError(f"{self.name}: no label {normal!r}; its labels are {known}")
        return replace(self, anomaly=self.labels != self.label_names.index(normal))

    def _check_values(self) -> None:
        finite = np.isfinite(self.x.reshape(len(self.x), math.prod(self.event_shape)))
        if not finite.all():
            bad = ~finite.all(axis=1)
            row = int(np.argmax(bad))
            column = int(np.argmax(~finite[row]))
            where = self.column(column)
            raise DatasetError(
                f"{self.name}: {int(bad.sum())} of {len(bad)} rows hold NaN or infinity "
                f"(first: row {row}, {where}); remove these rows or fill them in"
            )
        self._check_size()
        if self.num_levels is not None and len(self.x):
            low, high = self.x.min(), self.x.max()
            if low < 0 or high >= self.num_levels:
                raise DatasetError(
                    f"{self.name}: expected pixels in 0 .. {self.num_levels - 1}, "
                    f"got {low:g} .. {high:g}; scale them back to whole pixel values"
                )

    def _check_size(self) -> None:
        if self.x.dtype.kind != "f" or self.x.itemsize <= 4:
            return
        flat = self.x.reshape(len(self.x), math.prod(self.event_shape))
        large = np.abs(flat) > np.finfo(np.float32).max
        if large.any():
            row, column = (int(index) for index in np.argwhere(large)[0])
            raise DatasetError(
                f"{self.name}: row {row}, {self.column(column)} holds {flat[row, column]:g}, more "
                "than float32 can hold: beside it the other values of the column fall together; "
                "correct or remove the row, or store the column in a larger unit or as logarithms"
            )


class Split(NamedTuple):
    """Three disjoint parts of a data set. Anomalies, where they are marked, are all in `test`."""

    train: Dataset
    validation: Dataset
    test: Dataset


def split(dataset: Dataset, *, validation: float, test: float, seed: int) -> Split:
    """Shuffle the rows with `seed` and cut off the validation and test fractions.

    Fractions are of the normal rows; every anomalous row joins `test`.

    Raises:
        DatasetError: if fewer than 10 normal rows are there, or a part would be empty.
    """
    is_anomaly = np.zeros(len(dataset), bool) if dataset.anomaly is None else dataset.anomaly
    normal = np.flatnonzero(~is_anomaly)
    if len(normal) < MIN_ROWS:
        raise DatasetError(
            f"{dataset.name}: expected at least {MIN_ROWS} rows to train on, got {len(normal)}"
        )
    shuffled = np.random.default_rng(seed).permutation(normal)
    num_validation, num_test = (max(1, round(part * len(normal))) for part in (validation, test))
    num_train = len(normal) - num_validation - num_test
    if num_train < 2:
        raise DatasetError(
            f"{dataset.name}: validation fraction {validation} and test fraction {test} leave "
            f"{num_train} of {len(normal)} rows to train on; lower them"
        )
    held_out = shuffled[num_train + num_validation :]
    return Split(
        dataset.take(shuffled[:num_train]),
        dataset.take(shuffled[num_train : num_train + num_validation]),
        dataset.take(np.concatenate([held_out, np.flatnonzero(is_anomaly)])),
    )


def encode_labels(
    values: NDArray[Any] | None,
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Turn any labels into 0 .. K - 1 and their K sorted names; None stays None."""
    if values is None:
        return None, ()
    if values.dtype.kind in "OU":
        values = np.array([str(value).strip() for value in values])
    names, labels = np.unique(values, return_inverse=True)
    return labels.reshape(-1).astype(np.int64), tuple(str(name) for name in names)


def optional_package(
    module: str, *, needed_for: str, install: str = "", extra: str = "train"
) -> ModuleType:
    """Import a package that an extra brings, that of training where no other is named.

    Raises:
        DatasetError: if it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        command = install or install_command(extra)
        package = module.partition(".")[0]
        raise DatasetError(f"{needed_for} needs the package {package}: {command}") from error
