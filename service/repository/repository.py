"""The models of some folders: loaded at start, found by name, changed while they serve."""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from models.noise import set_noise_threads
from service.batcher import ComputeSlots
from service.contracts import ModelIndexEntry, ServedModel, SourceStatus, VersionPolicy
from service.engines.cpu import share_cpu, usable_cores
from service.engines.device import resolve_device, why_cpu
from service.engines.gpus import Gpu
from service.engines.probe import PROBES, ProbeTable
from service.engines.torch_library import import_torch
from service.errors import ModelNotFound, ModelRefused, NotReady
from service.launch.exits import StartupError
from service.repository.changes import Change, LoadVersion, ModelChanges, RefusedVersion
from service.repository.dedicated_thread import run_in_dedicated_thread
from service.repository.device_turns import DeviceTurns
from service.repository.device_watch import DeviceWatch
from service.repository.engine_loading import needs_torch
from service.repository.folders import (
    ModelFolder,
    ModelLocation,
    find_model_folders,
    zoo_folder,
)
from service.repository.loading import LoadedModel, load_model
from service.repository.overrides import read_overrides
from service.repository.placement import ModelPlacement
from service.repository.sources import SourceWatch, local_folders, told_by_uri
from service.repository.startup import load_all
from service.repository.table import ModelTable
from service.repository.version_policy import LiveVersions, live_versions
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

    Which versions of a model are live, its folder says (`service.repository.version_policy`).
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
        self._placement = ModelPlacement(gpus) if gpus else None
        self._metrics = metrics
        self._folders = local_folders(settings) or (zoo_folder(),)
        self._table = ModelTable(
            metrics, settings.drift_window_rows, settings.drift_rows_per_second
        )
        self._share = share_cpu(settings.instances, settings.num_threads, settings.workers)
        self._changes = ModelChanges(
            self._table,
            is_draining=lambda: self._is_draining,
            show=self._without_paths,
            allow_uncalibrated=settings.allow_uncalibrated,
        )
        # What was said when a model was loaded by name wins over what its folder says.
        self._policies: dict[str, VersionPolicy] = {}
        self._sources = SourceWatch(settings, metrics, self._policies)
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
        """Find a model by name, or by NAME@VERSION; None is the default or the only one.

        Raises:
            ModelNotFound: no such model, the version is not live, or none named where several are
                served without a default.
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
        raise self._why_not_served(name)

    def _why_not_served(self, reference: str) -> ModelNotFound | NotReady:
        """Say why nothing is served by NAME or NAME@VERSION."""
        name, _, version = reference.rpartition("@")
        model = self._table.versions(name or reference)
        refused = model.refused.get(version) if name else model.refusal
        if refused is not None:
            return NotReady(
                f"model: {refused.name} {refused.version} cannot be served: {refused.reason}",
                retry_after=_RETRY_REFUSED_SECONDS,
                model=refused.name,
            )
        if name and model.live:
            live = ", ".join(loaded.served.card.version for loaded in model.in_order)
            return ModelNotFound(
                f"model: version {version!r:.20} of {name} is not live; live: {live}"
            )
        names = ", ".join(self._table.names)
        return ModelNotFound(f"model: no model is called {reference!r:.80}; served: {names}")

    def models(self) -> list[ServedModel]:
        """The default versions of all served models in order of name."""
        return self._table.models()

    def versions(self, name: str) -> list[ServedModel]:
        """The live versions of a model, the highest last; none where no model is called so."""
        return [loaded.served for loaded in self._table.versions(name).in_order]

    def index(self) -> list[ModelIndexEntry]:
        """All models in order of name: the live versions, and those that were refused."""
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
        if not any(self._needs_torch(model) for model in self._find_all()):
            return
        threads = self._share.threads
        with suppress(ModuleNotFoundError):  # who needs it says so
            await run_in_dedicated_thread(lambda: import_torch(threads))

    def _needs_torch(self, model: ModelFolder) -> bool:
        settings = self._settings
        try:
            return any(
                needs_torch(location.folder, read_overrides(location.folder, settings))
                for location in live_versions(model, settings).locations
            )
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
        found = self._find_all()
        names = [model.name for model in found]
        self._skipped |= self._sources.held_back_models - {*names}
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
                with told_by_uri(self._settings):
                    await self._load_all(found)
            except BaseException:
                await self._watcher.stop()
                raise
            self._has_started = True

    async def _load_all(self, found: Sequence[ModelFolder]) -> None:
        """Serve of all models what is to be live.

        Raises:
            StartupError: a model cannot be used; where bad models are skipped: none can be used.
        """
        skip = self._skip if self._settings.on_bad_model == "skip" else None
        wanted: dict[str, LiveVersions] = {}
        for model in found:
            try:
                wanted[model.name] = live_versions(model, self._settings)
            except StartupError as error:
                if skip is None or len(found) == 1:
                    raise
                skip(model.versions[-1], str(error))
        locations = [location for each in wanted.values() for location in each.locations]
        if self._placement is not None:
            self._placement.place(locations)
        served = await load_all(locations, self._load, skip)
        if self._devices.lost:
            for loaded in served:
                loaded.abort("the service does not start")
            raise StartupError(self._devices.lost)
        for loaded in served:
            self._table.serve(loaded)
        for name, versions in wanted.items():
            known = self._table.versions(name)
            if known.live:
                default = known.choose_default(known.live, versions.versions, versions.pinned)
                self._table.settle(name, versions.versions, default)

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

    async def load(self, name: str, wanted: VersionPolicy | None = None) -> None:
        """Load a model from its folder; its version before, if any, is served until then.

        Args:
            name: of the model.
            wanted: which versions are live from now on, whatever its folder says; those that are
                live already go on as they are. None: as its folder says, and all are loaded anew.

        Raises:
            ModelNotFound: no folder is called so.
            ModelRefused: what lies there cannot be served; the versions that are live, and the
                default, are those from before.
            NotReady: the service is shutting down.
        """
        self._find(name)  # before a lock is made for whatever a client calls a model
        async with self._turn(name):
            if wanted is not None:
                lacking = await self._sources.fetch_versions(self._find(name), wanted)
                if lacking:
                    self._check_held(self._find(name), wanted, lacking)
            await self._load_by_name(self._find(name), wanted)

    def _check_held(self, model: ModelFolder, wanted: VersionPolicy, lacking: str) -> None:
        """Tell who wants versions that could not be fetched why, unless the cache has them.

        Raises:
            ModelRefused: saying so.
        """
        try:
            live_versions(model, self._settings, wanted)
        except StartupError:
            raise ModelRefused(lacking) from None

    async def _load_by_name(self, model: ModelFolder, wanted: VersionPolicy | None) -> None:
        name, anew = model.name, wanted is None
        change = await self._make(model, wanted, self._load_model, by_name=True, anew=anew)
        if not change.is_made:
            raise change.refused[0].error
        for refused in change.refused:
            self._log_refused(refused)
        if wanted is None:
            self._policies.pop(name, None)
        else:
            self._policies[name] = wanted

    async def _make(
        self,
        model: ModelFolder,
        wanted: VersionPolicy | None,
        load: LoadVersion,
        *,
        by_name: bool = False,
        anew: bool = False,
    ) -> Change:
        """Make the versions of a model live that are wanted, as `ModelChanges.make` does."""
        try:
            versions = live_versions(model, self._settings, wanted)
        except StartupError as error:
            if by_name and wanted is not None:  # a fault of who asks, and not of the model
                raise ModelRefused(self._without_paths(str(error))) from None
            default = self._table.versions(model.name).default
            location = replace(model.versions[-1], version=default or model.versions[-1].version)
            refused = RefusedVersion(location, self._changes.refuse(location, str(error)))
            return Change([refused], is_made=False)
        change = await self._changes.make(model.name, versions, load, by_name=by_name, anew=anew)
        if self._placement is not None:
            self._placement.keep(model.name, self._table.versions(model.name).live)
        return change

    async def unload(self, name: str) -> None:
        """Serve a model no longer, until it is loaded by name; accepted rows are finished.

        Raises:
            ModelNotFound: no such model, or it is named with a version.
            NotReady: it was refused, or the service is shutting down.
        """
        if "@" in name:
            raise ModelNotFound(f"model: expected a name without a version, got {name!r:.80}")
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
                models = self._models_found()
            except StartupError as error:
                _log.error("nothing is loaded anew: %s", error)
                return
        names = sorted({*models, *self._table.names, *self._table.refused_names})
        await asyncio.gather(*(self._refresh(name, models.get(name)) for name in names))

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

    async def _refresh(self, name: str, model: ModelFolder | None) -> None:
        """Serve of one model what its folder holds; without a folder it is unloaded."""
        if name in self._waiting:
            return
        must_wait = self._changing[name].locked()
        self._waiting.add(name)
        try:
            async with self._turn(name):
                self._waiting.discard(name)
                if must_wait:
                    model = self._models_found().get(name)
                await self._apply(name, model)
        except (NotReady, StartupError) as error:
            _log.error("%s is not loaded anew: %s", name, error)
        finally:
            self._waiting.discard(name)

    def _log_refused(self, refused: RefusedVersion) -> None:
        name, version = refused.location.name, refused.location.version
        is_served = version in self._table.versions(name).live
        what = "is served as it was before" if is_served else "is not served"
        _log.error("%s %s %s: %s", name, version, what, refused.error.detail)

    def _find(self, name: str) -> ModelFolder:
        """Find the folder of a model that a client named.

        Raises:
            ModelNotFound: no folder is called so.
            ModelRefused: the folders cannot be read.
        """
        try:
            models = self._models_found()
        except StartupError as error:
            raise ModelRefused(self._without_paths(str(error))) from None
        if name not in models:
            raise ModelNotFound(f"model: no folder is called {name!r:.80}")
        return models[name]

    async def _apply(self, name: str, model: ModelFolder | None) -> None:
        """Serve of one model what its folder holds, and log what of it cannot be served."""
        if model is None:
            if self._table.versions(name).live:
                self._table.remove(name)
            self._table.forget_refusal(name)
            self._policies.pop(name, None)
            return
        if self._is_draining or self._table.is_unloaded(name):
            return
        change = await self._make(model, self._policies.get(name), self._load)
        for refused in change.refused:
            self._log_refused(refused)
        if not change.is_made:
            live = ", ".join(self._table.versions(name).live)
            _log.error("%s: the live versions stay as they were: %s", name, live)

    def _find_all(self) -> list[ModelFolder]:
        with told_by_uri(self._settings):
            return find_model_folders(self._folders, self._settings.model_name)

    def _models_found(self) -> dict[str, ModelFolder]:
        """What lies in the folders now, by name.

        Raises:
            StartupError: they cannot be read, or are not all models.
        """
        return {model.name: model for model in self._find_all()}

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
        held_back = self._sources.held_back_models
        skipped = {
            name
            for name in self._skipped
            if name in held_back or self._table.refusal(name) is not None
        }
        names = sorted({*names, *skipped})
        if len(names) == 1:
            return names[0]
        several = "there are several" if skipped else "several are served"
        raise ModelNotFound(f"model: expected a name, {several}: {', '.join(names)}")
