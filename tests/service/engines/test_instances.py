"""The bits of a row on the onnx engine: alone, in any batch, with any number of instances."""

import asyncio
import itertools
import threading

import numpy as np
import pytest

from models.checkpoints.folder import load_checkpoint
from models.ode.transform import is_continuous
from service.batcher import Batcher, EngineCall, QueuePolicy
from service.contracts import Array, EngineOutput
from service.engines.autotune import select_engine
from service.engines.selection import EngineConfig
from service.telemetry import Metrics
from tests.service.batcher.batching import PATIENCE_SECONDS, later, run
from tools.zoo.train import ZOO

MODELS = sorted(path.parent.name for path in ZOO.glob("*/config.json"))
# Requests of mixed sizes: how they fall into batches is up to the threads.
SIZES = (1, 7, 2, 1, 13, 3, 1, 4)


class Engine:
    """One function of an engine, with the threads that called it."""

    def __init__(self, name: str, function: str) -> None:
        checkpoint = load_checkpoint(ZOO / name)
        self.flow = checkpoint.flow
        self._call = getattr(select_engine("onnx", EngineConfig(checkpoint, 1, 8)).engine, function)
        self.threads: set[int] = set()
        self.is_shared = False
        self._entered = threading.Condition()

    def __call__(self, rows: Array, context: Array | None) -> EngineOutput:
        with self._entered:
            self.threads.add(threading.get_ident())
            self._entered.notify_all()
            if self.is_shared:  # else one fast thread might compute it all
                self._entered.wait_for(lambda: len(self.threads) > 1, PATIENCE_SECONDS)
        result: EngineOutput = self._call(rows, context)
        return result

    def batcher(self, instances: int, context: Array | None) -> Batcher:
        shape = (self.flow.features,)
        shape_of_context = None if context is None else context.shape[1:]
        call = EngineCall(self, shape, self.flow.event_shape, shape_of_context, "float32")
        policy = QueuePolicy(8, 1000, instances=instances)
        return Batcher(call, policy, Metrics().queue("m", "decode", "onnx"), name="m.decode")


@pytest.mark.parametrize("name", MODELS)
def test_a_row_has_the_same_bits_however_many_instances(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if every row were worth a thread.
    monkeypatch.setattr("service.batcher.spread.MIN_GAIN_SECONDS", 0.0)
    monkeypatch.setattr("service.batcher.spread.HAND_OVER_SECONDS", 0.0)
    engine = Engine(name, "decode")
    rng, rows = np.random.default_rng(0), sum(SIZES)
    if is_continuous(engine.flow):
        rows = sum(SIZES[:4])
    z = rng.standard_normal((rows, engine.flow.features)).astype(np.float32)
    context = None
    if engine.flow.context_shape is not None:
        context = np.eye(*engine.flow.context_shape, dtype=np.float32)[rng.integers(0, 1, rows)]
    alone = [
        engine(z[i : i + 1], None if context is None else context[i : i + 1]) for i in range(rows)
    ]

    async def test(instances: int) -> None:
        queue = engine.batcher(instances, context)
        queue.start()
        engine.threads.clear()
        engine.is_shared = instances > 1
        starts = np.cumsum((0, *SIZES))
        parts = [slice(a, b) for a, b in itertools.pairwise(starts) if b <= rows]
        answers = await asyncio.gather(
            *(
                queue.submit(z[part], None if context is None else context[part], later())
                for part in parts * 3
            )
        )
        for part, answer in zip(parts * 3, answers, strict=True):
            for index, row in enumerate(range(part.start, part.stop)):
                np.testing.assert_array_equal(answer.value[index], alone[row][0][0])
                np.testing.assert_array_equal(answer.log_det[index], alone[row][1][0])
        assert (len(engine.threads) > 1) == (instances > 1)
        await queue.drain()

    for instances in (1, 2, 4):
        run(test(instances))
