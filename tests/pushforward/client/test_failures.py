"""Rows without an answer: as values, as a mask, as an exception."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from pushforward.client import AsyncClient, Failure, RequestRefused, RowsFailed
from pushforward.client.failures import STATUSES
from service.operations.failures import CODES
from tests.pushforward.client.scripted import awaiting, blocking, npy, npz, rows_of
from tests.service.fake_repository import SCALE, URL, FakeRepository, app_over

X = np.arange(30.0).reshape(10, 3)


def answer(request: httpx.Request) -> httpx.Response:
    """A continuous model that fails at 12, and says so where the form of the answer can."""
    x = rows_of(request)
    status = np.where(x[:, 0] == 12, 2, 0)
    scores = np.where(status, np.nan, x[:, 0])
    if "npz" not in request.headers["accept"]:
        return npy(scores)
    arrays = {"log_prob": scores, "z": x * scores[:, None], "log_det": scores}
    return npz(**arrays, **({"status": status} if status.any() else {}))


FAILURES = (Failure(4, "solver_failed", "step_underflow"),)


def test_by_default_they_are_values() -> None:
    with blocking(answer) as client:
        scores = client.log_prob(X)
    assert type(scores) is np.ndarray
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(scores)), [4])


@pytest.mark.parametrize("chunk_rows", [3, 100])
def test_a_mask_hides_them_and_says_why(chunk_rows: int) -> None:
    with blocking(answer) as client:
        scores = client.log_prob(X, failed="mask", chunk_rows=chunk_rows)
        encoded = client.encode(X, failed="mask", chunk_rows=chunk_rows)
    np.testing.assert_array_equal(np.flatnonzero(scores.mask), [4])
    assert scores.failures == FAILURES
    assert scores.mean() == X[np.arange(10) != 4, 0].mean()
    np.testing.assert_array_equal(encoded.z.mask, np.repeat(scores.mask[:, None], 3, 1))
    assert encoded.log_det.failures == encoded.z.failures == FAILURES


@pytest.mark.parametrize("chunk_rows", [3, 100])
def test_an_exception_has_the_rows_and_the_answer(chunk_rows: int) -> None:
    with blocking(answer, failed="raise") as client:
        with pytest.raises(
            RowsFailed, match=r"1 of 10 rows.*4 \(solver_failed: step_underflow\)"
        ) as caught:
            client.encode(X, chunk_rows=chunk_rows)
        assert client.encode(X[5:]).log_det.shape == (5,)
        assert client.log_prob(X, failed="values").shape == (10,)
    assert caught.value.failures == FAILURES
    answered: Any = caught.value.answer
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(answered.log_det)), [4])


def test_rows_of_a_stream_are_counted_from_its_beginning() -> None:
    with blocking(answer) as client:
        parts = list(client.stream_log_prob(iter([X[:4], X[4:]]), failed="mask", chunk_rows=3))
        assert [part.log_prob.failures for part in parts] == [(), (), FAILURES, ()]

    async def exchange() -> list[Any]:
        async with awaiting(answer, failed="raise") as client:
            return [part async for part in client.stream_encode(X, chunk_rows=3)]

    with pytest.raises(RowsFailed) as caught:
        asyncio.run(exchange())
    assert caught.value.failures == FAILURES


def test_samples_fail_too() -> None:
    def draw(request: httpx.Request) -> httpx.Response:
        rows = int(request.url.params["num_samples"])
        start = int(request.url.params["first_row"])
        status = (np.arange(start, start + rows) == 4).astype(int)
        values = np.zeros(rows)
        return npz(x=values[:, None], log_prob=values, seed=np.array(7), status=status)

    with blocking(draw) as client:
        drawn = client.sample(6, failed="mask")
        assert drawn.log_prob.failures == (Failure(4, "solver_failed", "budget_spent"),)
        with pytest.raises(RowsFailed) as caught:
            list(client.stream(6, chunk_rows=3, failed="raise"))
    assert caught.value.failures[0].row == 4


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="'values', 'mask', 'raise'"):
        blocking(answer, failed="ignore")
    with blocking(answer) as client, pytest.raises(ValueError, match="failed: expected"):
        client.log_prob(X, failed="ignore")


def test_what_the_client_says_of_nan_is_sent_in_every_call() -> None:
    seen: list[str | None] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.params.get("invalid"))
        return answer(request)

    with blocking(note, invalid="null") as client:
        client.log_prob(X)
        client.log_prob(X, invalid="refuse")
    assert seen == ["null", None]


def test_statuses_are_those_of_the_server() -> None:
    assert {0: CODES[0], **STATUSES} == dict(enumerate(CODES))


def ask(call: Callable[[AsyncClient], Any], model: str = "line", **options: Any) -> Any:
    async def exchange() -> Any:
        transport = httpx.ASGITransport(app_over(FakeRepository()))
        async with AsyncClient(URL, model=model, transport=transport, **options) as client:
            return await call(client)

    return asyncio.run(exchange())


def test_one_bad_row_of_many_is_one_row_without_an_answer() -> None:
    x = np.arange(569.0 * 3).reshape(569, 3)
    x[7, 1] = np.nan
    with pytest.raises(RequestRefused, match="row 7 holds nan"):
        ask(lambda client: client.log_prob(x))
    bad = (Failure(7, "invalid_input", "nan"),)
    for rows in (100, 1024):
        encoded = ask(
            lambda client, rows=rows: client.encode(x, chunk_rows=rows, failed="mask"),
            invalid="null",
        )
        assert encoded.z.failures == bad
        np.testing.assert_array_equal(np.flatnonzero(encoded.log_det.mask), [7])
        np.testing.assert_array_equal(np.delete(encoded.z, 7, 0), np.delete(x, 7, 0) / SCALE)
    scores = ask(lambda client: client.log_prob(x, invalid="null"))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(scores)), [7])
    with pytest.raises(RowsFailed, match=r"1 of 569 rows.*7 \(invalid_input: nan\)") as caught:
        ask(lambda client: client.log_prob(x, invalid="null", failed="raise", chunk_rows=100))
    assert caught.value.failures == bad


def test_a_picture_with_failed_rows_is_told_where_an_exception_was_chosen() -> None:
    def draw(request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "image/png", "x-failures": "2", "x-failed-rows": "1,3"}
        return httpx.Response(200, headers=headers, content=b"PNG")

    with blocking(draw, failed="raise") as client:
        for call in (lambda: client.sample_picture(4), lambda: client.decode_picture([[1.0]])):
            with pytest.raises(RowsFailed, match="2 rows have no answer: rows 1, 3") as caught:
                call()
            assert caught.value.answer == b"PNG"
        assert client.sample_picture(4, failed="values") == b"PNG"
