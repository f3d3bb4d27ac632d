"""One model in this process: loaded, batched and answered as the server does it."""

import asyncio
import json
import math
import threading
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from models.scoring.statistics import parse_statistic
from pushforward.batch.calls import CallResult, RowCall, finite, join
from pushforward.batch.locate import locate
from service.codec.media import JSON
from service.contracts import ModelCard, ServedModel
from service.engines.cpu import share_cpu
from service.errors import ModelNotFound, Overloaded, ServiceError
from service.launch.exits import StartupError
from service.operations import OPERATIONS, Operation
from service.operations.inference import infer
from service.operations.model_input import Deferred, ModelInput
from service.operations.request_context import RequestContext
from service.operations.response import AS_JSON
from service.operations.spec import Limits
from service.operations.thread_pool import RequestThreadPool
from service.repository.folders import ModelLocation
from service.repository.loading import LoadedModel, load_model
from service.settings import Settings
from service.telemetry import Metrics

# No client waits: nothing is refused for want of time or room but what a model's own file bounds.
_MANY_ROWS = 2**24
_MANY_BYTES = 2**40
_MANY_SECONDS = 1e9
# Rows of a request: many, since each costs the event loop the same; fewer of pictures.
_LEAST_ROWS, _MOST_ROWS = 16, 16_384
_VALUES_IN_REQUEST = 2**20
_RETRY_SECONDS = 0.02

_T = TypeVar("_T")


class Session:
    """One model in this process, with an event loop in a thread of its own.

    Rows have the bits that they have in any batch: certified graphs give them as they are; another
    engine is loaded with `batching = invariant`.

    Args:
        model: its folder.
        instances, num_threads: as the settings of these names.

    Raises:
        ValueError: there is no model, or it cannot be loaded.
    """

    def __init__(
        self,
        model: Path,
        *,
        instances: Literal["auto"] | int = "auto",
        num_threads: int | None = None,
    ) -> None:
        self._settings = _settings(instances, num_threads)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._loaded: dict[str, LoadedModel] = {}
        try:
            self.location = locate(model)
            self._main = self._run(self._load(self.location))
            self._loaded[self.location.name] = self._main
            self._load_background()
        except StartupError as error:
            self.close()
            raise ValueError(str(error)) from None
        except BaseException:
            self.close()
            raise
        limits = Limits(_MANY_ROWS, _MANY_BYTES)
        self._operations = {kind.name: kind(limits, self._find) for kind in OPERATIONS}
        self._threads = RequestThreadPool()
        self._turns = asyncio.Semaphore(2 * self._instances() + 1)

    @property
    def card(self) -> ModelCard:
        """The facts of the model."""
        return self._main.served.card

    @property
    def calibration_fault(self) -> str | None:
        """Why the calibration in its folder cannot be used."""
        return self._main.calibration_fault

    def operation(self, name: str) -> Operation:
        """One of the operations.

        Raises:
            ValueError: naming those that there are.
        """
        if name not in self._operations:
            raise ValueError(f"operation: expected {', '.join(self._operations)}, got {name!r}")
        return self._operations[name]

    def start(self, call: RowCall) -> "Future[CallResult]":
        """Begin to compute rows; the future raises `ValueError` where the call is refused."""
        return asyncio.run_coroutine_threadsafe(self._answer(call), self._loop)

    def compute(self, call: RowCall) -> CallResult:
        """Compute rows.

        Raises:
            ValueError: the fields are not what the operation takes, or the rows not the model's.
        """
        return self.start(call).result()

    def try_fields(self, operation: str, fields: Mapping[str, Any]) -> CallResult:
        """Compute one row of zeros: what the fields are worth, and which outputs there are.

        Raises:
            ValueError: the fields are not what the operation takes.
        """
        card, chosen = self.card, self.operation(operation)
        if fields.get("fdr") is not None:
            raise ValueError(
                "fdr: it decides over all rows together, and these come in pieces; name alpha or "
                "threshold, or take q-values of the p-values that come out"
            )
        unknown = sorted({*fields} - {*chosen.field_names})
        if unknown:
            raise ValueError(f"{operation} has no field {unknown[0]!r}")
        if chosen.tensor_name is None:
            return self.compute(RowCall(operation, fields, {}, 1, 0))
        rows = {chosen.tensor_name: np.zeros((1, *chosen.row_shape(card)))}
        if card.num_classes is not None:
            rows["context"] = np.zeros(1, np.int64)
        elif card.context_shape is not None:
            rows["context"] = np.zeros((1, *card.context_shape))
        return self.compute(RowCall(operation, fields, rows, 1))

    def close(self) -> None:
        """Finish what is under way, end the threads."""
        for loaded in self._loaded.values():
            self._run(loaded.drain())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _load(self, location: ModelLocation) -> LoadedModel:
        loaded = await load_model(location, self._settings, Metrics())
        if loaded.served.card.accuracy["is_bitwise_reproducible"]:
            return loaded
        await loaded.drain()
        fixed = self._settings.model_copy(update={"batching": "invariant"})
        return await load_model(location, fixed, Metrics())

    def _load_background(self) -> None:
        """Load the model that scores are ratios to, where it lies beside this one."""
        calibration = self.card.calibration
        if calibration is None or calibration.background is None:
            return
        _, name = parse_statistic(calibration.statistic)
        folder = self.location.folder
        beside = folder.parent if folder.name != self.location.version else folder.parent.parent
        if name is not None and (beside / name).is_dir():
            self._loaded[name] = self._run(self._load(locate(beside / name)))

    def _find(self, name: str) -> ServedModel:
        if name not in self._loaded:
            raise ModelNotFound(f"model: no folder {name!r} lies beside {self.card.name}")
        return self._loaded[name].served

    def _instances(self) -> int:
        return share_cpu(self._settings.instances, self._settings.num_threads).instances

    async def _answer(self, call: RowCall) -> CallResult:
        """CallResult rows in requests, several at a time, so that all instances compute."""
        size = self._request_rows()
        starts = range(0, call.total, size)
        parts = (call.part(start, min(start + size, call.total)) for start in starts)
        operation = self.operation(call.operation)
        try:
            answers = await asyncio.gather(*(self._request(operation, part) for part in parts))
        except ServiceError as error:
            raise ValueError(error.detail) from None
        return join(answers)

    def _request_rows(self) -> int:
        fitting = max(_LEAST_ROWS, _VALUES_IN_REQUEST // self.card.features)
        return int(min(_MOST_ROWS, 2 ** int(math.log2(fitting))))

    async def _request(self, operation: Operation, fields: dict[str, Any]) -> CallResult:
        def prepare(model: ServedModel) -> ModelInput | Deferred:
            return operation.prepare(fields, model, AS_JSON, math.inf)

        async with self._turns:
            while True:
                context = RequestContext(time.monotonic(), math.inf)
                try:
                    model, given, result = await infer(
                        lambda: self._main.served,
                        prepare,
                        context,
                        self._threads,
                        operation.follow_up,
                    )
                    break
                except Overloaded:  # the model's own file bounds its queue
                    await asyncio.sleep(_RETRY_SECONDS)
        scalars, outputs = operation.finish(model.card, given, result, JSON)
        finder = operation.failures(model.card, given, result, lambda _: None)
        codes = finder.find(outputs)
        unknown = np.zeros(len(codes), bool)
        unknown[list(finder.null_rows)] = True
        if "score" in outputs:
            unknown |= np.isnan(outputs["score"])
        if "explanation" in scalars:
            sums = np.array(scalars["explained_nats"], np.float64)
            texts = [None if row is None else json.dumps(row) for row in scalars["explanation"]]
            outputs = {**outputs, "explanation": np.array(texts, object), "explained_nats": sums}
        return CallResult(
            {name: finite(values) for name, values in outputs.items()}, codes, unknown
        )


def _settings(instances: Literal["auto"] | int, num_threads: int | None) -> Settings:
    return Settings(
        instances=instances,
        num_threads=num_threads,
        max_request_rows=_MANY_ROWS,
        max_queue_rows=_MANY_ROWS,
        max_queue_seconds=_MANY_SECONDS,
        max_response_bytes=_MANY_BYTES,
        max_inline_seconds=0.0,
    )
