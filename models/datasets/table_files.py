"""Tables in files: their columns by name, from text, .parquet, .arrow and .feather.

pyarrow reads them; where it is not installed text is read all the same, more slowly.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import DatasetError, optional_package
from models.datasets.dialect import (
    MISSING,
    Dialect,
    check_separators,
    empty_column,
    find_dialect,
    no_numbers,
)
from models.datasets.spec import Spec
from models.datasets.text_table import TextTable

TEXT_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_BINARY_SUFFIXES = (".parquet", ".arrow", ".feather")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *_BINARY_SUFFIXES)

_EXTRA = "files"


class TableFile(Protocol):
    """Columns as a file has them."""

    @property
    def names(self) -> list[str]:
        """Of all columns, in their order; "1", "2", ... where they have none."""

    @property
    def has_names(self) -> bool:
        """Whether the file names its columns."""

    @property
    def index(self) -> Sequence[str]:
        """Columns that number the rows and were written beside them, as pandas does."""

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The values of a column, NaN where one is missing.

        Raises:
            DatasetError: it does not hold numbers.
        """

    def classes(self, name: str) -> NDArray[Any]:
        """The class of every row, as the file has it.

        Raises:
            DatasetError: a row has none.
        """


def open_table(path: Path, spec: Spec, *, numbers_are_rows: bool = False) -> TableFile:
    """Read a file.

    Args:
        path: of the file.
        spec: its options: `header=yes|no`.
        numbers_are_rows: a first line of numbers is a row where no option says what it is.

    Raises:
        DatasetError: it cannot be read, holds no rows, or two columns have one name.
    """
    if path.suffix.lower() in _BINARY_SUFFIXES:
        table: TableFile = _ArrowTable(path, _read_binary(path), True)
    else:
        table = _read_text(path, find_dialect(path, spec, numbers_are_rows=numbers_are_rows))
    if len(set(table.names)) != len(table.names):
        raise DatasetError(f"{path}: two columns have the same name; rename one")
    return table


class _ArrowTable:
    """A table as pyarrow read it."""

    def __init__(self, path: Path, table: Any, has_names: bool) -> None:
        self._path = path
        self._table = table
        self.has_names = has_names
        self.names: list[str] = table.column_names
        if not table.num_rows:
            raise DatasetError(f"{path}: it holds no rows, only a line of names")

    @property
    def index(self) -> list[str]:
        names, table = self.names, self._table
        index_columns = (table.schema.pandas_metadata or {}).get("index_columns", ())
        written = [
            name
            for name in names
            if re.fullmatch(r"__index_level_\d+__", name) or name in index_columns
        ]
        types = optional_package("pyarrow.types", needed_for="reading tables")
        for name in names:
            kind = table.column(name).type
            is_first = name == names[0] and types.is_integer(kind)
            # A separator at the end of each line makes a column without a name or a value.
            if (name in ("", "Unnamed: 0") and is_first) or (name == "" and types.is_null(kind)):
                written.append(name)
        return written

    def numbers(self, name: str) -> NDArray[np.float64]:
        types = optional_package("pyarrow.types", needed_for="reading tables")
        column = self._table.column(name)
        kind = column.type
        if types.is_null(kind):
            raise empty_column(self._path, name)
        if types.is_string(kind):
            check_separators(self._path, name, column.drop_null().to_pylist())
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
            raise no_numbers(self._path, name, str(kind))
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)

    def classes(self, name: str) -> NDArray[Any]:
        values = self._table.column(name)
        if values.null_count:
            raise DatasetError(
                f"{self._path}: {values.null_count} rows have no {name!r}; remove them"
            )
        classes: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return classes


def _read_binary(path: Path) -> Any:
    suffix = path.suffix.lower()
    pyarrow = optional_package("pyarrow", needed_for=f"reading {suffix}", extra=_EXTRA)
    try:
        if suffix == ".parquet":
            parquet = optional_package("pyarrow.parquet", needed_for="reading .parquet")
            return parquet.read_table(str(path))
        return _read_arrow(path)
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{path}: not a readable {path.suffix} file: {error}") from error


def _read_arrow(path: Path) -> Any:
    """A file of Arrow's, as Feather is too, or a stream of it that was written to one."""
    ipc = optional_package("pyarrow.ipc", needed_for="reading .arrow")
    with path.open("rb") as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        return (ipc.open_file(source) if is_file else ipc.open_stream(source)).read_all()


def _read_text(path: Path, dialect: Dialect) -> TableFile:
    try:
        pyarrow = optional_package("pyarrow", needed_for="reading .csv")
    except DatasetError:
        return TextTable.read(path, dialect)
    return _read_csv(pyarrow, path, dialect)


def _read_csv(pyarrow: Any, path: Path, dialect: Dialect) -> TableFile:
    csv = optional_package("pyarrow.csv", needed_for="reading .csv")
    has_names = dialect.header is not None
    try:
        table = csv.read_csv(
            pyarrow.input_stream(str(path), compression=dialect.compression),
            csv.ReadOptions(encoding=dialect.encoding, autogenerate_column_names=not has_names),
            csv.ParseOptions(delimiter=dialect.separator),
            csv.ConvertOptions(null_values=MISSING, decimal_point=dialect.decimal),
        )
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{path}: not a readable {path.suffix} file: {error}") from error
    named = [name.strip() for name in table.column_names]
    numbered = [str(index + 1) for index in range(table.num_columns)]
    return _ArrowTable(path, table.rename_columns(named if has_names else numbered), has_names)
