"""Models behind the contract: exact arithmetic, real queues, and every fault on demand.

All numbers are multiples of powers of two, so that every answer can be written down. Each model
that is named after a fault shows it; the others compute:

    encode: z = (x - c) / 2, log_det = -z0 / 4      decode: x = 2 z + c, log_det = z0 / 4

with c = 1 k0 + 2 k1 + 3 k2 ... of the row's context k. log_det depends on the row: an answer that
goes to the wrong request is a wrong answer.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.scoring.calibration import Calibration
from service.batcher import Batcher, EngineCall, QueuePolicy
from service.contracts import (
    Array,
    ModelCard,
    ModelIndexEntry,
    ServedModel,
    SolverStats,
    VersionPolicy,
)
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.errors import ModelNotFound, NotReady
from service.telemetry import Metrics

# The value that a failing engine fails on.
POISON = -1.0
_BATCH_ROWS = 256
_BATCH_SECONDS = 2.0
# So many that some still wait when a batch has taken its share.
_MORE_THAN_FIT = _BATCH_ROWS + 8
Engine = Callable[[Array, Array | None], Any]


@dataclass(frozen=True)
class Kind:
    """A model: the facts of its card, and the limits of its queues."""

    event_shape: tuple[int, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    max_queue_rows: int = 20_000
    max_queue_seconds: float = math.inf


KINDS = {
    "line": Kind((3,)),
    "wide": Kind((2,), {"dtype": "float64", "feature_names": ("mass", "speed")}),
    "grey": Kind((1, 2, 2), {"num_levels": 256, "support": (0.0, 256.0)}),
    "colour": Kind((3, 2, 2), {"num_levels": 256}),
    "digits": Kind((1, 2, 2), {"num_levels": 17}),
    "steered": Kind((2,), {"context_shape": (2,)}),
    "labelled": Kind((2,), {"context_shape": (4,), "num_classes": 4}),
    # A density that is zero outside of 0 .. 1.
    "bounded": Kind((2,), {"support": (0.0, 1.0)}),
    # Calibrated for anomaly scores, see `calibration_of`.
    "judged": Kind((3,)),
    "judged_table": Kind((2,), {"dtype": "float64", "feature_names": ("mass", "speed")}),
    "judged_bounds": Kind((2,), {"support": (0.0, 1.0)}),
    "judged_grey": Kind((1, 2, 2), {"num_levels": 256, "support": (0.0, 256.0)}),
    "judged_flow": Kind((3,)),
    "judged_classes": Kind((2,), {"context_shape": (4,), "num_classes": 4}),
    "judged_digits": Kind((1, 2, 2), {"num_levels": 17, "context_shape": (4,), "num_classes": 4}),
    # Scored by ratios to "line", to "full", to no model, and to "line" in other weights.
    "contrast": Kind((3,)),
    "beside_full": Kind((3,)),
    "orphan": Kind((3,)),
    "stale": Kind((3,)),
    # To versions of "twofold": 3, by its number and by its weights, 2, and 3 in other weights.
    "beside_3": Kind((3,)),
    "beside_weights_of_3": Kind((3,)),
    "beside_2": Kind((3,)),
    "stale_3": Kind((3,)),
    # Continuous: evaluates 10 x0 times, fails where x0 is 3, estimates its log-det from 5 on.
    "flow": Kind((3,)),
    # The engine raises on rows of POISON.
    "failing": Kind((3,)),
    # It raises, and its version is replaced and drains meanwhile.
    "replaced_in_call": Kind((3,)),
    # It raises, and its queue is full by then.
    "failing_when_full": Kind((3,), max_queue_rows=4),
    # It finds too little memory.
    "no_memory": Kind((3,)),
    # It gives another number of rows than it got.
    "wrong_shape": Kind((3,)),
    # It is lost for good.
    "lost": Kind((3,)),
    # It does not answer until the end.
    "slow": Kind((3,)),
    # Its queue is full.
    "full": Kind((3,), max_queue_rows=4),
    # A batch of 256 rows, which takes 2 s, waits for its engine, and its queue may take 1 s.
    "behind": Kind((3,), max_queue_seconds=1.0),
    # Its queue was closed and has no successor.
    "drained": Kind((3,)),
    # Its queue is closed once it was found; then there is version 4.
    "replaced": Kind((3,)),
    # Three versions are live, 3, 4 and 103: 4 gives twice the log-dets of 3, 103 four times.
    "twofold": Kind((3,)),
    "twofold@3": Kind((3,)),
    "twofold@4": Kind((3,)),
    "twofold@103": Kind((3,)),
    # Version 3 is retired once it was found; then there is version 4 alone.
    "retired@3": Kind((3,)),
}
_LIVE = ("3", "4", "103")
_TIMES = {"4": 2, "103": 4}
_FLOWS = ("flow", "judged_flow")
# Models of which the states between noise and data can be asked.
_WITH_STATES = ("line", "wide", "labelled", "grey", "flow")
# Models that are not the same after a request as before it.
SPENT = ("replaced_in_call", "failing_when_full", "lost", "replaced", "retired@3")


class Repository:
    """A repository in memory, whose models begin when they are first asked for."""

    is_ready = True
    is_alive = True

    def __init__(self, default: str | None) -> None:
        self._default = default
        self._loaded: dict[str, _LoadedModel] = {}
        self._successors: dict[str, _LoadedModel] = {}
        self._metrics = Metrics()
        self._released = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, name: str | None) -> ServedModel:
        """Find a model."""
        name = name or self._default
        if name == "loading":
            raise NotReady("models are loading", retry_after=2)
        bare, at, version = (name or "").partition("@")
        if bare == "twofold" and at and version not in _LIVE:
            live = ", ".join(_LIVE)
            raise ModelNotFound(
                f"model: version {version!r:.20} of {bare} is not live; live: {live}"
            )
        if name not in KINDS:
            raise ModelNotFound(f"model: expected one of line, wide, got {name!r:.40}")
        if name == "retired@3" and name in self._loaded:  # found once, and gone by now
            raise ModelNotFound("model: version '3' of retired is not live; live: 4")
        if name in self._successors:
            return self._successors[name].served
        if name not in self._loaded:
            self._loaded[name] = self._begin(name, _version_of(name))
        found = self._loaded[name].served
        if name == "replaced":
            self._successors[name] = self._begin(name, "4")
        return found

    def calls(self) -> int:
        """How often any engine was called so far."""
        loaded = (*self._loaded.values(), *self._successors.values())
        return sum(len(sizes) for one in loaded for sizes in one.sizes.values())

    def batches(self, name: str, operation: str) -> list[int]:
        """How many rows each call of a model's engine had so far."""
        return list(self._loaded[name].sizes[operation]) if name in self._loaded else []

    async def renew(self) -> None:
        """Forget what a request has changed."""
        for name in SPENT:
            for held in (self._loaded, self._successors):
                if name in held:
                    await asyncio.gather(*held.pop(name).ends())
        if self._tasks:
            await asyncio.wait(self._tasks)

    def models(self) -> list[ServedModel]:
        """All that have begun."""
        return [loaded.served for loaded in self._loaded.values()]

    def versions(self, name: str) -> list[ServedModel]:
        """Those of "twofold": of the others nobody asks for another than the default."""
        return [self.get(f"twofold@{each}") for each in _LIVE] if name == "twofold" else []

    def index(self) -> list[ModelIndexEntry]:
        """Nothing here asks for it."""
        return []

    async def load(self, name: str, wanted: VersionPolicy | None = None) -> None:
        """Nothing here asks for it."""

    async def unload(self, name: str) -> None:
        """Nothing here asks for it."""

    async def start(self) -> None:
        """Models begin when they are asked for."""

    async def drain(self) -> None:
        """End all that has begun."""
        self._released.set()
        for loaded in (*self._loaded.values(), *self._successors.values()):
            await asyncio.gather(*loaded.ends())

    async def prepare(self, name: str | None) -> None:
        """Begin a model, so that nothing but the request is left to be done."""
        if name in KINDS and name not in self._loaded and name not in SPENT:
            self._loaded[name] = self._begin(name, _version_of(name))
            if name == "full":
                await self._loaded[name].fill_for_good()
            if name == "beside_full":
                await self.prepare("full")
            if name == "behind":
                await self._loaded[name].fall_behind()

    def _begin(self, name: str, version: str) -> "_LoadedModel":
        loop = asyncio.get_running_loop()
        has_begun = threading.Event()

        async def replace() -> None:
            self._successors[name] = self._begin(name, "4")
            ends = [asyncio.ensure_future(end) for end in loaded.ends()]
            await asyncio.sleep(0)  # the old version takes no rows from here on
            has_begun.set()
            await asyncio.gather(*ends)

        def schedule() -> None:
            task = loop.create_task(replace())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        def overfill() -> None:
            loaded.fill(_MORE_THAN_FIT, is_accepted=True)
            has_begun.set()

        def wait_for_the_loop() -> None:
            """Let it do what it was told before: the members of a group queue again."""
            is_done = threading.Event()
            loop.call_soon_threadsafe(is_done.set)
            is_done.wait(10)

        def fault(rows: Array) -> None:
            """What a model's engine does before it computes."""
            is_poisoned = bool((rows == POISON).any())
            if not loaded.is_warm:
                loaded.now += _BATCH_SECONDS
                return
            if name in ("slow", "full", "behind"):
                loaded.started.set()
                self._released.wait(60)
            if name == "replaced_in_call" and version == "3" and not has_begun.is_set():
                loop.call_soon_threadsafe(schedule)
                has_begun.wait(10)
            if (
                name == "failing_when_full"
                and is_poisoned
                and len(rows) > 1
                and not has_begun.is_set()
            ):
                loop.call_soon_threadsafe(overfill)
                has_begun.wait(10)
            elif name == "failing_when_full" and not rows.any():
                wait_for_the_loop()
            if name == "no_memory":
                raise EngineOutOfMemory("the device has too little memory")
            if name == "lost" and is_poisoned:
                raise EngineLost("the device is gone")
            if name in ("failing", "replaced_in_call", "failing_when_full") and is_poisoned:
                raise RuntimeError("poison")

        loaded = _LoadedModel(name, version, self._metrics, fault)
        if name in ("drained", "retired@3") or (name == "replaced" and version == "3"):
            loaded.close()
        return loaded


class _LoadedModel:
    """One version of a model and its queues."""

    def __init__(
        self, name: str, version: str, metrics: Metrics, fault: Callable[[Array], None]
    ) -> None:
        self._kind = KINDS[name]
        self._card = card = _card(name, version, self._kind)
        self._fillers: list[asyncio.Future[Any]] = []
        self.started = threading.Event()
        # By the clock of "behind", which goes on by as much as a batch takes in its warm-up.
        self.is_warm, self.now = True, 100.0
        names = ("encode", "decode", "generate", "gradient", "trajectory")
        self.sizes: dict[str, list[int]] = {each: [] for each in names}

        def batcher(op: str, engine: Engine) -> Batcher:
            def call(rows: Array, context: Array | None) -> Any:
                self.sizes[op].append(len(rows))
                fault(rows)
                # wrong_shape: a fault of the engine's own, found after it has answered.
                return engine(rows[: len(rows) - (name == "wrong_shape")], context)

            latent, data = (card.features,), card.event_shape
            takes = {"encode": data, "gradient": data, "trajectory": (card.features + 1,)}
            gives = latent if op == "encode" else data
            engine_call = EngineCall(
                call, takes.get(op, latent), gives, card.context_shape, card.dtype
            )
            policy = QueuePolicy(
                max_batch_rows=_BATCH_ROWS,
                max_queue_rows=self._kind.max_queue_rows,
                max_queue_seconds=self._kind.max_queue_seconds,
            )
            counters = metrics.queue(name, op, "fake", version=card.version)
            clock = (lambda: self.now) if name == "behind" else time.monotonic
            kind = _States if op == "trajectory" else Batcher
            made = kind(engine_call, policy, counters, name=f"{name}.{op}", clock=clock)
            made.start()
            return made

        encode, decode = _engines(name, card)
        self._queues = [batcher("encode", encode), batcher("decode", decode)]
        self.served = ServedModel(card, self._queues[0], self._queues[1])
        if name == "flow":
            self._queues.append(batcher("generate", _generate(decode)))
            self.served = replace(self.served, generate=self._queues[-1])
        if name == "judged_grey":
            self._queues.append(batcher("gradient", _gradient))
            self.served = replace(self.served, gradient=self._queues[-1])
        if name in _WITH_STATES:
            states = batcher("trajectory", _states(decode, card.event_shape))
            assert isinstance(states, _States)
            states.has_time = name in _FLOWS
            self._queues.append(states)
            self.served = replace(self.served, states=states)

    async def fill_for_good(self) -> None:
        """Fill the queues for good."""
        await self._occupy()
        self.fill(self._kind.max_queue_rows)

    async def fall_behind(self) -> None:
        """Let the queues know the engine's pace, and a batch wait for it for good."""
        self.is_warm = False
        for queue in self._queues:
            await queue.warm_up(np.zeros((_BATCH_ROWS, 3), np.float32), None)
        self.is_warm = True
        await self._occupy()
        for _ in range(4):  # requests of 64 rows are short: no row passes them
            self.fill(_BATCH_ROWS // 4)

    async def _occupy(self) -> None:
        """Let the engine hold a row of each queue."""
        for queue in self._queues:
            self.started.clear()
            # The first is in the engine before the others come.
            self._enter(queue, 1)
            await asyncio.to_thread(self.started.wait, 10)

    def fill(self, rows: int, *, is_accepted: bool = False) -> None:
        """Let rows wait in all queues, more than may where they count as accepted."""
        for queue in self._queues:
            self._enter(queue, rows, is_accepted=is_accepted)

    def _enter(self, queue: Batcher, rows: int, *, is_accepted: bool = False) -> None:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        zeros = np.zeros((rows, 3), np.float32)
        queue.enqueue(zeros, None, math.inf, reply, is_accepted=is_accepted)
        self._fillers.append(reply)

    def close(self) -> None:
        """Take no rows from now on."""
        for queue in self._queues:
            queue.abort("closed")

    def ends(self) -> list[Coroutine[Any, Any, None]]:
        """Finish what was accepted, where the engine lives."""
        return [queue.drain() for queue in self._queues if queue.is_alive]


def _card(name: str, version: str, kind: Kind) -> ModelCard:
    plain: dict[str, Any] = {
        "version": version,
        "family": "linear",
        "context_shape": None,
        "num_classes": None,
        "num_levels": None,
        "support": None,
        "dtype": "float32",
        "engine": "fake",
        "device": "cpu",
        "num_parameters": 1,
        "provenance": {},
        "accuracy": {},
        "config": {},
    }
    plain |= {"weights": _weights(name), "calibration": calibration_of(name)}
    return ModelCard(
        name=name.partition("@")[0], event_shape=kind.event_shape, **plain | kind.facts
    )


def _version_of(name: str) -> str:
    return name.partition("@")[2] or ("4" if name == "twofold" else "3")


def _weights(name: str) -> str:
    return name.encode().hex().zfill(64)


# By which statistic a model is scored, and by the weights of which other model.
STATISTICS = {
    "judged": ("neg_log_prob", None),
    "judged_table": ("neg_log_prob", None),
    "judged_bounds": ("neg_log_prob", None),
    "judged_grey": ("complexity", None),
    "judged_flow": ("typicality", None),
    "judged_classes": ("neg_log_prob", None),
    "judged_digits": ("neg_log_prob", None),
    "contrast": ("ratio:line", "line"),
    "beside_full": ("ratio:full", "full"),
    "orphan": ("ratio:nobody", "nobody"),
    "stale": ("ratio:line", "another"),
    "beside_3": ("ratio:twofold@3", "twofold@3"),
    "beside_weights_of_3": ("ratio:twofold", "twofold@3"),
    "beside_2": ("ratio:twofold@2", "twofold@2"),
    "stale_3": ("ratio:twofold@3", "twofold@4"),
}


def calibration_of(name: str) -> Calibration | None:
    """19 rows, whose scores are 1 .. 19; of models by class 2 has 9 of its own, 11 .. 19."""
    if name not in STATISTICS:
        return None
    statistic, background = STATISTICS[name]
    scores = np.arange(1.0, 20.0)
    classes = {2: scores[10:]} if KINDS[name].facts.get("num_classes") else {}
    return Calibration(
        statistic=statistic,
        parameters={"median": np.array([4.0])} if statistic == "typicality" else {},
        weights=_weights(name),
        dtype="float32",
        scores=scores,
        dataset="rows",
        created="2026-11-28T12:00:00+00:00",
        background=background and _weights(background),
        class_scores=classes,
        grid=_grid_of(name),
    )


def _grid_of(name: str) -> Array | None:
    """0, 1, 2 / 3, 4, 5 / ...: what features of tables are replaced by."""
    shape = KINDS[name].event_shape
    if len(shape) > 1:
        return None
    return np.arange(16.0 * shape[0]).reshape(16, *shape)


def _engines(name: str, card: ModelCard) -> tuple[Engine, Engine]:
    """The two maps of a model."""

    def encode(x: Array, context: Array | None) -> Any:
        flat = x.reshape(len(x), -1)
        z = (flat - _shift(context, len(x)).astype(x.dtype)) / x.dtype.type(2)
        log_det = -z[:, 0] / x.dtype.type(4)
        if card.name == "twofold":
            log_det = log_det * x.dtype.type(_TIMES.get(card.version, 1))
        if name == "contrast":
            log_det = log_det - flat.sum(1) * x.dtype.type(2)
        if name in ("bounded", "judged_bounds"):
            log_det[((flat < 0) | (flat > 1)).any(1)] = -np.inf
        return _solved(flat[:, 0], z, log_det) if name in _FLOWS else (z, log_det)

    def decode(z: Array, context: Array | None) -> Any:
        log_det = z[:, 0] / z.dtype.type(4)
        with np.errstate(over="ignore"):
            x = z * z.dtype.type(2) + _shift(context, len(z)).astype(z.dtype)
        x = x.reshape(-1, *card.event_shape)
        return _solved(z[:, 0], x, log_det) if name in _FLOWS else (x, log_det)

    return encode, decode


def _gradient(x: Array, context: Array | None) -> Any:
    """d log p / d x = -x / 4, and -1/8 more of the first value; there is none above 200."""
    gradient = -x / x.dtype.type(4)
    gradient[:, 0, 0, 0] -= x.dtype.type(0.125)
    return gradient, np.where(x.max((1, 2, 3)) > 200, -np.inf, 0).astype(x.dtype)


class _States(Batcher):
    """A queue of states: two layers make x of z, or a continuous flow does."""

    has_time = False
    max_rows = 20_000

    @property
    def is_by_state(self) -> bool:
        """As of flows: those of layers share them among the states of a row."""
        return self.has_time

    def label(self, progress: float) -> str | float:
        """Which layer, by its number and name; of the continuous flow the time."""
        if self.has_time:
            return 1 - progress
        count = round(2 * progress)
        return f"{count} Half" if count else "0 noise"


def _states(decode: Engine, event_shape: tuple[int, ...]) -> Engine:
    """z and half of the way to x a layer."""

    def states(rows: Array, context: Array | None) -> Any:
        z, share = rows[:, :-1], np.round(2 * rows[:, -1:]) / 2
        x, log_det, *_ = decode(z.copy(), context)
        flat = x.reshape(z.shape)
        return (z + (flat - z) * share).reshape(-1, *event_shape), log_det

    return states


def _generate(decode: Engine) -> Engine:
    """What gives x alone: as decode, but for the log_det."""

    def generate(z: Array, context: Array | None) -> Any:
        x, log_det, solves = decode(z, context)
        return x, np.zeros_like(log_det), solves

    return generate


def _shift(context: Array | None, rows: int) -> Array:
    if context is None:
        return np.zeros((rows, 1))
    flat = context.reshape(rows, -1)
    return flat @ np.arange(1.0, flat.shape[1] + 1)[:, None]


def _solved(first: Array, value: Array, log_det: Array) -> Any:
    failed = first == 3
    value[failed] = log_det[failed] = np.nan
    error = np.where(first == 5, 0.25, 0).astype(log_det.dtype)
    error[first == 6] = np.nan
    evaluations = np.abs(10 * first).astype(np.int64)
    return value, log_det, SolverStats(failed.astype(np.int64), evaluations, error)
