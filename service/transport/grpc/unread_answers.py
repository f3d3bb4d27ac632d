"""Clients that do not take their answers: their connections are cut off, as those of HTTP are.

An answer waits in the server where the client does not read its connection, and also where it reads
but leaves no room in the windows of HTTP/2. What gRPC has for Python cannot reset one such call, so
the connection is shut down, with all calls on it.
"""

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple
from urllib.parse import unquote

# Progress inside an answer cannot be seen: a large one gets a second more for each of these.
_BYTES_A_SECOND = 256 * 2**10
_LOOK_SECONDS = 0.5
_DESCRIPTORS = "/dev/fd"

_log = logging.getLogger(__name__)


class _Unread(NamedTuple):
    """What is on its way: when it must have been taken, its call, and what ends with it."""

    due: float
    context: Any
    task: asyncio.Task[Any]


class UnreadAnswers:
    """The answers that are on their way.

    Args:
        seconds: how long a client may take nothing.
        on_cut: called for each connection that is cut off.

    port: on which the server listens.
    """

    def __init__(self, seconds: float, on_cut: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_cut = on_cut
        self._answers: deque[_Unread] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.port = 0

    def seconds_for(self, count: int) -> float:
        """How long an answer of this many bytes may wait for its client."""
        return self._seconds + count / _BYTES_A_SECOND

    def watch(self, context: Any, count: int) -> None:
        """Watch the answer of the call of this task: it is taken when the task ends.

        Args:
            context: of the call.
            count: bytes of the answer.
        """
        task = asyncio.current_task()
        if task is None:
            return
        due = time.monotonic() + self.seconds_for(count)
        self._answers.append(_Unread(due, context, task))
        if self._timer is None:
            self._arm(task.get_loop())

    def cut(self, peer: str) -> None:
        """Shut down a client's connection.

        Args:
            peer: as gRPC names it, `ipv4:127.0.0.1:50000`.
        """
        _log.warning("a client of gRPC took no answer for %g s: it is cut off", self._seconds)
        for connection in _connections(peer, self.port):
            with connection, suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
                self._on_cut()

    def stop(self) -> None:
        """The server ends."""
        self._answers.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(min(_LOOK_SECONDS, self._seconds), self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = time.monotonic()
        waiting = [each for each in self._answers if not each.task.done()]
        self._answers = deque(each for each in waiting if now < each.due)
        for peer in {each.context.peer() for each in waiting if now >= each.due}:
            self.cut(peer)
        if self._answers:
            self._arm(loop)


def _connections(peer: str, port: int) -> Iterator[socket.socket]:
    """This process' connections to a peer on a port of its own, as duplicates."""
    wanted = _address(*unquote(peer.partition(":")[2]).rpartition(":")[::2])
    for name in os.listdir(_DESCRIPTORS):
        with suppress(OSError):
            connection = socket.socket(fileno=os.dup(int(name)))
            try:
                is_own = connection.getsockname()[1] == port
                is_wanted = is_own and _address(*connection.getpeername()[:2]) == wanted
            except (OSError, IndexError, ValueError):  # no socket, or of another kind
                is_wanted = False
            if is_wanted:
                yield connection
            else:
                connection.close()


def _address(host: str, port: str | int) -> tuple[IPv4Address | IPv6Address, int]:
    """An address that is the same however it is written."""
    address = ip_address(host.strip("[]"))
    return getattr(address, "ipv4_mapped", None) or address, int(port)
