"""The option --export of the commands that write models: their graphs beside the weights."""

from pathlib import Path
from typing import Annotated

import typer

from pushforward.cli.plain_errors import FAULT_EXIT_CODE, fail

Export = Annotated[
    bool,
    typer.Option(
        "--export",
        help="Write the certified ONNX graphs beside the weights too, as `pushforward export "
        "--in-place` does: the server then needs no torch.",
    ),
]


def write_graphs(folder: Path) -> None:
    """Write the graphs of a model that was just written; exit with 1 where they cannot be had."""
    from models.onnx.export import export_folder

    try:
        export_folder(folder).write(folder)
    except (ValueError, RuntimeError, OSError) as error:
        fail(f"{folder}: the model is written, its graphs are not: {error}", FAULT_EXIT_CODE)
    typer.echo(f"{folder}: graphs written: it is served without torch", err=True)
