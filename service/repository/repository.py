"""The models of some folders: loaded at start, found by name, drained at the end."""

import asyncio

import torch

from service.batcher import Batcher
from service.engines.threads import engine_threads
from service.engines.torch import resolve_device
from service.errors import ModelNotFound, NotReady
from service.metrics import Metrics
from service.model import ServedModel
from service.repository.folders import StartupError, find_models, zoo_folder
from service.repository.serving import Hosted, host
from service.settings import Settings, flag_name


class FolderRepository:
    """A `service.model.Repository` over `settings.model_repository`, or over the zoo.

    One model that cannot be loaded keeps the whole service from starting: a service that answers
    404 for a model its operator configured would look healthy and be wrong.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._hosted: dict[str, Hosted] = {}
        self._has_started = False
        self._is_draining = False

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

    async def start(self) -> None:
        """Find, load, prove and warm up every model; a second call does nothing.

        Raises:
            StartupError: a folder, a model or a setting cannot be used.
        """
        if self._has_started:
            return
        settings = self._settings
        sources = find_models(settings.model_repository or (zoo_folder(),))
        names = [source.name for source in sources]
        if settings.default_model is not None and settings.default_model not in names:
            raise StartupError(
                f"{flag_name('default_model')}: no model is called {settings.default_model!r}; "
                f"found: {', '.join(names)}"
            )
        try:
            device = resolve_device(settings.device)
        except ValueError as error:
            raise StartupError(f"{flag_name('device')}: {error}") from None
        torch.set_num_threads(engine_threads(settings.num_threads))
        for source in sources:
            hosted = await host(source, settings, self._metrics, device)
            self._hosted[source.name] = hosted
            card = hosted.served.card
            self._metrics.serve(
                card.name,
                version=card.version,
                family=card.family,
                engine=card.engine,
                device=card.device,
            )
        self._has_started = True

    async def drain(self) -> None:
        """Refuse new rows, finish the accepted ones."""
        self._is_draining = True
        for name in self._hosted:
            self._metrics.model_ready.labels(name).set(0)
        await asyncio.gather(*(batcher.drain() for batcher in self._batchers()))

    def abort(self) -> None:
        """Give up on accepted rows: their requests are answered as not ready."""
        self._is_draining = True
        for batcher in self._batchers():
            batcher.abort("the service is shutting down")

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
