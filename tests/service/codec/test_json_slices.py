"""Large JSON bodies: the same numbers and the same refusals as of the whole, a slice at a time."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codec import json_slices
from service.codec.json import parse_object, read_object
from service.codec.json_slices import LARGE_BYTES, SliceLimits, parse_large
from service.errors import Overloaded, ServiceError
from service.transport.request import ReceiveBudget, receive_body
from tests.service.fake_repository import FakeRepository, app_over, post

ROWS = 1000


# A few bytes are long, so that short bodies are cut in many places.
SHORT = SliceLimits(rest=400, long=100, array=100, slice=30, row=4000)


def plain(value: Any) -> Any:
    return np.asarray(value, np.float64) if type(value) in (list, np.ndarray) else value


def check_same(body: bytes) -> None:
    got, wanted = parse_large(body, ROWS, SHORT), read_object(body)
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(plain(got[name]), plain(value), strict=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=3),
    st.integers(1, 200),
    st.sampled_from([None, 0, 2]),
    st.integers(0, 2**32),
)
def test_numbers_are_those_of_the_whole(
    event: list[int], rows: int, indent: int | None, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, *event)) * 10.0 ** generator.integers(-9, 9, (rows, *event))
    content = {"model": 'a "name" \\ [1, 2]', "x": x.tolist(), "seed": 3, "context": x.tolist()}
    check_same(json.dumps(content, indent=indent).encode())


LONG = ",".join(["[1, 2]"] * 60)
FLAT = ",".join(["1.5"] * 200)
WRONG = {
    "comma_at_the_end": '{"x": [LONG,]}',
    "comma_at_the_start": '{"x": [,LONG]}',
    "no_comma": '{"x": [LONG [1, 2], LONG]}',
    "two_commas": '{"x": [LONG,, LONG]}',
    "too_many_ends": '{"x": [LONG]]}',
    "more_after_it": '{"x": [LONG]} 7',
    "a_key_twice": '{"x": [LONG], "x": [LONG]}',
    "a_key_without_a_string": "{x: [LONG]}",
    "a_string_without_an_end": '{"x": [LONG], "y}',
    "numbers_of_two_words": '{"x": [LONG, [2 3, 1], LONG]}',
    "no_object": "[LONG]",
    "ragged": '{"x": [LONG, [1], LONG]}',
    "a_number_among_rows": '{"x": [LONG, 7, LONG]}',
    "deeper": '{"x": [LONG, [[1, 2]], LONG]}',
    "true": '{"x": [LONG, [1, true], LONG]}',
    "null": '{"x": [LONG, null, LONG]}',
    "an_object": '{"x": [LONG, {}, LONG]}',
    "a_string": '{"x": [LONG, ["1", 2], LONG]}',
    "a_string_in_a_flat_list": '{"x": [FLAT, "1", FLAT]}',
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_as_a_whole_is_wrong_in_slices(case: str) -> None:
    body = WRONG[case].replace("LONG", LONG).replace("FLAT", FLAT).encode()
    with pytest.raises((ServiceError, ValueError)) as one:
        np.array(read_object(body)["x"], np.float64)
    with pytest.raises(ServiceError) as sliced:
        parse_large(body, ROWS, SHORT)
    # ValueError: of ragged rows, which are refused later there.
    assert sliced.value.status == getattr(one.value, "status", 422)


def test_an_array_without_an_end_is_refused() -> None:
    for body in ('{"x": [LONG', '{"x": [FLAT', '{"x": [LONG}'):
        with pytest.raises(ServiceError) as caught:
            parse_large(body.replace("LONG", LONG).replace("FLAT", FLAT).encode(), ROWS, SHORT)
        assert caught.value.status in (400, 422)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_what_is_not_finite_is_read_as_what_it_means(word: str) -> None:
    check_same(f'{{"x": [{LONG}, [1, {word}], {LONG}]}}'.encode())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"x": [[]' + ",[]" * 1000 + "]}", 413),
        ('{"x": [[1]' + ",[1]" * 999 + "]}", None),
        ('{"x": [[1' + ",1" * 2000 + "]]}", 413),
        ('{"x": ' + "[" * 200 + "1" + "]" * 200 + "}", 400),
        ('{"x": "' + "y" * 500 + '"}', 400),
        ('{"x": [""' + ',""' * 20_000 + "]}", 422),
        ('{"x": 1' + "".join(f',"{i}": 1' for i in range(200)) + "}", 413),
        ('{"x":' + " " * 500 + "[[1]]}", 413),
    ],
    ids=["empty_rows", "rows", "a_row", "depth", "a_string", "strings", "keys", "spaces"],
)
def test_what_costs_much_is_bounded(body: str, status: int | None) -> None:
    if status is None:
        assert parse_large(body.encode(), ROWS, SHORT)["x"].shape == (1000, 1)
        return
    with pytest.raises(ServiceError) as caught:
        parse_large(body.encode(), ROWS, SHORT)
    assert caught.value.status == status


# Small numbers, which take many digits.
X = 1e-6 * np.random.default_rng(0).normal(size=(16_000, 3)).astype(np.float32)


@pytest.mark.parametrize("query", ["", "?model=line"])
def test_operations_answer_large_bodies(query: str) -> None:
    body = {"x": X.tolist()} if query else {"model": "line", "x": X.tolist()}
    assert len(json.dumps(body)) > LARGE_BYTES
    answer = post(app_over(FakeRepository()), f"/encode{query}", json=body)
    np.testing.assert_array_equal(np.array(answer.json()["z"], np.float32), X / 2)
    answer = post(app_over(FakeRepository()), f"/encode{query}", json=body | {"y": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field")


@pytest.mark.parametrize("flat", [True, False])
def test_v2_answers_large_bodies(flat: bool) -> None:
    data = X.reshape(-1).tolist() if flat else X.tolist()
    tensor = {"name": "x", "shape": list(X.shape), "datatype": "FP32", "data": data}
    asked = {"inputs": [tensor], "outputs": [{"name": "z"}], "id": "i"}
    assert len(json.dumps(asked)) > LARGE_BYTES
    answer = post(app_over(FakeRepository()), "/v2/models/line/infer", json=asked)
    assert answer.json()["id"] == "i"
    z = np.array(answer.json()["outputs"][0]["data"], np.float32)
    np.testing.assert_array_equal(z, X.reshape(-1) / 2)


def test_no_call_of_the_parser_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    parse = parse_object

    def record(text: bytes | bytearray) -> dict[str, Any]:
        sizes.append(len(text))
        return parse(text)

    monkeypatch.setattr(json_slices, "parse_object", record)
    body = b'{"x":[%b]}' % b",".join([b"[1.25,2.5,3.75]"] * 100_000)
    assert parse_large(body, 10**6)["x"].shape == (100_000, 3)
    assert sum(sizes) > len(body)
    assert max(sizes) < 300_000, "more holds up the event loop for tens of milliseconds"


def arriving(count: int, *, ends: bool) -> Any:
    """A body of so many chunks of ten bytes, of which the last comes or does not."""
    left = [count]

    async def receive() -> dict[str, Any]:
        left[0] -= 1
        if left[0] < 0:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": bytes(10), "more_body": left[0] > 0 or not ends}

    return receive


def test_bodies_are_bounded_together() -> None:
    async def play() -> None:
        reception = ReceiveBudget(100)
        slow = [
            asyncio.ensure_future(receive_body({}, arriving(4, ends=False), 1000, reception))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="100 bytes are being received"):
            await receive_body({}, arriving(5, ends=True), 1000, reception)
        assert len(await receive_body({}, arriving(2, ends=True), 1000, reception)) == 20
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)
        assert len(await receive_body({}, arriving(50, ends=True), 1000, reception)) == 500

    asyncio.run(play())


def test_a_server_bounds_them_too() -> None:
    """The setting arrives: two bodies at once where one has room."""

    async def play() -> list[int]:
        app = app_over(FakeRepository(), max_receiving_bytes=50)
        statuses = []

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/encode",
            "query_string": b"",
            "headers": [],
        }
        held = asyncio.ensure_future(app(scope, arriving(4, ends=False), send))
        await asyncio.sleep(0)
        await app(dict(scope), arriving(4, ends=True), send)
        held.cancel()
        await asyncio.wait([held])
        return statuses

    assert asyncio.run(play()) == [429]
