"""JSON bodies: strict in what is read, valid in whatever is written.

orjson keeps the last of two equal keys and takes `true` and `"1"` where numpy would silently make
numbers of them. Both are found by looking for a few bytes in the body, which costs a hundredth of
parsing it; only a body that has them is looked at in full.
"""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import orjson

from service.codec.columns import FIELD, check_objects, holds_objects
from service.codec.missing import NULL, asks_for_null, fill_missing
from service.codec.parameters import check_known
from service.codec.tensors import Array, check_leaves, is_finite, non_finite_rows
from service.errors import MalformedBody

# Says of the tensors of an answer why some rows of it are null: scalars to be added.
Explain = Callable[[dict[str, Array]], dict[str, Any]]

_SHORT = 1024
WORDS = (b"true", b"false", b"null")
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
# How orjson words a number that overflows a double, and tokens that other writers make of NaN.
_OVERFLOW = "number is infinity"
_NON_FINITE_TOKENS = ("NaN", "Infinity", "-Infinity")


def read_object(
    body: bytes | bytearray, known: Sequence[str] = (), *, takes_null: bool = False
) -> dict[str, Any]:
    """Parse a JSON object whose values are scalars, nested lists of numbers, or rows as objects.

    NaN, Infinity and 1e400 are read as what they mean, so that the tensor's check can name the
    row. Where the request takes them, nulls inside a row are read as `MISSING`.

    Args:
        body: the text.
        known: the names it may hold; empty where that is not looked at.
        takes_null: whether it does; the body may say so itself.

    Raises:
        MalformedBody: not JSON, not UTF-8, not an object, nested too deep, or a key twice.
        UnknownField: a name that is not known.
        BadDtype: something other than numbers inside a list.
    """
    content = parse_object(body)
    is_good = is_plain(body, content)
    if not is_good:
        check_keys(body)
    if known:
        check_known(content, known)
    if not is_good:
        takes_null = takes_null or asks_for_null(content)
        for name, value in content.items():
            check_numbers(value, name, takes_null=takes_null)
        if takes_null:
            content = {name: fill_nulls(value, name) for name, value in content.items()}
    return content


def check_numbers(value: Any, name: str, *, takes_null: bool = False) -> None:
    """Refuse a list of something else than numbers, or than objects of numbers.

    Raises:
        BadDtype: naming the row.
    """
    if type(value) is list and name != FIELD:
        check = check_objects if holds_objects(value) else check_leaves
        check(value, name, takes_null=takes_null)


def fill_nulls(value: Any, name: str) -> Any:
    """Put `MISSING` where null stands inside a row of numbers, or of an object."""
    return fill_missing(value) if type(value) is list and name != FIELD else value


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """Parse a JSON object; which keys stand twice and what lists hold is not looked at.

    Raises:
        MalformedBody: not JSON, not UTF-8, not an object, or nested too deep.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        content = _read_non_finite(body, error)
    if type(content) is not dict:
        raise MalformedBody("body: expected a JSON object, as {...}")
    return content


def is_plain(body: bytes | bytearray, content: dict[str, Any], data: str | None = None) -> bool:
    """Whether no key stands twice and no list of data holds a string, true, false or null.

    All that parsing kept outside of the data is counted, and all that the text has: orjson drops
    the first of two equal keys, so that the numbers differ. Strings with escapes may look like
    more than they are; False means that the body has to be looked at in full.

    Args:
        body: the text.
        content: the object that it was parsed to.
        data: the key whose values are data; None where every list is.
    """
    quotes, words = 2 * len(content), 0
    pending = list(content.values())
    if FIELD in content:
        quotes += _count_quotes(content[FIELD])
    for value in pending:  # it grows meanwhile
        kind = type(value)
        if kind is list:
            if data is not None:
                pending += value
            elif value and type(value[0]) is dict:
                quotes += 2 * sum(len(row) for row in value if type(row) is dict)
        elif kind is str:
            quotes += 2
            words += value == NULL
        elif kind is dict:
            quotes += 2 * len(value)
            pending += [part for name, part in value.items() if name != data]
        elif kind is not int and kind is not float:
            words += 1
    start = body.find(b"[")
    if start < 0:
        return body.count(b'"') == quotes
    # find() is many times faster than count(), and tensors, which come last as a rule, hold none.
    rest = body.count(b'"', start) if body.find(b'"', start) >= 0 else 0
    if body.count(b'"', 0, start) + rest != quotes:
        return False
    # Each of the three words has a u or an s.
    has_words = body.find(b"u", start) >= 0 or body.find(b"s", start) >= 0
    return not has_words or sum(map(body.count, WORDS)) == words


def _count_quotes(names: Any) -> int:
    """The quotes of the names in a list; what else it holds is not counted, and so found."""
    return 2 * sum(type(name) is str for name in names) if type(names) is list else 0


def check_keys(body: bytes | bytearray) -> None:
    """Parse again with the library that shows every key.

    Raises:
        MalformedBody: naming the key that stands twice.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = set()
        for name, _ in items:
            if name in names:
                raise MalformedBody(f"body: the key {name[:40]!r} stands twice in one object")
            names.add(name)
        return dict(items)

    _parse_slowly(body, pairs)


def write_object(
    head: dict[str, Any],
    outputs: dict[str, Array],
    explain: Explain | None = None,
    null_rows: Collection[int] = (),
) -> bytes:
    """Write an answer: `head`'s scalars, then the tensors, a row of each an entry.

    JSON has no NaN and no infinity: a row that holds one is null, and its index is in
    `non_finite`, which is there only when it has something to say.

    Args:
        head: the scalars.
        outputs: the tensors.
        explain: asked for further scalars where a row is null.
        null_rows: rows of which no whole number is known either.
    """
    content = {**head, **outputs}
    body = orjson.dumps(content, option=_NUMPY)
    # orjson has null for both: a short body is searched for it, long arrays are faster to test.
    if not null_rows:
        if len(body) < _SHORT and b"null" not in body:
            return body
        if all(map(is_finite, outputs.values())):
            return body
    content = {**head, **explain(outputs)} if explain is not None else dict(head)
    rows = set(null_rows)
    for name, values in outputs.items():
        bad = non_finite_rows(values)
        listed: list[Any] = list(values)
        # Of numbers an invalid row has NaN as a rule; whole numbers and truths cannot say so.
        for row in (*bad, *(null_rows if values.dtype.kind in "iu" else ())):
            listed[row] = None
        content[name] = listed
        rows.update(bad)
    content["non_finite"] = sorted(rows)
    return orjson.dumps(content, option=_NUMPY)


def write_rows(
    common: dict[str, Any],
    heads: Sequence[dict[str, Any]],
    outputs: dict[str, Array],
    explain: Callable[[int], Explain] | None = None,
) -> list[bytes]:
    """Write each row of the outputs as `write_object` does an answer that has it alone.

    orjson is asked once a tensor, not once a row.

    Args:
        common: the first scalars of every answer, at least one.
        heads: further scalars of each.
        outputs: the tensors.
        explain: gives what explains the nulls of a row.
    """
    texts = [orjson.dumps(values, option=_NUMPY) for values in outputs.values()]
    if b"null" in b"".join(texts):
        return [
            write_object({**common, **head}, _row(outputs, index), explain and explain(index))
            for index, head in enumerate(heads)
        ]
    # Rows that were prepared together have one head.
    is_alike = all(head is heads[0] for head in heads)
    template = orjson.dumps({**common, **heads[0]} if is_alike else common)[:-1]
    template = template.replace(b"%", b"%%") + (b"" if is_alike else b"%b")
    columns = []
    for (name, values), text in zip(outputs.items(), texts, strict=True):
        # Inside a row at most depth - 1 brackets close at a comma.
        depth = values.ndim - 1
        opened, closed = b"[" * depth, b"]" * depth
        template += b",%b:[%b%%b%b]" % (orjson.dumps(name), opened, closed)
        columns.append(text[1 + depth : -1 - depth].split(closed + b"," + opened))
    template += b"}"
    if not is_alike:
        columns.insert(0, [b"," + orjson.dumps(head)[1:-1] if head else b"" for head in heads])
    return [template % parts for parts in zip(*columns, strict=True)]


def _row(outputs: dict[str, Array], index: int) -> dict[str, Array]:
    return {name: values[index : index + 1] for name, values in outputs.items()}


def _read_non_finite(body: bytes | bytearray, error: orjson.JSONDecodeError) -> Any:
    """Read a body that orjson refused for a number that is not finite.

    Raises:
        MalformedBody: it was refused for something else, or something else is wrong too.
    """
    is_token = error.doc.startswith(_NON_FINITE_TOKENS, error.pos)
    if not (is_token or error.msg.startswith(_OVERFLOW)):
        raise MalformedBody(f"body: not valid JSON: {error}") from None
    return _parse_slowly(body, dict)


def _parse_slowly(body: bytes | bytearray, pairs: Any) -> Any:
    try:
        return json.loads(body.decode(), object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        raise MalformedBody("body: not valid JSON") from None
