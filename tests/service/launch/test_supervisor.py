"""Which losses of a worker are made good, and when the service ends over them."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection

import pytest

from service.launch.exits import EXIT_FAILED
from service.launch.supervisor import BACK_OFF_SECONDS, RestartPolicy, Supervisor, WorkerState
from service.launch.worker_process import READY
from service.settings import Settings


@pytest.fixture
def worker() -> Iterator[WorkerState]:
    with socket.socket() as listener:
        yield WorkerState(0, listener)


def lose(worker: WorkerState, *, served_seconds: float = 0.0) -> float | None:
    """Lose a worker's process, and say after how long there will be another."""
    now = time.monotonic()
    worker.restart_at, worker.serving_since = None, now - served_seconds
    delay = worker.lose(RestartPolicy())
    if delay is None:
        assert worker.restart_at is None
    else:
        assert worker.restart_at == pytest.approx(now + delay, abs=0.2)
    return delay


def test_the_delay_grows_and_then_there_is_no_other(worker: WorkerState) -> None:
    for seconds in BACK_OFF_SECONDS:
        assert lose(worker) == seconds
    assert lose(worker) is None
    assert worker.losses == 5


def test_a_sound_worker_that_is_lost_is_the_first_again(worker: WorkerState) -> None:
    for _ in range(10):
        assert lose(worker, served_seconds=61) == 0.5
    assert worker.losses == 1


@pytest.fixture
def _signals() -> Iterator[None]:
    """Leave the handlers of signals as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def end_at_once(_: Settings, listener: socket.socket, supervisor: Connection, *__: object) -> None:
    """Be a worker that is lost as soon as it serves."""
    supervisor.send_bytes(READY)
    supervisor.recv_bytes()
    os._exit(7)


@pytest.mark.usefixtures("_signals")
def test_a_worker_lost_again_and_again_ends_all(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:

        def bind() -> socket.socket:
            return stack.enter_context(socket.socket())

        policy = RestartPolicy(back_off_seconds=(0.01,))
        code = Supervisor(Settings(), [bind()], bind, run_worker=end_at_once, policy=policy).run()
    assert code == EXIT_FAILED
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    (first, second) = lines
    assert first[0] == "ERROR"
    assert first[1].startswith("worker 1, process ")
    assert first[1].endswith("ended with code 7: another takes its place in 0.01 s")
    assert second == (
        "CRITICAL",
        "worker 1 was lost 2 times in a row, last with code 7: all end",
    )
