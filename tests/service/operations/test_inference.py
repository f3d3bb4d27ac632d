"""A prepared request through its queue, where no transport is needed to see it."""

import gc
import logging
import math
import time
import weakref

import pytest

from service.errors import EngineError
from service.operations.inference import infer
from service.operations.model_input import ModelInput
from service.operations.request_context import RequestContext
from service.operations.thread_pool import RequestThreadPool
from tests.service.batcher.batching import batcher, run
from tests.service.engines.fakes import POISON, Poisoned, rows
from tests.service.fake_repository import FakeRepository


def test_rows_on_which_the_engine_fails_are_let_go_without_a_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pytest keeps what is logged, and the error leads to the rows.
    monkeypatch.setattr(logging.getLogger("service.batcher.batcher"), "propagate", False)

    async def test() -> None:
        queue, model = batcher(Poisoned()), FakeRepository().get("line")
        queue.start()
        given = rows(POISON)
        kept = weakref.ref(given)

        async def ask(prepared: list[ModelInput]) -> None:
            request = RequestContext(time.monotonic(), math.inf)
            with pytest.raises(EngineError):
                await infer(lambda: model, lambda _: prepared.pop(), request, RequestThreadPool(1))

        gc.collect()
        gc.disable()
        try:
            await ask([ModelInput(given, None, queue, {})])
            del given
            await queue.drain()
            assert kept() is None
        finally:
            gc.enable()

    run(test())
