"""Plain requests are read and written many at a time, and each is answered as if it were alone."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import orjson
import pytest

from service.codec.json import write_object, write_rows
from service.contracts import InferenceResult, ModelCard
from service.errors import DeadlineExceeded
from service.express import ExpressProtocol
from service.routes.endpoint import Endpoint
from service.routes.operations import LogProb
from service.routes.plain import PlainOperation
from tests.service.fake_repository import Linear
from tests.service.wire import BODY, LoopbackServer, read, request, run
from tests.service.wire import InferenceResult as Wire

LINE = b'{"model": "line", "x": [[%s, 4, 6]]}'
# path, body; the model "grey" has pixels, so that it gives bits_per_dim too.
PLAIN = [
    ("/log_prob", LINE % b"2"),
    ("/log_prob", LINE % b"8"),
    ("/encode", LINE % b"2"),
    ("/log_prob", b'{"model": "line", "x": [[1, 2, 3], [4, 5, 6]]}'),
    ("/log_prob", b'{"model": "line", "x": [[1, 2]]}'),
    ("/decode", b'{"model": "line", "z": [[1, 2, 3]]}'),
    ("/decode", b'{"model": "line", "z": [[3e38, 2, 3]]}'),
    ("/decode", b'{"model": "grey", "z": [%s]}' % json.dumps([0.25] * 20).encode()),
    ("/decode", b'{"model": "grey", "z": [%s]}' % json.dumps([3e38] * 20).encode()),
    ("/log_prob", b'{"model": "nobody", "x": [[1, 2, 3]]}'),
    ("/log_prob", b"{"),
    ("/log_prob", b'{"model": "line", "x": [[1, 2, 3]], "return_evaluations": true}'),
    ("/log_prob", b'{"model": "steered", "x": [[1, 2]], "context": [3, 4]}'),
    ("/sample", b'{"model": "line", "seed": 5}'),
    ("/sample", b'{"model": "line", "seed": 6}'),
    ("/sample", b'{"model": "line", "seed": 6, "return_log_prob": false}'),
    ("/sample", b'{"model": "line", "seed": 6, "num_samples": 20000}'),
]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers were written at a time."""
    sizes: list[int] = []
    plain = PlainOperation._write

    def note(self: PlainOperation, *job: Any) -> Any:
        _, _, orders, _ = job
        sizes.append(len(orders))
        return plain(self, *job)

    monkeypatch.setattr(PlainOperation, "_write", note)
    return sizes


async def exchange(scene: LoopbackServer, requests: Sequence[bytes]) -> list[Wire]:
    """Send each over a connection of its own, all in one turn of the loop."""
    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(scene.client()) for _ in requests]
        for (_, writer), data in zip(ends, requests, strict=True):
            writer.write(data)
        return [await read(reader) for reader, _ in ends]


def plain_requests(cases: Sequence[tuple[str, bytes]]) -> list[bytes]:
    return [
        request(path, body, X_Request_Id=f"case-{index}")
        for index, (path, body) in enumerate(cases)
    ]


def test_answers_in_company_are_those_of_each_alone(
    monkeypatch: pytest.MonkeyPatch, written: list[int]
) -> None:
    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        together = await exchange(scene, plain_requests(PLAIN))
        assert scene.short == len(PLAIN)
        assert max(written) > 1
        scene.lane.is_open = False  # from here on uvicorn has them
        alone = [
            answer for data in plain_requests(PLAIN) for answer in await exchange(scene, [data])
        ]
        assert scene.short == len(PLAIN)
        assert scene.all == 2 * len(PLAIN)
        for mine, other in zip(together, alone, strict=True):
            assert (mine.status, mine.body, mine.headers) == (
                other.status,
                other.body,
                {name: value for name, value in other.headers.items() if name != "connection"},
            )

    run(play)


def test_what_is_counted_says_model_and_status(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        await exchange(scene, plain_requests(PLAIN[:5]))
        for op, code, count in (("log_prob", 200, 3), ("encode", 200, 1), ("log_prob", 422, 1)):
            labels = {"model": "line", "op": op, "code": str(code)}
            value = scene.metrics.registry.get_sample_value("pushforward_requests_total", labels)
            assert value == count

    run(play)


def test_an_answer_that_cannot_be_written_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, written: list[int]
) -> None:
    outputs = LogProb._outputs

    def fail(self: LogProb, card: ModelCard, order: Any, answer: InferenceResult) -> Any:
        if (answer.value[:, 0] == 4).any():  # x is 8 there
            raise RuntimeError("a fault of ours")
        return outputs(self, card, order, answer)

    monkeypatch.setattr(LogProb, "_outputs", fail)

    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        cases = [("/log_prob", LINE % first) for first in (b"2", b"8", b"2")]
        answers = await exchange(scene, plain_requests(cases))
        assert [answer.status for answer in answers] == [200, 500, 200]
        assert answers[0].body == answers[2].body
        assert answers[1].json()["request_id"] == "case-1"
        assert max(written) == 3

    run(play)


@pytest.mark.parametrize("first", [request(), request(body=b"{")], ids=["answer", "refusal"])
def test_a_connection_that_cannot_be_written_to_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    finish = ExpressProtocol.finish
    failures = [RuntimeError("a fault of ours")]

    def fail(self: ExpressProtocol, reply: Any) -> None:
        if failures:
            raise failures.pop()
        finish(self, reply)

    monkeypatch.setattr(ExpressProtocol, "finish", fail)

    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        async with scene.client() as (lost, first_writer), scene.client() as (reader, writer):
            first_writer.write(first)
            writer.write(request())
            assert (await read(reader)).status == 200
            assert await lost.read() == b""

    run(play)


@pytest.mark.parametrize(
    ("header", "settings", "status"),
    [
        ({"X_Timeout_Seconds": "0.05"}, {}, 504),
        ({"X_Timeout_Seconds": "soon"}, {}, 422),
        ({}, {"api_keys": ["a-key-of-twenty-letters"]}, 401),
        ({"X_API_Key": "a-key-of-twenty-letters", "X_Timeout_Seconds": "0.05"}, {}, 504),
        (
            {"Authorization": "Bearer a-key-of-twenty-letters"},
            {"api_keys": ["a-key-of-twenty-letters"]},
            200,
        ),
    ],
    ids=["late", "no_number", "no_key", "an_idle_key", "a_key"],
)
def test_heads_are_heeded(
    monkeypatch: pytest.MonkeyPatch, header: dict[str, str], settings: Any, status: int
) -> None:
    async def play() -> None:
        scene = LoopbackServer(monkeypatch, **settings)
        seen = deadlines(monkeypatch, patience=20.0)
        (answer,) = await exchange(scene, [request(**header)])
        assert answer.status == status
        assert scene.short == 1
        assert all(abs(left - 0.05) < 0.05 for left in seen if status == 504)

    run(play)


def test_a_fault_of_ours_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PlainOperation, asked: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(PlainOperation, "_read_together", fail)

    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        answers = await exchange(scene, [request(), request(body=b"{"), request()])
        assert [answer.status for answer in answers] == [500, 400, 500]

    run(play)


def test_what_cannot_be_counted_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Endpoint.note
    failures = [RuntimeError("a fault of ours")]

    def fail(self: Endpoint, *exchange: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        note(self, *exchange, **more)

    monkeypatch.setattr(Endpoint, "note", fail)

    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        async with scene.client() as (lost, first_writer), scene.client() as (reader, writer):
            first_writer.write(request())
            writer.write(request())
            assert (await read(reader)).status == 200
            assert await lost.read() == b""

    run(play)


def test_those_that_wait_longer_do_not_share_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        deadlines(monkeypatch, patience=20.0)
        requests = [request(X_Timeout_Seconds="0.05"), request(), request(X_Timeout_Seconds="0.05")]
        assert [one.status for one in await exchange(scene, requests)] == [504, 200, 504]

    run(play)


def test_a_burst_travels_in_companies_of_what_the_queue_takes(
    monkeypatch: pytest.MonkeyPatch, written: list[int]
) -> None:
    monkeypatch.setattr(Linear, "company_rows", 2)

    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        cases = [("/encode", LINE % str(2 * index).encode()) for index in range(5)]
        answers = await exchange(scene, plain_requests(cases))
        assert [answer.json()["z"][0][0] for answer in answers] == [0, 1, 2, 3, 4]
        assert written == [2, 2, 1]

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


def test_a_client_that_left_before_its_turn_is_not_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        async with scene.client():
            while not scene.state.connections:
                await asyncio.sleep(0)
            (connection,) = scene.state.connections
            connection.data_received(request())
            connection.connection_lost(None)
            assert scene.all == 1
            await asyncio.sleep(0.01)
        assert scene.house.queue("line", "encode").calls == []
        labels = {"model": "", "op": "encode", "code": "499"}
        count = scene.metrics.registry.get_sample_value("pushforward_requests_total", labels)
        assert count == 1

    run(play)


def test_requests_while_models_load_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        scene.house.is_ready = False
        (answer,) = await exchange(scene, [request(body=BODY)])
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")

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


def test_a_house_of_one_is_asked_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        scene = LoopbackServer(monkeypatch)
        scene.house._default = "line"
        answers = await exchange(scene, [request(body=b'{"x": [[2, 4, 6]]}')] * 3)
        assert [answer.json()["z"] for answer in answers] == [[[1.0, 2.0, 3.0]]] * 3

    run(play)
