"""The most memory that a command takes, with all that it starts."""

import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.process import tree_bytes

EVERY_SECONDS = 0.05


class Run(NamedTuple):
    """Of a command: how long it took, the most bytes that its processes held, by all samples."""

    seconds: float
    peak_bytes: int


def run(command: Sequence[str]) -> Run:
    """Run a command to its end.

    Raises:
        CalledProcessError: it failed.
    """
    began, peak = time.perf_counter(), 0
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            peak = max(peak, _held(process.pid))
            time.sleep(EVERY_SECONDS)
        seconds = time.perf_counter() - began
        assert process.stderr is not None
        told = process.stderr.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=told)
    return Run(seconds, peak)


def _held(process: int) -> int:
    try:
        return tree_bytes(process)
    except (OSError, ValueError):  # one of them has just ended
        return 0
