"""Discrete columns of a table: whole numbers of few different values, and atoms.

A density may grow without end at a value that many rows share, so the likelihood of such a column
says nothing, and samples lie between its values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import Dataset, DatasetError
from models.datasets.spec import option

AUTO = "auto"
# A column holds few values if they are at most so many and come so often each, on average.
MOST_VALUES = 30
LEAST_REPEATS = 4
# A single value is an atom if it takes this share of the rows.
ATOM_SHARE = 0.1
# Beyond, float64 has no place for a half.
_LARGEST = 2.0**51

Kind = Literal["whole", "few", "atom"]


@dataclass(frozen=True, slots=True)
class DiscreteColumn:
    """A column on which a density has no bound.

    Args:
        index: of the column.
        name: as messages call it: its name, or its index where columns have none.
        kind: `whole`, few different whole numbers; `few`, few different other numbers; `atom`, one
            value that takes a large share of the rows.
        values: how many different ones.
        share: of the rows that have the most frequent value.
        most_frequent: that value.
    """

    index: int
    name: str
    kind: Kind
    values: int
    share: float
    most_frequent: float

    def describe(self) -> str:
        """The column and what it holds."""
        if self.kind == "atom":
            return f"{self.name!r} ({self.most_frequent:g} in {self.share:.0%} of the rows)"
        return f"{self.name!r} ({self.values} values)"


def find_discrete(data: Dataset) -> list[DiscreteColumn]:
    """The discrete columns of a table, those that `data.discrete` marks too; none of pixels."""
    if len(data.event_shape) != 1 or data.num_levels is not None or not len(data):
        return []
    x = data.x if data.anomaly is None else data.x[~data.anomaly]
    found = (_look(data, index, x[:, index]) for index in range(x.shape[1]))
    return [column for column in found if column is not None]


def _look(data: Dataset, index: int, x: NDArray[Any]) -> DiscreteColumn | None:
    values, counts = np.unique(x, return_counts=True)
    if len(values) < 2:
        return None  # refused elsewhere
    is_few = len(values) <= MOST_VALUES and len(x) >= LEAST_REPEATS * len(values)
    share = float(counts.max() / len(x))
    kind: Kind
    if is_few:
        kind = "whole" if _are_whole(values) else "few"
    elif share >= ATOM_SHARE and counts.max() >= LEAST_REPEATS:
        kind = "atom"
    else:
        return None
    name = column_name(data, index)
    return DiscreteColumn(index, name, kind, len(values), share, float(values[counts.argmax()]))


def column_name(data: Dataset, index: int) -> str:
    """What `?discrete=` calls a column: its name, or its index where columns have none."""
    return data.columns[index] if data.columns else str(index)


def mark_discrete(data: Dataset, names: Sequence[str]) -> Dataset:
    """Mark columns as whole numbers to be dequantised.

    Args:
        data: a table.
        names: of its columns, or their indices where they have no names; or `auto` alone, for every
            column of few different whole numbers.

    Raises:
        DatasetError: if the data are no table, a column is not there or holds other numbers.
    """
    if len(data.event_shape) != 1 or data.num_levels is not None:
        raise DatasetError(
            f"{data.name}: discrete: expected a table of columns, got pixels or rows of shape "
            f"{data.event_shape}; pixels are dequantised without it"
        )
    if list(names) == [AUTO]:
        indices = [column.index for column in find_discrete(data) if column.kind == "whole"]
    else:
        indices = sorted({_index(data, name) for name in names})
    marked = replace(data, discrete=tuple(indices))
    check_whole(marked)
    return marked


def check_whole(data: Dataset) -> None:
    """See that the columns that are marked as discrete hold whole numbers.

    Raises:
        DatasetError: names the column, the first row and its value.
    """
    for index in data.discrete:
        x = data.x[:, index].reshape(len(data), -1)
        if _are_whole(x):
            continue
        row, place = np.argwhere((x != np.rint(x)) | (np.abs(x) > _LARGEST))[0]
        raise DatasetError(
            f"{data.name}: discrete: expected whole numbers up to 2^51 in column "
            f"{column_name(data, index)!r}, row {row} holds {x[row, place]:g}; round or "
            "rescale them, or leave the column out of discrete"
        )


def warnings_of(data: Dataset) -> list[str]:
    """What to tell before a flow is trained on columns that have no density: one line a kind."""
    columns = [column for column in find_discrete(data) if column.index not in data.discrete]
    lines = []
    for kind, what in _WHAT.items():
        these = [column for column in columns if column.kind == kind]
        if not these:
            continue
        is_one = len(these) == 1
        named = ", ".join(column.describe() for column in these)
        lines.append(
            f"{data.name}: column{'' if is_one else 's'} {named} hold{'s' if is_one else ''} "
            f"{what}: a density can grow there without end, so its likelihood means nothing and "
            f"samples lie between the values; {_mend(kind, these)}"
        )
    return lines


_WHAT: dict[Kind, str] = {
    "whole": "few different whole numbers",
    "few": "few different numbers",
    "atom": "one value very often",
}


def _mend(kind: Kind, columns: Sequence[DiscreteColumn]) -> str:
    names = [column.name for column in columns]
    # A comma stands between names, so it cannot stand in one.
    discrete = option("discrete", [AUTO] if any("," in name for name in names) else names)
    if kind == "atom":
        return (
            f"leave these rows or the column out ({option('drop', names)}), or, where all its "
            f"values are whole numbers, say {discrete} behind --data"
        )
    fewest = min(columns, key=lambda column: column.values)
    say = f"say {discrete} behind --data for uniform noise in training"
    return (
        f"{say if kind == 'whole' else f'rescale them to whole numbers and {say}'}, or make one of "
        "them the class that the flow is conditional on: "
        f"{option('label', [fewest.name])} with --set num_classes={fewest.values}"
    )


def _index(data: Dataset, name: str) -> int:
    if name in data.columns:
        return data.columns.index(name)
    if not data.columns and name.isdecimal() and int(name) < data.event_shape[0]:
        return int(name)
    known = ", ".join(data.columns) or f"0 .. {data.event_shape[0] - 1}, since they have no names"
    raise DatasetError(f"{data.name}: discrete: no column {name!r}; its columns are {known}")


def _are_whole(x: NDArray[Any]) -> bool:
    return bool(((x == np.rint(x)) & (np.abs(x) <= _LARGEST)).all())
