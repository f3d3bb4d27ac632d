"""The client at the other end of a connection: whether it still reads, and whether it is there."""

import fcntl
import socket
import struct
import termios
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from contextlib import suppress

# A request that takes longer than this is worth asking whether its client is still there.
_PROBE_AFTER_SECONDS = 0.05
_PROBE_EVERY_SECONDS = 0.25
# What any client of HTTP/1.1 must pass over, asked for or not (RFC 9110, section 15.2).
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"


class WriteStallTimer:
    """A timer for a client that does not read what was written to it.

    It is asked for progress, not for speed: as long as bytes leave this machine it may go on.

    Args:
        transport: what is written to.
        loop: the connection's.
        seconds: how long it may read nothing.
        on_stall: called once it has read nothing for so long, before the connection is aborted.

    timer: runs while not all is taken; a short write that finds it need not `watch`.
    """

    def __init__(
        self,
        transport: Transport,
        loop: AbstractEventLoop,
        seconds: float,
        on_stall: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._on_stall = on_stall
        self._unread = 0
        self.timer: TimerHandle | None = None

    def watch(self) -> None:
        """Something was written: start the clock, where the kernel did not take all of it."""
        if self.timer is None and self._transport.get_write_buffer_size():
            self._unread = self._count_unread()
            self.timer = self._loop.call_later(self._seconds, self._look)

    def stop(self) -> None:
        """The connection is gone."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _look(self) -> None:
        self.timer = None
        if not self._transport.get_write_buffer_size():
            return
        if self._count_unread() < self._unread:
            self.watch()
        else:
            self._on_stall()
            self._transport.abort()

    def _count_unread(self) -> int:
        """Bytes that wait here and in the kernel: its buffer may take minutes to show progress."""
        waiting = bytes(4)
        channel = self._transport.get_extra_info("socket")
        with suppress(OSError, ValueError):  # not every system says
            waiting = fcntl.ioctl(channel.fileno(), termios.TIOCOUTQ, waiting)
        count: int = struct.unpack("i", waiting)[0]
        return self._transport.get_write_buffer_size() + count


class HalfCloseProbe:
    """Tells a client that has sent all it will from one that is gone: both send the same FIN.

    What is written to one that is gone comes back as an error; so after a while something is
    written that means nothing.

    Args:
        transport: the client's, which is aborted when the client is found gone.
        loop: the connection's.
        may_write: whether nothing of an answer is written yet, to a client of HTTP/1.1.
    """

    def __init__(
        self, transport: Transport, loop: AbstractEventLoop, may_write: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._may_write = may_write
        self._has_probed = False
        self._timer = loop.call_later(_PROBE_AFTER_SECONDS, self._look)

    def stop(self) -> None:
        """The connection is gone."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        channel = self._transport.get_extra_info("socket")
        if channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        wait = _PROBE_EVERY_SECONDS
        if not self._has_probed and self._may_write():
            self._has_probed = True
            self._transport.write(_PROBE)
            wait = _PROBE_AFTER_SECONDS
        self._timer = self._loop.call_later(wait, self._look)
