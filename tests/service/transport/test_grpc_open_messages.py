"""What those without a key can have received: small messages, few at a time."""

import asyncio
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from service.transport.grpc.messages import SERVICE
from service.transport.grpc.open_messages import MOST_BYTES, OpenMessages
from tests.service.transport.grpc_server import Asking, never, run

KEY = "a-key-of-sixteen-letters"
HEALTH = health_pb2.HealthCheckRequest
REFLECTION = reflection_pb2.ServerReflectionRequest
SERVING = health_pb2.HealthCheckResponse.SERVING
Begin = Callable[[grpc.aio.Channel, Any], Any]


def check(channel: grpc.aio.Channel, messages: Any) -> Any:
    return channel.stream_unary("/grpc.health.v1.Health/Check")(messages)


def watch(channel: grpc.aio.Channel, messages: Any) -> Any:
    return channel.stream_stream("/grpc.health.v1.Health/Watch")(messages)


def reflect(channel: grpc.aio.Channel, messages: Any) -> Any:
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    return channel.stream_stream(path)(messages)


OPEN = pytest.mark.parametrize("begin", [check, watch, reflect])


@OPEN
def test_a_message_is_small_and_of_its_kind(begin: Begin) -> None:
    kind, field = (REFLECTION, "file_by_filename") if begin is reflect else (HEALTH, "service")

    async def test(client: Asking) -> None:
        async def found(*bodies: bytes) -> tuple[str, str]:
            call = begin(client.channel, iter(bodies))
            with suppress(grpc.aio.AioRpcError):
                while begin is not check and await call.read() is not grpc.aio.EOF:
                    pass
            return (await call.code()).name, await call.details()

        largest = kind(**{field: "a" * (MOST_BYTES - 3)}).SerializeToString()
        assert len(largest) == MOST_BYTES
        assert (await found(largest))[0] == ("OK" if begin is reflect else "UNAUTHENTICATED")
        said = f"message: expected at most {MOST_BYTES} bytes, got {MOST_BYTES + 1}"
        assert await found(largest + b"a") == ("OUT_OF_RANGE", said)
        said = f"message: expected {kind.DESCRIPTOR.full_name} as protobuf"
        assert await found(b"\xff") == ("INVALID_ARGUMENT", said)
        assert (await found())[0] == ("OK" if begin is reflect else "INVALID_ARGUMENT")

    run(test, api_keys=(KEY,))


@OPEN
def test_of_slow_messages_the_oldest_gives_way(begin: Begin) -> None:
    async def test(client: Asking) -> None:
        calls = []
        for _ in range(4):
            calls.append(begin(client.channel, never()))
            await asyncio.sleep(0.02)
        for gone in calls[:2]:
            assert await gone.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "it is slow, and others wait" in await gone.details()
        await asyncio.sleep(0.1)
        assert not any(each.done() for each in calls[2:]), "nobody waits"
        health = health_pb2_grpc.HealthStub(client.channel)
        checks = (health.Check(HEALTH()) for _ in range(50))
        assert {each.status for each in await asyncio.gather(*checks)} == {SERVING}

    run(test, api_keys=(KEY,))


class Call:
    """A call that has no message yet."""

    def __init__(self) -> None:
        self.is_read = False
        self.is_refused = False
        self.message: asyncio.Future[bytes] = asyncio.Future()

    async def read(self) -> bytes:
        self.is_read = True
        return await self.message

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.is_refused = True
        self.error = ConnectionError(code, details)  # as gRPC holds its own
        raise self.error


def test_two_are_received_at_a_time_and_the_newest_is_next() -> None:
    async def test() -> None:
        messages, calls, tasks = OpenMessages(), [], []

        def begin(count: int) -> list[Call]:
            for _ in range(count):
                calls.append(Call())
                tasks.append(asyncio.ensure_future(messages.read(calls[-1], HEALTH)))
            return calls[-count:]

        async def read_of(those: list[Call]) -> list[bool]:
            await asyncio.sleep(0.005)
            return [each.is_read for each in those]

        first = begin(5)
        assert await read_of(first) == [True, True, False, False, False]
        first[0].message.set_result(b"")
        assert await read_of(first) == [True, True, False, False, True]
        assert await tasks[0] == HEALTH()
        tasks[2].cancel()  # its client has left
        await asyncio.sleep(0.12)  # both are slow, and one waits
        assert [each.is_refused for each in first] == [False, True, False, False, False]
        assert await read_of(first) == [True, True, False, True, True]
        tasks[4].cancel()
        tasks[3].cancel()
        second = begin(3)
        assert await read_of(second) == [True, True, False], "those that left do not count"
        tasks[5].cancel()
        await asyncio.sleep(0)
        tasks[7].cancel()  # in the turn in which it is its own
        await asyncio.sleep(0)
        assert await read_of(begin(2)) == [True, False]
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)
        assert await read_of(begin(2)) == [True, True]
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)

    asyncio.run(test())


def test_who_comes_anew_takes_the_place_of_the_oldest_that_is_slow() -> None:
    async def test() -> None:
        messages, calls, tasks = OpenMessages(), [Call() for _ in range(5)], []

        async def begin(call: Call) -> None:
            tasks.append(asyncio.ensure_future(messages.read(call, HEALTH)))
            await asyncio.sleep(0.005)

        for call in calls[:2]:
            await begin(call)
        await asyncio.sleep(0.06)
        await begin(calls[2])
        assert [each.is_refused for each in calls[:3]] == [True, False, False]
        calls[1].message.set_result(b"")
        await asyncio.sleep(0.005)
        await begin(calls[3])
        await asyncio.sleep(0.06)
        await begin(calls[4])
        assert [each.is_refused for each in calls] == [True, False, True, False, False]
        assert calls[4].is_read
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)

    asyncio.run(test())


def test_a_message_that_is_refused_is_not_kept() -> None:
    async def test() -> None:
        body, call = bytes(MOST_BYTES + 1), Call()
        call.message.set_result(body)
        before = sys.getrefcount(body)
        with pytest.raises(ConnectionError):
            await OpenMessages().read(call, HEALTH)
        assert sys.getrefcount(body) == before

    gc.disable()
    try:
        asyncio.run(test())
    finally:
        gc.enable()


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady"])
def test_what_is_asked_by_the_name_alone_is_answered_without_its_message(method: str) -> None:
    async def test(client: Asking) -> None:
        async with asyncio.timeout(5):
            assert await client.channel.stream_unary(f"/{SERVICE}/{method}")(never())

    run(test, api_keys=(KEY,))
