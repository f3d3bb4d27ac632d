"""The models of some folders: loaded at start, found by name, changed while they serve."""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch

from service.batcher import Batcher
from service.contracts import ModelIndexEntry, ServedModel
from service.engines.cpu import engine_threads, usable_cores
from service.engines.torch import resolve_device
from service.errors import ModelNotFound, ModelRefused, NotReady
from service.launch.exits import StartupError
from service.repository.folders import ModelLocation, find_models, stamp, zoo_folder
from service.repository.loading import LoadedModel, host
from service.repository.watch import Watch
from service.settings import Settings, flag_name
from service.telemetry import Metrics

# Models that are loaded side by side at least, so that a slow one does not hold up all others.
_LEAST_AT_ONCE = 2

_log = logging.getLogger(__name__)


class FolderRepository:
    """A `service.contracts.Repository` over `settings.model_repository`, or over the zoo.

    One model that cannot be loaded keeps the whole service from starting: a service that answers
    404 for a model its operator configured would look healthy and be wrong. After the start it is
    the other way round: a version that cannot be loaded is refused, and the one before it stays.

        folder changes ──> load ──> golden rows ──> warm-up ──> swap ──> drain the one before
                             └────────────┴────────────┴──> refused, with the reason
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._folders = settings.model_repository or (zoo_folder(),)
        self._hosted: dict[str, LoadedModel] = {}
        self._refused: dict[str, ModelIndexEntry] = {}
        self._unloaded: dict[str, str] = {}
        self._has_started = False
        self._is_draining = False
        # One change of a model at a time, so that no two loads of it overtake each other; those of
        # other models do not wait for it, as long as there are cores.
        self._starting = asyncio.Lock()
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._cores = asyncio.Semaphore(
            max(_LEAST_AT_ONCE, math.floor(usable_cores() / settings.workers))
        )
        # Models of which a change waits for the one before: it finds all files as they are then.
        self._waiting: set[str] = set()
        self._refreshing: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._watch = Watch(self._folders, self._notice)

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded and warm and nothing is draining."""
        return self._has_started and not self._is_draining and self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether every batcher's worker runs, or was told to end."""
        return self._is_draining or all(batcher.is_alive for batcher in self._batchers())

    def get(self, name: str | None) -> ServedModel:
        """Find a model by name; None is the default or the only one.

        Raises:
            ModelNotFound: no such model, or none named where several are served without a default.
            NotReady: models are loading or the service is shutting down.
        """
        if not self._has_started:
            raise NotReady("models are loading")
        if self._is_draining:
            raise NotReady("the service is shutting down")
        hosted = self._hosted.get(self._default_name() if name is None else name)
        if hosted is None:
            raise ModelNotFound(f"model: no model is called {name!r:.80}; served: {self._names()}")
        return hosted.served

    def models(self) -> list[ServedModel]:
        """All served models in order of name."""
        return [self._hosted[name].served for name in sorted(self._hosted)]

    def index(self) -> list[ModelIndexEntry]:
        """All models in order of name: the served versions, and those that were refused."""
        served = [
            ModelIndexEntry(model.card.name, model.card.version, True) for model in self.models()
        ]
        gone = [ModelIndexEntry(*item, False, "unloaded") for item in self._unloaded.items()]
        return sorted(
            [*served, *self._refused.values(), *gone], key=lambda one: (one.name, one.version)
        )

    async def start(self) -> None:
        """Find, load, prove and warm up every model; a second call does nothing.

        Raises:
            StartupError: a folder, a model or a setting cannot be used.
        """
        if self._has_started:
            return
        settings = self._settings
        sources = find_models(self._folders)
        names = [source.name for source in sources]
        if settings.default_model is not None and settings.default_model not in names:
            raise StartupError(
                f"{flag_name('default_model')}: no model is called {settings.default_model!r}; "
                f"found: {', '.join(names)}"
            )
        try:
            resolve_device(settings.device)
        except ValueError as error:
            raise StartupError(f"{flag_name('device')}: {error}") from None
        torch.set_num_threads(engine_threads(settings.num_threads, settings.workers))
        async with self._starting:
            # The zoo is part of the installed package, which does not change. The watch begins
            # before the loading: what changes meanwhile is loaded anew after it.
            if settings.watch_models and settings.model_repository:
                await self._watch.start()
            try:
                for hosted in await self._host_all(sources):
                    self._serve(hosted)
            except BaseException:
                await self._watch.stop()
                raise
            self._has_started = True

    async def _host_all(self, sources: list[ModelLocation]) -> list[LoadedModel]:
        """Host models side by side, as many as there are cores: much of it is not Python.

        Raises:
            StartupError: of the first that cannot be hosted; the others are given up.
        """

        async def one(source: ModelLocation) -> LoadedModel:
            async with self._cores:
                return await host(source, self._settings, self._metrics)

        hosting = [asyncio.create_task(one(source)) for source in sources]
        try:
            return await asyncio.gather(*hosting)
        except BaseException:
            for task in hosting:
                task.cancel()
            for ended in await asyncio.gather(*hosting, return_exceptions=True):
                if isinstance(ended, LoadedModel):
                    ended.abort("the service does not start")
            raise

    async def load(self, name: str) -> None:
        """Load a model from its folder; its version before, if any, is served until then.

        Raises:
            ModelNotFound: no folder is called so.
            ModelRefused: what lies there cannot be served; nothing has changed.
            NotReady: the service is shutting down.
        """
        self._find(name)  # before a lock is made for whatever a client calls a model
        async with self._turn(name):
            await self._renew(self._find(name))

    async def unload(self, name: str) -> None:
        """Serve a model no longer, until it is loaded by name; accepted rows are finished.

        Raises:
            ModelNotFound: no such model.
        """
        self.get(name)
        async with self._turn(name):
            served = self.get(name)
            self._unloaded[name] = served.card.version
            self._remove(name)

    async def refresh(self) -> None:
        """Load what is new or has changed in the folders, unload what is gone.

        What cannot be loaded is logged, listed in the index, and tried again at the next change.
        """
        async with self._starting:
            try:
                sources = self._sources()
            except StartupError as error:
                _log.error("nothing is loaded anew: %s", error)
                return
        names = sorted(sources.keys() | self._hosted.keys())
        await asyncio.gather(*(self._refresh(name, sources.get(name)) for name in names))

    async def _notice(self) -> None:
        """Look at the folders, and do not wait: more may change while a model loads."""
        task = asyncio.create_task(self.refresh())
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """Change one model, after the changes that came before."""
        async with self._starting:
            pass
        async with self._changing[name]:
            yield

    async def drain(self) -> None:
        """Refuse new rows, finish the accepted ones."""
        self._is_draining = True
        for name in self._hosted:
            self._metrics.model_ready.labels(name).set(0)
        for task in self._refreshing:
            task.cancel()
        ends = [hosted.drain() for hosted in self._hosted.values()]
        await asyncio.gather(*ends, *self._retiring, self._watch.stop())

    def abort(self) -> None:
        """Give up on accepted rows: their requests are answered as not ready."""
        self._is_draining = True
        for hosted in self._hosted.values():
            hosted.abort("the service is shutting down")

    async def _refresh(self, name: str, source: ModelLocation | None) -> None:
        """Serve of one model what its folder holds; without a folder it is unloaded."""
        if name in self._waiting:
            return
        must_wait = self._changing[name].locked()
        self._waiting.add(name)
        try:
            async with self._turn(name):
                self._waiting.discard(name)
                if must_wait:
                    source = self._sources().get(name)
                await self._follow(name, source)
        except ModelRefused as error:
            version = "" if source is None else f" {source.version}"
            _log.error("%s%s is not served: %s", name, version, error.detail)
        except (NotReady, StartupError) as error:
            _log.error("%s is not loaded anew: %s", name, error)
        finally:
            self._waiting.discard(name)

    def _find(self, name: str) -> ModelLocation:
        """Where a model lies that a client named.

        Raises:
            ModelNotFound: no folder is called so.
            ModelRefused: the folders cannot be read.
        """
        try:
            sources = self._sources()
        except StartupError as error:
            raise ModelRefused(self._without_paths(str(error))) from None
        if name not in sources:
            raise ModelNotFound(f"model: no folder is called {name!r:.80}")
        return sources[name]

    async def _follow(self, name: str, source: ModelLocation | None) -> None:
        hosted = self._hosted.get(name)
        if source is None:
            if hosted is not None:
                self._remove(name)
            return
        is_known = hosted is not None and hosted.stamp == stamp(source)
        if self._is_draining or name in self._unloaded or is_known:
            return
        async with self._cores:
            await self._renew(source)

    def _sources(self) -> dict[str, ModelLocation]:
        """What lies in the folders now, by name.

        Raises:
            StartupError: they cannot be read, or are not all models.
        """
        return {source.name: source for source in find_models(self._folders)}

    async def _renew(self, source: ModelLocation) -> None:
        """Host a model and let it take the place of the one before.

        Raises:
            ModelRefused: it cannot be hosted.
            NotReady: the service is shutting down.
        """
        try:
            hosted = await host(source, self._settings, self._metrics)
        except Exception as error:
            if not isinstance(error, StartupError):
                _log.exception("%s %s: unexpected error", source.name, source.version)
            known = isinstance(error, StartupError)
            reason = self._without_paths(str(error)) if known else "unexpected error, see the log"
            self._refused[source.name] = ModelIndexEntry(source.name, source.version, False, reason)
            raise ModelRefused(reason) from None
        if self._is_draining:
            hosted.abort("the service is shutting down")
            raise NotReady("the service is shutting down")
        self._refused.pop(source.name, None)
        self._unloaded.pop(source.name, None)
        former = self._hosted.get(source.name)
        self._serve(hosted)
        if former is not None:
            self._retire(former)

    def _serve(self, hosted: LoadedModel) -> None:
        card = hosted.served.card
        self._hosted[card.name] = hosted
        for batcher in hosted.batchers:
            batcher.publish_gauges()
        self._metrics.serve(
            card.name,
            version=card.version,
            family=card.family,
            engine=card.engine,
            device=card.device,
        )

    def _remove(self, name: str) -> None:
        self._retire(self._hosted.pop(name))
        self._refused.pop(name, None)
        self._metrics.retire(name)
        _log.info("%s: unloaded", name)

    def _retire(self, hosted: LoadedModel) -> None:
        """Let a model finish what it has accepted, beside its successor, and be forgotten."""
        task = asyncio.create_task(hosted.drain())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _without_paths(self, reason: str) -> str:
        """Show clients where in the repository something is, not where the repository is."""
        for folder in self._folders:
            reason = reason.replace(f"{folder.parent}/", "")
        return reason

    def _default_name(self) -> str:
        if self._settings.default_model is not None:
            return self._settings.default_model
        if len(self._hosted) == 1:
            return next(iter(self._hosted))
        raise ModelNotFound(f"model: expected a name, several are served: {self._names()}")

    def _names(self) -> str:
        return ", ".join(sorted(self._hosted))

    def _batchers(self) -> list[Batcher]:
        return [batcher for hosted in self._hosted.values() for batcher in hosted.batchers]
