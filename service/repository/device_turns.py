"""Turns at a device: one model at a time is loaded there, and its engines are timed."""

import asyncio
from collections import defaultdict
from contextlib import AbstractAsyncContextManager, nullcontext


class DeviceTurns:
    """A lock a device. Models on a CPU are loaded side by side: they have no turns."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, device: str) -> AbstractAsyncContextManager[None]:
        """Wait for one's turn at a device, and have it until the context ends."""
        return nullcontext() if device == "cpu" else self._locks[device]
