"""Tables of text in blocks: a line is a row, and one that is broken is a bad row."""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from models.datasets.dataset import optional_package
from models.datasets.dialect import Dialect, find_dialect
from models.datasets.spec import Spec
from pushforward.batch.inputs import InputName
from pushforward.batch.layout import Layout
from pushforward.batch.slabs import Slab, readable
from pushforward.batch.status import MALFORMED_ROW

BLOCK_BYTES = 2**21
_MOST_BYTES_OF_LINE = 2**26
_BOM = b"\xef\xbb\xbf"
_EMPTY_LINES = re.compile(rb"(?:(?<=\n)|\A)[ \t]*\n+")
# Between tabs stand cells: a line of tabs is a row whose values are missing.
_EMPTY_LINES_OF_TABS = re.compile(rb"(?:(?<=\n)|\A) *\n+")


class TextFile:
    """A .csv or .tsv file, or one of them in gzip; its columns are texts."""

    schema = None
    lists: frozenset[str] = frozenset()
    num_rows: int | None = None

    def __init__(self, name: InputName) -> None:
        self._name = name
        self._path = name.local()
        self.source = name.path
        option = "" if name.header is None else f"?header={name.header}"
        self._dialect = find_dialect(
            self._path, Spec.parse(f"{self._path}{option}"), numbers_are_rows=False
        )
        self.decimal = self._dialect.decimal
        self._width = self._count_columns()
        named = self._dialect.header
        self.names = named or tuple(str(index + 1) for index in range(self._width))

    def slabs(self, layout: Layout | None, skip: int) -> Iterator[Slab]:
        """Read the blocks after the first `skip`: each is a slab."""
        assert layout is not None
        wanted = {name: f"c{self.names.index(name)}" for name in layout.names}
        with readable(self._name):
            for block in self._blocks():
                if skip:
                    skip -= 1
                    continue
                yield _parse(block, _Format(self._dialect, self._width), wanted)

    def close(self) -> None:
        """Nothing is open between slabs."""

    def _count_columns(self) -> int:
        first = next(self._lines_of_file(), b"")
        fmt = _Format(self._dialect, 1)
        header = first.decode(fmt.encoding).rstrip("\r\n")
        return len(next(csv.reader([header], delimiter=self._dialect.separator), []))

    def _lines_of_file(self) -> Iterator[bytes]:
        with self._open() as stream:
            first = stream.readline(_MOST_BYTES_OF_LINE)
            yield re.split(rb"[\r\n]", first.removeprefix(_BOM), maxsplit=1)[0]

    def _open(self) -> Any:
        if self._dialect.compression is not None:
            return gzip.open(self._path, "rb")
        return self._path.open("rb")

    def _blocks(self) -> Iterator[bytes]:
        """Whole lines, without the header, empty ones left out, each ended by a line feed."""
        has_header = self._dialect.header is not None
        is_tabs = self._dialect.separator == "\t"
        is_first = True
        for block in self._raw_blocks():
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if is_first:
                block = block.removeprefix(_BOM)
            block = (_EMPTY_LINES_OF_TABS if is_tabs else _EMPTY_LINES).sub(b"", block)
            if is_first and block:
                is_first = False
                if has_header:
                    block = block.partition(b"\n")[2]
            if block:
                yield block

    def _raw_blocks(self) -> Iterator[bytes]:
        rest = b""
        with self._open() as stream:
            while chunk := stream.read(BLOCK_BYTES):
                chunk = rest + chunk
                cut = max(chunk.rfind(b"\n"), chunk.rfind(b"\r", 0, len(chunk) - 1)) + 1
                if not cut and len(chunk) > _MOST_BYTES_OF_LINE:
                    raise ValueError(f"{self.source}: a line of more than {len(chunk)} bytes")
                if cut:
                    yield chunk[:cut]
                rest = chunk[cut:]
        if rest:
            yield rest


class _Format(NamedTuple):
    """How a block is to be read."""

    dialect: Dialect
    width: int

    @property
    def encoding(self) -> str:
        return "utf-8" if self.dialect.encoding == "utf8" else self.dialect.encoding


def _parse(block: bytes, fmt: _Format, wanted: dict[str, str]) -> Slab:
    """Read a block; rows with another number of cells, or an open quote, are null and malformed.

    Raises:
        ValueError: what was read are not the lines, row by row.
    """
    pyarrow = optional_package("pyarrow", needed_for="reading .csv", extra="files")
    arrow_csv = optional_package("pyarrow.csv", needed_for="reading .csv")
    broken: list[int] = []

    def skip(row: Any) -> str:
        broken.append(row.number - 1)
        return "skip"

    if b'"' in block:
        block = _without_open_quotes(block, fmt)
    names = [f"c{index}" for index in range(fmt.width)]
    texts = dict.fromkeys(wanted.values(), pyarrow.string())
    table = arrow_csv.read_csv(
        io.BytesIO(block),
        arrow_csv.ReadOptions(
            use_threads=False,
            column_names=names,
            block_size=len(block) + 1,
            encoding=fmt.encoding,
        ),
        arrow_csv.ParseOptions(delimiter=fmt.dialect.separator, invalid_row_handler=skip),
        arrow_csv.ConvertOptions(
            include_columns=list(texts),
            column_types=texts,
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            null_values=[""],
        ),
    )
    table = table.rename_columns(list(wanted))
    if broken:
        table = _with_nulls(pyarrow, table, broken)
    lines = block.removesuffix(b"\n").count(b"\n") + 1
    if table.num_rows != lines:
        raise ValueError(f"expected a row a line, got {table.num_rows} rows of {lines} lines")
    return Slab(table, None, dict.fromkeys(broken, MALFORMED_ROW))


def _without_open_quotes(block: bytes, fmt: _Format) -> bytes:
    """Replace lines in which a quote is not closed, which would go on in the next, by broken ones.

    As for Arrow, a quote opens a cell at its start alone; elsewhere it is one of its characters.
    """
    separator = re.escape(fmt.dialect.separator.encode())
    quoted = rb'"(?:[^"]++|"")*+'
    cell = rb'(?:%b"[^%b]*+|(?!")[^%b]*+)' % (quoted, separator, separator)
    is_open = re.compile(rb"(?:%b%b)*+%b" % (cell, separator, quoted)).fullmatch
    too_many_cells = fmt.dialect.separator.encode() * fmt.width
    lines = block.split(b"\n")
    for row, line in enumerate(lines):
        if b'"' in line and is_open(line):
            lines[row] = too_many_cells
    return b"\n".join(lines)


def _with_nulls(pyarrow: Any, table: Any, rows: list[int]) -> Any:
    """Put a row of nulls where each of some rows was."""
    total = table.num_rows + len(rows)
    places: list[int | None] = [None] * total
    kept = iter(range(table.num_rows))
    absent = set(rows)
    for row in range(total):
        if row not in absent:
            places[row] = next(kept)
    return table.take(pyarrow.array(places, pyarrow.int64()))
