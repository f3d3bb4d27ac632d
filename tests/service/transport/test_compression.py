"""Decompressed bodies count for the budget of all bodies, and no answer waits to be compressed."""

import asyncio
import gzip
import math

import pytest

from service.errors import Overloaded
from service.operations.request_context import RequestContext
from service.operations.response import Response
from service.operations.thread_pool import RequestThreadPool
from service.transport.compression import compress_answer, receive_decompressed
from service.transport.request import ReceiveBudget

TEXT = bytes(10_000)


async def _receive(budget: ReceiveBudget, request: RequestContext) -> bytes | bytearray:
    async def body() -> bytes:
        return gzip.compress(TEXT)

    headers = {b"content-encoding": b"gzip"}
    return await receive_decompressed(
        headers, body, len(TEXT), RequestThreadPool(1), request, budget
    )


def test_a_decompressed_body_holds_its_bytes_until_its_request_ends() -> None:
    async def play() -> None:
        budget = ReceiveBudget(15_000)
        first, second = RequestContext(0.0, math.inf), RequestContext(0.0, math.inf)
        assert await _receive(budget, first) == TEXT
        with pytest.raises(Overloaded, match="bodies: 10000 bytes are being received"):
            await _receive(budget, second)
        assert (first.held_bytes, second.held_bytes) == (10_000, 0)
        budget.release(first.held_bytes)
        assert await _receive(budget, second) == TEXT

    asyncio.run(play())


def test_an_answer_is_compressed_where_a_thread_is_free_and_else_goes_as_it_is() -> None:
    async def play() -> None:
        threads = RequestThreadPool(1)
        answer = Response(200, [(b"content-type", b"application/json")], TEXT)
        headers = {b"accept-encoding": b"gzip"}
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(
            threads.run(
                math.inf, lambda: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
            )
        )
        await asyncio.sleep(0)
        assert await compress_answer(headers, answer, threads, math.inf) is answer
        gate.set()
        await waiting
        compressed = await compress_answer(headers, answer, threads, math.inf)
        assert gzip.decompress(compressed.body) == TEXT

    asyncio.run(play())
