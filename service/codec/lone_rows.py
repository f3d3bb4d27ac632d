"""Bodies that hold one row of numbers and nothing else: known by the text around their numbers."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.codec.tensors import Array, Shape, read_few_rows

# All that numbers in a list are written with. None of it ends a list or begins a string.
_OF_NUMBERS = b"0123456789+-.eE, \t\r\n"
_MAX_TEXT_BYTES = 512
_MAX_TEXTS = 256


# Names and values of fields that are numbers.
LoneFields = tuple[tuple[str, float], ...]


class LoneText(NamedTuple):
    """What a body of one row says beside its row."""

    model: str | None
    fields: LoneFields = ()


# A row that is not parsed yet: what else the body says, and the text of the numbers.
LoneRow = tuple[LoneText, bytes]


class LoneRowReader:
    """Takes bodies of one row apart without parsing them.

    Such a body is the text of its numbers, and the text around it: names of fields, the model's
    name, brackets. Once a body was parsed and found good, another one with the same text around
    other numbers says the same of all else. So the numbers of many bodies can be parsed at once:
    there is no bracket and no quote in them with which one could reach into another.
    """

    def __init__(self) -> None:
        self._texts: dict[bytes, LoneText] = {}
        # What stands before and after the numbers of the body found last: mostly it is the same.
        self._latest = (b"[[", b"", LoneText(None))

    def find(self, body: bytes) -> LoneRow | None:
        """Take a body apart; None where it is another one, or its text is not known."""
        before, after, text = self._latest
        if after and body.startswith(before) and body.endswith(after):
            numbers = body[len(before) : -len(after)]
        else:
            start, stop = body.find(b"[[") + 2, body.rfind(b"]]")
            before, after = body[:start], body[stop:]
            known = self._texts.get(before + after)
            if known is None:
                return None
            self._latest = before, after, known
            text, numbers = known, body[start:stop]
        if numbers.translate(None, _OF_NUMBERS):
            return None
        return text, numbers

    def learn(
        self, body: bytes, model: str | None, fields: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Know a body again that holds one row, and perhaps its model's name and some numbers.

        Args:
            body: that was parsed, and found good.
            model: the name it holds.
            fields: what else it holds beside the row; it is not learnt where one is no number.
        """
        if not all(type(value) in (int, float) for value in fields.values()):
            return  # true counts as 1 where values are compared
        start, stop = body.find(b"[[") + 2, body.rfind(b"]]")
        text = body[:start] + body[stop:]
        if not 2 <= start < stop or len(text) > _MAX_TEXT_BYTES:
            return
        if body[start:stop].translate(None, _OF_NUMBERS):
            return
        if len(self._texts) == _MAX_TEXTS:
            self._texts.clear()
        self._texts[text] = LoneText(model, tuple(sorted(fields.items())))


def parse_lone_rows(
    numbers: Sequence[bytes], event_shape: Shape, *, dtype: np.dtype[Any]
) -> Array | None:
    """Parse the numbers of lone rows, all at once: as each would be parsed.

    Returns:
        (len(numbers), *event_shape); None where one of them is anything but a good row.
    """
    try:
        values = orjson.loads(b"[[%b]]" % b"],[".join(numbers))
    except orjson.JSONDecodeError:
        return None
    return read_few_rows(values, event_shape, dtype)
