"""What a client of gRPC can make the server hold or wait for, and what it may ask by its key."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from service.errors import Overloaded
from service.transport.grpc import infer
from service.transport.grpc.messages import SERVICE, message_class
from tests.service.transport.grpc_server import Asking, never, outputs, question, run
from tests.service.transport.raw_http2 import RawClient

ROWS = np.array([[2, 4, 6], [8, 0, 2]], np.float32)
# Of a window of HTTP/2 that no answer fits into.
_NO_WINDOW = 10
_CUT_OFF = 'pushforward_connections_cut_off_total{reason="not_reading"}'


def draw(count: int) -> Any:
    """Ask the model "line" for samples."""
    message = message_class("ModelInferRequest")(model_name="line")
    message.parameters["num_samples"].int64_param = count
    return message


async def is_kept(port: int) -> bool:
    """Whether a new connection is not closed at once."""
    raw = RawClient(port)
    try:
        await raw.connect()
        async with asyncio.timeout(0.05):
            await raw.read_to_end()
    except TimeoutError:
        return True
    except ConnectionError:
        return False
    finally:
        raw.close()
    return False


def cut_off(client: Asking) -> float:
    lines = client.metrics.render().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(_CUT_OFF))


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_client_that_leaves_no_window_for_its_answer_is_cut_off(method: str) -> None:
    """It reads its connection and answers pings: keepalive finds nothing wrong with it."""

    async def test(client: Asking) -> None:
        raw = RawClient(client.port, window=_NO_WINDOW)
        await raw.connect()
        await raw.ask(method, question(ROWS))
        async with asyncio.timeout(5):
            assert await raw.read_to_end()
        assert cut_off(client) == 1
        await client.call("ModelInfer", question(ROWS))
        raw.close()

    run(test, write_timeout_seconds=0.1)


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    async def test(client: Asking) -> None:
        raw = RawClient(client.port, window=2**31 - 1, receive_buffer=4096)
        await raw.connect()
        await raw.ask("ModelInfer", draw(900_000))
        await asyncio.sleep(1.5)  # the kernel asks whether there is room, ever less often
        async with asyncio.timeout(2):  # else it gets the whole answer, and waits for more
            assert not await raw.read_to_end()
        raw.close()

    run(test, write_timeout_seconds=0.2, max_request_rows=1_000_000)


def test_an_answer_that_is_taken_is_not_watched_any_more() -> None:
    async def test(client: Asking) -> None:
        for _ in range(4):
            await client.call("ModelInfer", question(ROWS))
            await asyncio.sleep(0.06)
        assert cut_off(client) == 0

    run(test, write_timeout_seconds=0.1)


def test_connections_beyond_the_limit_are_closed() -> None:
    async def test(client: Asking) -> None:
        await client.channel.channel_ready()
        second = RawClient(client.port)
        await second.connect()
        assert not await is_kept(client.port)
        await client.call("ModelInfer", question(ROWS))
        second.close()
        async with asyncio.timeout(5):  # until the server has seen that one has left
            while not await is_kept(client.port):
                pass

    run(test, most_connections=2)


def test_slow_messages_count_as_large_as_they_may_be() -> None:
    async def test(client: Asking) -> None:
        client.server.patience_seconds = 0.05
        begin = client.channel.stream_unary(f"/{SERVICE}/ModelInfer")
        first = begin(never())
        await asyncio.sleep(0.1)
        second = begin(never())
        assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(await second.trailing_metadata())["problem-code"] == "overloaded"
        await client.call("ModelInfer", question(ROWS))  # what is there at once is not slow
        assert await first.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        third = begin(never())
        assert await third.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    limits = {"max_body_bytes": 1000, "max_receiving_bytes": 1500}
    run(test, request_timeout_seconds=0.5, **limits)


def test_only_so_many_streams_are_open() -> None:
    async def test(client: Asking) -> None:
        begin = client.stream
        streams = [begin() for _ in range(256)]
        for stream in streams:
            await stream.write(question(ROWS))
            await stream.read()
        assert await begin().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        await asyncio.sleep(0.05)
        again = begin()
        await again.write(question(ROWS))
        assert await again.read()

    run(test)


def test_large_messages_do_not_hold_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a large one waits in its thread until a small call was answered."""
    entered, go_on = threading.Semaphore(0), threading.Semaphore(0)
    waited = []

    def waiting(step: Callable[..., Any]) -> Callable[..., Any]:
        def run_step(*arguments: Any) -> Any:
            if threading.current_thread().name.startswith("request"):
                entered.release()
                waited.append(go_on.acquire(timeout=5))
            return step(*arguments)

        return run_step

    steps = ("parse", "read_request", "write_answer")
    for step in steps:
        monkeypatch.setattr(infer, step, waiting(getattr(infer, step)))

    async def test(client: Asking) -> None:
        large = client.begin("ModelInfer", question(np.zeros((200_000, 3), np.float32)))
        for _ in steps:
            while not entered.acquire(blocking=False):
                assert not large.done()
                await asyncio.sleep(0.001)
            await client.call("ModelInfer", question(ROWS))
            go_on.release()
        assert len(outputs(await large)["z"]) == 200_000
        assert waited == [True] * len(steps)

    run(test, max_request_rows=1_000_000, max_body_bytes=2**24)


def test_the_limits_of_a_key_hold(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(
        '[keys.few]\nkey = "few-requests-of-one"\nrequests_per_second = 2\n'
        '[keys.slow]\nkey = "few-rows-a-second-1"\nrows_per_second = 4\n'
    )

    async def test(client: Asking) -> None:
        few = (("x-api-key", "few-requests-of-one"),)
        for _ in range(2):
            await client.call("ModelInfer", question(ROWS), metadata=few)
        call = client.begin("ModelInfer", question(ROWS), metadata=few)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        told = dict(await call.trailing_metadata())
        assert told["problem-code"] == "key_limit_exceeded"
        assert told["grpc-retry-pushback-ms"] == f"{told['retry-after']}000"
        await client.call("ServerMetadata", metadata=few)  # computes nothing
        slow = (("authorization", "Bearer few-rows-a-second-1"),)
        for _ in range(2):
            await client.call("ModelInfer", question(ROWS), metadata=slow)
        found = await client.refusal("ModelInfer", question(ROWS), metadata=slow)
        assert found[::2] == ("RESOURCE_EXHAUSTED", "key_limit_exceeded")
        stream = client.stream(metadata=slow)
        for code in ("key_limit_exceeded", "too_large_for_key"):
            rows = ROWS if code == "key_limit_exceeded" else np.zeros((5, 3), np.float32)
            await stream.write(question(rows))
            parameters = (await stream.read()).infer_response.parameters
            assert parameters["problem-code"].string_param == code
            assert ("retry-after" in parameters) == (code == "key_limit_exceeded")

    run(test, api_key_file=keys)


def test_a_message_of_a_stream_is_no_larger_than_others() -> None:
    async def test(client: Asking) -> None:
        stream = client.stream()
        whole = question(ROWS, id="a" * 900)
        size = len(whole.SerializeToString())
        whole.id += "a" * (1000 - size)
        for message in (whole, question(ROWS, id=whole.id + "a")):
            await stream.write(message)
        assert not (await stream.read()).error_message
        told = await stream.read()
        assert told.error_message.startswith("message: expected at most 1000 bytes")
        assert told.infer_response.parameters["problem-code"].string_param == "too_large"

    run(test, max_body_bytes=1000)


def test_what_found_no_room_for_its_message_holds_none() -> None:
    async def test(client: Asking) -> None:
        budget = client.app.receive_budget
        budget.grow(0, 10_000_000)
        large = question(np.zeros((200_000, 3), np.float32))
        found = await client.refusal("ModelInfer", large)
        assert found[::2] == ("RESOURCE_EXHAUSTED", "overloaded")
        budget.grow(10_000_000, 0)
        with pytest.raises(Overloaded):
            budget.grow(0, 1)

    limits = {"max_body_bytes": 10_000_000, "max_receiving_bytes": 10_000_000}
    run(test, max_request_rows=1_000_000, **limits)
