"""What a message of gRPC holds is counted before it is built."""

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import MalformedBody, TooLarge
from service.transport.grpc.bounds import MOST_FIELDS, MOST_VALUES
from service.transport.grpc.messages import message_class, parse
from tests.service.transport.grpc_server import Asking, outputs, question, run

REQUEST = message_class("ModelInferRequest")
MODEL = b"\x0a\x04line"


def part(number: int, body: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    size, length = len(body), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + body


@pytest.mark.parametrize(
    "field",
    [
        part(5, b""),
        part(7, b""),
        part(6, b""),
        part(4, b""),
        part(4, b"\x0a\x01a"),
        part(15, b""),
        b"\x20\x00",
        b"\x7b\x7c",
        b"\x7d" + bytes(4),
        b"\x79" + bytes(8),
    ],
    ids=lambda field: field.hex(),
)
def test_many_fields_are_refused_before_they_are_objects(field: bytes) -> None:
    body = MODEL + field * (2 * MOST_FIELDS)
    with pytest.raises(TooLarge, match=f"expected at most {MOST_FIELDS:,} fields"):
        parse(REQUEST, body)
    with pytest.raises(TooLarge):
        parse(REQUEST, bytearray(body))


@pytest.mark.parametrize(
    "field",
    [
        part(3, b"\x01") * 5000,
        b"\x18\x01" * 5000,
        part(4, b"") * 5000,
        part(5, part(8, b"") * 5000),
        part(5, b"\x35" + bytes(4)) * 5000,
        part(5, struct.pack("<Bf", 0x35, 1.0) * 5000),
    ],
    ids=["packed shapes", "shape", "parameters", "texts", "contents", "numbers"],
)
def test_so_are_those_within_an_input(field: bytes) -> None:
    with pytest.raises(TooLarge, match="fields, got more; send numbers in raw_input_contents"):
        parse(REQUEST, MODEL + part(5, field))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_whole_numbers_are_counted(number: int) -> None:
    """They take a byte or two and become four or eight."""
    numbers = b"\x80\x01" * MOST_VALUES
    contents = part(number, numbers)
    message = parse(REQUEST, MODEL + part(5, part(5, contents)))
    ((_, values),) = message.inputs[0].contents.ListFields()
    assert len(values) == MOST_VALUES
    with pytest.raises(TooLarge, match=rf"_contents: expected at most .* got {MOST_VALUES + 1:,}"):
        parse(REQUEST, MODEL + part(5, part(5, part(number, numbers + b"\x01"))))
    with pytest.raises(TooLarge, match="shape: expected"):
        parse(REQUEST, MODEL + part(5, part(3, numbers + b"\x01")))


def test_large_tensors_are_few_fields() -> None:
    rows = np.arange(300_000, dtype=np.float32).reshape(-1, 3)
    for raw in (True, False):
        written = question(rows, raw=raw).SerializeToString()
        assert parse(REQUEST, written).SerializeToString() == written
    many = REQUEST(model_name="line", id="x" * 2 * MOST_FIELDS)
    for index in range(MOST_FIELDS // 4):
        many.inputs.add(name=f"{index}", datatype="FP32")
    many.inputs.pop()
    assert len(parse(REQUEST, many.SerializeToString()).inputs) == MOST_FIELDS // 4 - 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_bytes_that_are_no_message_are_told_from_too_large_ones(head: bytes, tail: bytes) -> None:
    """Padded with a text, so that they are counted at all."""
    body = head + part(1, b"a" * 2 * MOST_FIELDS) + tail
    with suppress(MalformedBody):
        assert parse(REQUEST, body) == REQUEST.FromString(body)


def test_who_asks_for_it_is_told_and_others_are_answered() -> None:
    async def test(client: Asking) -> None:
        many = MODEL + part(5, b"") * 500_000
        found = await client.refusal("ModelInfer", many)
        assert found[::2] == ("OUT_OF_RANGE", "too_large")
        name = part(1, b"a" * 2**16)
        for method in ("ModelReady", "ServerMetadata"):
            found = await client.refusal(method, name)
            assert (*found[::2], "at most 65536 bytes" in found[1]) == (
                "OUT_OF_RANGE", "too_large", True
            )  # fmt: skip
        rows = np.array([[2, 4, 6]], np.float32)
        answer = await client.call("ModelInfer", question(rows))
        assert outputs(answer)["z"].tolist() == [[1.0, 2.0, 3.0]]

    run(test, max_body_bytes=2**21)
