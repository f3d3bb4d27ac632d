"""What the commands of `pushforward client` share: the connection, its errors, their output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.checkpoints.files import try_file
from pushforward.cli.plain_errors import describe, fail, interruptible, plain_errors

if TYPE_CHECKING:
    from pushforward.client import Client

EXIT_FAILED = 1
EXIT_USAGE = 2
# As of every command that computes offline.
EXIT_ROWS_FAILED = 3

Model = Annotated[
    str | None, typer.Option(help="May be left out where the server has one or a default.")
]


@contextmanager
def connected(options: typer.Context, model: str | None) -> "Iterator[Client]":
    """Open a client; what goes wrong becomes one line and an exit code."""
    from pushforward.client import Client, ClientError, RowsFailed

    try:
        with plain_errors(), interruptible(), Client(model=model, **options.obj) as server:
            yield server
    except RowsFailed as error:
        fail(str(error), EXIT_ROWS_FAILED)
    except ClientError as error:
        fail(str(error), EXIT_FAILED)
    except TypeError as error:
        fail(str(error), EXIT_USAGE)


def check_output(path: Path, suffixes: tuple[str, ...]) -> Path:
    """Refuse an output that cannot be written before anything is computed for it.

    Raises:
        BadParameter: of another suffix, or not to be written.
    """
    if path.suffix not in suffixes:
        *others, last = suffixes
        either = f"{', '.join(others)} or {last}" if others else last
        raise typer.BadParameter(f"{path}: expected {either}")
    try:
        try_file(path)
    except OSError as error:
        raise typer.BadParameter(f"cannot be written: {describe(error)}") from None
    return path
