"""A table of text as the standard library reads it, where pyarrow is not installed."""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import DatasetError
from models.datasets.dialect import (
    MISSING,
    Dialect,
    check_separators,
    empty_column,
    is_number,
    no_numbers,
)


class TextTable:
    """Columns of texts; `read` gives one."""

    def __init__(
        self, path: Path, names: Sequence[str], columns: Sequence[Sequence[str]], dialect: Dialect
    ) -> None:
        self._path = path
        self._decimal = dialect.decimal
        self._columns = dict(zip(names, columns, strict=True))
        self.names = list(names)
        self.has_names = dialect.header is not None

    @classmethod
    def read(cls, path: Path, dialect: Dialect) -> "TextTable":
        """Read a file.

        Raises:
            DatasetError: a line has another number of cells than the first, or there is none.
        """
        rows = _read_rows(path, dialect)
        names = rows.pop(0) if dialect.header is not None else None
        if not rows:
            raise DatasetError(f"{path}: it holds no rows, only a line of names")
        width = len(rows[0] if names is None else names)
        for number, row in enumerate(rows, 1):
            if len(row) != width:
                raise DatasetError(
                    f"{path}: not a readable {path.suffix} file: expected {width} columns, row "
                    f"{number} has {len(row)}"
                )
        shown = dialect.header or [str(index + 1) for index in range(width)]
        return cls(path, shown, list(zip(*rows, strict=True)), dialect)

    @property
    def index(self) -> list[str]:
        """The first column, where it has no name and counts rows; one that is empty throughout."""
        written = []
        for name in self.names:
            texts = [text for text in self._columns[name] if text not in MISSING]
            counts = name == self.names[0] and all(text.strip().isdecimal() for text in texts)
            if (name in ("", "Unnamed: 0") and texts and counts) or (name == "" and not texts):
                written.append(name)
        return written

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The values of a column, NaN where one is missing.

        Raises:
            DatasetError: it does not hold numbers.
        """
        texts = self._columns[name]
        given = [text for text in texts if text not in MISSING]
        if not given:
            raise empty_column(self._path, name)
        plain = ["nan" if text in MISSING else text.replace(self._decimal, ".") for text in texts]
        # Python takes 1_000 and the digits of other scripts for numbers too.
        if not all(text.isascii() and "_" not in text and is_number(text) for text in plain):
            check_separators(self._path, name, given)
            raise no_numbers(self._path, name, "text")
        return np.array([float(text) for text in plain])

    def classes(self, name: str) -> NDArray[Any]:
        """The class of every row, as the file has it.

        Raises:
            DatasetError: a row has none.
        """
        texts = self._columns[name]
        missing = sum(text in MISSING for text in texts)
        if missing:
            raise DatasetError(f"{self._path}: {missing} rows have no {name!r}; remove them")
        return np.array(texts)


def _read_rows(path: Path, dialect: Dialect) -> list[list[str]]:
    """All lines that are not empty; the bytes were read once, when the dialect was found."""
    encoding = "utf-8-sig" if dialect.encoding == "utf8" else dialect.encoding
    text = gzip.open if dialect.compression is not None else open
    with text(path, "rt", encoding=encoding, newline="") as file:
        return [row for row in csv.reader(file, delimiter=dialect.separator) if row]
