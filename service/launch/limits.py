"""The limits on a process, looked at before anything large is asked for."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from service.launch.exits import StartupError

_MIB = 2**20
# Below these not even the libraries can be loaded, whatever the model: measured on Linux with the
# builds for CPUs alone, which ask for the least.
_MIN_BYTES = (
    (resource.RLIMIT_AS, "address space", "ulimit -v", 768 * _MIB),
    (resource.RLIMIT_DATA, "data", "ulimit -d", 336 * _MIB),
)
# Descriptors that are not for connections: for those that are only refused, and
# for what is opened for a while, as the files of a model that is loaded anew.
_RESERVED_DESCRIPTORS = 24
_FIRST_DESCRIPTORS = 1024
# What the gRPC server opens for itself.
_GRPC_DESCRIPTORS = 24
# Of the connections that there is room for one in so many is gRPC's: it carries many calls.
_GRPC_SHARE = 4
# What loading a library raises where there is no memory for it: the loader, Python, a C extension.
_NO_MEMORY = (ImportError, MemoryError, OSError, SystemError)


def check_memory() -> None:
    """Refuse limits in which no service can start; a library might try for ever.

    Raises:
        StartupError: names the limit, what it is and what it must be at least.
    """
    for limit, what, how, least in _MIN_BYTES:
        granted = _soft(limit)
        if granted is not None and granted < least:
            raise StartupError(
                f"the limit on the {what} of a process is {granted // _MIB} MiB: expected at least "
                f"{least // _MIB} MiB and what the models take; raise it ({how})"
            )


def spare_memory() -> None:
    """Keep numpy's linear algebra to one thread: nothing served computes by it.

    Each of its threads takes 40 MB, one a core, and where they are not granted it asks for ever.
    To be called before numpy is imported; what the user has set stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@contextmanager
def enough_memory() -> Iterator[None]:
    """Say which limit is in the way of what is imported inside the block.

    Raises:
        StartupError: an import failed, and a limit on memory is in force.
    """
    try:
        yield
    except _NO_MEMORY as error:
        limited = [
            f"{what} to {granted // _MIB} MiB ({how})"
            for limit, what, how, _ in _MIN_BYTES
            if (granted := _soft(limit)) is not None
        ]
        if not limited:
            raise
        raise StartupError(
            "the libraries cannot be loaded, where a process is limited in its "
            f"{' and its '.join(limited)}: {type(error).__name__}"
        ) from None


def room_for_connections(others: int = 0) -> int | None:
    """How many connections may be open at a time; None where descriptors are not limited.

    To be called when all is open that stays open, but for so many others.

    Raises:
        StartupError: there is no room for any.
    """
    granted = _soft(resource.RLIMIT_NOFILE)
    if granted is None:
        return None
    # The kernel gives the lowest that is free, so that all that are taken are among the first.
    taken = sum(map(_is_open, range(min(granted, _FIRST_DESCRIPTORS))))
    taken += _RESERVED_DESCRIPTORS + others
    if granted <= taken:
        raise StartupError(
            f"the limit on the descriptors of a process is {granted}: expected more than {taken}, "
            "and as many as there are to be connections; raise it (ulimit -n)"
        )
    return granted - taken


def share_connections(*, has_grpc: bool) -> tuple[int | None, int | None]:
    """How many connections of HTTP may be open at a time, and how many of gRPC.

    Raises:
        StartupError: there is no room for any.
    """
    if not has_grpc:
        return room_for_connections(), None
    room = room_for_connections(_GRPC_DESCRIPTORS)
    if room is None:
        return None, None
    of_grpc = max(room // _GRPC_SHARE, 1)
    return max(room - of_grpc, 1), of_grpc


def _soft(limit: int) -> int | None:
    """What is granted now; None where it is not limited."""
    granted, _ = resource.getrlimit(limit)
    return None if granted == resource.RLIM_INFINITY else granted


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
