"""The bits of a row on the onnx engine: alone, in any batch, with any number of instances."""

import asyncio
import itertools
import threading

import numpy as np
import pytest

from models.checkpoints.facts import ModelFacts
from models.noise import base_noise
from service.batcher import Batcher, EngineCall, QueuePolicy
from service.contracts import Array, EngineOutput
from service.engines.certified import open_certified
from service.engines.engine import Engine as AnyEngine
from service.operations.log_prob import log_density
from service.telemetry import Metrics
from tests.service.batcher.batching import PATIENCE_SECONDS, later, run
from tools.zoo.train import ZOO

MODELS = sorted(path.parent.name for path in ZOO.glob("*/config.json"))
# Requests of mixed sizes: how they fall into batches is up to the threads.
SIZES = (1, 7, 2, 1, 13, 3, 1, 4)
# What is solved, or goes pixel by pixel, takes long a row: fewer of them.
SLOW_SIZES = (1, 2)
PIXELS_SIZES = (1, 1)
SLOW_FAMILIES = ("pixelcnn", "planar", "tarflow")
INSTANCES = (1, 2, 4)
FUNCTIONS = ("encode", "decode")


class Engine:
    """One function of an engine, with the threads that called it."""

    def __init__(self, facts: ModelFacts, engine: AnyEngine, function: str) -> None:
        self.facts = facts
        self.function = function
        self._call = getattr(engine, function)
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

    def answer(self, rows: Array, value: Array, log_det: Array) -> tuple[Array, ...]:
        """What /encode and /log_prob, or /decode and /sample, answer for rows."""
        if self.function == "encode":
            return value, log_det, log_density(value, log_det)
        return value, log_det, log_density(rows, -log_det)

    def batcher(self, instances: int, context: Array | None, rows: int) -> Batcher:
        latent, data = (self.facts.features,), self.facts.event_shape
        takes, gives = (data, latent) if self.function == "encode" else (latent, data)
        shape_of_context = None if context is None else context.shape[1:]
        call = EngineCall(self, takes, gives, shape_of_context, "float32")
        policy = QueuePolicy(min(8, rows), 1000, instances=instances)
        return Batcher(call, policy, Metrics().queue("m", self.function, "onnx"), name="m")


@pytest.mark.parametrize("name", MODELS)
def test_a_row_has_the_same_bits_however_many_instances(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if every row were worth a thread.
    monkeypatch.setattr("service.batcher.spread.MIN_GAIN_SECONDS", 0.0)
    monkeypatch.setattr("service.batcher.spread.HAND_OVER_SECONDS", 0.0)
    facts, selection = open_certified(ZOO / name, None, 1)
    sizes = dict.fromkeys(FUNCTIONS, SIZES)
    if facts.family in SLOW_FAMILIES:
        sizes = {"encode": SIZES[:4], "decode": SLOW_SIZES}
    instances = INSTANCES
    if facts.family == "pixelcnn":
        sizes, instances = {"encode": SLOW_SIZES, "decode": PIXELS_SIZES}, (1, 4)
    count, context = sum(sizes["encode"]), None
    if facts.context_shape is not None:
        labels = np.random.default_rng(0).integers(0, facts.context_shape[0], count)
        context = np.eye(*facts.context_shape, dtype=np.float32)[labels]
    z = base_noise(count, facts.features, seed=0).astype(np.float32)
    few = slice(None, sum(sizes["decode"]))
    x = selection.engine.decode(z[few], None if context is None else context[few])[0]
    x = np.resize(x, (count, *facts.event_shape))
    for function, rows in zip(FUNCTIONS, (x, z), strict=True):
        engine = Engine(facts, selection.engine, function)
        _assert_same_bits(engine, rows, context, sizes[function], instances)


def _assert_same_bits(
    engine: Engine,
    rows: Array,
    context: Array | None,
    sizes: tuple[int, ...],
    instances: tuple[int, ...],
) -> None:
    rows = rows[: sum(sizes)]

    def of(part: slice) -> Array | None:
        return None if context is None else context[part]

    alone = []
    for index in range(len(rows)):
        row = slice(index, index + 1)
        alone.append(engine.answer(rows[row], *engine(rows[row], of(row))[:2]))
    starts = np.cumsum((0, *sizes))
    parts = [slice(first, last) for first, last in itertools.pairwise(starts)]

    async def test(number: int) -> None:
        queue = engine.batcher(number, context, len(rows))
        queue.start()
        engine.threads.clear()
        engine.is_shared = number > 1
        answers = await asyncio.gather(
            *(queue.submit(rows[part], of(part), later()) for part in parts * 2)
        )
        for part, found in zip(parts * 2, answers, strict=True):
            together = engine.answer(rows[part], found.value, found.log_det)
            for index, row in enumerate(range(part.start, part.stop)):
                for ours, wanted in zip(together, alone[row], strict=True):
                    np.testing.assert_array_equal(ours[index], wanted[0])
        assert (len(engine.threads) > 1) == (number > 1)
        await queue.drain()

    for number in instances:
        engine.is_shared = False
        run(test(number))
