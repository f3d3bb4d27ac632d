"""Several processes behind one port, each with its own engine, and the one that looks after them.

They are one service: all begin to listen together or none does, and a signal to the first is a
signal to all. One that is lost is started anew in its place while the others serve on; one that is
lost again and again ends all, so that whoever started the service hears of it.
"""

import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from socket import socket
from types import FrameType

from service.launch.exits import EXIT_FAILED, EXIT_OK, StartupError, hard_exit
from service.settings import Settings, flag_name
from service.telemetry import Metrics, access_log
from service.telemetry.aggregation import Peers

# What is said between the processes: "I am ready", "begin", "I cannot start" and why.
_READY = b"r"
_BEGIN = b"b"
_PROBLEM = b"p"

# How long a lost process' place stays empty: longer each time, in case what ended it lasts.
_BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 4.0)
# One that has served so long was sound: its end is the first again.
_SOUND_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Place:
    """One process' place in the team, whoever has it now.

    listener: bound to the address, not listening yet.
    losses: in a row, none of which came after `_SOUND_SECONDS` of service.
    restarts: in all.
    begun: when its process began to serve.
    again: when to start another; None while there is one.
    """

    index: int
    listener: socket
    losses: int = 0
    restarts: int = 0
    begun: float | None = None
    again: float | None = None


class Supervisor:
    """Starts one process a listener and waits until all have ended.

    A process is spawned, not forked: the libraries of this one may have threads.

    Args:
        settings: of the service.
        listeners: sockets that share one address, not listening yet.
        bind: makes another of them, for whoever takes the place of a lost process.
    """

    def __init__(
        self, settings: Settings, listeners: list[socket], bind: Callable[[], socket]
    ) -> None:
        self._settings = settings
        self._bind = bind
        self._places = [_Place(*numbered) for numbered in enumerate(listeners)]
        self._members: dict[SpawnProcess, tuple[Connection, _Place]] = {}
        self._waiting: set[Connection] = set()
        self._has_begun = False
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
            for place in self._places:
                self._start(place, Path(folder))
            while self._members or (not self._is_ending and self._empty_places()):
                self._watch()
                for place in self._empty_places():
                    if not self._is_ending and (place.again or 0.0) <= time.monotonic():
                        self._restart(place, Path(folder))
        if self._problem is not None:
            raise StartupError(self._problem)
        return self._code

    def _empty_places(self) -> list[_Place]:
        return [place for place in self._places if place.again is not None]

    def _start(self, place: _Place, folder: Path) -> None:
        spawn = get_context("spawn")
        ours, theirs = spawn.Pipe()
        peers = Peers(folder, place.index, len(self._places))
        member = spawn.Process(
            target=_run_member,
            args=(self._settings, place.listener, theirs, peers, place.restarts),
            daemon=False,
        )
        member.start()
        theirs.close()
        # Its own from now on: as long as anybody else has it open too, the kernel sends connections
        # to it that nobody takes, once its process is gone.
        place.listener.close()
        self._members[member] = ours, place
        self._waiting.add(ours)
        if self._is_ending:
            self._end_all()

    def _restart(self, place: _Place, folder: Path) -> None:
        place.again = None
        place.restarts += 1
        try:
            place.listener = self._bind()
        except StartupError as error:
            self._give_up(f"a lost process cannot be started anew: {error}")
        else:
            self._start(place, folder)

    def _watch(self) -> None:
        """Wait for what happens next: a process speaks, or ends, or is to be started anew."""
        ends = {member.sentinel: member for member in self._members}
        again = [place.again for place in self._places if place.again is not None]
        patience = max(0.0, min(again) - time.monotonic()) if again else None
        happened = wait([*ends, *self._waiting], patience)
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
            problem = message[1:].decode()
            if self._has_begun:
                _log.error("a process cannot be started anew: %s", problem)
            else:
                self._problem = self._problem or problem
        elif self._has_begun:
            self._begin(voice)
        elif not self._waiting and not self._is_ending:
            self._has_begun = True
            for connection, _ in self._members.values():
                self._begin(connection)

    def _begin(self, voice: Connection) -> None:
        """Let a process serve."""
        for connection, place in self._members.values():
            if connection is voice:
                place.begun = time.monotonic()
        with suppress(OSError):
            voice.send_bytes(_BEGIN)

    def _bury(self, member: SpawnProcess) -> None:
        voice, place = self._members.pop(member)
        self._waiting.discard(voice)
        voice.close()
        member.join()
        code = member.exitcode or EXIT_OK
        if self._is_ending:
            if code != -signal.SIGTERM:  # else it had only begun to start, and served nobody
                self._code = self._code or (128 - code if code < 0 else code)
        elif self._has_begun:
            self._lose(member, place, code)
        else:
            if self._problem is None:
                _log.critical("process %s ended with code %d: all end", member.pid, code)
                code = code or EXIT_FAILED
            self._code = 128 - code if code < 0 else code
            self._is_ending = True
            self._end_all()

    def _lose(self, member: SpawnProcess, place: _Place, code: int) -> None:
        """Empty the place of a process that has ended unasked, for a while or for good."""
        if place.begun is not None and time.monotonic() - place.begun >= _SOUND_SECONDS:
            place.losses = 0
        place.losses += 1
        place.begun = None
        if place.losses > len(_BACK_OFF_SECONDS):
            self._give_up(
                f"a process was lost {place.losses} times in a row, last with code {code}"
            )
            return
        pause = _BACK_OFF_SECONDS[place.losses - 1]
        place.again = time.monotonic() + pause
        _log.error(
            "process %s ended with code %d: another takes its place in %g s",
            member.pid,
            code,
            pause,
        )

    def _give_up(self, reason: str) -> None:
        _log.critical("%s: all end", reason)
        self._code = EXIT_FAILED
        self._is_ending = True
        self._end_all()

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


def _run_member(
    settings: Settings, listener: socket, team: Connection, peers: Peers, restarts: int
) -> None:
    """Be one of the processes."""
    # Here, so that the process that only looks after the others does without torch.
    from service.launch.worker import Worker

    # Out of the terminal's group: its Ctrl-C reaches the first process, which passes it on.
    os.setpgid(0, 0)
    access_log.configure(settings.log_level, settings.log_format)
    metrics = Metrics(peers)
    metrics.worker_restarts.labels().inc(restarts)

    async def ready_barrier() -> None:
        await peers.open(metrics.render)
        await _meet(team, lambda: process.end(signal.SIGTERM))

    try:
        process = Worker(settings, metrics, ready_barrier)
        code = process.run(listener)
    except StartupError as error:
        team.send_bytes(_PROBLEM + str(error).encode())
        hard_exit(EXIT_FAILED)
    sys.stdout.flush()
    hard_exit(code)


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
