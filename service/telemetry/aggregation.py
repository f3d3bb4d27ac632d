"""Aggregation of metrics over the processes of a service: whichever is asked answers for all.

Each process serves its own text to whoever connects to its socket, a file in a folder that only
they know; the one that Prometheus asks collects and adds up.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.drift import LOG_MARTINGALE, LOG_MARTINGALE_MAX
from service.telemetry.gpu import GPU_MODEL, GPU_RESERVED
from service.telemetry.keys import KEY_FILE_OK

_TIMEOUT_SECONDS = 2.0

# Gauges of a process that add up; of every other, the largest is shown ...
_SUMMED = frozenset(
    (
        "pushforward_queue_rows",
        "pushforward_requests_running",
        GPU_RESERVED,
        GPU_MODEL,
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
    )
)
# ... or the smallest: a model is ready where it is ready everywhere ...
_SMALLEST = frozenset(
    (
        "pushforward_max_batch_rows",
        "pushforward_model_ready",
        KEY_FILE_OK,
        "process_start_time_seconds",
    )
)
# ... or what a mean is of: the drift tests of several processes are one test by the mean of their
# martingales, not by the largest, which exceeds any bound more often the more there are.


@dataclass(slots=True)
class Peers:
    """The processes of one service, seen from one of them.

    Args:
        folder: where their sockets are.
        index: which of them this is.
        count: how many there are.
    """

    folder: Path
    index: int
    count: int
    # Held: the event loop does not, and a server that is collected closes its socket.
    _server: asyncio.Server | None = field(default=None, init=False, repr=False)

    async def open(self, render: Callable[[], bytes]) -> None:
        """Serve this process' metrics to the others, until `close` or as long as this is held."""

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):  # who only asks whether this one lives is gone again
                writer.write(render())
                await writer.drain()
            writer.close()

        self._server = await asyncio.start_unix_server(serve, self._socket(self.index))

    async def close(self) -> None:
        """Serve them no longer."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def collect(self, own: bytes) -> bytes:
        """Add the others' metrics to this process' own.

        Raises:
            OSError, TimeoutError: one of them does not answer: a sum without it would be wrong.
        """
        others = [self._fetch(index) for index in range(self.count) if index != self.index]
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return merge([own, *await asyncio.gather(*others)])

    async def count_alive(self) -> int:
        """Count the processes that take requests, this one among them."""
        others = [self._is_alive(index) for index in range(self.count) if index != self.index]
        return 1 + sum(await asyncio.gather(*others))

    async def _is_alive(self, index: int) -> bool:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                _, writer = await asyncio.open_unix_connection(self._socket(index))
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _fetch(self, index: int) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._socket(index))
        try:
            return await reader.read()
        finally:
            writer.close()

    def _socket(self, index: int) -> str:
        return str(self.folder / str(index))


def merge(texts: list[bytes]) -> bytes:
    """Add up metrics: counters and histograms are summed, gauges as their meaning asks."""
    return generate_latest(_Merged(texts))


class _Merged:
    """A registry of the sums: `generate_latest` collects from it."""

    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text.decode()):
                joined = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                joined.samples += family.samples
        for family in families.values():
            merged = Metric(family.name, family.documentation, family.type)
            groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
            for sample in family.samples:
                key = sample.name, tuple(sample.labels.items())
                groups.setdefault(key, []).append(sample.value)
            for (name, labels), values in groups.items():
                merged.add_sample(name, dict(labels), _aggregate(family, values))
            yield merged


def _aggregate(family: Metric, values: list[float]) -> float:
    if family.type in ("counter", "histogram") or family.name in _SUMMED:
        return sum(values)
    if family.name == LOG_MARTINGALE:
        return _log_mean_exp(values)
    if family.name == LOG_MARTINGALE_MAX:
        # Of the mean at that time this much is sure: no other martingale is below 0.
        return max(values) - math.log(len(values))
    return min(values) if family.name in _SMALLEST else max(values)


def _log_mean_exp(values: list[float]) -> float:
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(one - largest) for one in values) / len(values))
