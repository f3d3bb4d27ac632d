"""The watch over CUDA devices: idle ones are asked, and a batch that never ends is seen."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from service.engines.probe import PROBES, DeviceProbe, ProbeTable
from service.repository.dedicated_thread import run_in_dedicated_thread

# How often a device is asked that has computed no batch meanwhile.
ASK_SECONDS = 10.0
# What passes between two looks, at most, that is held against a batch: for longer than that the
# process itself may have been stopped.
_MOST_UNSEEN_SECONDS = 2.0

_log = logging.getLogger(__name__)


class WatchedQueue(Protocol):
    """What is seen of a batcher."""

    @property
    def computed_batches(self) -> int:
        """Batches that the engine has computed."""
        ...

    def stuck_seconds(self, passed: float) -> float:
        """For how long a batch runs that takes far longer than its pace; 0 where none does."""
        ...


class DeviceWatch:
    """Watches the devices of a process' models; a CPU is none of them: it may be as slow as it is.

    Args:
        probes: of the devices.
        clock: monotonic seconds.
    """

    def __init__(
        self, probes: ProbeTable = PROBES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probes = probes
        self._clock = clock
        self._looked_at = clock()
        # By device: when it was known to compute, and how many batches it had computed then.
        self._known: dict[str, tuple[float, int]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._is_told = False

    @property
    def lost(self) -> str:
        """Why a device is lost; empty while all compute."""
        return self._probes.lost()

    def look(self, queues: Iterable[tuple[str, WatchedQueue]]) -> None:
        """Look at the running batches, and ask the devices it is time to ask; every second or so.

        Args:
            queues: of the served models, each with its device.
        """
        now = self._clock()
        passed = min(now - self._looked_at, _MOST_UNSEEN_SECONDS)
        self._looked_at = now
        by_device: dict[str, list[WatchedQueue]] = {}
        for device, queue in queues:
            by_device.setdefault(device, []).append(queue)
        for device, of_device in by_device.items():
            probe = self._probes.of(device)
            if probe is not None:
                self._look_at(probe, of_device, now, passed)
        if self.lost and not self._is_told:
            self._is_told = True
            _log.critical("%s", self.lost)

    def _look_at(
        self, probe: DeviceProbe, queues: list[WatchedQueue], now: float, passed: float
    ) -> None:
        stuck = max(queue.stuck_seconds(passed) for queue in queues)
        if stuck:
            probe.lose(f"a batch has taken {stuck:.0f} s, far longer than those before it")
        computed = sum(queue.computed_batches for queue in queues)
        since, before = self._known.setdefault(probe.device, (now, computed))
        if computed != before:
            self._known[probe.device] = now, computed
        elif now - since >= ASK_SECONDS and probe.device not in self._asking:
            self._known[probe.device] = now, computed
            task = asyncio.create_task(self._ask(probe))
            self._asking[probe.device] = task
            task.add_done_callback(lambda _: self._asking.pop(probe.device))

    async def _ask(self, probe: DeviceProbe) -> None:
        await run_in_dedicated_thread(probe.ask)
