"""The supervisor of several workers behind one port, each a process with its own engine.

They are one service: all begin to listen together or none does, and a signal to the supervisor is a
signal to all. A worker that is lost is started anew while the others serve on; one that is lost
again and again ends all, so that whoever started the service sees it.
"""

import logging
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from socket import socket
from types import FrameType

from service.engines.gpus import Gpu
from service.launch.exits import EXIT_FAILED, EXIT_OK, StartupError
from service.launch.worker_process import BEGIN, PROBLEM, run_on_card, run_worker
from service.settings import Settings, flag_name
from service.telemetry.aggregation import Peers

# Delays before a lost worker is started anew: longer each time, in case what ended it lasts.
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 4.0)
# A worker that has served so long was sound: its loss counts as the first again.
SOUND_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a lost worker is started anew, and when no more.

    back_off_seconds: the delay after the first loss in a row, after the second, ...; then no more.
    sound_seconds: of service, after which a loss is the first in its row.
    """

    back_off_seconds: tuple[float, ...] = BACK_OFF_SECONDS
    sound_seconds: float = SOUND_SECONDS


@dataclass(slots=True)
class WorkerState:
    """The state of one worker across its restarts.

    listener: bound to the address, not listening yet.
    card: the GPU that it has to itself, also when it is started anew; None where it has none.
    losses: in a row, none of which came after enough seconds of service.
    restarts: in all.
    serving_since: when its process began to serve; None while it does not.
    restart_at: when to start it anew; None while it has a process.
    """

    index: int
    listener: socket
    card: Gpu | None = None
    losses: int = 0
    restarts: int = 0
    serving_since: float | None = None
    restart_at: float | None = None

    def lose(self, policy: RestartPolicy) -> float | None:
        """Note that its process has ended unasked.

        Returns:
            The seconds until it is started anew; None where it is not.
        """
        now = time.monotonic()
        if self.serving_since is not None and now - self.serving_since >= policy.sound_seconds:
            self.losses = 0
        self.losses += 1
        self.serving_since = None
        if self.losses > len(policy.back_off_seconds):
            return None
        delay = policy.back_off_seconds[self.losses - 1]
        self.restart_at = now + delay
        return delay


class Supervisor:
    """Starts one worker a listener and waits until all have ended.

    Its process is spawned, not forked: the libraries of this one may have threads.

    Args:
        settings: of the service.
        listeners: sockets that share one address, not listening yet.
        bind: makes another of them, for a worker that is started anew.
        run_worker: what a worker's process runs, as `service.launch.worker_process.run_worker`.
        policy: of restarts.
        cards: of each worker the GPU that it has to itself.
    """

    def __init__(
        self,
        settings: Settings,
        listeners: list[socket],
        bind: Callable[[], socket],
        *,
        run_worker: Callable[[Settings, socket, Connection, Peers, int], None] = run_worker,
        policy: RestartPolicy | None = None,
        cards: Sequence[Gpu | None] = (),
    ) -> None:
        self._settings = settings
        self._bind = bind
        self._run_worker = run_worker
        self._policy = policy or RestartPolicy()
        given = zip_longest(listeners, cards)
        self._workers = [WorkerState(index, *both) for index, both in enumerate(given)]
        self._processes: dict[SpawnProcess, tuple[Connection, WorkerState]] = {}
        self._starting: set[Connection] = set()
        self._has_begun = False
        self._is_ending = False
        self._code = EXIT_OK
        self._problem: str | None = None

    def run(self) -> int:
        """Serve until a signal.

        Returns:
            The exit code: the first of a worker that was not 0.

        Raises:
            StartupError: a worker could not start.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        with _make_folder() as folder:
            for worker in self._workers:
                self._start(worker, Path(folder))
            while self._processes or (not self._is_ending and self._lost_workers()):
                self._wait()
                for worker in self._lost_workers():
                    if not self._is_ending and (worker.restart_at or 0.0) <= time.monotonic():
                        self._restart(worker, Path(folder))
        if self._problem is not None:
            raise StartupError(self._problem)
        return self._code

    def _lost_workers(self) -> list[WorkerState]:
        return [worker for worker in self._workers if worker.restart_at is not None]

    def _start(self, worker: WorkerState, folder: Path) -> None:
        spawn = get_context("spawn")
        ours, theirs = spawn.Pipe()
        peers = Peers(folder, worker.index, len(self._workers))
        process = spawn.Process(
            target=run_on_card,
            args=(
                *(worker.card, self._run_worker),
                *(self._settings, worker.listener, theirs, peers, worker.restarts),
            ),
            daemon=False,
        )
        process.start()
        theirs.close()
        # Its own from now on: as long as anybody else has it open too, the kernel sends connections
        # to it that nobody takes, once its process is gone.
        worker.listener.close()
        self._processes[process] = ours, worker
        self._starting.add(ours)
        if self._is_ending:
            self._terminate_all()

    def _restart(self, worker: WorkerState, folder: Path) -> None:
        worker.restart_at = None
        worker.restarts += 1
        try:
            worker.listener = self._bind()
        except StartupError as error:
            self._give_up(f"a lost process cannot be started anew: {error}")
        else:
            self._start(worker, folder)

    def _wait(self) -> None:
        """Wait for what happens next: a message, an end, or the time of a restart."""
        ends = {process.sentinel: process for process in self._processes}
        restarts = [worker.restart_at or 0.0 for worker in self._lost_workers()]
        timeout = max(0.0, min(restarts) - time.monotonic()) if restarts else None
        happened = wait([*ends, *self._starting], timeout)
        for connection in self._starting.intersection(happened):
            self._receive(connection)
        for sentinel in ends.keys() & set(happened):
            self._reap(ends[sentinel])

    def _receive(self, connection: Connection) -> None:
        self._starting.discard(connection)
        try:
            message = connection.recv_bytes()
        except EOFError:
            return  # it has ended, as its sentinel shows
        if message.startswith(PROBLEM):
            problem = message[1:].decode()
            if self._has_begun:
                _log.error("a process cannot be started anew: %s", problem)
            else:
                self._problem = self._problem or problem
        elif self._has_begun:
            self._begin(connection)
        elif not self._starting and not self._is_ending:
            self._has_begun = True
            for other, _ in self._processes.values():
                self._begin(other)

    def _begin(self, connection: Connection) -> None:
        """Let a worker serve."""
        for other, worker in self._processes.values():
            if other is connection:
                worker.serving_since = time.monotonic()
        with suppress(OSError):
            connection.send_bytes(BEGIN)

    def _reap(self, process: SpawnProcess) -> None:
        connection, worker = self._processes.pop(process)
        self._starting.discard(connection)
        connection.close()
        process.join()
        code = process.exitcode or EXIT_OK
        if self._is_ending:
            if code != -signal.SIGTERM:  # else it had only begun to start, and served nobody
                self._code = self._code or (128 - code if code < 0 else code)
        elif self._has_begun:
            self._lose(process, worker, code)
        else:
            if self._problem is None:
                place = worker.index + 1, process.pid
                _log.critical("worker %d, process %s, ended with code %d: all end", *place, code)
                code = code or EXIT_FAILED
            self._code = 128 - code if code < 0 else code
            self._is_ending = True
            self._terminate_all()

    def _lose(self, process: SpawnProcess, worker: WorkerState, code: int) -> None:
        delay = worker.lose(self._policy)
        if delay is None:
            self._give_up(
                f"worker {worker.index + 1} was lost {worker.losses} times in a row, last with "
                f"code {code}"
            )
            return
        _log.error(
            "worker %d, process %s, ended with code %d: another takes its place in %g s",
            worker.index + 1,
            process.pid,
            code,
            delay,
        )

    def _give_up(self, reason: str) -> None:
        _log.critical("%s: all end", reason)
        self._code = EXIT_FAILED
        self._is_ending = True
        self._terminate_all()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._is_ending = True
        self._terminate_all()

    def _terminate_all(self) -> None:
        for process in self._processes:
            process.terminate()


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
