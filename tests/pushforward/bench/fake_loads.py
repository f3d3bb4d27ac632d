"""Loads that nobody sent: recordings made up for what is said of them."""

from dataclasses import replace
from typing import Any

import numpy as np

from pushforward.bench.endpoint import Endpoint
from pushforward.bench.load import Load, Measurement
from pushforward.bench.recording import Recorder, Recording

LOAD = Load(Endpoint("127.0.0.1", 1, "h", None, ""), (b"",), 10.0, 0.0, 4, rate=100.0)


def measurement(recording: Recording, **changes: Any) -> Measurement:
    """A window of 10 s in which the generator did little."""
    measured = Measurement(recording, 0.0, 10.0, 1.0, 0.5, 100, 200)
    return replace(measured, **changes)


def recorded(due: Any, latency: Any, *, late: float = 0.0, status: int = 200) -> Recording:
    recorder = Recorder()
    for start, seconds in zip(due, np.broadcast_to(latency, len(due)), strict=True):
        times = (start, start + late, start + late, start + seconds)
        recorder.add(times, status, "" if status == 200 else "overloaded")
    return recorder.finish()
