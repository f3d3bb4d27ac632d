"""`pushforward client`: what the Python client does, with files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.checkpoints.files import write_file
from pushforward.cli.client_call import call
from pushforward.cli.connection import Model, check_output, connected
from pushforward.cli.plain_errors import plain_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pushforward.client import Client, Samples

    Array = NDArray[np.generic]

Rows = Annotated[
    Path, typer.Argument(help="Rows: .npy, .csv, or one .png or .jpg.", exists=True, dir_okay=False)
]
Latents = Annotated[
    Path, typer.Argument(help="Latents: .npy or .csv.", exists=True, dir_okay=False)
]
Context = Annotated[
    Path | None,
    typer.Option(
        help="Of a conditional model: .npy or .csv, one row for all or one each.", exists=True
    ),
]
Label = Annotated[int | None, typer.Option(help="Of a class-conditional model, for all rows.")]


def _writable(path: Path | None) -> Path | None:
    """Refuse an output that cannot be written before anything is computed for it."""
    return None if path is None else check_output(path, (".npy", ".csv", ".png"))


Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        callback=_writable,
        help="A .npy, .csv or .png file; left out, CSV is printed.",
    ),
]
Scale = Annotated[int, typer.Option(min=1, max=16, help="Size of a pixel in a .png.")]

client = typer.Typer(
    help="Ask a running server: sample, log-prob, encode, decode, or any operation by call.",
    no_args_is_help=True,
)

client.command()(call)


@client.callback()
def _options(
    context: typer.Context,
    base_url: Annotated[
        str | None,
        typer.Option(envvar="PUSHFORWARD_BASE_URL", help="[default: http://127.0.0.1:8000]"),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="PUSHFORWARD_API_KEY", help="Better as a variable: flags are seen."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds an attempt may take.")] = 30.0,
    max_retries: Annotated[int, typer.Option(min=0, help="Attempts after the first.")] = 2,
) -> None:
    context.obj = {
        "base_url": base_url,
        "api_key": api_key,
        "timeout": timeout,
        "max_retries": max_retries,
    }


@client.command()
def sample(
    options: typer.Context,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", min=1)] = 16,
    seed: Annotated[int | None, typer.Option(min=0, help="Made, and printed, if absent.")] = None,
    temperature: Annotated[float, typer.Option(min=0)] = 1.0,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    scale: Scale = 1,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Rows in one request.")] = 1024,
    output: Output = None,
) -> None:
    """Draw samples; large draws come in chunks, with a progress bar."""
    draw: dict[str, Any] = {"seed": seed, "temperature": temperature}
    with connected(options, model) as server:
        draw["context"] = _read_context(context, label)
        if output is not None and output.suffix == ".png":
            write_file(output, server.sample_picture(num_samples, scale=scale, **draw))
            return
        parts = list(_with_progress(server, num_samples, chunk_rows, draw))
    _write(output, [part.x for part in parts])
    first = parts[0]
    typer.echo(f"{first.model} {first.version}, seed {first.seed}", err=True)


@client.command("log-prob")
def log_prob(
    options: typer.Context,
    rows: Rows,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    output: Output = None,
) -> None:
    """Score rows, in nats."""
    with connected(options, model) as server:
        scores = server.log_prob(
            _read_rows(rows, server, model), context=_read_context(context, label)
        )
    _write(output, [scores])


@client.command()
def encode(
    options: typer.Context,
    rows: Rows,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    output: Output = None,
) -> None:
    """Map rows to latents."""
    with connected(options, model) as server:
        encoded = server.encode(
            _read_rows(rows, server, model), context=_read_context(context, label)
        )
    _write(output, [encoded.z])


@client.command()
def decode(
    options: typer.Context,
    latents: Latents,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    scale: Scale = 1,
    output: Output = None,
) -> None:
    """Map latents to rows."""
    given = _read_context(context, label)
    with connected(options, model) as server:
        if output is not None and output.suffix == ".png":
            write_file(output, server.decode_picture(_read(latents), context=given, scale=scale))
            return
        decoded = server.decode(_read(latents), context=given)
    _write(output, [decoded.x])


def _with_progress(
    server: "Client", num_samples: int, chunk_rows: int, draw: dict[str, Any]
) -> "Iterator[Samples]":
    """Draw in chunks, all by one version of the model.

    Raises:
        ValueError: the model was replaced in between.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("samples", total=num_samples, visible=num_samples > chunk_rows)
        version = None
        for part in server.stream(num_samples, chunk_rows=chunk_rows, **draw):
            if version not in (None, part.version):
                raise ValueError(f"{part.model} {version} became {part.version}: draw again")
            version = part.version
            progress.advance(task, len(part.x))
            yield part


def _read_rows(path: Path, server: "Client", model: str | None) -> "Array | bytes":
    from pushforward.cli import tables

    return tables.read_rows(path, lambda: _feature_names(server, model))


def _feature_names(server: "Client", model: str | None) -> list[str]:
    served = server.models()
    if model is None and len(served) > 1:
        raise ValueError("name the model with --model: its columns are matched by name")
    names = [facts for facts in served if model in (None, facts["name"])]
    return list(names[0].get("feature_names") or ()) if names else []


def _read_context(path: Path | None, label: int | None) -> Any:
    if path is not None and label is not None:
        raise typer.BadParameter("give --context or --label, not both")
    return label if path is None else _read(path)


def _read(path: Path) -> "Array | bytes":
    from pushforward.cli import tables

    return tables.read(path)


def _write(path: Path | None, parts: "list[Array]") -> None:
    import numpy as np

    from pushforward.cli import tables

    if path is not None and path.suffix not in (".npy", ".csv"):
        raise typer.BadParameter(f"{path}: expected .npy, .csv or .png", param_hint="--output")
    with plain_errors():
        tables.write(path, np.concatenate(parts))
