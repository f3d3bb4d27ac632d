"""A whole application over linear maps, and a way to ask it without a network."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI

from service.app import create_app
from service.contracts import (
    Array,
    InferenceResult,
    ModelCard,
    ModelIndexEntry,
    QueueHandle,
    QueueShare,
    ReplySink,
    ServedModel,
    SourceStatus,
    VersionPolicy,
)
from service.errors import ModelNotFound, ModelRefused, NotReady
from service.settings import Settings

SCALE = 2.0
URL = "http://server"


class Tasked(ABC):
    """A queue whose `enqueue` is made of its `submit`: the other way round than in a batcher."""

    @abstractmethod
    async def submit(
        self, rows: Array, context: Array | None, deadline: float
    ) -> InferenceResult: ...

    max_coalesced_rows = 32

    def check(self, rows: int, deadline: float, share: QueueShare | None = None) -> None:
        """Refuse nothing: every row finds room here."""
        return

    def compute_now(
        self, rows: Array, context: Array | None, deadline: float, *, requests: int = 1
    ) -> InferenceResult | None:
        """Leave all to `enqueue`."""
        return None

    def enqueue(
        self,
        rows: Array,
        context: Array | None,
        deadline: float,
        slot: ReplySink,
        *,
        requests: int = 1,
        is_accepted: bool = False,
        share: QueueShare | None = None,
    ) -> QueueHandle:
        async def answer() -> None:
            try:
                result = await self.submit(rows, context, deadline)
            except Exception as error:
                if not slot.done():
                    slot.set_exception(error)
            else:
                if not slot.done():
                    slot.set_result(result)

        return _Tasked(asyncio.get_running_loop().create_task(answer()))


@dataclass
class _Tasked:
    """A place in a queue that takes all rows at once: none can be dropped any more."""

    task: asyncio.Task[None]

    def cancel(self) -> None:
        self.task.cancel()

    def cancel_row(self, row: int) -> bool:
        return False


@dataclass
class Linear(Tasked):
    """A queue that answers at once: encode z = (x - c) / SCALE flattened, decode its inverse.

    c is the context's sum, so that a wrong context changes every number.
    """

    event_shape: tuple[int, ...]
    is_encode: bool
    failure: BaseException | None = None
    gate: asyncio.Event | None = None
    entered: asyncio.Event | None = None
    was_cancelled: bool = False
    calls: list[tuple[Array, Array | None]] = field(default_factory=list)

    async def submit(self, rows: Array, context: Array | None, deadline: float) -> InferenceResult:
        self.calls.append((rows, context))
        if self.failure is not None:
            raise self.failure
        if self.entered is not None and self.gate is not None:
            self.entered.set()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
        c = np.zeros(len(rows)) if context is None else context.reshape(len(rows), -1).sum(1)
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        log_det = np.full(len(rows), -math.log(SCALE) * flat.shape[1], rows.dtype)
        with np.errstate(over="ignore"):
            if self.is_encode:
                value = ((flat - c[:, None]) / SCALE).astype(rows.dtype)
                return InferenceResult(value, log_det, 0.001, 0.002)
            value = (flat * SCALE + c[:, None]).astype(rows.dtype)
            return InferenceResult(value.reshape(-1, *self.event_shape), -log_det, 0.001, 0.002)


def card(name: str, event_shape: tuple[int, ...], **facts: Any) -> ModelCard:
    plain: dict[str, Any] = {
        "version": "3",
        "family": "linear",
        "context_shape": None,
        "num_classes": None,
        "num_levels": None,
        "support": None,
        "dtype": "float32",
        "engine": "fake",
        "device": "cpu",
        "num_parameters": 1,
        "provenance": {"trained_on": "nothing"},
        "accuracy": {},
        "config": {"scale": SCALE},
    }
    return ModelCard(name=name, event_shape=event_shape, **plain | facts)


CARDS = (
    card("line", (3,)),
    card("wide", (2,), dtype="float64", feature_names=("mass", "speed")),
    card("grey", (1, 4, 5), num_levels=256, support=(0.0, 256.0)),
    card("colour", (3, 4, 5), num_levels=256),
    card("digits", (1, 4, 4), num_levels=17),
    card("steered", (2,), context_shape=(2,)),
    card("labelled", (2,), context_shape=(4,), num_classes=4),
)


class FakeRepository:
    """A repository in memory: every card served by two linear queues."""

    def __init__(self, cards: tuple[ModelCard, ...] = CARDS, default: str | None = None) -> None:
        self.served = {
            card.name: ServedModel(
                card, Linear(card.event_shape, True), Linear(card.event_shape, False)
            )
            for card in cards
        }
        self.default = default
        self.is_ready = True
        self.is_alive = True
        self.history: list[str] = []

    def get(self, name: str | None) -> ServedModel:
        if not self.is_ready:
            raise NotReady("loading", retry_after=2)
        name = name or self.default
        bare, _, version = (name or "").partition("@")
        if bare not in self.served:
            raise ModelNotFound(f"model: expected one of {', '.join(self.served)}, got {name!r}")
        if version and version != self.served[bare].card.version:
            raise ModelNotFound(f"model: version {version!r} of {bare} is not live; live: 3")
        return self.served[bare]

    def models(self) -> list[ServedModel]:
        return list(self.served.values())

    def versions(self, name: str) -> list[ServedModel]:
        return [self.served[name]] if name in self.served else []

    def index(self) -> list[ModelIndexEntry]:
        served = [
            ModelIndexEntry(model.card.name, model.card.version, True) for model in self.models()
        ]
        return [*served, ModelIndexEntry("wide", "4", False, "wide/4/config.json: cannot be read")]

    def sources(self) -> list[SourceStatus]:
        return []

    async def load(self, name: str, wanted: VersionPolicy | None = None) -> None:
        if name == "broken":
            raise ModelRefused("broken/4/config.json: cannot be read")
        self.get(name)
        self.history.append(f"load {name}" if wanted is None else f"load {name} {wanted}")

    async def unload(self, name: str) -> None:
        self.get(name)
        self.history.append(f"unload {name}")

    async def start(self) -> None:
        self.history.append("start")

    async def drain(self) -> None:
        self.history.append("drain")

    def queue(self, name: str, op: str) -> Linear:
        queue = getattr(self.served[name], op)
        assert isinstance(queue, Linear)
        return queue

    def held(self, name: str = "line", op: str = "encode") -> Linear:
        """A queue that says when it was `entered` and answers once its `gate` is set."""
        queue = self.queue(name, op)
        queue.gate, queue.entered = asyncio.Event(), asyncio.Event()
        return queue


def app_over(repository: FakeRepository, **settings: Any) -> FastAPI:
    return create_app(Settings(log_level="error", **settings), repository)


def ask(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    """One request, on an event loop of its own."""

    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.request(method, path, **request)

    return asyncio.run(exchange())


def post(app: FastAPI, path: str, **request: Any) -> httpx.Response:
    return ask(app, "POST", path, **request)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A body without Content-Length."""
    for part in parts:
        yield part


def log_normal(z: Any) -> Any:
    """log N(z; 0, I), written down independently of the service."""
    z = np.asarray(z, np.float64)
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)
