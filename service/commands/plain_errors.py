"""Errors of a command as one line for people, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

USAGE_EXIT_CODE = 2


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print a ValueError, which every refusal in `models` is, and exit with code 2."""
    try:
        yield
    except ValueError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(USAGE_EXIT_CODE) from None
