"""Bodies of one row are known again by the text around their numbers, and mean what they say."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.codec.json import read_object
from service.codec.lone_rows import LoneRowReader, LoneText, parse_lone_rows
from service.codec.tensors import read_rows
from service.errors import ServiceError

SHAPE, FLOAT32 = (3,), np.dtype(np.float32)

BODIES = [
    (b'{"x": [[%b]]}', None),
    (b'{"x":[[%b]]}', None),
    (b'{"model": "moons", "x": [[%b]]}', "moons"),
    (b'{"x": [[%b]], "model": "a]b\\"c"}', 'a]b"c'),
    (b' {"x"\n: [[ %b ]] }\n', None),
]


def taught(*bodies: tuple[bytes, str | None]) -> LoneRowReader:
    reader = LoneRowReader()
    for body, model in bodies:
        assert read_object(body % b"1, 2, 3").get("model") == model
        reader.learn(body % b"1, 2, 3", model)
    return reader


@pytest.mark.parametrize(("body", "model"), BODIES)
def test_a_body_that_was_good_once_is_known_with_other_numbers(
    body: bytes, model: str | None
) -> None:
    reader = LoneRowReader()
    assert reader.find(body % b"1, 2, 3") is None
    reader.learn(body % b"1, 2, 3", model)
    found = reader.find(body % b"-4.5e-3,\t0 , 6")
    assert found is not None
    assert (found[0].model, found[1].strip()) == (model, b"-4.5e-3,\t0 , 6")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[[",
        b"]][[",
        b'{"x": [[1, 2, 3], [4, 5, 6]]}',
        b'{"x": [[1, null, 3]]}',
        b'{"x": [[1, NaN, 3]]}',
        b'{"x": [["1", 2, 3]]}',
        b'{"x": [[1, 2, 3]], "y": [[1, 2, 3]]}',
        b'{"x": [[1, 2, 3]], "x": [[4, 5, 6]]}',
        b'{"x": [[[1]]]}',
        b'{"y": [[1, 2, 3]]}',
        b'{"x": [[1, 2, 3]]',
        b'{"model": "moons", "x": [[1, 2, 3]]} ',
    ],
)
def test_another_body_is_another(body: bytes) -> None:
    assert taught(*BODIES).find(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"x": [[1, 2, 3], [4, 5, 6]]}',
        b'{"model": "a[[b", "x": [[1, 2, 3]]}',
        b'{"x": [[1, 2, 3]], "model": "a]]b"}',
        b'{"model": "%b", "x": [[1, 2, 3]]}' % (b"m" * 600),
    ],
)
def test_what_is_not_one_row_between_two_brackets_is_not_learned(body: bytes) -> None:
    reader = LoneRowReader()
    reader.learn(body, "a")
    assert reader.find(body) is None
    start, stop = body.find(b"[[") + 2, body.rfind(b"]]")
    assert reader.find(body[:start] + b"1" + body[stop:]) is None


def test_only_so_many_texts_are_kept() -> None:
    reader = LoneRowReader()
    for index in range(2000):
        reader.learn(b'{"model": "%d", "x": [[1]]}' % index, str(index))
    known = [reader.find(b'{"model": "%d", "x": [[7]]}' % index) for index in range(2000)]
    assert sum(row is not None for row in known) <= 256
    assert reader.find(b'{"model": "1999", "x": [[7]]}') == (LoneText("1999"), b"7")


@given(st.lists(st.text('0123456789+-.eE, ]}[{"xm:naN', max_size=24), min_size=1, max_size=4))
def test_rows_are_what_their_bodies_say_or_are_left_to_the_parser(texts: list[str]) -> None:
    """Whatever comes between the brackets: the joint numbers are those of each body alone."""
    reader = taught((b'{"x": [[%b]]}', None))
    bodies = [b'{"x": [[%b]]}' % text.encode() for text in texts]
    found = [reader.find(body) for body in bodies]
    known = [row[1] for row in found if row is not None]
    joint = parse_lone_rows(known, SHAPE, dtype=FLOAT32) if known else None
    if joint is not None:
        alone = [_alone(body) for body, row in zip(bodies, found, strict=True) if row is not None]
        assert all(rows is not None for rows in alone)
        np.testing.assert_array_equal(joint, np.concatenate(alone))


@given(st.lists(st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3), min_size=1, max_size=9))
def test_good_rows_are_read(rows: list[list[float]]) -> None:
    reader = taught((b'{"x":[[%b]]}', None))
    found = [reader.find(orjson.dumps({"x": [row]})) for row in rows]
    numbers = [row[1] for row in found if row is not None]
    assert len(numbers) == len(rows)
    joint = parse_lone_rows(numbers, SHAPE, dtype=FLOAT32)
    np.testing.assert_array_equal(joint, np.array(rows).astype(np.float32))


@pytest.mark.parametrize(
    "bad", [b"1, 2", b"1, 2, 3, 4", b"", b"1,, 3", b"1e400, 2, 3", b"1e39, 2, 3"]
)
def test_one_that_is_at_fault_leaves_all_to_the_parser(bad: bytes) -> None:
    assert parse_lone_rows([b"1, 2, 3", bad], SHAPE, dtype=FLOAT32) is None


def _alone(body: bytes) -> Any:
    try:
        return read_rows(read_object(body)["x"], "x", SHAPE, dtype=FLOAT32, max_rows=9)
    except ServiceError:
        return None


def test_numbers_beside_the_row_are_known_again() -> None:
    reader = LoneRowReader()
    reader.learn(b'{"x":[[1]],"b":2,"a":0.5}', "moons", {"b": 2, "a": 0.5})
    said = LoneText("moons", (("a", 0.5), ("b", 2)))
    assert reader.find(b'{"x":[[7]],"b":2,"a":0.5}') == (said, b"7")
    assert reader.find(b'{"x":[[7]],"b":2,"a":0.25}') is None


@pytest.mark.parametrize("value", [True, "1", None, [1]])
def test_what_is_no_number_beside_the_row_is_not_learned(value: object) -> None:
    reader = LoneRowReader()
    reader.learn(b'{"x":[[1]],"a":0}', None, {"a": value})
    assert reader.find(b'{"x":[[1]],"a":0}') is None
