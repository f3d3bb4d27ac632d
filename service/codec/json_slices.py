"""Large JSON bodies, read a slice at a time: a parser keeps the interpreter to itself.

One call on 60 MB of numbers would hold up everybody for seconds, in whatever thread it is made,
and take 2 GB for lists of Python's numbers. So each long array is cut between its rows into slices
of milliseconds, each becomes an array before the next is read, and rows are counted on the way.
What remains of the body without its long arrays is short, and is read as any other.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from service.codec.columns import Table, check_objects, order_objects
from service.codec.json import WORDS, check_keys, check_numbers, fill_nulls, parse_object
from service.codec.missing import (
    INVALID,
    MISSING,
    asks_for_null,
    complete_objects,
    fill_missing,
    fill_missing_rows,
    is_missing,
)
from service.codec.parameters import check_known
from service.codec.tensors import Array, as_array, check_leaves
from service.errors import (
    BadDtype,
    MalformedBody,
    MissingField,
    ServiceError,
    ShapeMismatch,
    TooLarge,
)

# Shorter bodies are parsed in a few milliseconds.
LARGE_BYTES = 2**20

_MAX_STRINGS = 16_384
_MAX_DEPTH = 16
_OPENING = re.compile(rb"(?:\s*\[)+")
_STRING = re.compile(rb'(?:[^"\\]|\\.)*+"', re.DOTALL)
_COLON = re.compile(rb"\s*:")
# What stands between the name of rows and the first name in them, where they are objects.
_OBJECTS = re.compile(rb"\s*:\s*\[\s*(?=(?:null\s*,\s*)*+\{\s*\Z)")
# An object with no list and no other object in it.
_BEGUN_TEXT = rb'\{[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+'
_ROW_TEXT = _BEGUN_TEXT + rb"\}\s*+"
_BEGUN = re.compile(_BEGUN_TEXT, re.DOTALL)
_ROW = re.compile(_ROW_TEXT, re.DOTALL)
# What a value begins with that is no number: in a row, and in the place of one.
_VALUES = (b"[", b"{"), tuple(bytes((byte,)) for byte in b'["-0123456789tfnNI')
_ROWS = re.compile(
    rb"(?:(?:%b),\s*+)*+(?:(?:%b)(?P<end>\]))?+" % (2 * (_ROW_TEXT + rb"|null\s*+",)), re.DOTALL
)


@dataclass(frozen=True, slots=True)
class SliceLimits:
    """The sizes in which a body is cut, in bytes.

    rest: what remains of a body without its long arrays, at most.
    long: strings are shorter.
    array: arrays from here on are cut: a table with a column a tensor has many short ones.
    slice: what is parsed of an array at a time, about.
    row: of an array, at most.
    """

    rest: int = LARGE_BYTES
    long: int = 2**16
    array: int = 2**10
    slice: int = 2**18
    row: int = 2**24


LIMITS = SliceLimits()


class _Span(NamedTuple):
    """A span of a body outside its strings; name: the string before it."""

    name: str
    start: int
    stop: int


def is_large(body: bytes | bytearray) -> bool:
    """Whether to read a body here, and not on the event loop."""
    return len(body) > LARGE_BYTES


def parse_large(
    body: bytes | bytearray,
    max_rows: int,
    limits: SliceLimits = LIMITS,
    *,
    known: Sequence[str] = (),
    table: str | None = None,
    takes_null: bool = False,
) -> dict[str, Any]:
    """Parse a JSON object; its long lists of numbers come as float64 arrays.

    They are looked for among its values, and among those of the objects in its lists. Where the
    request takes them, nulls are read as `MISSING`.

    Args:
        body: the text.
        max_rows: of an array.
        limits: the sizes in which it is cut.
        known: the names it may hold; empty where that is not looked at.
        table: of a list whose rows may be objects, each a name and a number: it comes as a `Table`.
        takes_null: whether it does; the body may say so itself, also behind its arrays.

    Raises:
        MalformedBody: not JSON, not an object, or a key twice.
        UnknownField: a name that is not known.
        TooLarge: an array of more than max_rows rows, or much that is no array.
        BadDtype, NonFinite, ShapeMismatch: an array of something else, or with ragged rows.
        UnknownField, MissingField: rows of a table with other columns than the first.
    """
    may_take_null = takes_null or b'"%b"' % INVALID.encode() in body
    token = secrets.token_hex(16)
    arrays: dict[str, Array | Table] = {}
    names: dict[str, str] = {}
    parts: list[bytes | bytearray] = []
    done = 0
    scan = _Scan(body, limits.long)
    while (span := scan.next()) is not None:
        if known and scan.is_top_level:
            check_known((span.name,), known)
        found = _OBJECTS.match(body, span.start, span.stop) if span.name == table else None
        if found is not None:
            key = f"{token}{len(arrays)}"
            arrays[key], end = _read_table(
                body, span.name, found.end(), max_rows, limits, takes_null=may_take_null
            )
            names[key] = span.name
            first = body.find(b"[", span.start)
            scan.skip(first, end)
            scan.go_on(end)
            parts += (body[done:first], b'"%b"' % key.encode())
            done = end
            continue
        first = body.find(b"[", span.start, span.stop)
        if span.stop - span.start < limits.array or first < 0:
            continue
        end = body.find(b"}", first, span.stop)
        end = span.stop if end < 0 else end
        last = body.rfind(b"]", first, end)
        tail = body[last + 1 : end] if last > 0 else b"["
        if b"[" in tail or b"{" in tail:
            raise BadDtype(f"{span.name:.40}: expected a list of numbers and nothing else")
        key = f"{token}{len(arrays)}"
        span = _Span(span.name, first, last)
        arrays[key] = _read_array(body, span, max_rows, limits, takes_null=may_take_null)
        names[key] = span.name
        parts += (body[done:first], b'"%b"' % key.encode())
        done = last + 1
        scan.skip(first, done)
    parts.append(body[done:])
    rest = b"".join(parts)
    if len(rest) > limits.rest:
        raise TooLarge(f"body: expected at most {limits.rest} bytes beside its arrays of numbers")
    content = parse_object(rest)
    check_keys(rest)
    if known:
        check_known(content, known)
    takes_null = takes_null or asks_for_null(content) or asks_for_null(_parameters(content))
    if may_take_null and not takes_null:
        for key, read in arrays.items():
            _check_missing(read.values if isinstance(read, Table) else read, names[key])
    return {
        name: _fill(value, name, arrays, takes_null=takes_null) for name, value in content.items()
    }


def _parameters(content: dict[str, Any]) -> dict[str, Any]:
    """What the Open Inference Protocol has beside its tensors."""
    parameters = content.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _check_missing(values: Array, name: str) -> None:
    """Refuse nulls that were read before it was known that they are not taken."""
    rows = np.flatnonzero(is_missing(values).reshape(len(values), -1).any(1))
    if len(rows):
        raise BadDtype(
            f"{name:.40}: expected numbers, row {rows[0]} holds null", at=f"/{name:.40}/{rows[0]}"
        )


def _fill(value: Any, name: str, arrays: dict[str, Array | Table], *, takes_null: bool) -> Any:
    if type(value) is str:
        return arrays.get(value, value)
    if type(value) is not list:
        return value
    if value and all(type(item) is dict for item in value):
        return [
            {key: _fill(part, key, arrays, takes_null=takes_null) for key, part in item.items()}
            for item in value
        ]
    check_numbers(value, name, takes_null=takes_null)
    return fill_nulls(value, name) if takes_null else value


class _Scan:
    """Gives the spans of a body, one after the other.

    is_top_level: whether the name of the span at hand is a key of the body's own object.
    """

    def __init__(self, body: bytes | bytearray, max_string: int) -> None:
        self.is_top_level = False
        self._body = body
        self._max_string = max_string
        self._strings = 0
        self._opening = -1  # of the string behind the span at hand
        self._is_begun = False
        self._depth = 0  # of brackets, up to here:
        self._counted = 0

    def next(self) -> _Span | None:
        """The next span, None at the end."""
        name, start = "", self._counted
        if self._is_begun:
            if self._opening < 0:
                return None
            self._count(self._opening)
            closing = _find_end(self._body, self._opening, self._max_string)
            name = self._body[self._opening + 1 : closing].decode("utf-8", "replace")
            self._counted = start = closing + 1
        return self._span(name, start)

    def skip(self, start: int, stop: int) -> None:
        """An array was read: whatever stands in it is not looked at."""
        self._count(start)
        self._counted = stop

    def go_on(self, stop: int) -> None:
        """Go on behind an array of objects."""
        self._is_begun = False
        self._counted = stop

    def _span(self, name: str, start: int) -> _Span:
        self._strings += 1
        if self._strings > _MAX_STRINGS:
            raise BadDtype(f"body: expected numbers, got more than {_MAX_STRINGS} strings")
        self._is_begun = True
        self._opening = self._body.find(b'"', start)
        stop = len(self._body) if self._opening < 0 else self._opening
        is_key = _COLON.match(self._body, start, stop) is not None
        self.is_top_level = is_key and self._depth == 1
        return _Span(name, start, stop)

    def _count(self, stop: int) -> None:
        opened, closed = (
            sum(self._body.count(bracket, self._counted, stop) for bracket in brackets)
            for brackets in ((b"[", b"{"), (b"]", b"}"))
        )
        self._depth += opened - closed
        self._counted = stop


def _read_table(
    body: bytes | bytearray,
    name: str,
    start: int,
    max_rows: int,
    limits: SliceLimits,
    *,
    takes_null: bool,
) -> tuple[Table, int]:
    """Read a list of objects from its first one on.

    Returns:
        The table, and where the list ends.
    """
    columns: tuple[str, ...] = ()
    parts: list[Table] = []
    rows, is_over = 0, False
    while not is_over:
        found = _ROWS.match(body, start, start + limits.slice)
        if found is None or found.end() == start:  # a long row
            found = _ROWS.match(body, start, start + limits.row)
        if found is None or found.end() == start:
            raise _odd_row(body, start, name, rows, limits.row)
        is_over = found["end"] is not None
        text = bytes(found[0].rstrip()[:-1])
        part = _read_objects(text, name, columns, rows, takes_null=takes_null)
        columns = part.columns
        rows += len(part.values)
        if rows > max_rows:
            raise _too_many_rows(name, max_rows)
        parts.append(part)
        start = found.end()
        while body[start : start + 1].isspace():  # a slice may end behind the comma
            start += 1
    return Table(columns, np.concatenate([_widen(part, columns) for part in parts])), start


def _widen(part: Table, columns: tuple[str, ...]) -> Array:
    """Give a slice the columns that only later ones have; its own are the first of them."""
    added = len(columns) - len(part.columns)
    return np.pad(part.values, ((0, 0), (0, added)), constant_values=MISSING)


def _read_objects(
    text: bytes, name: str, columns: tuple[str, ...], first_row: int, *, takes_null: bool
) -> Table:
    whole = b'{"":[%b]}' % text
    rows = parse_object(whole)[""]
    if text.count(b'"') != 2 * sum(len(row) for row in rows if row) or any(
        word in text for word in WORDS
    ):
        check_keys(whole)
        check_objects(rows, name, first_row, takes_null=takes_null)
    if takes_null:
        columns = tuple(dict.fromkeys((*columns, *(key for row in rows if row for key in row))))
        rows = complete_objects(fill_missing(rows), columns)
    columns = columns or tuple(rows[0])
    if not columns:
        raise MissingField(f"{name:.40}: row {first_row} is empty", at=f"/{name:.40}/{first_row}")
    return Table(columns, as_array(order_objects(rows, name, columns, first_row), name, ()))


def _odd_row(
    body: bytes | bytearray, start: int, name: str, row: int, max_bytes: int
) -> ServiceError:
    """What is wrong with a row that is no object of numbers with a comma or the end behind it."""
    stop = start + max_bytes
    begun = _BEGUN.match(body, start, stop)
    end = start if begun is None else begun.end()
    odd = body[end : end + 1]
    if len(body) > stop and begun is not None and (end == stop or odd == b'"'):
        return _long_row(name, max_bytes)
    if _ROW.match(body, start, stop) or odd not in _VALUES[begun is None]:
        return MalformedBody(f"body: not valid JSON: {name!r:.40} around row {row}")
    detail = f"{name:.40}: expected objects of names and numbers, row {row} is something else"
    if begun is not None:
        detail = f"{name:.40}: expected numbers, row {row} holds a list or an object"
    return BadDtype(detail, at=f"/{name:.40}/{row}")


def _find_end(body: bytes | bytearray, opening: int, max_string: int) -> int:
    """Find the quote that ends a string."""
    found = _STRING.match(body, opening + 1, opening + max_string)
    if found is None:
        raise MalformedBody(f"body: expected strings of less than {max_string} bytes")
    return found.end() - 1


def _read_array(
    body: bytes | bytearray, span: _Span, max_rows: int, limits: SliceLimits, *, takes_null: bool
) -> Array:
    """Read the list between two brackets.

    Returns:
        float64, of the list's shape.
    """
    name, first, last = span
    opening = _OPENING.match(body, first, min(last, first + 1024))
    depth = 0 if opening is None else opening[0].count(b"[")
    if depth > _MAX_DEPTH:
        raise MalformedBody(f"{name:.40}: nested too deep")
    # Between two rows every bracket that a row has closes, then comes the comma.
    comma = re.compile(rb"\s*".join([rb"\]"] * (depth - 1) + [rb","]))
    parts: list[Array] = []
    rows, start = 0, first + 1
    while True:
        found = comma.search(body, min(start + limits.slice, last), last)
        end = last if found is None else found.end() - 1
        if end - start > limits.row:
            raise _long_row(name, limits.row)
        part = _read_slice(bytes(body[start:end]), name, rows, takes_null=takes_null)
        rows += len(part)
        if depth > 1 and rows > max_rows:
            raise _too_many_rows(name, max_rows)
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise _ragged(name, rows - len(part))
        parts.append(part)
        if found is None:
            return np.concatenate(parts)
        start = end + 1


def _read_slice(text: bytes, name: str, first_row: int, *, takes_null: bool) -> Array:
    rows = parse_object(b'{"":[%b]}' % text)[""]
    if not rows:
        raise MalformedBody(f"body: not valid JSON: {name!r:.40} ends with a comma")
    if any(word in text for word in (*WORDS, b"{")):
        try:
            check_leaves(rows, name, takes_null=takes_null)
        except BadDtype:
            raise BadDtype(
                f"{name:.40}: expected numbers, got something else after row {first_row}",
                at=f"/{name:.40}",
            ) from None
        rows = _fill_slice(rows)
    try:
        return as_array(rows, name, ())
    except ShapeMismatch:
        raise _ragged(name, first_row) from None


def _long_row(name: str, limit: int) -> TooLarge:
    return TooLarge(f"{name:.40}: expected at most {limit} bytes of JSON a row; send npy")


def _too_many_rows(name: str, limit: int) -> TooLarge:
    return TooLarge(
        f"{name:.40}: expected at most {limit} rows a request; send them in several",
        at=f"/{name:.40}",
    )


def _fill_slice(rows: list[Any]) -> list[Any]:
    """Put `MISSING` where null stands; a row of null is as long as the first that is there."""
    rows = fill_missing(rows)
    whole = next((row for row in rows if row is not None), None)
    return fill_missing_rows(rows, np.shape(whole)) if whole is not None else rows


def _ragged(name: str, row: int) -> ShapeMismatch:
    return ShapeMismatch(
        f"{name:.40}: expected rows of one shape, got ragged ones after row {row}",
        at=f"/{name:.40}",
    )
