"""Whether a device still computes: it is asked by a tiny operation.

A CUDA device that has failed once answers every later call of the process with an error, or not at
all; nothing but a new process can help. Nobody but the device itself knows.
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

# How long the tiny operation may take on a device that others compute on too.
PROBE_SECONDS = 10.0


class DeviceProbe:
    """Asks one device whether it computes. A device that was lost once stays so.

    Args:
        device: what it is called, "cuda:0".
        operation: computes something tiny there and waits for it; raises where that fails.
        limit_seconds: how long it may take.
    """

    def __init__(
        self, device: str, operation: Callable[[], None], limit_seconds: float = PROBE_SECONDS
    ) -> None:
        self.device = device
        self._operation = operation
        self._limit_seconds = limit_seconds
        self._reason = ""

    @property
    def reason(self) -> str:
        """Why the device is lost, as far as is known; else empty."""
        return self._reason

    def lose(self, reason: str) -> None:
        """Take note that the device is lost; the first reason stays."""
        self._reason = self._reason or f"{self.device} is lost: {reason}"

    def ask(self) -> str:
        """Compute something tiny, in a thread that nobody need wait for.

        Returns:
            Why the device is lost; empty where it computes.
        """
        if self._reason:
            return self._reason
        answer: SimpleQueue[str] = SimpleQueue()
        threading.Thread(
            target=lambda: answer.put(self._try()), name=f"probe {self.device}", daemon=True
        ).start()
        try:
            problem = answer.get(timeout=self._limit_seconds)
        except Empty:
            problem = f"a tiny operation was not done within {self._limit_seconds:g} s"
        if problem:
            self.lose(problem)
        return self._reason

    def _try(self) -> str:
        try:
            self._operation()
        except BaseException as error:  # nothing else is known of what a dead device raises
            lines = str(error).splitlines()
            return lines[0] if lines else type(error).__name__
        return ""


class ProbeTable:
    """The probes of a process' devices, made when they are first asked for.

    Args:
        make_operation: makes the tiny operation of a device.
    """

    def __init__(self, make_operation: Callable[[str], Callable[[], None]]) -> None:
        self._make_operation = make_operation
        self._probes: dict[str, DeviceProbe] = {}
        self._lock = threading.Lock()

    def of(self, device: str) -> DeviceProbe | None:
        """The probe of a device; None of a CPU, which is not lost without the process."""
        if not device.startswith("cuda"):
            return None
        with self._lock:
            if device not in self._probes:
                self._probes[device] = DeviceProbe(device, self._make_operation(device))
            return self._probes[device]

    def lost(self) -> str:
        """Why one of the devices is lost; empty while all compute, as far as is known."""
        return next((one.reason for one in list(self._probes.values()) if one.reason), "")


class TinyAddition:
    """The tiny operation of a CUDA device: one addition, waited for on a stream of its own.

    Its memory is taken by the first call. A device that is full answers, so it is not a lost one.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._made: tuple[Any, Any] | None = None

    def __call__(self) -> None:
        import torch

        try:
            if self._made is None:
                cell = torch.zeros(1, device=self._device)
                # torch hands the same 32 streams of a priority out in turns: one of the usual
                # priority may be one that a graph is being captured on.
                self._made = cell, torch.cuda.Stream(self._device, priority=-1)
            cell, stream = self._made
            with torch.cuda.stream(stream):
                cell.add_(1)
            stream.synchronize()
        except torch.OutOfMemoryError:
            return


# Those of this process.
PROBES = ProbeTable(TinyAddition)
