"""The order of rows in time: a column of a table that is no feature, and says when each was."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import DatasetError
from models.datasets.spec import Spec
from models.datasets.table_files import TABLE_SUFFIXES, TableFile, open_table
from models.datasets.tables import file_kind


def read_order(text: str, column: str) -> NDArray[Any]:
    """Read the column that orders the rows of a table.

    Args:
        text: what `models.datasets.load` takes, of a file.
        column: numbers, or times as ISO 8601 writes them.

    Returns:
        (N,) numbers or times, for comparison alone.

    Raises:
        DatasetError: it is no table, has no such column, or the column is neither.
    """
    spec = Spec.parse(text)
    path = Path(spec.name)
    if not path.is_file() or file_kind(path) not in TABLE_SUFFIXES:
        raise DatasetError(
            f"--order {column}: expected a table whose columns have names "
            f"({', '.join(TABLE_SUFFIXES)}), got {text!r}"
        )
    table = open_table(path, spec)
    if column not in table.names:
        raise DatasetError(
            f"--order {column}: {path} has no such column; its columns are {', '.join(table.names)}"
        )
    order = _values(path, table, column)
    missing = np.isnat(order) if order.dtype.kind == "M" else np.isnan(order)
    if missing.any():
        raise DatasetError(
            f"--order {column}: {int(missing.sum())} rows of {path} have no value there; fill it "
            "in or remove them"
        )
    return order


def without_column(text: str, column: str) -> str:
    """The text of a table without a column: it orders the rows, and is no feature."""
    spec = Spec.parse(text)
    dropped = spec.list_option("drop") or []
    if column in dropped:
        return text
    options = {**spec.options, "drop": ",".join([*dropped, column])}
    return f"{spec.name}?{urlencode(options, safe=',', quote_via=quote)}"


def _values(path: Path, table: TableFile, column: str) -> NDArray[Any]:
    try:
        return table.numbers(column)
    except DatasetError:
        values = table.classes(column)
    if values.dtype.kind == "M":
        return values
    try:
        return np.array([_seconds(str(value)) for value in values])
    except ValueError:
        raise DatasetError(
            f"--order {column}: expected numbers or times as ISO 8601 writes them "
            f"(2026-02-28T17:00:00Z) in {path}, got {str(values[0])!r}"
        ) from None


def _seconds(text: str) -> float:
    """A time without a zone counts as UTC: only the order matters."""
    time = datetime.fromisoformat(text.strip())
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
