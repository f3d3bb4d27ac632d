"""Plain requests are read and written many at a time, and each is answered as if it were alone."""

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import orjson
import pytest

from service.codec.json import write_object, write_rows
from service.contracts import Array, InferenceResult
from service.errors import DeadlineExceeded, NotReady, TooLarge
from service.operations import Operation
from service.operations.log_prob import log_density
from service.transport.asgi import Endpoint
from service.transport.fast_path import FastPathProtocol
from service.transport.fast_path.fast_path_request import FastPathRequest
from tests.service.fake_repository import Linear
from tests.service.transport.loopback import LoopbackServer, Response, read, request, run

LINE = b'{"model": "line", "x": [[%s, 4, 6]]}'
PLAIN = [
    ("/log_prob", LINE % b"2"),
    ("/log_prob", LINE % b"8"),
    ("/encode", LINE % b"2"),
    ("/log_prob", b'{"model": "line", "x": [[1, 2, 3], [4, 5, 6]]}'),
    ("/log_prob", b'{"model": "line", "x": [[1, 2]]}'),
]


def batches(server: LoopbackServer, operation: str = "encode") -> list[int]:
    """How many rows of the model went to its queue at a time."""
    return [len(rows) for rows, _ in server.repository.queue("line", operation).calls]


async def exchange(loopback: LoopbackServer, requests: Sequence[bytes]) -> list[Response]:
    """Send each over a connection of its own, all in one turn of the loop."""
    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(loopback.client()) for _ in requests]
        for (_, writer), data in zip(ends, requests, strict=True):
            writer.write(data)
        return [await read(reader) for reader, _ in ends]


def plain_requests(cases: Sequence[tuple[str, bytes]]) -> list[bytes]:
    return [
        request(path, body, X_Request_Id=f"case-{index}")
        for index, (path, body) in enumerate(cases)
    ]


def test_what_is_counted_says_model_and_status() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        await exchange(loopback, plain_requests(PLAIN))
        for op, code, count in (("log_prob", 200, 3), ("encode", 200, 1), ("log_prob", 422, 1)):
            labels = {"model": "line", "version": "3", "op": op, "code": str(code)}
            value = loopback.metrics.registry.get_sample_value("pushforward_requests_total", labels)
            assert value == count

    run(play)


def test_an_answer_that_cannot_be_written_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    density = log_density

    def fail(z: Array, log_det: Array) -> Array:
        if (z[:, 0] == 4).any():  # x is 8 there
            raise RuntimeError("a fault of ours")
        return density(z, log_det)

    monkeypatch.setattr("service.operations.log_prob.log_density", fail)

    async def play() -> None:
        loopback = LoopbackServer()
        cases = [("/log_prob", LINE % first) for first in (b"2", b"8", b"2")]
        answers = await exchange(loopback, plain_requests(cases))
        assert [answer.status for answer in answers] == [200, 500, 200]
        assert answers[0].body == answers[2].body
        assert answers[1].json()["request_id"] == "case-1"
        assert batches(loopback) == [3]

    run(play)


@pytest.mark.parametrize("first", [request(), request(body=b"{")], ids=["answer", "refusal"])
def test_a_connection_that_cannot_be_written_to_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    finish = FastPathProtocol.finish
    failures = [RuntimeError("a fault of ours")]

    def fail(self: FastPathProtocol, reply: Any) -> None:
        if failures:
            raise failures.pop()
        finish(self, reply)

    monkeypatch.setattr(FastPathProtocol, "finish", fail)

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (lost, first_writer), loopback.client() as (reader, writer):
            first_writer.write(first)
            writer.write(request())
            assert (await read(reader)).status == 200
            assert await lost.read() == b""

    run(play)


def test_a_fault_of_ours_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("service.transport.fast_path.batch_assembly.join_inputs", fail)

    async def play() -> None:
        loopback = LoopbackServer()
        answers = await exchange(loopback, [request(), request(body=b"{"), request()])
        assert [answer.status for answer in answers] == [500, 400, 500]

    run(play)


@pytest.mark.parametrize(
    ("counting", "first", "status"),
    [("count_batch", request(), 200), ("record", request(body=b"{"), 400)],
)
def test_what_cannot_be_counted_costs_no_answer(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    counting: str,
    first: bytes,
    status: int,
) -> None:
    note = getattr(Endpoint, counting)
    failures = [RuntimeError("a fault of ours")]

    def fail(self: Endpoint, *exchange: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return note(self, *exchange, **more)

    monkeypatch.setattr(Endpoint, counting, fail)

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (lost, first_writer), loopback.client() as (reader, writer):
            first_writer.write(first)
            writer.write(request())
            assert (await read(reader)).status == 200
            assert (await read(lost)).status == status

    run(play)
    assert "could not be counted" in caplog.text


@pytest.mark.parametrize("most", [1, 2, 3])
def test_plain_rows_are_prepared_as_one_unless_together_they_are_refused(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    prepared = []
    check_size = Operation.check_size

    def check(self: Operation, card: Any, form: Any, rows: int, values: Any = None) -> None:
        prepared.append(rows)
        if rows > most:
            raise TooLarge("together")
        check_size(self, card, form, rows, values)

    monkeypatch.setattr(Operation, "check_size", check)

    async def play() -> None:
        loopback = LoopbackServer()
        cases = [("/encode", LINE % first) for first in (b"2", b"8", b"6")]
        first = await exchange(loopback, plain_requests(cases))
        assert prepared == [1, 1, 1]
        again = await exchange(loopback, plain_requests(cases))
        for answers in (first, again):
            assert [answer.json()["z"][0][0] for answer in answers] == [1, 4, 3]
        assert batches(loopback) == [3, 3]
        assert prepared[3:] == ([3] if most == 3 else [3, 1, 1, 1])

    run(play)


def test_those_that_wait_longer_do_not_share_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        deadlines(monkeypatch, patience=20.0)
        requests = [request(X_Timeout_Seconds="0.05"), request(), request(X_Timeout_Seconds="0.05")]
        assert [one.status for one in await exchange(loopback, requests)] == [504, 200, 504]

    run(play)


def test_requests_share_batches_of_what_the_queue_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Linear, "max_coalesced_rows", 2)

    async def play() -> None:
        loopback = LoopbackServer()
        cases = [("/encode", LINE % str(2 * index).encode()) for index in range(5)]
        answers = await exchange(loopback, plain_requests(cases))
        assert [answer.json()["z"][0][0] for answer in answers] == [0, 1, 2, 3, 4]
        assert batches(loopback) == [1, 2, 2]  # the smallest first

    run(play)


def test_hundreds_of_rows_are_computed_in_pieces_a_turn_each_and_others_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.transport.fast_path.batch_assembly.MOST_COALESCED_ROWS", 2)
    turn, seen = 0, []

    def compute(self: Linear, rows: Array, *_: Any, requests: int = 1) -> InferenceResult:
        seen.append((turn, len(rows)))
        return InferenceResult(rows, rows[:, 0], 0.0, 0.001)

    monkeypatch.setattr(Linear, "compute_now", compute)

    async def play() -> None:
        nonlocal turn
        loopback = LoopbackServer()
        async with AsyncExitStack() as stack:
            for _ in range(7):
                await stack.enter_async_context(loopback.client())
            while len(loopback.state.connections) < 7:
                await asyncio.sleep(0)
            first, *others = loopback.state.connections
            first.data_received(request("/log_prob", LINE % b"8"))
            for connection in others[:5]:
                connection.data_received(request("/encode", LINE % b"2"))
            while (turn := turn + 1) < 9:
                if len(seen) == 2:  # what comes meanwhile begins after the last piece
                    others[5].data_received(request("/log_prob", LINE % b"8"))
                await asyncio.sleep(0)
        assert [count for _, count in seen] == [1, 1, 2, 2, 1]
        assert len({when for when, _ in seen}) == len(seen)

    run(play)


def deadlines(monkeypatch: pytest.MonkeyPatch, patience: float) -> list[float]:
    """Let the queue keep to deadlines.   -> the seconds left of each request that reached it."""
    seen: list[float] = []
    plain = Linear.submit

    async def submit(self: Linear, rows: Any, context: Any, deadline: float) -> InferenceResult:
        seen.append(deadline - time.monotonic())
        if seen[-1] < patience:
            raise DeadlineExceeded("no answer before the deadline")
        return await plain(self, rows, context, deadline)

    monkeypatch.setattr(Linear, "submit", submit)
    return seen


@pytest.mark.parametrize("others", [0, 1])
def test_the_only_connection_waits_for_nobody(monkeypatch: pytest.MonkeyPatch, others: int) -> None:
    def compute(self: Linear, rows: Array, *_: Any, requests: int = 1) -> InferenceResult:
        return InferenceResult(rows, rows[:, 0], 0.0, 0.001)

    monkeypatch.setattr(Linear, "compute_now", compute)

    async def play() -> None:
        loopback = LoopbackServer()
        async with AsyncExitStack() as stack:
            for _ in range(1 + others):
                await stack.enter_async_context(loopback.client())
            while len(loopback.state.connections) < 1 + others:
                await asyncio.sleep(0)
            next(iter(loopback.state.connections)).data_received(request())
            await asyncio.sleep(0)  # it is counted after it is answered
            assert loopback.all == (0 if others else 1)
            await asyncio.sleep(0.01)
            assert loopback.all == 1

    run(play)


def test_a_client_that_left_before_its_turn_is_not_computed() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client(), loopback.client():
            while len(loopback.state.connections) < 2:
                await asyncio.sleep(0)
            connection = next(iter(loopback.state.connections))
            connection.data_received(request())
            connection.connection_lost(None)
            assert loopback.all == 1
            await asyncio.sleep(0.01)
        assert loopback.repository.queue("line", "encode").calls == []
        labels = {"model": "", "version": "", "op": "encode", "code": "499"}
        count = loopback.metrics.registry.get_sample_value("pushforward_requests_total", labels)
        assert count == 1

    run(play)


def outputs_of(dtype: str, bad_rows: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(0)
    for event in ((), (1,), (3,), (2, 3), (1, 2, 2), (3, 1, 1)):
        shape = (7, *event)
        values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-20, 20, shape)).astype(dtype)
        for row, bad in zip((0, 3, 6)[:bad_rows], (np.nan, np.inf, -np.inf), strict=False):
            values.reshape(len(values), -1)[row, -1] = bad
        yield {"x": values, "log_prob": np.linspace(-1, 1, 7).astype(dtype)}


@pytest.mark.parametrize("bad_rows", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("common", [{"model": "a"}, {"model": '100 % "null"', "version": "],["}])
def test_rows_are_written_as_each_alone(dtype: str, common: dict[str, Any], bad_rows: int) -> None:
    for outputs in outputs_of(dtype, bad_rows):
        count = len(outputs["log_prob"])
        heads: list[dict[str, Any]] = [{}, *({"seed": seed} for seed in range(1, count))]
        together = list(write_rows(common, heads, outputs))
        alone = [
            write_object(
                {**common, **head},
                {name: values[row : row + 1] for name, values in outputs.items()},
            )
            for row, head in enumerate(heads)
        ]
        assert together == alone
        assert sum(b"non_finite" in body for body in together) == bad_rows
        assert all(orjson.loads(body)["model"] == common["model"] for body in together)


def test_a_model_that_is_short_of_memory_is_asked_once() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.queue("line", "encode")
        queue.failure = NotReady("the device has too little memory now")
        answers = await exchange(loopback, plain_requests(PLAIN[:2]))
        assert [answer.status for answer in answers] == [503, 503]
        assert "too little memory" in answers[0].json()["detail"]
        assert batches(loopback) == [2]

    run(play)


def test_what_waits_holds_its_numbers_once() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.queue("line", "encode")
        queue.gate, queue.entered = asyncio.Event(), asyncio.Event()
        async with loopback.client() as (reader, writer):
            writer.write(request())
            await queue.entered.wait()
            waiting = [one for one in gc.get_objects() if type(one) is FastPathRequest]
            assert [one.fields for one in waiting if not one.is_over] == [{}]
            queue.gate.set()
            assert (await read(reader)).status == 200

    run(play)
