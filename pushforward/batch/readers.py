"""The readers of files of rows, by kind: Parquet, Arrow and arrays of numpy; text is beside."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from models.datasets.dataset import optional_package
from pushforward.batch.columns import check_types, is_list
from pushforward.batch.inputs import ARROW_SUFFIXES, InputName
from pushforward.batch.layout import Layout, Wanted, find_layout
from pushforward.batch.slabs import InputFile, Slab, readable
from pushforward.batch.text import TextFile
from service.codec.tensors import Array

_BUFFER_BYTES = 2**16


def open_input(name: InputName, slab_rows: int) -> InputFile:
    """Open a file of rows.

    Raises:
        ValueError, OSError: it cannot be read.
    """
    with readable(name):
        if name.suffix == ".parquet":
            return ParquetFile(name, slab_rows)
        if name.suffix in ARROW_SUFFIXES:
            return ArrowFile(name, slab_rows)
        if name.suffix == ".npy":
            return NumpyFile(name, slab_rows)
        return TextFile(name)


def layout_of(file: InputFile, wanted: Wanted) -> Layout | None:
    """Find the columns of a file; None where it has none.

    Raises:
        ValueError: they are not what is needed.
    """
    if file.schema is None and not file.names:
        if wanted.context or wanted.keep or wanted.columns:
            raise ValueError(f"{file.source}: an array has no columns to name")
        return None
    lists = frozenset() if file.schema is None else file.lists
    layout = find_layout(file.names, wanted, file.source, lists)
    if file.schema is not None:
        check_types(file.schema, layout, wanted, file.source)
    return layout


def kept_fields(file: InputFile, keep: tuple[str, ...]) -> tuple[Any, ...]:
    """The columns that are carried along, as fields of Arrow; of text files all is text."""
    pyarrow = optional_package("pyarrow", needed_for="files", extra="files")

    if file.schema is None:
        return tuple(pyarrow.field(name, pyarrow.string()) for name in keep)
    return tuple(file.schema.field(name).remove_metadata() for name in keep)


class _Columns:
    """What is known of a file with columns of types."""

    def __init__(self, name: InputName, schema: Any) -> None:
        self.source = name.path
        self.schema = schema
        self.names = tuple(schema.names)
        self.lists = frozenset(field.name for field in schema if is_list(field.type))
        self.decimal = "."


class ParquetFile(_Columns):
    """A Parquet file: small row groups are read together, of a large one some rows at a time."""

    def __init__(self, name: InputName, slab_rows: int) -> None:
        parquet = optional_package("pyarrow.parquet", needed_for="reading .parquet", extra="files")
        pyarrow = optional_package("pyarrow", needed_for="reading .parquet")
        self._name = name
        self._slab_rows = slab_rows
        # Arrow opens what is on this machine itself: no lock of Python is in its way.
        self._stream: Any = name.open() if name.is_remote else pyarrow.OSFile(name.path)
        # Not ahead of what is asked for: that would hold a row group in memory.
        try:
            self._file = parquet.ParquetFile(
                self._stream, buffer_size=_BUFFER_BYTES, pre_buffer=False, memory_map=False
            )
        except BaseException:
            self._stream.close()
            raise
        super().__init__(name, self._file.schema_arrow)
        self.num_rows: int | None = self._file.metadata.num_rows

    def slabs(self, layout: Layout | None, skip: int) -> Iterator[Slab]:
        """Read the slabs after the first `skip`."""
        assert layout is not None
        columns = list(layout.names)
        with readable(self._name):
            for groups, rows in self._lots():
                here = max(1, -(-rows // self._slab_rows))
                if skip >= here:
                    skip -= here
                    continue
                for table in self._read(groups, columns, skip):
                    yield Slab(table, None, {})
                skip = 0

    def _lots(self) -> Iterator[tuple[list[int], int]]:
        """Row groups that are read together, and how many rows they have."""
        groups: list[int] = []
        total = 0
        for index in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(index).num_rows
            if not rows:
                continue
            if groups and total + rows > self._slab_rows:
                yield groups, total
                groups, total = [], 0
            groups.append(index)
            total += rows
        if total:
            yield groups, total

    def _read(self, groups: list[int], columns: list[str], skip: int) -> Iterator[Any]:
        pyarrow = optional_package("pyarrow", needed_for="reading .parquet")
        if len(groups) > 1:
            yield self._file.read_row_groups(groups, columns=columns, use_threads=False)
            return
        batches = self._file.iter_batches(
            self._slab_rows, row_groups=groups, columns=columns, use_threads=False
        )
        for index, batch in enumerate(batches):
            if index >= skip:
                yield pyarrow.Table.from_batches([batch])

    def close(self) -> None:
        """Close what is open."""
        self._file.close()
        self._stream.close()


class ArrowFile(_Columns):
    """A file of Arrow's, as Feather is too, or a stream of it in a file."""

    def __init__(self, name: InputName, slab_rows: int) -> None:
        pyarrow = optional_package("pyarrow", needed_for="reading .arrow", extra="files")
        self._ipc = optional_package("pyarrow.ipc", needed_for="reading .arrow")
        self._name = name
        self._slab_rows = slab_rows
        self._stream = name.open() if name.is_remote else pyarrow.memory_map(name.path)
        self.num_rows: int | None = None
        self._is_file = self._stream.read(6) == b"ARROW1"
        self._stream.seek(0)
        try:
            super().__init__(name, self._open().schema)
        except BaseException:
            self._stream.close()
            raise

    def slabs(self, layout: Layout | None, skip: int) -> Iterator[Slab]:
        """Read the slabs after the first `skip`."""
        assert layout is not None
        pyarrow = optional_package("pyarrow", needed_for="reading .arrow")
        columns = list(layout.names)
        with readable(self._name):
            for batch in self._batches():
                table = pyarrow.Table.from_batches([batch]).select(columns)
                for start in range(0, table.num_rows, self._slab_rows):
                    if skip:
                        skip -= 1
                        continue
                    yield Slab(table.slice(start, self._slab_rows), None, {})

    def close(self) -> None:
        """Close what is open."""
        self._stream.close()

    def _open(self) -> Any:
        self._stream.seek(0)
        if self._is_file:
            return self._ipc.open_file(self._stream)
        return self._ipc.open_stream(self._stream)

    def _batches(self) -> Iterator[Any]:
        opened = self._open()
        if self._is_file:
            yield from map(opened.get_batch, range(opened.num_record_batches))
        else:
            yield from opened


class NumpyFile:
    """An array in a .npy file, a row a row, mapped into memory."""

    names: tuple[str, ...] = ()
    lists: frozenset[str] = frozenset()
    schema = None
    decimal = "."

    def __init__(self, name: InputName, slab_rows: int) -> None:
        self.source = name.path
        self._slab_rows = slab_rows
        self.values: Array = np.load(name.local(), mmap_mode="r", allow_pickle=False)
        if self.values.ndim < 1 or self.values.dtype.kind not in "fiu":
            raise ValueError(
                f"{name.path}: expected an array of numbers, a row a row, got {self.values.dtype} "
                f"of shape {self.values.shape}"
            )
        self.num_rows: int | None = len(self.values)

    def slabs(self, layout: Layout | None, skip: int) -> Iterator[Slab]:
        """Read the slabs after the first `skip`."""
        for start in range(skip * self._slab_rows, len(self.values), self._slab_rows):
            yield Slab(None, np.array(self.values[start : start + self._slab_rows]), {})

    def close(self) -> None:
        """Close what is open."""
        del self.values
