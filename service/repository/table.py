"""The table of models: the versions that are live, and those that were refused or unloaded."""

import asyncio
import logging
from collections.abc import Collection, Iterator

from models.scoring.martingale import OnlineMartingale
from service.batcher import Batcher
from service.contracts import ModelCard, ModelIndexEntry, ServedModel
from service.repository.calibrations import log_calibration
from service.repository.folders import ModelLocation
from service.repository.loading import LoadedModel
from service.repository.model_versions import ModelVersions
from service.telemetry import Metrics

_log = logging.getLogger(__name__)


class ModelTable:
    """The models by name, and by NAME@VERSION.

    A version that is replaced or retired finishes the rows it has accepted.

    Args:
        metrics: where it shows which versions are served.
        drift_window_rows: of how many rows the windows of drift tests are.
        drift_rows_per_second: how many rows a drift test is given at most.
    """

    def __init__(
        self, metrics: Metrics, drift_window_rows: int, drift_rows_per_second: float
    ) -> None:
        self._metrics = metrics
        self._drift_window_rows = drift_window_rows
        self._drift_rows_per_second = drift_rows_per_second
        self._models: dict[str, ModelVersions] = {}
        # By what requests may call them: one look-up finds a version, whether it is named or not.
        self._by_reference: dict[str, LoadedModel] = {}
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        """Of the models of which a version is live, in order."""
        return sorted(name for name, model in self._models.items() if model.live)

    @property
    def refused_names(self) -> list[str]:
        """Of the models of which a version was refused, in order."""
        return sorted(name for name, model in self._models.items() if model.refused)

    @property
    def batchers(self) -> list[tuple[str, Batcher]]:
        """Of the live versions, each with the device it computes on."""
        return [
            (loaded.served.card.device, batcher)
            for loaded in self._loaded()
            for batcher in loaded.watched_batchers
        ]

    def get(self, reference: str) -> LoadedModel | None:
        """The live version that a request means by NAME or NAME@VERSION, if any."""
        return self._by_reference.get(reference)

    def versions(self, name: str) -> ModelVersions:
        """What is known of the versions of a model."""
        return self._models.get(name) or ModelVersions(name)

    def refusal(self, name: str) -> ModelIndexEntry | None:
        """The version that was refused where a model has no answer for it, if any."""
        return self.versions(name).refusal

    def models(self) -> list[ServedModel]:
        """The default versions of all models in order of name."""
        found = (self._by_reference.get(name) for name in self.names)
        return [loaded.served for loaded in found if loaded is not None]

    def index(self) -> list[ModelIndexEntry]:
        """All models in order of name: the live versions, and those that are not served."""
        return [entry for name in sorted(self._models) for entry in self._models[name].index()]

    def serve(self, loaded: LoadedModel, *, in_place_of: str | None = None) -> None:
        """Make a version live, in the place of what was served as that version before.

        Args:
            loaded: what is served.
            in_place_of: another version that is retired for it: its drift test goes on.
        """
        card = loaded.served.card
        model = self._models.setdefault(card.name, ModelVersions(card.name))
        model.refused.pop(card.version, None)
        model.unloaded = ()
        former = model.live.get(card.version)
        self._enter(model, loaded)
        for batcher in loaded.batchers:
            batcher.publish_gauges()
        self._metrics.serve(
            card.name,
            version=card.version,
            family=card.family,
            engine=card.engine,
            device=card.device,
        )
        if card.memory:
            taken = card.memory["taken_bytes"]
            self._metrics.gpu.serve(
                card.name, card.device, card.memory["card"], taken, version=card.version
            )
        log_calibration(card, loaded.calibration_fault)
        if in_place_of is not None:
            self._metrics.drift.move(card.name, in_place_of, card.version)
        self._test_drift(card)
        if former is not None:
            self._drain(former)

    def serve_on(self, loaded: LoadedModel) -> None:
        """Serve the same batchers with another calibration."""
        card = loaded.served.card
        model = self._models[card.name]
        model.refused.pop(card.version, None)
        self._enter(model, loaded)
        log_calibration(card, loaded.calibration_fault)
        self._test_drift(card)

    def settle(self, name: str, wanted: Collection[str], default: str) -> None:
        """Set the default version of a model, and retire those that are not wanted.

        The default is set first: a request that meets a version while it drains finds its
        successor. What answers requests that name no version is not retired.

        Args:
            name: of the model.
            wanted: the versions that are to be live.
            default: the one that answers requests that name none.
        """
        model = self._models[name]
        former, model.default = model.default, default
        self._refer(model)
        if former in model.live and former != model.default:
            _log.info("%s: %s answers in the place of %s", name, model.default, former)
        for version in [each for each in model.live if each not in {*wanted, model.default}]:
            self._retire(model, version)
        self.keep_refusals(name, wanted)

    def refuse(self, location: ModelLocation, reason: str) -> None:
        """List a version that cannot be served; those that are served stay."""
        name, version = location.name, location.version
        model = self._models.setdefault(name, ModelVersions(name))
        model.refused[version] = ModelIndexEntry(name, version, False, reason)
        self._show_readiness(model)

    def keep_refusals(self, name: str, wanted: Collection[str]) -> None:
        """List no longer as refused what is neither live nor wanted."""
        model = self.versions(name)
        kept = {*wanted, *model.live}
        model.refused = {key: one for key, one in model.refused.items() if key in kept}

    def forget_refusal(self, name: str, version: str | None = None) -> None:
        """List a version no longer that was refused, or all of a model: they are gone."""
        model = self.versions(name)
        if version is None:
            model.refused.clear()
        else:
            model.refused.pop(version, None)
        self._show_readiness(model)

    def remove(self, name: str) -> None:
        """Serve a model no longer."""
        model = self._models[name]
        for version in list(model.live):
            self._retire(model, version)
        model.refused.clear()
        model.default = ""
        self._show_readiness(model)

    def unload(self, name: str) -> None:
        """Serve a model no longer, and list it as unloaded."""
        model = self._models[name]
        unloaded = tuple(model.live)
        self.remove(name)
        self._models[name] = model
        model.unloaded = unloaded
        self._show_readiness(model)

    def is_unloaded(self, name: str) -> bool:
        """Whether a model was unloaded by name."""
        return bool(self.versions(name).unloaded)

    async def drain(self) -> None:
        """Refuse new rows, finish the accepted ones."""
        for name in self.names:
            self._metrics.model_ready.labels(name).set(0)
        await asyncio.gather(*(loaded.drain() for loaded in self._loaded()), *self._draining)

    def abort(self, detail: str) -> None:
        """Refuse new rows and the accepted ones."""
        for loaded in self._loaded():
            loaded.abort(detail)

    def _loaded(self) -> Iterator[LoadedModel]:
        for model in self._models.values():
            yield from model.live.values()

    def _enter(self, model: ModelVersions, loaded: LoadedModel) -> None:
        version = loaded.served.card.version
        model.live[version] = loaded
        self._by_reference[f"{model.name}@{version}"] = loaded
        self._refer(model)

    def _refer(self, model: ModelVersions) -> None:
        """Let requests that name no version find the default."""
        default = model.live.get(model.default)
        if default is None:
            self._by_reference.pop(model.name, None)
        else:
            self._by_reference[model.name] = default

    def _retire(self, model: ModelVersions, version: str) -> None:
        loaded = model.live.pop(version)
        del self._by_reference[f"{model.name}@{version}"]
        self._refer(model)
        self._drain(loaded)
        self._metrics.retire(model.name, version)
        _log.info("%s %s: unloaded", model.name, version)

    def _show_readiness(self, model: ModelVersions) -> None:
        """Show whether a model is ready, and forget one of which nothing is known."""
        if model.live:
            return
        if model.is_empty:
            self._models.pop(model.name, None)
            self._metrics.model_ready.remove(model.name)
        else:
            self._metrics.model_ready.labels(model.name).set(0)

    def _drain(self, loaded: LoadedModel) -> None:
        """Let a version finish what it has accepted, beside its successor."""
        task = asyncio.create_task(loaded.drain())
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    def _test_drift(self, card: ModelCard) -> None:
        """Test what comes of a version against its calibration; the same one goes on as it was."""
        drift, calibration = self._metrics.drift, card.calibration
        if calibration is None:
            drift.forget(card.name, version=card.version)
            return
        # The seed only has to be the same again: the calibration's name is one.
        seed = int(calibration.id, 16)
        drift.watch(
            card.name,
            calibration.id,
            lambda: OnlineMartingale(calibration.scores, self._drift_window_rows, seed),
            self._drift_rows_per_second,
            version=card.version,
        )
