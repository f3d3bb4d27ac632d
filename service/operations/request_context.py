"""The context of one request: its times, what is known of it, and how it is cancelled."""

import asyncio
import time
from enum import StrEnum
from typing import Any

from service.contracts import QueueShare
from service.errors import NotReady
from service.keys import ApiKey
from service.telemetry import NO_MODEL
from service.telemetry.tracing import Stages


class CancelReason(StrEnum):
    """Why a request was cancelled before its answer."""

    GONE = "the client left"
    LATE = "the body did not arrive in time"


class RequestContext:
    """The state of one request. Cancelling it cancels its task and leaves the reason.

    Args:
        arrived: `time.monotonic()` when its head was there.
        deadline: when its answer is worth nothing any more, by the same clock.
        task: what computes the answer, where it has a task.

    model, version, rows: what is counted: the model's name, its version and the number of rows.
    is_accepted: whether a queue has taken its rows, which no queue refuses from then on.
    stages: of a request that is traced.
    held_bytes: of the budget of bodies, until it ends.
    identity: its id, once it is known.
    key: the API key that it was counted for; None where there are no keys.
    """

    # What most requests never change is the class's: a request is made in half the time.
    model = NO_MODEL
    version = ""
    identity = ""
    rows: int | None = None
    stages: Stages | None = None
    cancel_reason: CancelReason | None = None
    task: asyncio.Task[Any] | None = None
    is_accepted = False
    is_over = False
    held_bytes = 0
    key: ApiKey | None = None
    _held_rows = 0

    def __init__(
        self, arrived: float, deadline: float, task: asyncio.Task[Any] | None = None
    ) -> None:
        self.arrived = arrived
        self.deadline = deadline
        if task is not None:
            self.task = task

    def age(self) -> float:
        """Seconds since arrival."""
        return time.monotonic() - self.arrived

    def shorten(self, seconds: float) -> None:
        """The client itself waits no longer than this, from arrival on."""
        self.deadline = min(self.deadline, self.arrived + seconds)

    @property
    def share(self) -> QueueShare | None:
        """Whose turn its rows wait for."""
        return None if self.key is None else self.key.share

    def use_key(self, key: ApiKey, *, is_limited: bool = True) -> None:
        """Count it for its API key, once.

        Args:
            key: that it showed.
            is_limited: whether it counts for the limits of the key.

        Raises:
            KeyLimitExceeded: the key has sent too many requests.
        """
        if self.key is None:
            self.key = key
            if is_limited:
                key.take_request()

    def hold_rows(self, rows: int) -> None:
        """Count its rows for its API key, where it has one, until it is over.

        Args:
            rows: all that it has; those that were counted before are not counted again.

        Raises:
            TooLargeForKey, KeyLimitExceeded: the key may not send so many, ever or now.
        """
        if self.key is not None and rows > self._held_rows:
            self.key.take_rows(rows - self._held_rows)
            self._held_rows = rows

    def hold_more_rows(self, rows: int) -> None:
        """Count rows that its answer needs beside its own; nothing refuses them."""
        if self.key is not None:
            self.key.add_rows(rows)
            self._held_rows += rows

    def release_rows(self) -> None:
        """Its rows are in flight no more."""
        if self.key is not None:
            self.key.release_rows(self._held_rows)
            self._held_rows = 0

    def go_on_for(self, former: "RequestContext") -> None:
        """Be the same request as another, in a task: what was counted is not counted again."""
        self.is_accepted = former.is_accepted
        self.key, self._held_rows = former.key, former._held_rows
        former._held_rows = 0

    def note_failure(self, reason: BaseException) -> None:
        """Be counted for the model that was refused, where that is why there is no answer."""
        if self.model == NO_MODEL and isinstance(reason, NotReady):
            self.model = reason.model

    def cancel(self, reason: CancelReason) -> None:
        """Compute no answer; nothing happens where it is known already."""
        if not self.is_over and self.task is not None:
            self.cancel_reason = reason
            self.task.cancel()

    def resume(self) -> None:
        """Go on in the task that was cancelled, to answer or to clean up."""
        if self.task is not None:
            self.task.uncancel()

    def end(self) -> None:
        """The answer is known: nothing cancels this request any more."""
        self.is_over = True
        self.task = None
