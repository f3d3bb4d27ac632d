"""What takes long waits in a bounded line, by its deadline, and only where nothing refuses it."""

import asyncio
import gc
import io
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.contracts import Array
from service.errors import DeadlineExceeded, NotReady, Overloaded, TooLarge
from service.operations.thread_pool import RequestThreadPool
from tests.service.batcher.batching import batcher
from tests.service.engines.fakes import Doubling
from tests.service.fake_repository import FakeRepository, app_over, post
from tests.service.transport.loopback import run


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


class Gate:
    """A call that waits in its thread until it may go on."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun: list[str] = []

    def __call__(self, name: str) -> str:
        self.begun.append(name)
        assert self.opened.wait(20)
        return name


def test_no_more_calls_wait_than_may() -> None:
    async def play() -> None:
        threads, gate = RequestThreadPool(workers=1, max_calls=3), Gate()
        calls = [asyncio.ensure_future(threads.run(soon(), gate, name)) for name in "abc"]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="3 requests wait"):
            await threads.run(soon(), gate, "d")
        gate.opened.set()
        assert await asyncio.gather(*calls) == ["a", "b", "c"]
        assert await threads.run(soon(), gate, "e") == "e"
        assert gate.begun == ["a", "b", "c", "e"]

    run(play)


def test_what_a_failed_call_was_made_with_is_let_go_without_a_collection() -> None:
    def fail(body: Array) -> None:
        raise TooLarge("body")

    async def play() -> None:
        threads, body = RequestThreadPool(workers=1), np.zeros(8)
        kept = weakref.ref(body)

        async def refuse(bodies: list[Array]) -> None:
            with pytest.raises(TooLarge):
                await threads.run(soon(), fail, bodies.pop())

        gc.collect()
        gc.disable()
        try:
            await refuse([body])
            del body
            await threads.run(soon(), len, "")  # the thread itself has let go of it too
            assert kept() is None
        finally:
            gc.enable()

    run(play)


@pytest.mark.parametrize("reason", ["deadline", "departure"])
def test_a_call_that_nobody_waits_for_is_never_begun(reason: str) -> None:
    async def play() -> None:
        threads, gate = RequestThreadPool(workers=1, max_calls=2), Gate()
        first = asyncio.ensure_future(threads.run(soon(), gate, "a"))
        late = soon(0.05) if reason == "deadline" else soon()
        second = asyncio.ensure_future(threads.run(late, gate, "b"))
        await asyncio.sleep(0)
        if reason == "deadline":
            with pytest.raises(DeadlineExceeded):
                await second
        else:
            second.cancel()
            await asyncio.wait([second])
        third = asyncio.ensure_future(threads.run(soon(), gate, "c"))
        await asyncio.sleep(0)
        gate.opened.set()
        assert await asyncio.gather(first, third) == ["a", "c"]
        assert gate.begun == ["a", "c"]

    run(play)


def test_a_call_that_comes_too_late_is_never_begun() -> None:
    async def play() -> None:
        threads, gate = RequestThreadPool(workers=1), Gate()
        with pytest.raises(DeadlineExceeded):
            await threads.run(soon(-1), gate, "a")
        assert gate.begun == []

    run(play)


def test_what_a_call_raises_is_raised() -> None:
    def fail() -> None:
        raise TimeoutError("of its own")

    async def play() -> None:
        threads = RequestThreadPool(workers=1)
        with pytest.raises(TimeoutError, match="of its own"):
            await threads.run(soon(), fail)

    run(play)


def test_a_queue_tells_beforehand_what_it_would_refuse() -> None:
    async def play() -> None:
        queue = batcher(Doubling(), max_batch_rows=4, max_queue_rows=8)
        with pytest.raises(NotReady):
            queue.check(1, soon())
        queue.start()
        queue.check(8, soon())
        with pytest.raises(TooLarge):
            queue.check(9, soon())
        with pytest.raises(DeadlineExceeded):
            queue.check(1, soon(-1))
        await queue.drain()
        with pytest.raises(NotReady):
            queue.check(1, soon())

    run(play)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (5, 4)).save(buffer, "PNG")
    return buffer.getvalue()


PNG = {"Content-Type": "image/png"}
MANY = 16_384
ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sample": ("line", "decode", {"json": {"num_samples": MANY}}),
    "sample_v2": ("line", "decode", {"json": {"inputs": [], "parameters": {"num_samples": MANY}}}),
    "picture": ("grey", "encode", {"content": picture(), "headers": PNG}),
    "rows": ("line", "encode", {"json": {"x": [[1, 2, 3]] * MANY}}),
}


@pytest.mark.parametrize("case", ASKED)
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (TooLarge("too many"), 413),
        (Overloaded("full"), 429),
        (NotReady("draining"), 503),
        (DeadlineExceeded("late"), 504),
    ],
    ids=["too_large", "overloaded", "not_ready", "late"],
)
def test_nothing_is_made_that_is_refused(
    monkeypatch: pytest.MonkeyPatch, case: str, refusal: Exception, status: int
) -> None:
    model, op, asked = ASKED[case]
    repository = FakeRepository()
    queue = repository.queue(model, op)
    checked = []

    def check(rows: int, deadline: float) -> None:
        checked.append(rows)
        raise refusal

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("work was done for a request that is refused")

    monkeypatch.setattr(queue, "check", check)
    for place in ("sampling.base_noise", "spec.read_image", "spec.read_rows"):
        monkeypatch.setattr(f"service.operations.{place}", never)
    path = {"rows": "/encode", "picture": "/encode", "sample": "/sample"}.get(case)
    path = f"/v2/models/{model}/infer" if path is None else f"{path}?model={model}"
    answer = post(app_over(repository), path, **asked)
    assert answer.status_code == status, answer.text
    assert checked == [1 if case == "picture" else MANY]
    assert queue.calls == []


@pytest.mark.parametrize("place", ["sampling.base_noise", "response.write_npz"])
def test_the_deadline_counts_in_a_thread(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    ended = threading.Event()

    def slow(*_: Any, **__: Any) -> None:
        ended.wait(20)

    monkeypatch.setattr(f"service.operations.{place}", slow)
    headers = {"X-Timeout-Seconds": "0.1", "Accept": "application/x-npz"}
    began = time.monotonic()
    asked = {"model": "line", "num_samples": MANY}
    answer = post(app_over(FakeRepository()), "/sample", json=asked, headers=headers)
    ended.set()
    assert answer.json()["code"] == "deadline_exceeded"
    assert time.monotonic() - began < 5
