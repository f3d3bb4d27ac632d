"""What a message holds, counted before it is built.

Two bytes of a message can be an object of a hundred, and protobuf keeps the interpreter to itself
until all are made: 64 MB would take gigabytes, and stop everybody for seconds.

Reference: Protocol Buffers, Encoding.
"""

from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from service.errors import TooLarge

# Fields of a message and of all within it; arrays are one field each.
MOST_FIELDS = 4096
# Whole numbers of a byte or more, as which they are sent, that become eight.
MOST_VALUES = 8 * 2**20

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_TYPES = frozenset(
    (
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
    )
)


def check_content(body: bytes | bytearray, descriptor: Any) -> None:
    """Refuse a message of too many parts; one that is malformed passes, and fails to parse.

    Args:
        body: the message.
        descriptor: what it is a message of.

    Raises:
        TooLarge: it has more fields or whole numbers than is allowed.
    """
    # A field has at least two bytes.
    if len(body) <= 2 * MOST_FIELDS:
        return
    left = MOST_FIELDS
    parts = [(0, len(body), descriptor.fields_by_number)]
    while parts:
        at, end, fields = parts.pop()
        while at < end:
            left -= 1
            if left < 0:
                raise TooLarge(
                    f"message: expected at most {MOST_FIELDS:,} fields, got more; send numbers in "
                    "raw_input_contents, or packed"
                )
            tag, at = _read_varint(body, at, end)
            kind = tag & 7
            if kind == _BYTES:
                size, at = _read_varint(body, at, end)
                stop = min(at + size, end)
                field = fields.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    parts.append((at, stop, field.message_type.fields_by_number))
                elif field is not None and field.type in _VARINT_TYPES:
                    _check_values(body, at, stop, field.name)
                at = stop
            elif kind == _VARINT:
                _, at = _read_varint(body, at, end)
            else:
                at += _SIZES.get(kind, 0)


def _check_values(body: bytes | bytearray, start: int, stop: int, name: str) -> None:
    if stop - start <= MOST_VALUES:
        return
    # The last byte of each number is below 128.
    count = int((np.frombuffer(body, np.uint8, stop - start, start) < 128).sum())
    if count > MOST_VALUES:
        raise TooLarge(
            f"{name}: expected at most {MOST_VALUES:,} values, got {count:,}; send them in "
            "raw_input_contents, or in several requests"
        )


def _read_varint(body: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """Read a number; what is cut off or too long ends the part.

    Returns:
        The number, and where it ends.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            return 0, end
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, at
    return 0, end
