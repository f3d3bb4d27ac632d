"""The service from its address to its exit code: one process, or several behind one port."""

import json
import logging
import os
import shlex
import signal
import socket
import sys
from contextlib import ExitStack
from importlib.util import find_spec

from models.extras import install_command
from service.launch import limits
from service.launch.exits import EXIT_NO_START, EXIT_OK, StartupError, hard_exit
from service.launch.processes import plan_processes
from service.settings import Settings, flag_name, unknown_variables
from service.telemetry import access_log

_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve until a signal.

    Returns:
        The exit code.
    """
    try:
        limits.check_memory()
    except StartupError as error:
        return _refuse(error)
    limits.spare_memory()
    access_log.configure(settings.log_level, settings.log_format)
    for warning in unknown_variables(os.environ):
        _log.warning(warning)
    _log.info("settings: %s", as_flags(settings))
    try:
        code = _serve(settings)
    except StartupError as error:
        # Other models may still be loading, in threads that no interpreter can take down.
        hard_exit(_refuse(error))
    if code != EXIT_OK:
        # A worker may be deep in the engine and never come back: do not wait for its thread.
        hard_exit(code)
    return code


def as_flags(settings: Settings) -> str:
    """Write the settings that are not left at their defaults as a command line has them."""
    words = []
    for field, value in settings.model_dump(mode="json", exclude_defaults=True).items():
        text = value
        if isinstance(value, list):
            text = (os.pathsep if field == "model_repository" else ",").join(value)
        elif not isinstance(value, str):
            text = json.dumps(value)
        words += [flag_name(field), shlex.quote(text)]
    return f"{' '.join(words)} (--print-settings lists all)" if words else "all at their defaults"


def _refuse(reason: StartupError) -> int:
    """Say why it does not start, behind all that was logged before."""
    access_log.standard_output.flush()
    print(f"pushforward: {reason}", file=sys.stderr)
    return EXIT_NO_START


def _serve(settings: Settings) -> int:
    if settings.workers > 1 and settings.enable_model_control:
        raise StartupError(
            f"{flag_name('enable_model_control')}: a client's load and unload would reach one of "
            f"{settings.workers} processes; leave {flag_name('workers')} at 1"
        )
    with ExitStack() as stack:
        # Bound before the models are loaded, so that a port in use is reported at once.
        first = stack.enter_context(_bind(settings))
        if settings.grpc_port is not None:
            reserved = stack.enter_context(_reserve_grpc_port(settings, settings.grpc_port))
            settings = settings.model_copy(update={"grpc_port": reserved.getsockname()[1]})
        _fetch(settings)
        plan = plan_processes(settings)
        if len(plan.cards) == 1:
            with limits.enough_memory():
                from service.launch.worker import Worker
                from service.telemetry import Metrics

            return Worker(settings, Metrics(), gpus=plan.spread).run(first)
        settings = settings.model_copy(update={"workers": len(plan.cards)})
        with limits.enough_memory():
            from service.launch.supervisor import Supervisor

        port = first.getsockname()[1]
        # Freed for a moment: only sockets that all ask for it share a port. The kernel spreads
        # connections evenly over them; processes that accept from one socket do not, the first to
        # wake takes most of those that come together.
        first.close()
        listeners = [stack.enter_context(_bind(settings, port, is_shared=True)) for _ in plan.cards]
        return Supervisor(
            settings,
            listeners,
            lambda: _bind(settings, port, is_shared=True),
            cards=plan.cards,
        ).run()


def _fetch(settings: Settings) -> None:
    """Fetch the models that are behind URIs, once for all processes.

    Raises:
        StartupError: there is nothing to serve of one of them.
    """
    if any(isinstance(one, str) for one in settings.model_repository):
        with limits.enough_memory():
            from service.repository.sources import fetch_all
        for number in (signal.SIGINT, signal.SIGTERM):
            # Nobody is served yet. The first process of a container ignores them otherwise.
            signal.signal(number, lambda *_: hard_exit(EXIT_OK))
        fetch_all(settings)


def _reserve_grpc_port(settings: Settings, port: int) -> socket.socket:
    """Keep a port for the gRPC servers of all processes, which bind it themselves.

    Raises:
        StartupError: it cannot be had, or what is needed is not installed.
    """
    if not all(map(_is_installed, ("google.protobuf", "grpc_health", "grpc_reflection"))):
        raise StartupError(
            f"{flag_name('grpc_port')}: it needs the extra 'grpc': {install_command('grpc')}"
        )
    name = "grpc_port"
    # Alone first: what others have would be shared else, and each get half of the calls.
    with _bind(settings, port, name=name) as found:
        port = found.getsockname()[1]
    return _bind(settings, port, is_shared=True, name=name)


def _is_installed(module: str) -> bool:
    """Whether a module could be imported, which each process does for itself."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _bind(
    settings: Settings, port: int | None = None, *, is_shared: bool = False, name: str = "port"
) -> socket.socket:
    """Take the address, alone or with other sockets of ours.

    Args:
        settings: of the service.
        port: of the address; that of the settings if left out.
        is_shared: whether others of ours may take it too.
        name: of the port in the settings.

    Raises:
        StartupError: it cannot be had.
    """
    port = settings.port if port is None else port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        names = f"{flag_name('host')} {settings.host}, {flag_name(name)} {port}"
        raise StartupError(f"{names}: cannot listen there: {error.strerror}") from None
    return listener
