"""One model in this process: loaded, batched and answered as the server does it."""

import asyncio
import json
import math
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from models.scoring.statistics import parse_statistic
from pushforward.batch.calls import CallResult, ComputeError, PendingCall, RowCall, finite
from pushforward.batch.direct_queue import served_directly
from pushforward.batch.locate import locate, locate_beside, path_in_repository
from pushforward.batch.workers import LoopWorkers, ThreadWorkers, Workers
from service.codec.media import JSON
from service.contracts import InferenceResult, ModelCard, ServedModel
from service.engines.cpu import share_cpu
from service.errors import ModelNotFound, Overloaded, ServiceError
from service.launch.exits import StartupError
from service.operations import OPERATIONS, Operation
from service.operations.inference import infer
from service.operations.model_input import Deferred, ModelInput
from service.operations.request_context import RequestContext
from service.operations.response import AS_JSON
from service.operations.spec import Limits
from service.repository.folders import ModelLocation
from service.repository.loading import LoadedModel, load_model
from service.settings import Settings
from service.telemetry import Metrics

# No client waits: nothing is refused for want of time or room but what a model's own file bounds.
_MANY_ROWS = 2**24
_MANY_BYTES = 2**40
_MANY_SECONDS = 1e9
# Rows of a request: many, since each costs the same in Python; fewer of pictures.
_LEAST_ROWS, _MOST_ROWS = 16, 16_384
_VALUES_IN_REQUEST = 2**20
_RETRY_SECONDS = 0.02

_T = TypeVar("_T")


class _ModelsBeside:
    """The models that lie beside the one of a session, by what its calibration calls them."""

    def __init__(self) -> None:
        self.found: dict[str, ServedModel] = {}

    def get(self, name: str) -> ServedModel:
        if name not in self.found:
            raise ModelNotFound(f"model: no folder {name!r} lies beside it")
        return self.found[name]

    def versions(self, name: str) -> Sequence[ServedModel]:
        return ()


class Session:
    """One model in this process: on processors its rows are computed in threads, one an instance.

    The loading, and a device beside the processors, are waited for by an event loop in a thread.
    Rows have the bits that they have in any batch: certified graphs give them as they are; another
    engine is loaded with `batching = invariant`. Continuous flows on torch and other engines on a
    GPU do not promise that: the card says so.

    Args:
        model: its folder, or FOLDER@VERSION.
        instances, num_threads: as the settings of these names.

    Attributes:
        location: of the model.
        folders: by their path in the repository, NAME or NAME/VERSION, of all models that are
            loaded: this one first, then that which scores are ratios to.

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
        self._loaded: list[LoadedModel] = []
        self._beside = _ModelsBeside()
        try:
            self.location = locate(model)
            self.folders: dict[str, Path] = {}
            self._main = self._load(self.location)
            self._load_background()
        except StartupError as error:
            self._end()
            raise ValueError(str(error)) from None
        except BaseException:
            self._end()
            raise
        self._workers = self._make_workers()
        limits = Limits(_MANY_ROWS, _MANY_BYTES)
        self._operations = {kind.name: kind(limits, self._beside) for kind in OPERATIONS}

    @property
    def card(self) -> ModelCard:
        """The facts of the model."""
        return self._main.card

    @property
    def calibration_fault(self) -> str | None:
        """Why the calibration in its folder cannot be used."""
        return self._loaded[0].calibration_fault

    def operation(self, name: str) -> Operation:
        """One of the operations.

        Raises:
            ValueError: naming those that there are.
        """
        if name not in self._operations:
            raise ValueError(f"operation: expected {', '.join(self._operations)}, got {name!r}")
        return self._operations[name]

    def start(self, call: RowCall) -> PendingCall:
        """Begin to compute rows in requests, so that all instances compute."""
        operation, size = self.operation(call.operation), self._size()
        starts = range(0, call.total, size)
        parts = [call.part(start, min(start + size, call.total)) for start in starts]
        submit = self._workers.submit
        return PendingCall([submit(partial(self._answer, operation, part)) for part in parts])

    def compute(self, call: RowCall) -> CallResult:
        """Compute rows.

        Raises:
            ValueError: the fields are not what the operation takes, or the rows not the model's.
            ComputeError: the engine failed.
        """
        return self.start(call).result()

    def try_fields(
        self, operation: str, fields: Mapping[str, Any], *, is_file: bool = False
    ) -> CallResult:
        """Compute one row of zeros: what the fields are worth, and which outputs there are.

        Args:
            operation: its name.
            fields: of the request.
            is_file: whether all rows are there in the end: what decides over all of them may be
                named.

        Raises:
            ValueError: the fields are not what the operation takes.
        """
        card, chosen = self.card, self.operation(operation)
        if fields.get("fdr") is not None and not is_file:
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
        self._workers.close()
        self._end()

    def _end(self) -> None:
        for loaded in self._loaded:
            self._run(loaded.drain())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _load(self, location: ModelLocation) -> ServedModel:
        loaded = self._run(self._load_reproducible(location))
        self._loaded.append(loaded)
        served = loaded.served
        if served.card.device == "cpu":
            served = served_directly(served, loaded.encode, loaded.decode, loaded.generate)
        self.folders[path_in_repository(location)] = location.folder
        return served

    async def _load_reproducible(self, location: ModelLocation) -> LoadedModel:
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
        _, reference = parse_statistic(calibration.statistic)
        assert reference is not None
        location = locate_beside(self.location, reference, calibration.background)
        if location is not None:
            self._beside.found[reference] = self._load(location)

    def _make_workers(self) -> Workers:
        count = share_cpu(self._settings.instances, self._settings.num_threads).instances
        if self.card.device == "cpu":
            return ThreadWorkers(count)
        return LoopWorkers(self._loop, 2 * count + 1)

    def _size(self) -> int:
        fitting = max(_LEAST_ROWS, _VALUES_IN_REQUEST // self.card.features)
        return int(min(_MOST_ROWS, 2 ** int(math.log2(fitting))))

    async def _answer(self, operation: Operation, fields: dict[str, Any]) -> CallResult:
        """Answer a request.

        Raises:
            ValueError: it is refused.
            ComputeError: the engine failed.
        """
        try:
            model, given, result = await self._infer(operation, fields)
            return _result_of(operation, model.card, given, result)
        except ServiceError as error:
            is_ours = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            raise (ComputeError if is_ours else ValueError)(error.detail) from None

    async def _infer(
        self, operation: Operation, fields: dict[str, Any]
    ) -> tuple[ServedModel, ModelInput, InferenceResult]:
        def prepare(model: ServedModel) -> ModelInput | Deferred:
            return operation.prepare(fields, model, AS_JSON, math.inf)

        pool, follow_up = self._workers.pool, operation.follow_up
        while True:
            context = RequestContext(time.monotonic(), math.inf)
            try:
                return await infer(lambda: self._main, prepare, context, pool, follow_up)
            except Overloaded:  # the model's own file bounds its queue
                await asyncio.sleep(_RETRY_SECONDS)


def _result_of(
    operation: Operation, card: ModelCard, given: ModelInput, result: InferenceResult
) -> CallResult:
    """Name what came of a request, null where there is no number."""
    scalars, outputs = operation.finish(card, given, result, JSON)
    finder = operation.failures(card, given, result, lambda _: None)
    codes = finder.find(outputs)
    unknown = np.zeros(len(codes), bool)
    unknown[list(finder.null_rows)] = True
    if "score" in outputs:
        unknown |= np.isnan(outputs["score"])
    if "explanation" in scalars:
        sums = np.array(scalars["explained_nats"], np.float64)
        texts = [None if row is None else json.dumps(row) for row in scalars["explanation"]]
        outputs = {**outputs, "explanation": np.array(texts, object), "explained_nats": sums}
    return CallResult({name: finite(values) for name, values in outputs.items()}, codes, unknown)


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
