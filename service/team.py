"""Several processes behind one port, each with its own engine, and the one that looks after them.

They are one service: all listen or none does, a signal to one is a signal to all, and one that is
lost ends all, so that whoever started the service starts it anew.
"""

import asyncio
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from socket import socket
from types import FrameType

from service import logs
from service.exits import EXIT_FAILED, EXIT_OK, StartupError, leave
from service.metrics import Metrics
from service.metrics.peers import Peers
from service.settings import Settings, flag_name

# What is said between the processes: "I am ready", "begin", "I cannot start" and why.
_READY = b"r"
_BEGIN = b"b"
_PROBLEM = b"p"

_log = logging.getLogger(__name__)


class Team:
    """Starts one process a listener and waits until all have ended.

    A process is spawned, not forked: the libraries of this one may have threads.

    Args:
        settings: of the service.
        listeners: sockets that share one address, not listening yet.
    """

    def __init__(self, settings: Settings, listeners: list[socket]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._members: dict[SpawnProcess, Connection] = {}
        self._waiting: set[Connection] = set()
        self._is_ending = False
        self._code = EXIT_OK
        self._problem: str | None = None

    def run(self) -> int:
        """Serve until a signal.   -> the exit code, the first that was not 0.

        Raises:
            StartupError: a process could not start.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        with _make_folder() as folder:
            self._start(Path(folder))
            while self._members:
                self._watch()
        if self._problem is not None:
            raise StartupError(self._problem)
        return self._code

    def _start(self, folder: Path) -> None:
        spawn = get_context("spawn")
        for index, listener in enumerate(self._listeners):
            ours, theirs = spawn.Pipe()
            peers = Peers(folder, index, len(self._listeners))
            member = spawn.Process(
                target=_run_member, args=(self._settings, listener, theirs, peers), daemon=False
            )
            member.start()
            theirs.close()
            self._members[member] = ours
            self._waiting.add(ours)
            if self._is_ending:
                self._end_all()

    def _watch(self) -> None:
        """Wait for what happens next: a process speaks, or ends."""
        ends = {member.sentinel: member for member in self._members}
        happened = wait([*ends, *self._waiting])
        for voice in self._waiting.intersection(happened):
            self._hear(voice)
        for sentinel in ends.keys() & set(happened):
            self._bury(ends[sentinel])

    def _hear(self, voice: Connection) -> None:
        self._waiting.discard(voice)
        try:
            message = voice.recv_bytes()
        except EOFError:
            return  # it has ended, as its sentinel tells
        if message.startswith(_PROBLEM):
            self._problem = self._problem or message[1:].decode()
        elif not self._waiting and not self._is_ending:
            for connection in self._members.values():
                with suppress(OSError):
                    connection.send_bytes(_BEGIN)

    def _bury(self, member: SpawnProcess) -> None:
        self._waiting.discard(self._members.pop(member))
        member.join()
        code = member.exitcode or EXIT_OK
        if not self._is_ending:
            if self._problem is None:
                _log.critical("process %s ended with code %d: all end", member.pid, code)
                code = code or EXIT_FAILED
            self._is_ending = True
            self._end_all()
        elif code == -signal.SIGTERM:
            code = EXIT_OK  # it had only begun to start, and served nobody
        self._code = self._code or (128 - code if code < 0 else code)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._is_ending = True
        self._end_all()

    def _end_all(self) -> None:
        for member in self._members:
            member.terminate()


def _make_folder() -> "tempfile.TemporaryDirectory[str]":
    """Make a folder that only this user can read, gone when its context ends.

    Raises:
        StartupError: it cannot be made.
    """
    try:
        return tempfile.TemporaryDirectory(prefix="pushforward-")
    except OSError as error:
        raise StartupError(
            f"{flag_name('workers')}: the processes need a folder for their sockets, set TMPDIR: "
            f"{error}"
        ) from None


def _run_member(settings: Settings, listener: socket, team: Connection, peers: Peers) -> None:
    """Be one of the processes."""
    # Here, so that the process that only looks after the others does without torch.
    from service.process import Process

    # Out of the terminal's group: its Ctrl-C reaches the first process, which passes it on.
    os.setpgid(0, 0)
    logs.configure(settings.log_level, settings.log_format)
    metrics = Metrics(peers)

    async def meet() -> None:
        await peers.open(metrics.render)
        await _meet(team, lambda: process.end(signal.SIGTERM))

    try:
        process = Process(settings, metrics, meet)
        code = process.run(listener)
    except StartupError as error:
        team.send_bytes(_PROBLEM + str(error).encode())
        leave(EXIT_FAILED)
    sys.stdout.flush()
    leave(code)


async def _meet(team: Connection, on_orphaned: Callable[[], None]) -> None:
    """Say that this process is ready, and wait until all are."""
    loop = asyncio.get_running_loop()
    begin = loop.create_future()

    def hear() -> None:
        try:
            team.recv_bytes()
        except (EOFError, OSError):
            # The first process is gone, and with it whoever would end this one.
            loop.remove_reader(team.fileno())
            on_orphaned()
        else:
            begin.set_result(None)

    loop.add_reader(team.fileno(), hear)
    team.send_bytes(_READY)
    await begin
