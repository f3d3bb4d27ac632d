"""`pushforward client call`: any operation of a server, by its name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushforward.cli.connection import Model, check_output, connected
from pushforward.cli.plain_errors import plain_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


def _writable(path: Path | None) -> Path | None:
    return None if path is None else check_output(path, (".npz",))


def call(
    options: typer.Context,
    operation: Annotated[str, typer.Argument(help="As the server names it, such as log_prob.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help="What the operation takes: JSON, a text, or @FILE with rows (.npy, .csv, "
            ".parquet, ...) or a picture.",
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
        answer = server.call(operation, **_read_fields(fields or ()))
    _write_answer(output, answer)


def _read_fields(texts: Sequence[str]) -> dict[str, Any]:
    """Fields of `call`: name=JSON, name=text or name=@FILE; a table brings its columns' names.

    Raises:
        ValueError: one is none of these.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"{text}: expected NAME=VALUE")
        if value.startswith("@"):
            fields[name], columns = _read_file(value[1:], name)
            if columns and name == "x":
                fields["columns"] = columns
        else:
            fields[name] = _read_value(value)
    return fields


def _read_file(text: str, name: str) -> "tuple[Array | bytes, tuple[str, ...]]":
    from pushforward.cli import tables

    rows = tables.read(text, array=name)
    return (rows, ()) if isinstance(rows, bytes) else (rows.values, rows.columns)


def _read_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _write_answer(path: Path | None, answer: dict[str, Any]) -> None:
    from pushforward.cli import outputs

    with plain_errors():
        if path is None:
            outputs.write_json(answer)
        else:
            outputs.write_arrays(path, answer)
