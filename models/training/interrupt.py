"""Signals while training: a step is finished, the state is saved, the run can go on later."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_OBEYED = (signal.SIGINT, signal.SIGTERM)


class Interruption(KeyboardInterrupt):
    """A signal came; between two steps, so that the state of the run is whole.

    number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class TrainingInterrupted(Interruption):
    """Training was interrupted by a signal; the message says where its state lies."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Signals:
    """Obeys SIGINT and SIGTERM, the first at the end of a step, a second one at once.

    Handlers belong to the main thread: in others, and where a signal is ignored (as under `nohup`),
    nothing changes.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._is_held = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _OBEYED:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._former[number] = signal.signal(number, self._obey)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let a signal wait until this has ended.

        Raises:
            Interruption: at the end, where one came.
        """
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        # Also one that was raised before and lost, as in a callback of a library.
        if self._number is not None:
            raise Interruption(self._number)

    def _obey(self, number: int, _: FrameType | None) -> None:
        if self._number is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._number = number
        if not self._is_held:
            raise Interruption(number)
