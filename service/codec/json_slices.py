"""Large JSON bodies, read a slice at a time: a parser keeps the interpreter to itself.

One call on 60 MB of numbers would hold up everybody for seconds, in whatever thread it is made,
and take 2 GB for lists of Python's numbers. So each long array is cut between its rows into slices
of milliseconds, each becomes an array before the next is read, and rows are counted on the way.
What remains of the body without its long arrays is short, and is read as any other.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from service.codec.json import WORDS, check_keys, parse_object
from service.codec.tensors import Array, as_array, check_leaves
from service.errors import BadDtype, MalformedBody, ShapeMismatch, TooLarge

# Shorter bodies are parsed in a few milliseconds.
LARGE_BYTES = 2**20

_MAX_STRINGS = 4096
_MAX_DEPTH = 16
_OPENING = re.compile(rb"(?:\s*\[)+")
_STRING = re.compile(rb'(?:[^"\\]|\\.)*+"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class SliceLimits:
    """The sizes in which a body is cut, in bytes.

    rest: what remains of a body without its long arrays, at most.
    long: arrays from here on are cut; strings are shorter.
    slice: what is parsed of an array at a time, about.
    row: of an array, at most.
    """

    rest: int = LARGE_BYTES
    long: int = 2**16
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
    body: bytes | bytearray, max_rows: int, limits: SliceLimits = LIMITS
) -> dict[str, Any]:
    """Parse a JSON object; its long lists of numbers come as float64 arrays.

    They are looked for among its values, and among those of the objects in its lists.

    Raises:
        MalformedBody: not JSON, not an object, or a key twice.
        TooLarge: an array of more than max_rows rows, or much that is no array.
        BadDtype, NonFinite, ShapeMismatch: an array of something else, or with ragged rows.
    """
    token = secrets.token_hex(16)
    arrays: dict[str, Array] = {}
    parts: list[bytes | bytearray] = []
    done = 0
    for span in _spans(body, limits.long):
        first = body.find(b"[", span.start, span.stop)
        if span.stop - span.start < limits.long or first < 0:
            continue
        end = body.find(b"}", first, span.stop)
        end = span.stop if end < 0 else end
        last = body.rfind(b"]", first, end)
        tail = body[last + 1 : end] if last > 0 else b"["
        if b"[" in tail or b"{" in tail:
            raise BadDtype(f"{span.name:.40}: expected a list of numbers and nothing else")
        key = f"{token}{len(arrays)}"
        arrays[key] = _read_array(body, _Span(span.name, first, last), max_rows, limits)
        parts += (body[done:first], b'"%b"' % key.encode())
        done = last + 1
    parts.append(body[done:])
    rest = b"".join(parts)
    if len(rest) > limits.rest:
        raise TooLarge(f"body: expected at most {limits.rest} bytes beside its arrays of numbers")
    content = parse_object(rest)
    check_keys(rest)
    return {name: _fill(value, name, arrays) for name, value in content.items()}


def _fill(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    if type(value) is str:
        return arrays.get(value, value)
    if type(value) is not list:
        return value
    if value and all(type(item) is dict for item in value):
        return [{key: _fill(part, key, arrays) for key, part in item.items()} for item in value]
    check_leaves(value, name)
    return value


def _spans(body: bytes | bytearray, max_string: int) -> Iterator[_Span]:
    start, name = 0, ""
    for _ in range(_MAX_STRINGS):
        opening = body.find(b'"', start)
        if opening < 0:
            yield _Span(name, start, len(body))
            return
        yield _Span(name, start, opening)
        closing = _find_end(body, opening, max_string)
        name = body[opening + 1 : closing].decode("utf-8", "replace")
        start = closing + 1
    raise BadDtype(f"body: expected numbers, got more than {_MAX_STRINGS} strings")


def _find_end(body: bytes | bytearray, opening: int, max_string: int) -> int:
    """Find the quote that ends a string."""
    found = _STRING.match(body, opening + 1, opening + max_string)
    if found is None:
        raise MalformedBody(f"body: expected strings of less than {max_string} bytes")
    return found.end() - 1


def _read_array(body: bytes | bytearray, span: _Span, max_rows: int, limits: SliceLimits) -> Array:
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
            raise TooLarge(
                f"{name:.40}: expected at most {limits.row} bytes of JSON a row; send npy"
            )
        part = _read_slice(bytes(body[start:end]), name, rows)
        rows += len(part)
        if depth > 1 and rows > max_rows:
            raise TooLarge(
                f"{name:.40}: expected at most {max_rows} rows a request; send them in several",
                at=f"/{name:.40}",
            )
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise _ragged(name, rows - len(part))
        parts.append(part)
        if found is None:
            return np.concatenate(parts)
        start = end + 1


def _read_slice(text: bytes, name: str, first_row: int) -> Array:
    rows = parse_object(b'{"":[%b]}' % text)[""]
    if not rows:
        raise MalformedBody(f"body: not valid JSON: {name!r:.40} ends with a comma")
    if any(word in text for word in (*WORDS, b"{")):
        try:
            check_leaves(rows, name)
        except BadDtype:
            raise BadDtype(
                f"{name:.40}: expected numbers, got something else after row {first_row}",
                at=f"/{name:.40}",
            ) from None
    try:
        return as_array(rows, name, ())
    except ShapeMismatch:
        raise _ragged(name, first_row) from None


def _ragged(name: str, row: int) -> ShapeMismatch:
    return ShapeMismatch(
        f"{name:.40}: expected rows of one shape, got ragged ones after row {row}",
        at=f"/{name:.40}",
    )
