"""The table of models: those that are served, and those that were refused or unloaded."""

import asyncio
import logging

from models.scoring.martingale import OnlineMartingale
from service.batcher import Batcher
from service.contracts import ModelCard, ModelIndexEntry, ServedModel
from service.repository.calibrations import log_calibration
from service.repository.folders import ModelLocation
from service.repository.loading import LoadedModel
from service.telemetry import Metrics

_log = logging.getLogger(__name__)


class ModelTable:
    """The models by name. One that is replaced or removed finishes the rows it has accepted.

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
        self._loaded: dict[str, LoadedModel] = {}
        self._refused: dict[str, ModelIndexEntry] = {}
        self._unloaded: dict[str, str] = {}
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        """Of the served models, in order."""
        return sorted(self._loaded)

    @property
    def batchers(self) -> list[tuple[str, Batcher]]:
        """Of the served models, each with the device it computes on."""
        return [
            (loaded.served.card.device, batcher)
            for loaded in self._loaded.values()
            for batcher in loaded.watched_batchers
        ]

    def get(self, name: str) -> LoadedModel | None:
        """The served version of a model, if any."""
        return self._loaded.get(name)

    @property
    def refused_names(self) -> list[str]:
        """Of the models of which a version was refused, in order."""
        return sorted(self._refused)

    def refusal(self, name: str) -> ModelIndexEntry | None:
        """The version that was refused of a model of which none is served, if any."""
        return None if name in self._loaded else self._refused.get(name)

    def models(self) -> list[ServedModel]:
        """All served models in order of name."""
        return [self._loaded[name].served for name in self.names]

    def index(self) -> list[ModelIndexEntry]:
        """All models in order of name: the served versions, and those that are not served.

        A version that is served as it was before, since what lies in its folder now was refused,
        is there once, with the reason.
        """
        entries = {(one.name, one.version): one for one in self._refused.values()}
        for model in self.models():
            key = model.card.name, model.card.version
            entries[key] = ModelIndexEntry(
                *key, True, entries[key].reason if key in entries else ""
            )
        gone = [ModelIndexEntry(*item, False, "unloaded") for item in self._unloaded.items()]
        return sorted([*entries.values(), *gone], key=lambda one: (one.name, one.version))

    def serve(self, loaded: LoadedModel) -> None:
        """Serve a model in the place of its version before, if any."""
        card = loaded.served.card
        self._refused.pop(card.name, None)
        self._unloaded.pop(card.name, None)
        former = self._loaded.get(card.name)
        self._loaded[card.name] = loaded
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
        if former is not None and former.served.card.version != card.version:
            self._metrics.drift.move(card.name, former.served.card.version, card.version)
        self._test_drift(card)
        if former is not None:
            if former.served.card.version != card.version:
                self._metrics.retire(card.name, former.served.card.version)
            self._drain(former)

    def serve_on(self, loaded: LoadedModel) -> None:
        """Serve the same batchers with another calibration."""
        card = loaded.served.card
        self._refused.pop(card.name, None)
        self._loaded[card.name] = loaded
        log_calibration(card, loaded.calibration_fault)
        self._test_drift(card)

    def refuse(self, location: ModelLocation, reason: str) -> None:
        """List a version that cannot be served; the one that is served stays."""
        name, version = location.name, location.version
        self._refused[name] = ModelIndexEntry(name, version, False, reason)
        if name not in self._loaded:
            self._metrics.model_ready.labels(name).set(0)

    def forget_refusal(self, name: str) -> None:
        """List a version no longer that was refused: it is gone."""
        self._refused.pop(name, None)
        if name not in self._loaded:
            self._metrics.model_ready.remove(name)

    def remove(self, name: str) -> None:
        """Serve a model no longer."""
        loaded = self._loaded.pop(name)
        self._drain(loaded)
        self._refused.pop(name, None)
        self._metrics.retire(name, loaded.served.card.version)
        self._metrics.model_ready.remove(name)
        _log.info("%s: unloaded", name)

    def unload(self, name: str) -> None:
        """Serve a model no longer, and list it as unloaded."""
        self._unloaded[name] = self._loaded[name].served.card.version
        self.remove(name)
        self._metrics.model_ready.labels(name).set(0)

    def is_unloaded(self, name: str) -> bool:
        """Whether a model was unloaded by name."""
        return name in self._unloaded

    async def drain(self) -> None:
        """Refuse new rows, finish the accepted ones."""
        for name in self._loaded:
            self._metrics.model_ready.labels(name).set(0)
        ends = [loaded.drain() for loaded in self._loaded.values()]
        await asyncio.gather(*ends, *self._draining)

    def abort(self, detail: str) -> None:
        """Refuse new rows and the accepted ones."""
        for loaded in self._loaded.values():
            loaded.abort(detail)

    def _drain(self, loaded: LoadedModel) -> None:
        """Let a model finish what it has accepted, beside its successor."""
        task = asyncio.create_task(loaded.drain())
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    def _test_drift(self, card: ModelCard) -> None:
        """Test what comes of a model against its calibration; the same one goes on as it was."""
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
