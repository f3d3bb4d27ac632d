"""What a load is, and what was measured of it."""

from dataclasses import dataclass

from pushforward.bench.arrivals import Arrivals
from pushforward.bench.endpoint import Endpoint
from pushforward.bench.recording import Recording


@dataclass(frozen=True, slots=True)
class Load:
    """A load on one route.

    endpoint: where it goes.
    messages: whole requests, head and body, which are sent in turn.
    seconds: that are measured, after `warmup_seconds` that are not.
    connections: of a closed loop, which always has a request under way on each of them; of an open
        loop as many as it may open.
    rate: requests a second of an open loop; None of a closed one.
    arrivals, seed: of an open loop, see `due_times`.
    timeout_seconds: after which a request counts as not answered.
    processes: that may send it together.
    part: which of them this is, of how many.
    start_at: when all of them start, as `time.monotonic` has it; None: at once.
    """

    endpoint: Endpoint
    messages: tuple[bytes, ...]
    seconds: float
    warmup_seconds: float
    connections: int
    rate: float | None = None
    arrivals: Arrivals = "poisson"
    seed: int = 0
    timeout_seconds: float = 30.0
    processes: int = 1
    part: tuple[int, int] = (0, 1)
    start_at: float | None = None

    @property
    def num_processes(self) -> int:
        """How many send it: each needs a connection."""
        return min(self.processes, self.connections)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a load gave in its window, which warm-up is no part of.

    recording: all requests, those of the warm-up too.
    start, end: of the window, on the clock of the recording.
    cpu_seconds: processor time that the generator took in the window; of several processes the
        busiest.
    waited_seconds: for which it was ready to run and had no core; NaN where that is not known.
    sent_bytes, received_bytes: of the whole load.
    is_stopped: whether somebody ended it early.
    given_up: why it ended early by itself; "" where it did not.
    """

    recording: Recording
    start: float
    end: float
    cpu_seconds: float
    waited_seconds: float
    sent_bytes: int
    received_bytes: int
    is_stopped: bool = False
    given_up: str = ""

    @property
    def seconds(self) -> float:
        """How long the window was."""
        return self.end - self.start
