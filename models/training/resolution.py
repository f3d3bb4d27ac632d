"""Whether values that differ in the data still differ in what a flow computes in."""

import numpy as np
import torch
from numpy.typing import NDArray

from models.datasets import Dataset, DatasetError
from models.flow import Flow
from models.transforms.preprocess import Standardise

# Rows looked at: enough to see a column collapse, few enough to sort at once.
_MOST_ROWS = 10_000
# A column may lose this share of its different values. Dense columns lose some: float32 has seven
# digits.
_MOST_LOST = 0.5


def check_resolved(data: Dataset, flow: Flow) -> None:
    """Refuse a column whose neighbouring values fall together once they are standardised.

    Float64 is no help against a single value far out: the standard deviation is its own, and all
    others become one number. Nothing is looked at where x is not standardised first.

    Raises:
        DatasetError: names the column, two rows that fall together and the row farthest out.
    """
    first = flow.chain[1 if flow.facts.discrete else 0]
    if not isinstance(first, Standardise) or len(data.event_shape) != 1:
        return
    rows = np.arange(len(data)) if data.anomaly is None else np.flatnonzero(~data.anomaly)
    rows = rows[:: -(-len(rows) // _MOST_ROWS)]
    x = data.x[rows]
    given = torch.from_numpy(np.ascontiguousarray(x)).to(flow.dtype)
    standard = first.encode(given)[0].numpy()
    for column in range(x.shape[1]):
        _check_column(data, column, rows, x[:, column], standard[:, column])


def _check_column(
    data: Dataset,
    column: int,
    rows: NDArray[np.int64],
    x: NDArray[np.generic],
    standard: NDArray[np.generic],
) -> None:
    different, left = len(np.unique(x)), len(np.unique(standard))
    if left >= (1 - _MOST_LOST) * different:
        return
    order = np.argsort(x, kind="stable")
    fallen = (np.diff(x[order]) != 0) & (np.diff(standard[order]) == 0)
    first = int(np.argmax(fallen))
    one, other = order[first], order[first + 1]
    far = int(np.argmax(np.abs(standard)))
    name = data.columns[column] if data.columns else str(column)
    raise DatasetError(
        f"{data.name}: column {name!r}: of {different} different values {left} are left once they "
        f"are standardised: rows {rows[one]} and {rows[other]} ({x[one]} and {x[other]}) become "
        f"one number; the value farthest out is {x[far]} in row {rows[far]}: leave that row or the "
        "column out, or store differences or logarithms"
    )
