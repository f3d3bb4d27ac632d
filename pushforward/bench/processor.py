"""What this process had of the processor: how long it ran, and waited for a core."""

import time
from pathlib import Path
from typing import NamedTuple

_SCHEDULER = Path("/proc/self/schedstat")


class ProcessorUse(NamedTuple):
    """Seconds since the process began.

    ran: on a core.
    waited: ready to run, with no core free; NaN where the system does not say.
    """

    ran: float
    waited: float


def processor_use() -> ProcessorUse:
    """Read it now."""
    try:
        waited = int(_SCHEDULER.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        waited = float("nan")
    return ProcessorUse(time.process_time(), waited)
