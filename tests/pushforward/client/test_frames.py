"""Data frames and tables as rows: their names are sent."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pushforward.client import AsyncClient, RequestRefused
from tests.pushforward.client.scripted import blocking, first_column, npy, rows_of
from tests.service.fake_repository import URL, FakeRepository, app_over

COLUMNS = {"mass": [1.0, 2.0], "speed, in m/s": [3, 4]}


class Polars:
    """What polars has of a frame: names in `columns`, a series by its name."""

    columns = ("mass", "speed, in m/s")
    shape = (2, 2)

    def __getitem__(self, name: str) -> Any:
        return pa.chunked_array([COLUMNS[name]])


def sent(rows: Any, **options: Any) -> httpx.Request:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return npy(np.zeros(2))

    with blocking(answer, model="m") as client:
        client.log_prob(rows, **options)
    (request,) = requests
    return request


@pytest.mark.parametrize(
    "frame",
    [pd.DataFrame(COLUMNS), pa.table(COLUMNS), pa.RecordBatch.from_pydict(COLUMNS), Polars()],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_brings_its_names(frame: Any) -> None:
    request = sent(frame)
    np.testing.assert_array_equal(rows_of(request), [[1, 3], [2, 4]])
    assert json.loads(request.url.params["columns"]) == list(COLUMNS)
    assert request.headers["content-type"] == "application/x-npy"


def test_an_array_may_be_given_names() -> None:
    request = sent(np.ones((2, 2)), columns=["b", "a"])
    assert json.loads(request.url.params["columns"]) == ["b", "a"]
    with pytest.raises(ValueError, match="rename its columns"):
        sent(pd.DataFrame(COLUMNS), columns=["b", "a"])


def test_a_frame_without_names_is_an_array() -> None:
    request = sent(pd.DataFrame(np.ones((2, 3))))
    assert "columns" not in request.url.params
    np.testing.assert_array_equal(rows_of(request), np.ones((2, 3)))
    mixed = sent(pd.DataFrame(np.ones((2, 2)), columns=[0, "a"]))
    assert json.loads(mixed.url.params["columns"]) == ["0", "a"]


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, None], dtype="Int64"),
        pd.array([1.0, None], dtype="Float32"),
        np.array([1, None], object),
        np.array([1.0, np.nan]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_what_is_missing_is_nan(column: Any) -> None:
    request = sent(pd.DataFrame({"a": column, "b": [1, 2]}), invalid="null")
    np.testing.assert_array_equal(rows_of(request), [[1, 1], [np.nan, 2]])
    assert request.url.params["invalid"] == "null"


def test_what_is_missing_in_a_table_of_arrow_is_nan() -> None:
    request = sent(pa.table({"a": [1, None], "b": [1.0, None]}))
    np.testing.assert_array_equal(rows_of(request), [[1, 1], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("frame", "error", "text"),
    [
        (pd.DataFrame({"a": [1.0], "kind": ["good"]}), TypeError, "column 'kind': expected real"),
        (pd.DataFrame({"a": [True]}), TypeError, "column 'a': expected real numbers, got bool"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ValueError, "two columns are named 'a'"),
        (pd.DataFrame(), ValueError, "has no columns"),
    ],
    ids=["text", "flags", "twice", "empty"],
)
def test_what_is_no_table_of_numbers_is_refused_at_home(
    frame: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        sent(frame)


def test_many_long_names_travel_in_the_body() -> None:
    names = [f"a column of a rather long name, {index}" for index in range(300)]
    x = np.ones((2, 300))
    x[1, 4] = np.nan
    request = sent(pd.DataFrame(x, columns=names))
    assert not request.url.params
    body = json.loads(request.content)
    assert body["columns"] == names
    assert body["x"][1][3:6] == [1.0, None, 1.0]


def test_a_frame_goes_in_pieces_with_its_names() -> None:
    columns: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        columns.append(request.url.params["columns"])
        return first_column(request)

    with blocking(answer) as client:
        scores = client.log_prob(pd.DataFrame({"a": range(10), "b": range(10)}), chunk_rows=4)
    np.testing.assert_array_equal(scores, range(10))
    assert columns == ['["a", "b"]'] * 3


def test_a_frame_is_a_field_of_any_operation() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"model": "m", "version": "1"})

    with blocking(answer) as client:
        client.call("new_one", x=pd.DataFrame(COLUMNS))
    np.testing.assert_array_equal(rows_of(requests[0]), [[1, 3], [2, 4]])
    assert json.loads(requests[0].url.params["columns"]) == list(COLUMNS)


def ask(call: Callable[[AsyncClient], Any], model: str = "wide") -> Any:
    async def exchange() -> Any:
        transport = httpx.ASGITransport(app_over(FakeRepository()))
        async with AsyncClient(URL, model=model, transport=transport) as client:
            return await call(client)

    return asyncio.run(exchange())


def test_a_frame_in_another_order_gives_the_same_numbers() -> None:
    x = np.array([[1.0, 20.0], [3.0, -4.0]])
    expected = ask(lambda client: client.encode(x)).z
    frame = pd.DataFrame(x, columns=["mass", "speed"])
    for columns in (["mass", "speed"], ["speed", "mass"]):
        found = ask(lambda client, given=frame[columns]: client.encode(given, chunk_rows=1))
        np.testing.assert_array_equal(found.z, expected)
    turned = ask(lambda client: client.encode(x[:, ::-1], columns=["speed", "mass"]))
    np.testing.assert_array_equal(turned.z, expected)


@pytest.mark.parametrize(
    ("columns", "code", "text"),
    [
        (["mass", "pace"], "unknown_field", "'pace' is no column"),
        (["mass", "speed", "kind"], "unknown_field", "'kind' is no column"),
        (["mass"], "missing_field", "'speed' is missing"),
    ],
)
def test_a_column_of_another_name_is_named_by_the_server(
    columns: list[str], code: str, text: str
) -> None:
    frame = pd.DataFrame(np.ones((2, len(columns))), columns=columns)
    with pytest.raises(RequestRefused, match=text) as caught:
        ask(lambda client: client.log_prob(frame))
    assert caught.value.code == code


def test_columns_of_an_answer_come_in_the_order_asked_for() -> None:
    z = pd.DataFrame({"z_0": [1.0, 2.0], "z_1": [3.0, 4.0]})
    plain = ask(lambda client: client.decode(z))
    turned = ask(lambda client: client.decode(z, columns=["speed", "mass"]))
    np.testing.assert_array_equal(turned.x, plain.x[:, ::-1])
    drawn = ask(lambda client: client.sample(3, seed=7))
    other = ask(lambda client: client.sample(3, seed=7, columns=["speed", "mass"]))
    np.testing.assert_array_equal(other.x, drawn.x[:, ::-1])
