"""What is computed on demand: nothing until it is asked for, then one batch at a time."""

import asyncio
import importlib.util
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from models.checkpoints.manifest import digest
from service.batcher import Batcher, EngineCall, QueuePolicy
from service.contracts import InferenceResult, ServedModel
from service.engines.flow_on_demand import FlowOnDemand
from service.engines.gradient import PixelGradient
from service.errors import DeadlineExceeded, InvalidParameter, NotAcceptable, NotReady, TooLarge
from service.operations.decode import Decode
from service.operations.heat_map import check_heat_map
from service.operations.model_input import ModelInput
from service.operations.response import AS_JSON
from service.operations.sample import Sample
from service.operations.spec import Limits
from service.operations.trajectory import WantedStates, ask_states
from service.repository.folders import ModelLocation, zoo_folder
from service.repository.loading import LoadedModel, load_model
from service.repository.on_demand_queue import OnDemandQueue, OnDemandQueues, refuse_gradient
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.fake_repository import card

FOLDER = zoo_folder() / "digits-ffjord"
ROWS = np.full((3, 1, 8, 8), 4, np.float32)


def with_model(check: Callable[[LoadedModel], Awaitable[None]]) -> None:
    async def run() -> None:
        location = ModelLocation("digits-ffjord", "1", FOLDER)
        loaded = await load_model(location, Settings(), Metrics())
        try:
            await check(loaded)
        finally:
            await loaded.drain()

    asyncio.run(run())


async def ask(queue: Any, rows: Any, deadline: float = math.inf) -> InferenceResult:
    reply: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
    queue.enqueue(rows, None, deadline, reply)
    return await reply


def threads_of_gradients() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.endswith(".gradient")]


def test_a_served_picture_model_gives_gradients_when_asked() -> None:
    async def check(loaded: LoadedModel) -> None:
        queue = loaded.served.gradient
        assert queue is not None
        await asyncio.to_thread(queue.check, 3, math.inf)
        assert threads_of_gradients() == []
        found = await ask(queue, ROWS)
        assert found.value.shape == ROWS.shape
        assert np.abs(found.value).max() > 0
        again = await ask(queue, ROWS[:1])
        np.testing.assert_allclose(again.value[0], found.value[0], rtol=1e-3, atol=1e-3)
        assert threads_of_gradients() == ["digits-ffjord.gradient"]

    with_model(check)
    # It is told to end, and does so in its own time.
    for thread in threading.enumerate():
        if thread.name.endswith(".gradient"):
            thread.join(5)
    assert threads_of_gradients() == []


def test_the_states_of_a_served_model_end_where_decode_does() -> None:
    async def check(loaded: LoadedModel) -> None:
        queue = loaded.served.states
        assert queue is not None
        assert queue.is_by_state
        z = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
        progress = np.array([[0], [0.5], [1]], np.float32)
        found = await ask(queue, np.concatenate([z, progress], 1))
        x = await ask(loaded.served.decode, z[2:])
        np.testing.assert_allclose(found.value[2], x.value[0], rtol=1e-3, atol=2e-3)
        alone = await ask(queue, np.concatenate([z[1:2], progress[1:2]], 1))
        np.testing.assert_allclose(alone.value[0], found.value[1], rtol=1e-3, atol=2e-3)
        assert [queue.label(p) for p in (0.0, 0.5, 1.0)] == [1.0, 0.5, 0.0]

    with_model(check)


def queue_over(gradient: PixelGradient) -> OnDemandQueue:
    def make_batcher() -> Batcher:
        call = EngineCall(gradient, (1, 8, 8), (1, 8, 8), None, "float32")
        counters = Metrics().queue("m", "gradient", "torch")
        return Batcher(call, QueuePolicy(4, 64), counters, name="m.gradient")

    return OnDemandQueue(gradient, make_batcher, refuse_gradient, max_rows=64)


def gradient_over(weights: str) -> PixelGradient:
    return PixelGradient(
        FlowOnDemand(FOLDER, weights=weights, dtype="float32", device="cpu", threads=1)
    )


def test_a_model_that_torch_does_not_read_is_refused_at_once_and_later() -> None:
    async def run() -> None:
        queue = queue_over(gradient_over("0" * 64))
        for _ in range(2):
            with pytest.raises(NotAcceptable, match="other weights than are served"):
                await ask(queue, ROWS)
        await queue.drain()

    asyncio.run(run())


def test_without_torch_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    queue = queue_over(gradient_over(digest(FOLDER)))
    served = ServedModel(card("digits", (1, 8, 8), num_levels=17), queue, queue, gradient=queue)
    with pytest.raises(NotAcceptable, match="has no torch, which computes gradients: pip install"):
        check_heat_map(served, 1)


def test_without_torch_there_are_no_states_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    async def check(loaded: LoadedModel) -> None:
        fields = {"z": [[0.0] * 64], "trajectory": 3}
        decode = Decode(Limits(100, 10**6))
        with pytest.raises(InvalidParameter, match="no torch, which computes the states of a traj"):
            decode.prepare(fields, loaded.served, AS_JSON, math.inf)

    with_model(check)


def test_too_many_states_are_refused_before_any_is_computed() -> None:
    async def check(loaded: LoadedModel) -> None:
        queue = loaded.served.states
        assert queue is not None
        most = queue.max_rows
        fields = {"num_samples": most // 31 + 1, "trajectory": 32, "seed": 1}
        sample = Sample(Limits(10**6, 10**9))
        fitting = f"ask for {most // 31} rows at most, or for fewer states"
        with pytest.raises(TooLarge, match=fitting):
            sample.prepare(fields, loaded.served, AS_JSON, math.inf)
        fields["num_samples"] -= 1
        sample.prepare(fields, loaded.served, AS_JSON, math.inf)
        with pytest.raises(TooLarge):
            queue.check(most + 1, math.inf)

    with_model(check)


def test_the_states_of_layers_come_row_by_row() -> None:
    flow = FlowOnDemand(FOLDER, weights="", dtype="float64", device="cpu", threads=1)
    line = card("line", (1,))
    queues = OnDemandQueues(line, flow, QueuePolicy(4, 64), Metrics(), None)
    for is_continuous, expected in (
        (False, [[1, 0], [1, 0.5], [2, 0], [2, 0.5]]),
        (True, [[1, 0], [2, 0], [1, 0.5], [2, 0.5]]),
    ):
        queue = queues.states(is_continuous=is_continuous)
        rows, context = np.array([[1.0], [2.0]]), np.array([[10.0], [20.0]])
        given = ModelInput(rows, context, queue, {}, trajectory=WantedStates(3, queue))
        asked = ask_states(line, given)
        assert asked is not None
        assert asked.context is not None
        assert asked.rows.tolist() == expected
        assert (asked.context == 10 * asked.rows[:, :1]).all()


def test_deadlines_and_ends_are_those_of_any_queue() -> None:
    async def run() -> None:
        queue = queue_over(gradient_over(digest(FOLDER)))
        with pytest.raises(DeadlineExceeded):
            await ask(queue, ROWS, 0.0)
        await queue.drain()
        with pytest.raises(NotReady):
            await ask(queue, ROWS)
        unused = queue_over(gradient_over(digest(FOLDER)))
        unused.abort("gone")
        with pytest.raises(NotReady):
            await ask(unused, ROWS)

    asyncio.run(run())
