"""Errors of a command as one line for people, without a traceback."""

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

FAULT_EXIT_CODE = 1
USAGE_EXIT_CODE = 2
# A shell's way to say that a signal ended a command.
SIGNALLED = 128

# What no other argument would mend: the machine is out of something.
_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE, None}


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print a ValueError, which every refusal in `models` is, or an OSError, and exit.

    The exit code is 2 where another argument would do, 1 where the machine is at fault.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # who reads the output has enough: typer ends in silence
    except OSError as error:
        fail(describe(error), FAULT_EXIT_CODE if error.errno in _FAULTS else USAGE_EXIT_CODE)
    except ValueError as error:
        fail(str(error), USAGE_EXIT_CODE)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise while this runs, so that what is under way is tidied up; then exit.

    Outside, as while modules are imported, it ends the process at once (see
    `pushforward.cli.main`).
    """
    former = signal.getsignal(signal.SIGINT)
    if former == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        fail("interrupted", SIGNALLED + signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, former)


def describe(error: OSError) -> str:
    """One line: which file, and what is wrong with it."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{error.filename}: {reason}"


def fail(message: str, code: int) -> NoReturn:
    """Print an error and exit.

    Raises:
        Exit: always.
    """
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(code) from None


def warn(message: str) -> None:
    """Print a warning, and go on."""
    typer.secho(f"warning: {message}", err=True, fg=typer.colors.YELLOW)
