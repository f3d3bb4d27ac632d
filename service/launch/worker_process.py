"""The process of a worker under a supervisor: how it starts, and what the two say to each other."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from socket import socket
from typing import Any

from service.engines.device import is_torch_for_gpus
from service.engines.gpus import VISIBLE, Gpu
from service.launch.exits import EXIT_FAILED, StartupError, hard_exit
from service.settings import Settings
from service.telemetry import Metrics, access_log
from service.telemetry.aggregation import Peers

# The messages: "I am ready", "begin", "I cannot start" followed by why.
READY = b"r"
BEGIN = b"b"
PROBLEM = b"p"

_log = logging.getLogger(__name__)


def run_on_card(
    card: Gpu | None,
    run: Callable[[Settings, socket, Connection, Peers, int], None],
    settings: Settings,
    *rest: Any,
) -> None:
    """Run a worker that sees one GPU alone.

    Args:
        card: the GPU; None: those of the process that started this one.
        run: runs the worker, as `run_worker`.
        settings: of the service, and then what else `run` takes.
    """
    if card is not None:
        # Before any library asks the driver what there is.
        os.environ[VISIBLE] = card.visible
        # "auto" would take the CPU, unseen, in the place of a GPU that has failed.
        if settings.device != "auto" or is_torch_for_gpus():
            settings = settings.model_copy(update={"device": "cuda:0"})
    run(settings, *rest)


def run_worker(
    settings: Settings, listener: socket, supervisor: Connection, peers: Peers, restarts: int
) -> None:
    """Run a worker as the whole of this process; it does not return.

    Args:
        settings: of the service.
        listener: bound to the address, not listening yet.
        supervisor: where the messages go and come from.
        peers: the workers of the service, this one among them.
        restarts: how often this one was started anew.
    """
    # Here, so that the supervisor, which imports this module too, does without torch.
    from service.launch.worker import Worker

    # Out of the terminal's group: its Ctrl-C reaches the supervisor, which passes it on.
    os.setpgid(0, 0)
    number = peers.index + 1
    access_log.configure(settings.log_level, settings.log_format, worker=number)
    if VISIBLE in os.environ and settings.device != "cpu":
        _log.info("sees GPU %s", os.environ[VISIBLE])
    metrics = Metrics(peers)
    metrics.worker_restarts.labels().inc(restarts)

    async def ready_barrier() -> None:
        await peers.open(metrics.render)
        await wait_for_all(supervisor, lambda: worker.stop(signal.SIGTERM))

    try:
        worker = Worker(settings, metrics, ready_barrier, number=number)
        code = worker.run(listener)
    except StartupError as error:
        supervisor.send_bytes(PROBLEM + str(error).encode())
        hard_exit(EXIT_FAILED)
    sys.stdout.flush()
    hard_exit(code)


async def wait_for_all(supervisor: Connection, on_orphaned: Callable[[], None]) -> None:
    """Send that this worker is ready, and wait until all are."""
    loop = asyncio.get_running_loop()
    begin = loop.create_future()

    def receive() -> None:
        try:
            supervisor.recv_bytes()
        except (EOFError, OSError):
            # The supervisor is gone, and with it whoever would end this process.
            loop.remove_reader(supervisor.fileno())
            on_orphaned()
        else:
            begin.set_result(None)

    loop.add_reader(supervisor.fileno(), receive)
    supervisor.send_bytes(READY)
    await begin
