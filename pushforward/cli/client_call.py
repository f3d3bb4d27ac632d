"""`pushforward client call`: any operation of a server, by its name."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.connection import Model, check_output, connected
from pushforward.cli.plain_errors import plain_errors


def _writable(path: Path | None) -> Path | None:
    return None if path is None else check_output(path, (".npz",))


def call(
    options: typer.Context,
    operation: Annotated[str, typer.Argument(help="As the server names it, such as log_prob.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help="What the operation takes: JSON, a text, or @FILE with rows (.npy, .csv) or a "
            "picture.",
        ),
    ] = None,
    model: Model = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=_writable,
            help="A .npz file for the arrays; left out, all of the answer is printed as JSON.",
        ),
    ] = None,
) -> None:
    """Ask for any operation, also one that this client does not know."""
    with connected(options, model) as server:
        answer = server.call(operation, **dict(map(_read_field, fields or ())))
    _write_answer(output, answer)


def _read_field(text: str) -> tuple[str, Any]:
    """A field of `call`: name=JSON, name=text or name=@FILE.

    Raises:
        ValueError: it is none of these.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text}: expected NAME=VALUE")
    if value.startswith("@"):
        from pushforward.cli import tables

        return name, tables.read(Path(value[1:]))
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _write_answer(path: Path | None, answer: dict[str, Any]) -> None:
    from pushforward.cli import tables

    with plain_errors():
        if path is None:
            tables.write_json(answer)
        else:
            tables.write_arrays(path, answer)
