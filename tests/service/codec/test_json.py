"""JSON bodies: what is taken, what is refused, what is written."""

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.codec.json import check_keys, is_plain, parse_object, read_object, write_object
from service.codec.tensors import check_leaves
from service.errors import ServiceError

F32 = np.float32

scalars = st.text(max_size=5) | st.integers(-(2**63), 2**63) | st.none() | st.booleans()
tensors = st.recursive(
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**31), 2**31),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), scalars | tensors, max_size=4), st.booleans())
def test_every_object_of_scalars_and_tensors_is_read(
    content: dict[str, Any], is_escaped: bool
) -> None:
    body = json.dumps(content, ensure_ascii=is_escaped).encode()
    assert read_object(body) == content


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "white space": b"  \n",
    "text": b"hello",
    "truncated": b'{"x": [[1, 2]',
    "trailing comma": b'{"x": [[1]],}',
    "trailing bytes": b'{"x": [[1]]} {}',
    "byte order mark": b'\xef\xbb\xbf{"x": [[1]]}',
    "utf-16": '{"x": [[1]]}'.encode("utf-16"),
    "invalid utf-8": b'{"x": "\xff"}',
    "lone surrogate": b'{"x": "\\ud800"}',
    "list": b"[[1, 2]]",
    "string": b'"x"',
    "number": b"1",
    "null": b"null",
    "depth bomb": b"[" * 100_000,
    "closed depth bomb": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth bomb behind NaN": b'{"x":[NaN,' + b"[" * 100_000,
    "key twice": b'{"x": [[1]], "x": [[2]]}',
    "key twice, one escaped": b'{"x": [[1]], "\\u0078": [[2]]}',
    "key twice before a tensor": b'{"model": "a", "model": "b", "x": [[1]]}',
    "key twice inside": b'{"x": [{"a": 1, "a": 2}]}',
    "integer of 100,000 digits": b'{"x": [[' + b"9" * 100_000 + b"]]}",
    "nan in small letters": b'{"x": [[nan]]}',
    "single quotes": b"{'x': [[1]]}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed(body: bytes) -> None:
    started = time.thread_time()
    with pytest.raises(ServiceError, match="body: ") as caught:
        read_object(body)
    assert (caught.value.status, caught.value.code) == (400, "malformed_body")
    assert time.thread_time() - started < 1
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    ("body", "holds"),
    [
        (b'{"x": [[1], ["2"]]}', "row 1 holds a string"),
        (b'{"x": [[1], [2], [true]]}', "row 2 holds true or false"),
        (b'{"x": [[1, false]]}', "row 0 holds true or false"),
        (b'{"x": [[1], null]}', "row 1 holds null"),
        (b'{"x": [[1, {"a": 1}]]}', "row 0 holds an object"),
        (b'{"x": ["1"]}', "row 0 holds a string"),
        (b'{"x": ' + b"[" * 900 + b"true" + b"]" * 900 + b"}", "row 0 holds true"),
    ],
)
def test_what_is_no_number_in_a_tensor(body: bytes, holds: str) -> None:
    with pytest.raises(ServiceError, match=holds) as caught:
        read_object(body)
    assert caught.value.code == "bad_dtype"


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_what_json_cannot_hold_is_read_as_meant(token: str) -> None:
    value = read_object(b'{"x": [[1, %s]]}' % token.encode())["x"][0][1]
    np.testing.assert_equal(value, float(token))


def test_fields_may_follow_the_tensor() -> None:
    body = b'{"x": [[1, 2]], "model": "true suns", "context": [0]}'
    assert read_object(body) == {"x": [[1, 2]], "model": "true suns", "context": [0]}


def test_answers_hold_the_shortest_float32_digits() -> None:
    values = np.array([0.1, 1 / 3, 1e-8, 16777216, -0.0], F32)
    body = write_object({"model": "m"}, {"log_prob": values})
    assert body == b'{"model":"m","log_prob":[0.1,0.33333334,1e-8,16777216.0,-0.0]}'


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_float32_answers_come_back_bit_for_bit(values: list[float]) -> None:
    sent = np.array(values, F32)
    body = write_object({}, {"z": sent})
    assert np.array(json.loads(body)["z"], F32).tobytes() == sent.tobytes()


def test_rows_that_json_cannot_hold_are_null_and_named() -> None:
    z = np.array([[1, 2], [np.nan, 3], [4, 5], [6, -np.inf]], F32)
    log_det = np.array([np.inf, 0, 1, 2], F32)
    content = json.loads(write_object({"model": "m"}, {"z": z, "log_det": log_det}))
    assert content == {
        "model": "m",
        "z": [[1, 2], None, [4, 5], None],
        "log_det": [None, 0, 1, 2],
        "non_finite": [0, 1, 3],
    }


def test_finite_answers_have_no_list_of_rows_that_are_not() -> None:
    huge = np.array([[3e38, -3e38]], F32)
    assert json.loads(write_object({}, {"z": huge})).keys() == {"z"}


def test_events_keep_their_shape() -> None:
    x = np.arange(12, dtype=F32).reshape(2, 1, 2, 3)
    assert json.loads(write_object({}, {"x": x}))["x"] == x.tolist()


leaves = (
    st.integers(-9, 9) | st.sampled_from(["a", "true", '"', "\u00e9"]) | st.none() | st.booleans()
)
# Objects as lists of pairs: a key may stand twice.
values = st.recursive(
    leaves | st.lists(st.integers(-9, 9) | leaves, max_size=3),
    lambda inner: st.lists(
        st.tuples(st.sampled_from(["a", "data", "u", "null"]), inner), min_size=1, max_size=3
    ).map(tuple),
    max_leaves=8,
)


def written(value: Any, *, is_escaped: bool) -> str:
    if isinstance(value, tuple):
        pairs = (f"{json.dumps(key)}:{written(part, is_escaped=is_escaped)}" for key, part in value)
        return f"{{{','.join(pairs)}}}"
    return json.dumps(value, ensure_ascii=is_escaped)


def lists_in(value: Any, data: str | None, name: str = "") -> list[list[Any]]:
    """All lists of an object; with the name of data, those that it stands before."""
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in lists_in(part, data, key)]
    return [value] if isinstance(value, list) and data in (None, name) else []


@given(
    st.lists(st.tuples(st.sampled_from(["x", "data", "s"]), values), max_size=3).map(tuple),
    st.booleans(),
    st.sampled_from([None, "data"]),
)
def test_what_is_plain_needs_no_second_look(
    pairs: tuple[tuple[str, Any], ...], is_escaped: bool, data: str | None
) -> None:
    # Below a key of its own, as the inputs of the Open Inference Protocol are.
    body = f'{{"top":{written(pairs, is_escaped=is_escaped)}}}'.encode() if pairs else b"{}"
    content = parse_object(body)
    if not is_plain(body, content, data):
        return
    check_keys(body)
    for found in lists_in(content, data):
        check_leaves(found, "x")


@pytest.mark.parametrize(
    ("body", "data", "expected"),
    [
        (b'{"model": "line", "x": [[2, 4, 6]]}', None, True),
        (b'{"x": [[1]], "log_prob": true}', None, True),
        (b'{"x": [[1]], "x": [[2]]}', None, False),
        (b'{"x": [["1"]]}', None, False),
        (b'{"x": [[true]]}', None, False),
        (b'{"inputs": [{"name": "x", "shape": [1, 2], "data": [1, 2]}]}', "data", True),
        (b'{"inputs": [{"name": "x", "data": [1], "data": [2]}]}', "data", False),
        (b'{"inputs": [{"name": "x", "data": [null]}]}', "data", False),
        (b'{"inputs": [{"name": "x", "data": ["1"]}]}', "data", False),
    ],
)
def test_what_is_plain(body: bytes, data: str | None, expected: bool) -> None:
    assert is_plain(body, parse_object(body), data) is expected
