"""What came of rows as tables of Arrow, and the files that hold them."""

import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from models.datasets.dataset import optional_package
from pushforward.batch.calls import CallResult
from pushforward.batch.status import arrow_texts_of
from service.codec.tensors import Array

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".npy")
STATUS = "status"
PROVENANCE_KEY = b"pushforward"
_ROWS_IN_GROUP = 65_536


class OutputColumns(NamedTuple):
    """The columns of an output file.

    kept: those of the input that are carried along, as Arrow's fields.
    parts: of each output, the names of its columns.
    schema: of all, `status` last.
    """

    kept: tuple[Any, ...]
    parts: dict[str, tuple[str, ...]]
    schema: Any

    @classmethod
    def of(
        cls, outputs: Mapping[str, Array], names: tuple[str, ...] | None, kept: tuple[Any, ...]
    ) -> "OutputColumns":
        """Name the columns: an output of several numbers a row has one for each.

        Args:
            outputs: of some rows.
            names: of the features of x.
            kept: columns of the input.

        Raises:
            ValueError: a kept column is called as an output is.
        """
        pyarrow = optional_package("pyarrow", needed_for="files", extra="files")
        fields, parts = [*kept], {}
        for name, values in outputs.items():
            parts[name] = _column_names(name, values, names)
            kind = (
                pyarrow.string()
                if values.dtype == object
                else pyarrow.from_numpy_dtype(values.dtype)
            )
            fields += [pyarrow.field(column, kind) for column in parts[name]]
        fields.append(pyarrow.field(STATUS, pyarrow.string()))
        found = [field.name for field in fields]
        twice = next((name for name in found if found.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"keep: an output column is called {twice!r} too; rename it in the input, or leave "
                "it out"
            )
        return cls(kept, parts, pyarrow.schema(fields))

    def table(self, result: CallResult, kept: Any) -> Any:
        """Write some rows as a table: null where there is no number.

        Args:
            result: what came of them.
            kept: their table of the input, where columns of it are kept.
        """
        pyarrow = optional_package("pyarrow", needed_for="files", extra="files")
        columns = [kept.column(field.name).cast(field.type) for field in self.kept]
        for name, parts in self.parts.items():
            if name not in result.outputs:
                kind = self.schema.field(parts[0]).type
                columns += [pyarrow.nulls(len(result.codes), kind) for _ in parts]
                continue
            flat = result.outputs[name].reshape(len(result.codes), -1)
            columns += [_arrow_of(np.ascontiguousarray(c), result.unknown) for c in flat.T]
        columns.append(arrow_texts_of(result.codes))
        return pyarrow.table(columns, schema=self.schema)


def _arrow_of(values: Array, unknown: Array) -> Any:
    """Values as an array of Arrow, null where they are NaN, or unknown and of a kind without NaN.

    Its buffers are made here: `pyarrow.array` imports pandas where it is installed, half a second.
    """
    pyarrow = optional_package("pyarrow", needed_for="files", extra="files")
    if values.dtype == object:
        return pyarrow.array(values.tolist(), pyarrow.string())
    is_null = np.isnan(values) if values.dtype.kind == "f" else unknown
    validity = pyarrow.py_buffer(_bits(~is_null)) if is_null.any() else None
    kind = pyarrow.from_numpy_dtype(values.dtype)
    data = _bits(values) if values.dtype.kind == "b" else values
    return pyarrow.Array.from_buffers(kind, len(values), [validity, pyarrow.py_buffer(data)])


def _bits(values: Array) -> Array:
    return np.packbits(values, bitorder="little")


def _column_names(name: str, values: Array, names: tuple[str, ...] | None) -> tuple[str, ...]:
    if values.ndim == 1:
        return (name,)
    width = int(np.prod(values.shape[1:]))
    if name == "x" and names is not None and len(names) == width:
        return names
    return tuple(f"{name}_{index}" for index in range(width))


class TableWriter(Protocol):
    """Takes tables, one after the other."""

    def write(self, table: Any) -> None:
        """Add rows."""


@contextmanager
def table_writer(
    path: Path, suffix: str, columns: OutputColumns, provenance: bytes
) -> Iterator[TableWriter]:
    """Write a file of a kind that its suffix says, whole when this ends.

    Args:
        path: to write to.
        suffix: one of `SUFFIXES`.
        columns: of the file.
        provenance: for the schema, of files that have one.
    """
    if suffix == ".parquet":
        parquet = optional_package("pyarrow.parquet", needed_for="writing .parquet", extra="files")
        schema = columns.schema.with_metadata({PROVENANCE_KEY: provenance})
        with parquet.ParquetWriter(path, schema, use_dictionary=_repeated(schema)) as writer:
            yield _Parquet(writer, schema)
        return
    with path.open("wb") as file:
        if suffix == ".npy":
            array = _Numpy(file, columns)
            yield array
            array.finish()
            return
        arrow_csv = optional_package("pyarrow.csv", needed_for="writing .csv", extra="files")
        stream: Any = file
        if suffix.endswith(".gz"):
            # No name, no time: the same rows give the same bytes.
            stream = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
        stream.write(_header(columns.schema.names))
        options = arrow_csv.WriteOptions(include_header=False, quoting_style="needed")
        with arrow_csv.CSVWriter(stream, columns.schema, write_options=options) as writer:
            yield _Csv(writer)
        if stream is not file:
            stream.close()


def _repeated(schema: Any) -> list[str]:
    """The columns of which values repeat: a dictionary of numbers is as large as they are."""
    types = optional_package("pyarrow.types", needed_for="writing .parquet")
    return [field.name for field in schema if not types.is_floating(field.type)]


def _header(names: Sequence[str]) -> bytes:
    """The first line of CSV: Arrow would put all names into quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


class _Parquet:
    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer = writer
        self._schema = schema

    def write(self, table: Any) -> None:
        self._writer.write_table(
            table.replace_schema_metadata(self._schema.metadata), row_group_size=_ROWS_IN_GROUP
        )


class _Csv:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, table: Any) -> None:
        self._writer.write_table(table)


class _Numpy:
    """The first output alone: NaN where there is no number."""

    def __init__(self, file: IO[bytes], columns: OutputColumns) -> None:
        self._file = file
        self._names = next(iter(columns.parts.values()))
        self._dtype = np.dtype(columns.schema.field(self._names[0]).type.to_pandas_dtype())
        self._rows = 0
        self._write_header()

    def write(self, table: Any) -> None:
        columns = [table.column(name).to_numpy() for name in self._names]
        self._file.write(np.stack(columns, axis=1).astype(self._dtype).tobytes())
        self._rows += table.num_rows

    def finish(self) -> None:
        """Say in the first bytes how many rows there are: numpy leaves room for it."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        width = () if len(self._names) == 1 else (len(self._names),)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *width),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
