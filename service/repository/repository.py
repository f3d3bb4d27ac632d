"""The models of some folders: loaded at start, found by name, changed while they serve."""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from models.noise import set_noise_threads
from service.batcher import ComputeSlots
from service.contracts import ModelIndexEntry, ServedModel, SourceStatus
from service.engines.cpu import share_cpu, usable_cores
from service.engines.device import resolve_device, why_cpu
from service.engines.gpus import Gpu
from service.engines.probe import PROBES, ProbeTable
from service.engines.torch_library import import_torch
from service.errors import ModelNotFound, ModelRefused, NotReady
from service.launch.exits import StartupError
from service.repository.calibrations import is_recalibrated, why_not_in_its_place
from service.repository.dedicated_thread import run_in_dedicated_thread
from service.repository.device_turns import DeviceTurns
from service.repository.device_watch import DeviceWatch
from service.repository.engine_loading import needs_torch
from service.repository.folders import ModelLocation, find_models, stamp, zoo_folder
from service.repository.loading import LoadedModel, load_model, recalibrate
from service.repository.overrides import read_overrides
from service.repository.placement import ModelPlacement
from service.repository.sources import SourceWatch, local_folders
from service.repository.startup import load_all, reason_of
from service.repository.table import ModelTable
from service.repository.watcher import FolderWatcher
from service.settings import Settings, flag_name
from service.telemetry import Metrics

# A refused model waits for a person. Longer than clients wait by themselves (ours: a minute), so
# that whoever asks is told why at once.
_RETRY_REFUSED_SECONDS = 300

# Models that are loaded side by side at least, so that a slow one does not hold up all others.
_MIN_AT_ONCE = 2

_log = logging.getLogger(__name__)


class FolderRepository:
    """A `service.contracts.Repository` over `settings.model_repository`, or over the zoo.

    One model that cannot be loaded keeps the whole service from starting, unless the operator says
    `--on-bad-model skip`: then the others are served, and it is refused. After the start that is
    always so: a version that cannot be loaded is refused, and the one before it stays.

        folder changes ──> load ──> golden rows ──> warm-up ──> swap ──> drain the one before
                             └────────────┴────────────┴──> refused, with the reason
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        gpus: Sequence[Gpu] = (),
        *,
        probes: ProbeTable = PROBES,
        is_fetched: bool = False,
    ) -> None:
        self._settings = settings
        self._is_fetched = is_fetched
        self._sources = SourceWatch(settings, metrics)
        self._placement = ModelPlacement(gpus) if gpus else None
        self._metrics = metrics
        self._folders = local_folders(settings) or (zoo_folder(),)
        self._table = ModelTable(
            metrics, settings.drift_window_rows, settings.drift_rows_per_second
        )
        self._share = share_cpu(settings.instances, settings.num_threads, settings.workers)
        self._slots = ComputeSlots(self._share.budget)
        self._devices = DeviceWatch(probes)
        self._turns = DeviceTurns()
        self._has_started = False
        self._is_draining = False
        # Models that were refused at the start: they count where a request names none.
        self._skipped: set[str] = set()
        # One change of a model at a time, so that no two loads of it overtake each other; those of
        # other models do not wait for it, as long as there are cores.
        self._starting = asyncio.Lock()
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        at_once = max(_MIN_AT_ONCE, math.floor(usable_cores() / settings.workers))
        self._cores = asyncio.Semaphore(at_once)
        # Models of which a change waits for the one before: it finds all files as they are then.
        self._waiting: set[str] = set()
        self._refreshing: set[asyncio.Task[None]] = set()
        self._watcher = FolderWatcher(self._folders, self._on_change)

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded and warm and nothing is draining."""
        return self._has_started and not self._is_draining and self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether every batcher's worker runs, or was stopped, and no device is lost."""
        if self._is_draining:
            return True
        return not self._devices.lost and all(one.is_alive for _, one in self._table.batchers)

    def watch_devices(self) -> None:
        """Look whether the devices compute; called every second or so, and waits for nothing."""
        if self._has_started and not self._is_draining:
            self._devices.look(self._table.batchers)

    def get(self, name: str | None) -> ServedModel:
        """Find a model by name; None is the default or the only one.

        Raises:
            ModelNotFound: no such model, or none named where several are served without a default.
            NotReady: models are loading or the service is shutting down, or the model was refused:
                a fault of the service, which those who watch for 5xx are to see, and not of the
                client, as 404 would say.
        """
        if not self._has_started:
            raise NotReady("models are loading")
        if self._is_draining:
            raise NotReady("the service is shutting down")
        name = self._default_name() if name is None else name
        loaded = self._table.get(name)
        if loaded is not None:
            return loaded.served
        refused = self._table.refusal(name)
        if refused is not None:
            raise NotReady(
                f"model: {name} {refused.version} cannot be served: {refused.reason}",
                retry_after=_RETRY_REFUSED_SECONDS,
            )
        names = ", ".join(self._table.names)
        raise ModelNotFound(f"model: no model is called {name!r:.80}; served: {names}")

    def models(self) -> list[ServedModel]:
        """All served models in order of name."""
        return self._table.models()

    def index(self) -> list[ModelIndexEntry]:
        """All models in order of name: the served versions, and those that were refused."""
        return self._table.index()

    def sources(self) -> list[SourceStatus]:
        """The URIs that models come from."""
        return self._sources.statuses

    async def import_libraries(self) -> None:
        """Import what the models in the folders need, before there is any of them.

        What is imported stays; who knows that can have it left out of collections.

        Raises:
            StartupError: the folders cannot be used.
        """
        if not any(self._needs_torch(location) for location in self._find_all()):
            return
        threads = self._share.threads
        with suppress(ModuleNotFoundError):  # who needs it says so
            await run_in_dedicated_thread(lambda: import_torch(threads))

    def _needs_torch(self, location: ModelLocation) -> bool:
        try:
            return needs_torch(location.folder, read_overrides(location.folder, self._settings))
        except StartupError:
            return False  # it is not loaded

    async def start(self) -> None:
        """Find, load, prove and warm up every model; a second call does nothing.

        Raises:
            StartupError: a folder, a model or a setting cannot be used; where bad models are
                skipped: no model can be used.
        """
        if self._has_started:
            return
        settings = self._settings
        set_noise_threads(self._share.budget)
        await self._sources.start(is_fetched=self._is_fetched)
        locations = self._find_all()
        names = [location.name for location in locations]
        if settings.default_model is not None and settings.default_model not in names:
            raise StartupError(
                f"{flag_name('default_model')}: no model is called {settings.default_model!r}; "
                f"found: {', '.join(names)}"
            )
        try:
            device = resolve_device(settings.device)
        except ValueError as error:
            raise StartupError(f"{flag_name('device')}: {error}") from None
        if settings.device == "auto" and device == "cpu":
            _log.info("%s auto is cpu: %s", flag_name("device"), why_cpu())
        async with self._starting:
            # The zoo is part of the installed package, which does not change. The watch begins
            # before the loading: what changes meanwhile is loaded anew after it.
            if settings.watch_models and settings.model_repository:
                await self._watcher.start()
            try:
                skip = self._skip if settings.on_bad_model == "skip" else None
                if self._placement is not None:
                    self._placement.place(locations)
                found = await load_all(locations, self._load, skip)
                if self._devices.lost:
                    for loaded in found:
                        loaded.abort("the service does not start")
                    raise StartupError(self._devices.lost)
                for loaded in found:
                    self._table.serve(loaded)
            except BaseException:
                await self._watcher.stop()
                raise
            self._has_started = True

    async def _load(self, location: ModelLocation) -> LoadedModel:
        async with self._cores:
            return await self._load_model(location)

    async def _load_model(self, location: ModelLocation) -> LoadedModel:
        settings = self._settings
        if self._placement is not None:
            # What its own settings say wins over this too.
            device = self._placement.device_of(location)
            settings = settings.model_copy(update={"device": device})
        return await load_model(location, settings, self._metrics, self._slots, turns=self._turns)

    def _skip(self, location: ModelLocation, reason: str) -> None:
        _log.error("%s %s is not served: %s", location.name, location.version, reason)
        self._table.refuse(location, self._without_paths(reason))
        self._skipped.add(location.name)

    async def load(self, name: str) -> None:
        """Load a model from its folder; its version before, if any, is served until then.

        Raises:
            ModelNotFound: no folder is called so.
            ModelRefused: what lies there cannot be served; nothing has changed.
            NotReady: the service is shutting down.
        """
        self._find(name)  # before a lock is made for whatever a client calls a model
        async with self._turn(name):
            await self._replace(self._find(name))

    async def unload(self, name: str) -> None:
        """Serve a model no longer, until it is loaded by name; accepted rows are finished.

        Raises:
            ModelNotFound: no such model.
            NotReady: it was refused, or the service is shutting down.
        """
        self.get(name)
        async with self._turn(name):
            self.get(name)
            self._table.unload(name)

    async def refresh(self) -> None:
        """Load what is new or has changed in the folders, unload what is gone.

        What cannot be loaded is logged, listed in the index, and tried again at the next change.
        """
        async with self._starting:
            try:
                locations = self._locations()
            except StartupError as error:
                _log.error("nothing is loaded anew: %s", error)
                return
        names = sorted({*locations, *self._table.names, *self._table.refused_names})
        await asyncio.gather(*(self._refresh(name, locations.get(name)) for name in names))

    async def _on_change(self) -> None:
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
        for task in self._refreshing:
            task.cancel()
        self._sources.stop()
        await asyncio.gather(self._table.drain(), self._watcher.stop())

    def abort(self) -> None:
        """Give up on accepted rows: their requests are answered as not ready."""
        self._is_draining = True
        self._table.abort("the service is shutting down")

    async def _refresh(self, name: str, location: ModelLocation | None) -> None:
        """Serve of one model what its folder holds; without a folder it is unloaded."""
        if name in self._waiting:
            return
        must_wait = self._changing[name].locked()
        self._waiting.add(name)
        try:
            async with self._turn(name):
                self._waiting.discard(name)
                if must_wait:
                    location = self._locations().get(name)
                await self._apply(name, location)
        except ModelRefused as error:
            loaded, version = self._table.get(name), "" if location is None else location.version
            is_served = loaded is not None and loaded.served.card.version == version
            what = "is served as it was before" if is_served else "is not served"
            _log.error("%s %s %s: %s", name, version, what, error.detail)
        except (NotReady, StartupError) as error:
            _log.error("%s is not loaded anew: %s", name, error)
        finally:
            self._waiting.discard(name)

    def _find(self, name: str) -> ModelLocation:
        """Locate a model that a client named.

        Raises:
            ModelNotFound: no folder is called so.
            ModelRefused: the folders cannot be read.
        """
        try:
            locations = self._locations()
        except StartupError as error:
            raise ModelRefused(self._without_paths(str(error))) from None
        if name not in locations:
            raise ModelNotFound(f"model: no folder is called {name!r:.80}")
        return locations[name]

    async def _apply(self, name: str, location: ModelLocation | None) -> None:
        loaded = self._table.get(name)
        if location is None:
            if loaded is not None:
                self._table.remove(name)
            self._table.forget_refusal(name)
            return
        if self._is_draining or self._table.is_unloaded(name):
            return
        if loaded is not None and loaded.stamp == stamp(location):
            # What was refused meanwhile lies there no longer.
            self._table.forget_refusal(name)
            return
        is_same = loaded is not None and loaded.served.card.version == location.version
        if loaded is not None and is_same and is_recalibrated(loaded.stamp, stamp(location)):
            again = await recalibrate(location, loaded)
            self._check_calibrated(location, again)
            if not self._is_draining:
                self._table.serve_on(again)
            return
        async with self._cores:
            await self._replace(location)

    def _find_all(self) -> list[ModelLocation]:
        return find_models(self._folders, self._settings.model_name)

    def _locations(self) -> dict[str, ModelLocation]:
        """What lies in the folders now, by name.

        Raises:
            StartupError: they cannot be read, or are not all models.
        """
        return {location.name: location for location in self._find_all()}

    async def _replace(self, location: ModelLocation) -> None:
        """Load a model and serve it in the place of the version before.

        Raises:
            ModelRefused: it cannot be loaded.
            NotReady: the service is shutting down.
        """
        try:
            loaded = await self._load_model(location)
        except Exception as error:
            reason = self._without_paths(reason_of(location, error))
            self._table.refuse(location, reason)
            raise ModelRefused(reason) from None
        if self._is_draining:
            loaded.abort("the service is shutting down")
            raise NotReady("the service is shutting down")
        try:
            self._check_calibrated(location, loaded)
        except ModelRefused as error:
            loaded.abort(error.detail)
            raise
        self._table.serve(loaded)

    def _check_calibrated(self, location: ModelLocation, loaded: LoadedModel) -> None:
        """Refuse a model without calibration in the place of one that has it.

        Raises:
            ModelRefused: saying what to do.
        """
        former = self._table.get(location.name)
        if former is None or self._settings.allow_uncalibrated:
            return
        fault = loaded.calibration_fault
        reason = why_not_in_its_place(former.served.card, loaded.served.card, fault)
        if reason is not None:
            reason = self._without_paths(reason)
            self._table.refuse(location, reason)
            raise ModelRefused(reason)

    def _without_paths(self, reason: str) -> str:
        """Show clients where in the repository something is, not where the repository is."""
        for folder in self._folders:
            reason = reason.replace(f"{folder.parent}/", "")
        return reason

    def _default_name(self) -> str:
        if self._settings.default_model is not None:
            return self._settings.default_model
        names = self._table.names
        if len(names) == 1 and not self._skipped:
            return names[0]
        # One of several that is left over is not the one that is meant.
        skipped = {name for name in self._skipped if self._table.refusal(name) is not None}
        names = sorted({*names, *skipped})
        if len(names) == 1:
            return names[0]
        several = "there are several" if skipped else "several are served"
        raise ModelNotFound(f"model: expected a name, {several}: {', '.join(names)}")
