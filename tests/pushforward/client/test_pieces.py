"""Calls on more rows than a server takes at once: in pieces, joined again."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from pushforward.client import AsyncClient, RequestRefused, ServerFailed, VersionChanged
from tests.pushforward.client.scripted import awaiting, blocking, first_column, npy, npz, rows_of
from tests.service.fake_repository import SCALE, URL, FakeRepository, app_over

ROWS = np.arange(3.0 * 100).reshape(100, 3)


def ask(
    repository: FakeRepository,
    call: Callable[[AsyncClient], Any],
    model: str = "line",
    **limits: Any,
) -> Any:
    async def exchange() -> Any:
        transport = httpx.ASGITransport(app_over(repository, **limits))
        async with AsyncClient(URL, model=model, transport=transport) as client:
            return await call(client)

    return asyncio.run(exchange())


def sizes(repository: FakeRepository, model: str = "line", kind: str = "encode") -> list[int]:
    return [len(rows) for rows, _ in repository.queue(model, kind).calls]


def test_a_hundred_thousand_rows_are_one_call() -> None:
    repository = FakeRepository()
    x = np.random.default_rng(0).normal(size=(100_000, 3))
    encoded = ask(repository, lambda client: client.encode(x))
    np.testing.assert_array_equal(encoded.z, (x.astype(np.float32) / SCALE))
    assert (encoded.log_det.shape, encoded.model, encoded.version) == ((100_000,), "line", "3")
    assert max(sizes(repository)) == 1024
    decoded = ask(repository, lambda client: client.decode(encoded.z))
    np.testing.assert_array_equal(decoded.x, x.astype(np.float32))
    scores = ask(repository, lambda client: client.log_prob(x))
    few = ask(repository, lambda client: client.log_prob(x[70_000:70_010]))
    np.testing.assert_array_equal(scores[70_000:70_010], few)


def test_pieces_shrink_to_what_the_server_takes() -> None:
    repository = FakeRepository()
    encoded = ask(
        repository, lambda client: client.encode(ROWS, chunk_rows=80), max_request_rows=30
    )
    np.testing.assert_array_equal(encoded.z, ROWS.astype(np.float32) / SCALE)
    assert max(sizes(repository)) == 20, "80 is refused, 40 too; what follows is no larger"


def test_pieces_shrink_behind_a_proxy_that_bounds_bodies() -> None:
    seen: list[int] = []
    refused: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if len(request.content) > 1000:
            refused.append(len(rows_of(request)))
            return httpx.Response(413, html="<title>413 Request Entity Too Large</title>")
        seen.append(len(rows_of(request)))
        return first_column(request)

    with blocking(answer) as client:
        np.testing.assert_array_equal(client.log_prob(ROWS), ROWS[:, 0])
        assert (seen, refused) == ([25] * 4, [100, 50]), (
            "a size that was refused is not tried again"
        )
        with pytest.raises(RequestRefused, match=r"server/log_prob: 413: 413 Request Entity"):
            client.log_prob(np.zeros((2, 900)))


def test_rows_that_are_large_go_by_few() -> None:
    seen: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(len(request.content))
        return npy(np.zeros(len(rows_of(request))))

    with blocking(answer) as client:
        assert client.log_prob(np.zeros((20, 2**18))).shape == (20,)
    assert seen == [8 * 2**21 + 128] * 2 + [4 * 2**21 + 128]


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 10])
def test_every_row_goes_once(rows: int) -> None:
    with blocking(first_column) as client:
        scores = client.log_prob(ROWS[:rows], chunk_rows=5)
    np.testing.assert_array_equal(scores, ROWS[:rows, 0])


def test_pieces_of_no_rows_are_refused() -> None:
    with blocking(first_column) as client, pytest.raises(ValueError, match="chunk_rows"):
        client.log_prob(ROWS, chunk_rows=0)


@pytest.mark.parametrize(
    ("model", "context"),
    [
        pytest.param("labelled", np.arange(10) % 4, id="labels"),
        pytest.param("labelled", 3, id="label"),
        pytest.param("steered", np.arange(20.0).reshape(10, 2), id="rows"),
        pytest.param("steered", np.array([1.0, 2.0]), id="one-row"),
    ],
)
def test_a_piece_has_the_contexts_of_its_rows(model: str, context: Any) -> None:
    x = np.arange(20.0).reshape(10, 2)
    whole = ask(FakeRepository(), lambda client: client.encode(x, context=context), model)
    parts = ask(
        FakeRepository(), lambda client: client.encode(x, context=context, chunk_rows=4), model
    )
    np.testing.assert_array_equal(parts.z, whole.z)


def test_progress_is_told_in_rows() -> None:
    told: list[tuple[int, int]] = []
    with blocking(first_column) as client:
        client.log_prob(ROWS, chunk_rows=40, progress=lambda *rows: told.append(rows))
    assert told == [(40, 100), (80, 100), (100, 100)]
    told.clear()
    ask(
        FakeRepository(),
        lambda client: client.decode(ROWS, chunk_rows=40, progress=lambda *rows: told.append(rows)),
    )
    assert told == [(40, 100), (80, 100), (100, 100)]


def test_an_answer_of_two_versions_is_refused() -> None:
    versions = iter("112")

    def answer(request: httpx.Request) -> httpx.Response:
        return npy(rows_of(request)[:, 0], next(versions))

    with blocking(answer) as client, pytest.raises(VersionChanged, match="1 became 2") as caught:
        client.log_prob(ROWS, chunk_rows=25)
    assert (caught.value.model, caught.value.versions) == ("m", ("1", "2"))


def test_parts_of_a_stream_say_their_version() -> None:
    versions = iter("112")

    def answer(request: httpx.Request) -> httpx.Response:
        return npy(rows_of(request)[:, 0], next(versions))

    with blocking(answer) as client:
        parts = list(client.stream_log_prob(ROWS, chunk_rows=40))
    assert [part.version for part in parts] == ["1", "1", "2"]
    np.testing.assert_array_equal(np.concatenate([part.log_prob for part in parts]), ROWS[:, 0])


def test_a_stream_takes_parts_as_they_come() -> None:
    taken: list[int] = []

    def batches() -> Any:
        for start in (0, 30, 60):
            taken.append(start)
            yield ROWS[start : start + 30]

    with blocking(lambda request: npz(z=rows_of(request), log_det=np.zeros(30))) as client:
        stream = client.stream_encode(batches())
        np.testing.assert_array_equal(next(stream).z, ROWS[:30])
        assert taken == [0]
        assert len(list(stream)) == 2

    async def exchange() -> list[Any]:
        async with awaiting(first_column) as client:
            return [part async for part in client.stream_log_prob(batches(), chunk_rows=20)]

    parts = asyncio.run(exchange())
    assert [len(part.log_prob) for part in parts] == [20, 10] * 3
    np.testing.assert_array_equal(np.concatenate([part.log_prob for part in parts]), ROWS[:90, 0])


def test_a_piece_that_fails_fails_the_call_and_says_where() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if rows_of(request)[0, 0] >= 3 * 40:
            return httpx.Response(500, json={"detail": "row 2 is bad", "code": "engine_error"})
        return first_column(request)

    with blocking(answer) as client, pytest.raises(ServerFailed, match="row 2 is bad") as caught:
        client.log_prob(ROWS, chunk_rows=40)
    assert caught.value.first_row == 40
    assert "counted from row 40 of the call" in str(caught.value)
    with blocking(answer) as client, pytest.raises(ServerFailed) as caught:
        client.log_prob(ROWS[80:])
    assert "counted from" not in str(caught.value)


def test_a_failed_piece_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushforward.client.clients.time.sleep", lambda _: None)
    attempts: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        attempts.append(1)
        if len(attempts) == 2:
            raise httpx.ReadError("broken")
        return first_column(request)

    with blocking(answer, max_retries=1) as client:
        np.testing.assert_array_equal(client.log_prob(ROWS, chunk_rows=40), ROWS[:, 0])
    assert len(attempts) == 4


def test_few_pieces_are_under_way_at_once_and_none_when_the_call_ends() -> None:
    under_way = most = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            first = rows_of(request)[0, 0]
            # The later are faster: answers are in the order of the rows all the same.
            await asyncio.sleep(0.02 - first / 20_000)
            if np.isnan(rows_of(request)).any():
                return httpx.Response(422, json={"detail": "no"})
            return first_column(request)
        finally:
            under_way -= 1

    async def exchange(x: Any) -> Any:
        async with awaiting(answer) as client:
            try:
                return await client.log_prob(x, chunk_rows=5)
            finally:
                assert under_way == 0

    np.testing.assert_array_equal(asyncio.run(exchange(ROWS)), ROWS[:, 0])
    assert most == 4
    bad = ROWS.copy()
    bad[10, 1] = np.nan
    with pytest.raises(RequestRefused):
        asyncio.run(exchange(bad))


def test_a_call_that_is_cancelled_leaves_no_piece_behind() -> None:
    async def exchange() -> None:
        ended: list[bool] = []

        async def answer(request: httpx.Request) -> httpx.Response:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                ended.append(True)
                raise
            return first_column(request)

        async with awaiting(answer) as client:
            call = asyncio.create_task(client.log_prob(ROWS, chunk_rows=5))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert ended == [True] * 4

    asyncio.run(exchange())
