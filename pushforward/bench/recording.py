"""What became of each request: columns that grow while a load runs, and arrays of them."""

import errno
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The status of a request that was never answered; its reason says why.
NO_ANSWER = 0
# The reason where the load was ended before the answer came.
INTERRUPTED = "interrupted"
# Why a connection cannot be opened where that is this machine's doing, and not the server's.
OWN_LIMITS = tuple(map(os.strerror, (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)))
OK = 200


@dataclass(frozen=True, slots=True)
class Recording:
    """One line a request, in the order in which they ended; times in seconds of one clock.

    due: when it was to be sent; of a closed loop when it was.
    taken: when the generator came to it. Later than due: the generator was late.
    sent: when it was written. Later than taken: no connection was free.
    done: when the last byte of its answer was there, or when it was given up.
    status: of the answer, `NO_ANSWER` without one.
    reason: index into `reasons`.
    queue, compute: milliseconds that the server names in Server-Timing, NaN without.
    reasons: "" of an answer 200, else the code of the problem, or what kept it from an answer.
    """

    due: Floats
    taken: Floats
    sent: Floats
    done: Floats
    status: NDArray[np.int64]
    reason: NDArray[np.int64]
    queue: Floats
    compute: Floats
    reasons: tuple[str, ...]

    def between(self, start: float, end: float) -> Self:
        """Those that were due in a window."""
        chosen = (self.due >= start) & (self.due < end)
        return type(self)(
            **{name: getattr(self, name)[chosen] for name in _COLUMNS}, reasons=self.reasons
        )

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        """Which have an answer with numbers."""
        return np.equal(self.status, OK)


def cannot_connect(reason: str) -> str:
    """The reason where no connection could be opened for a request."""
    return f"cannot connect: {reason}"


def join(recordings: Sequence[Recording]) -> Recording:
    """Put together the requests of several processes."""
    reasons = {"": 0}
    renumbered = [
        np.array([reasons.setdefault(text, len(reasons)) for text in one.reasons])[one.reason]
        for one in recordings
    ]
    columns = {
        name: np.concatenate([getattr(one, name) for one in recordings]) for name in _COLUMNS
    }
    return Recording(**{**columns, "reason": np.concatenate(renumbered)}, reasons=tuple(reasons))


class Recorder:
    """Takes down one request after the other; made to cost little."""

    def __init__(self) -> None:
        self._due, self._taken, self._sent, self._done = (array("d") for _ in range(4))
        self._status, self._reason = array("q"), array("q")
        self._timings: list[bytes] = []
        self._reasons = {"": 0}

    def __len__(self) -> int:
        return len(self._due)

    def add(
        self,
        times: tuple[float, float, float, float],
        status: int,
        reason: str = "",
        timing: bytes = b"",
    ) -> None:
        """Take one down.

        Args:
            times: due, taken, sent, done.
            status: of the answer.
            reason: why it is none with numbers.
            timing: its header Server-Timing.
        """
        due, taken, sent, done = times
        self._due.append(due)
        self._taken.append(taken)
        self._sent.append(sent)
        self._done.append(done)
        self._status.append(status)
        self._reason.append(self._reasons.setdefault(reason, len(self._reasons)))
        self._timings.append(timing)

    def finish(self) -> Recording:
        """Make arrays of it."""
        timings = np.array([read_timing(text) for text in self._timings]).reshape(-1, 2)
        return Recording(
            due=np.array(self._due),
            taken=np.array(self._taken),
            sent=np.array(self._sent),
            done=np.array(self._done),
            status=np.array(self._status, np.int64),
            reason=np.array(self._reason, np.int64),
            queue=timings[:, 0],
            compute=timings[:, 1],
            reasons=tuple(self._reasons),
        )


def read_timing(header: bytes) -> tuple[float, float]:
    """The durations of `queue` and `compute` in a header Server-Timing, in milliseconds."""
    found = {"queue": np.nan, "compute": np.nan}
    for entry in header.decode("latin-1").split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "dur" and name in found:
                try:
                    found[name] = float(value)
                except ValueError:
                    continue
    return found["queue"], found["compute"]


_COLUMNS = ("due", "taken", "sent", "done", "status", "reason", "queue", "compute")
