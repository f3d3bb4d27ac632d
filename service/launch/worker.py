"""A worker, one process of the service: models, application and server, from start to end."""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import uvicorn

from service.app import create_app
from service.engines.gpus import Gpu
from service.launch import limits
from service.launch.exits import EXIT_FAILED, EXIT_OK, hard_exit
from service.launch.uvicorn_server import Server
from service.repository import FolderRepository
from service.settings import Settings
from service.telemetry import Metrics, access_log, tracing
from service.transport.asgi import AppContext
from service.transport.fast_path import FastPathProtocol, SharedState, protocol_over

if TYPE_CHECKING:
    from service.transport.grpc.server import GrpcServer

# Longer than the idle connections that clients and proxies keep, so that they close first: a server
# that closes first now and then closes on a request already on its way.
_KEEP_ALIVE_SECONDS = 75
# After a signal, how long new connections are still answered 503 where nothing else is left to do:
# clients with open connections then learn that they must close them before the service does.
_REFUSING_SECONDS = 1.0
_WATCHDOG_SECONDS = 1
# Objects of requests under way when the collector looks for cycles among them. Its own number, 700,
# is reached by 30 requests, and to look costs up to a tenth of what they do: none leaves a cycle.
_OBJECTS_BEFORE_COLLECTION = 20_000

_log = logging.getLogger(__name__)


class Worker:
    """A worker: serves on one socket until a signal.

    Args:
        settings: of the service.
        metrics: where this process counts.
        ready_barrier: awaited once the models are loaded and warm, before the server listens.
        number: of this one in the log, where there are several.
        gpus: over which its models are spread; none: they are where the settings say.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        ready_barrier: Callable[[], Awaitable[None]] | None = None,
        *,
        number: int | None = None,
        gpus: Sequence[Gpu] = (),
    ) -> None:
        # Its own start and stop lines; ours say more.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self._settings = settings
        self._ready_barrier = ready_barrier
        tracer = tracing.start() if settings.traces else None
        access_log.standard_output.on_drop = metrics.log_lines_dropped.labels().inc
        self._access = access_log.AccessLog(settings.log_format, worker=number)
        self._repository = FolderRepository(settings, metrics, gpus, is_fetched=True)
        app = create_app(settings, self._repository, metrics, self._access, tracer)
        self._shared = SharedState(settings, app.endpoints, metrics)
        config = uvicorn.Config(
            app,
            http=protocol_over(self._shared),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            callback_notify=self._watch_engines,
            timeout_notify=_WATCHDOG_SECONDS,
        )
        self._server = Server(config, _awaits_request)
        self._grpc: GrpcServer | None = None
        self._context = app.context
        self._is_loading = True
        self._ending: asyncio.Task[None] | None = None
        self._code = EXIT_OK

    def run(self, listener: socket.socket) -> int:
        """Load, serve, drain.

        Args:
            listener: bound, but not listening before the models are there: a connection then means
                a service that is ready.

        Returns:
            The exit code. With one that is not 0, end by `hard_exit`: a lost engine leaves a thread
            that never comes back.

        Raises:
            StartupError: a setting or a model cannot be used.
        """
        factory = self._server.config.get_loop_factory()
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                return runner.run(self._serve(listener))
        finally:
            self._access.flush()

    def stop(self, number: int) -> None:
        """Stop on a signal: the first one drains, the second one does not wait."""
        if self._is_loading:
            # Nobody was served yet, and a thread that reads a model cannot be stopped.
            hard_exit(EXIT_OK)
        elif self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._drain(number))
        else:
            _log.warning("%s again: not waiting any more", signal.Signals(number).name)
            # The framework's task of the lifespan is cut off by this, which is no fault to log.
            logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
            self._give_up(128 + number)
            self._server.force_exit = True

    async def _serve(self, listener: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop, number)
        began = time.monotonic()
        with limits.enough_memory():
            await self._repository.import_libraries()
        # What the libraries made stays: no collection needs to look at all of it again. Models are
        # made after this, so that those that are replaced can be collected.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, *gc.get_threshold()[1:])
        await self._repository.start()
        names = ", ".join(model.card.name for model in self._repository.models())
        _log.info("ready after %.1f s: %s", time.monotonic() - began, names)
        room, grpc_room = limits.share_connections(has_grpc=self._settings.grpc_port is not None)
        if self._ready_barrier is not None:
            await self._ready_barrier()
        self._shared.connection_limit.most = room
        self._is_loading = False
        host, port = listener.getsockname()[:2]
        if self._settings.grpc_port is not None:
            self._grpc = _make_grpc_server(self._context, grpc_room)
            at = _in_url(host), await self._grpc.start(host, self._settings.grpc_port)
            _log.info("serving gRPC on %s:%d", *at)
        _log.info("serving on http://%s:%d, documented at /docs", _in_url(host), port)
        await self._server.serve([listener])
        if self._grpc is not None:
            ends_at = self._server.ends_at
            await self._grpc.stop(0.0 if ends_at is None else ends_at - time.monotonic())
        if self._server.has_cut and self._code == EXIT_OK:
            _log.error("the grace is over: answers that their clients had not taken are cut off")
            self._code = EXIT_FAILED
        return self._code

    async def _drain(self, number: int) -> None:
        """Finish what was accepted, within the grace; then let the server close."""
        grace = self._settings.shutdown_grace_seconds
        # One clock for all of the end: rows that are computed, and answers that are taken.
        self._server.ends_at = time.monotonic() + grace
        refusing = asyncio.create_task(asyncio.sleep(_REFUSING_SECONDS))
        _log.info("%s: draining for at most %g s", signal.Signals(number).name, grace)
        self._shared.is_open = False
        self._server.close_after_answers()
        if self._grpc is not None:
            self._grpc.begin_drain()
        try:
            async with asyncio.timeout(grace):
                await self._repository.drain()
        except TimeoutError:
            _log.error("the grace is over: what is not computed is answered 503")
            self._give_up(EXIT_FAILED)
        await refusing
        self._server.should_exit = True

    def _give_up(self, code: int) -> None:
        self._code = code
        self._repository.abort()
        self._server.should_exit = True

    async def _watch_engines(self) -> None:
        self._repository.watch_devices()
        if not self._repository.is_alive:
            _log.critical("an engine was lost: only a new process can help")
            self._give_up(EXIT_FAILED)


def _make_grpc_server(app: AppContext, most_connections: int | None) -> "GrpcServer":
    # Its own log, of connections that end, is for those who look for a fault in it.
    os.environ.setdefault("GRPC_VERBOSITY", "error")
    # Here: it needs an extra.
    from service.transport.grpc.server import GrpcServer

    return GrpcServer(app, most_connections)


def _awaits_request(connection: asyncio.Protocol) -> bool:
    """Whether a connection was never answered."""
    return isinstance(connection, FastPathProtocol) and not connection.is_answered


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
