"""Files of rows as slabs: so many rows at a time that memory does not depend on the file.

What a slab holds depends on the file and on how it is opened: whoever reads it again may skip slabs
and gets the same ones after them.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from models.datasets.dataset import optional_package
from pushforward.batch.inputs import InputName
from pushforward.batch.layout import Layout
from pushforward.batch.rows import Codes
from service.codec.tensors import Array


class Slab(NamedTuple):
    """Some rows of a file.

    table: their columns, as Arrow has them; None of files without columns.
    values: rows of a file without columns.
    codes: rows of which it is known already that they are bad.
    """

    table: Any
    values: Array | None
    codes: Codes


class InputFile(Protocol):
    """An open file of rows.

    source: its name, for messages. names: of its columns, none where it has none.
    lists: columns that hold a list a row. schema: Arrow's; None where all is text or no column.
    num_rows: None where that is not known yet. decimal: the decimal mark of its text.
    """

    source: str
    names: tuple[str, ...]
    lists: frozenset[str]
    schema: Any
    num_rows: int | None
    decimal: str

    def slabs(self, layout: Layout | None, skip: int) -> Iterator[Slab]:
        """Read the slabs after the first `skip`, with the columns of the layout."""

    def close(self) -> None:
        """Close what is open."""


@contextmanager
def readable(name: InputName) -> Iterator[None]:
    """Say of which file it is that Arrow or numpy cannot read it."""
    pyarrow = optional_package("pyarrow", needed_for=f"reading {name.suffix}", extra="files")
    try:
        yield
    except (pyarrow.ArrowException, EOFError, OSError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = " ".join(str(error).split())
        told = text if name.path in text else f"{name.path}: not readable: {text}"
        raise ValueError(told) from None
