"""One process of the service: its socket, its event loop, its signals, its exit code.

0  a signal came and every accepted request was answered
1  the engine was lost, or requests were given up when the grace was over
3  it could not start: a setting, a model or the address cannot be used
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

import uvicorn

from service import logs
from service.app import create_app
from service.express import Lane, protocol_over
from service.metrics import Metrics
from service.repository import FolderRepository, StartupError
from service.settings import Settings, flag_name, unknown_variables

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_NO_START = 3

# Longer than the idle connections that clients and proxies keep, so that they close first: a server
# that closes first now and then closes on a request already on its way.
_KEEP_ALIVE_SECONDS = 75
# After a signal, how long newcomers are still told 503 where nothing else is left to do: clients
# with open connections then learn that they must leave before the connections end.
_FAREWELL_SECONDS = 0.5
_WATCHDOG_SECONDS = 1

_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve until a signal.   -> the exit code."""
    logs.configure(settings.log_level, settings.log_format)
    # Its own start and stop lines; ours say more.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for warning in unknown_variables(os.environ):
        _log.warning(warning)
    _log.info("settings: %s", settings)
    access = logs.AccessLog(settings.log_format)
    try:
        code = _Service(settings, access).run()
    except StartupError as error:
        print(f"pushforward: {error}", file=sys.stderr)
        return EXIT_NO_START
    finally:
        access.flush()
    if code != EXIT_OK:
        # A worker may be deep in the engine and never come back: do not wait for its thread.
        _leave(code)
    return code


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `_Service`, which drains before the connections are closed."""
        yield


class _Service:
    """Repository, application and server, and the order in which they begin and end."""

    def __init__(self, settings: Settings, access: logs.AccessLog) -> None:
        self._settings = settings
        metrics = Metrics()
        self._repository = FolderRepository(settings, metrics)
        app = create_app(settings, self._repository, metrics, access)
        self._lane = Lane(settings, app.operations)
        config = uvicorn.Config(
            app,
            http=protocol_over(self._lane),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_seconds),
            callback_notify=self._watch_engines,
            timeout_notify=_WATCHDOG_SECONDS,
        )
        self._server = _Server(config)
        self._is_loading = True
        self._ending: asyncio.Task[None] | None = None
        self._code = EXIT_OK

    def run(self) -> int:
        """Bind, load, serve, drain.   -> the exit code.

        Raises:
            StartupError: the address, a setting or a model cannot be used.
        """
        # Bound before the models are loaded, so that a port in use is told at once; listening
        # only after, so that a connection means a service that is ready.
        with _bind(self._settings.host, self._settings.port) as listener:
            factory = self._server.config.get_loop_factory()
            with asyncio.Runner(loop_factory=factory) as runner:
                return runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        began = time.monotonic()
        await self._repository.start()
        self._is_loading = False
        host, port = listener.getsockname()[:2]
        names = ", ".join(model.card.name for model in self._repository.models())
        _log.info("ready after %.1f s: %s", time.monotonic() - began, names)
        _log.info("serving on http://%s:%d, documented at /docs", _in_url(host), port)
        await self._server.serve([listener])
        return self._code

    def _on_signal(self, number: int) -> None:
        if self._is_loading:
            # Nobody was served yet, and a thread that reads a model cannot be told to stop.
            _leave(EXIT_OK)
        elif self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(number))
        else:
            _log.warning("%s again: not waiting any more", signal.Signals(number).name)
            self._give_up(128 + number)
            self._server.force_exit = True

    async def _end(self, number: int) -> None:
        """Finish what was accepted, within the grace; then let the server close."""
        grace = self._settings.shutdown_grace_seconds
        farewell = asyncio.create_task(asyncio.sleep(_FAREWELL_SECONDS))
        _log.info("%s: draining for at most %g s", signal.Signals(number).name, grace)
        self._lane.is_open = False
        # Every answer from now on ends its connection, those under way included: they share a list.
        self._server.server_state.default_headers.append((b"connection", b"close"))
        self._server.config.encoded_headers.append((b"connection", b"close"))
        try:
            async with asyncio.timeout(grace):
                await self._repository.drain()
        except TimeoutError:
            _log.error("the grace is over: what is not computed is answered 503")
            self._give_up(EXIT_FAILED)
        await farewell
        self._server.should_exit = True

    def _give_up(self, code: int) -> None:
        self._code = code
        self._repository.abort()
        self._server.should_exit = True

    async def _watch_engines(self) -> None:
        if not self._repository.is_alive:
            _log.critical("an engine was lost: only a new process can help")
            self._give_up(EXIT_FAILED)


def _leave(code: int) -> NoReturn:
    logging.shutdown()
    os._exit(code)


def _bind(host: str, port: int) -> socket.socket:
    """Take the address.

    Raises:
        StartupError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        names = f"{flag_name('host')} {host}, {flag_name('port')} {port}"
        raise StartupError(f"{names}: cannot listen there: {error.strerror}") from None
    return listener


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
