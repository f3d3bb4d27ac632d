"""The metrics of GPU memory: of each card, and of each model on it; none without a GPU."""

from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Each process has its own part of these on a card; the rest is the card's, whoever asks.
GPU_RESERVED = "pushforward_gpu_memory_reserved_bytes"
GPU_MODEL = "pushforward_gpu_model_memory_bytes"

_CARD = ("device", "card")


class CardMemory(Protocol):
    """The memory of a card at a time, in bytes."""

    @property
    def total(self) -> int:
        """All of it."""
        ...

    @property
    def free(self) -> int:
        """What nobody uses."""
        ...

    @property
    def reserved(self) -> int:
        """What this process keeps."""
        ...


class GpuMetrics(Collector):
    """The gauges of the GPUs of one process, read when they are asked for.

    Args:
        registry: where they are found.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._cards: dict[tuple[str, str], Callable[[], CardMemory]] = {}
        self._models: dict[tuple[str, str], tuple[str, str, int]] = {}
        registry.register(self)

    def watch(self, device: str, card: str, read: Callable[[], CardMemory]) -> None:
        """Show the memory of a card."""
        self._cards[device, card] = read

    def serve(self, model: str, device: str, card: str, taken: int, *, version: str = "") -> None:
        """Show what a version of a model took."""
        self._models[model, version] = device, card, taken

    def retire(self, model: str, *, version: str = "") -> None:
        """Show of a version nothing more."""
        self._models.pop((model, version), None)

    def collect(self) -> Iterator[Metric]:
        """Read all of them; a card that is lost is left out."""
        names = ("pushforward_gpu_memory_bytes", "pushforward_gpu_memory_free_bytes", GPU_RESERVED)
        texts = ("Memory of a GPU", "Memory that nobody uses", "Memory that this service keeps")
        total, free, reserved = (
            GaugeMetricFamily(name, text, labels=_CARD)
            for name, text in zip(names, texts, strict=True)
        )
        for labels, read in list(self._cards.items()):
            try:
                memory = read()
            except RuntimeError:
                continue
            total.add_metric(labels, memory.total)
            free.add_metric(labels, memory.free)
            reserved.add_metric(labels, memory.reserved)
        models = GaugeMetricFamily(
            GPU_MODEL,
            "Memory that a model took when it was loaded",
            labels=("model", "version", *_CARD),
        )
        for version, (device, card, taken) in list(self._models.items()):
            models.add_metric((*version, device, card), taken)
        yield from (total, free, reserved, models)
