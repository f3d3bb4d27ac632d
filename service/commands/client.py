"""`pushforward client`: what the Python client does, with files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.client import Client, Samples

    Array = NDArray[np.generic]

EXIT_FAILED = 1
EXIT_USAGE = 2

_PICTURES = (".png", ".jpg", ".jpeg")

Model = Annotated[
    str | None, typer.Option(help="May be left out where the server has one or a default.")
]
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
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="A .npy, .csv or .png file; left out, CSV is printed."),
]
Scale = Annotated[int, typer.Option(min=1, max=16, help="Size of a pixel in a .png.")]

client = typer.Typer(
    help="Ask a running server: sample, log-prob, encode, decode.", no_args_is_help=True
)


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
    draw: dict[str, Any] = {
        "seed": seed,
        "temperature": temperature,
        "context": _read_context(context, label),
    }
    with _connected(options, model) as server:
        if output is not None and output.suffix == ".png":
            output.write_bytes(server.sample_picture(num_samples, scale=scale, **draw))
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
    with _connected(options, model) as server:
        scores = server.log_prob(_read(rows), context=_read_context(context, label))
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
    with _connected(options, model) as server:
        encoded = server.encode(_read(rows), context=_read_context(context, label))
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
    with _connected(options, model) as server:
        if output is not None and output.suffix == ".png":
            output.write_bytes(server.decode_picture(_read(latents), context=given, scale=scale))
            return
        decoded = server.decode(_read(latents), context=given)
    _write(output, [decoded.x])


@contextmanager
def _connected(options: typer.Context, model: str | None) -> "Iterator[Client]":
    """Open a client; what goes wrong becomes one line and an exit code."""
    from service.client import Client, ClientError

    try:
        with Client(model=model, **options.obj) as server:
            yield server
    except ClientError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(EXIT_FAILED) from None
    except (OSError, TypeError, ValueError) as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(EXIT_USAGE) from None


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


def _read(path: Path) -> "Array | bytes":
    import numpy as np

    if path.suffix.lower() in _PICTURES:
        return path.read_bytes()
    if path.suffix == ".npy":
        array: Array = np.load(path, allow_pickle=False)
        return array
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", ndmin=2)
    raise ValueError(f"{path}: expected .npy, .csv, .png or .jpg")


def _read_context(path: Path | None, label: int | None) -> Any:
    if path is not None and label is not None:
        raise typer.BadParameter("give --context or --label, not both")
    return label if path is None else _read(path)


def _write(path: Path | None, parts: "list[Array]") -> None:
    """Write rows; CSV has a line for each, whatever their shape."""
    import sys

    import numpy as np

    values = np.concatenate(parts)
    if path is not None and path.suffix == ".npy":
        np.save(path, values, allow_pickle=False)
        return
    if path is not None and path.suffix != ".csv":
        raise typer.BadParameter(f"{path}: expected .npy, .csv or .png", param_hint="--output")
    # As many digits as tell every number from its neighbours.
    digits = 9 if values.dtype == np.float32 else 17
    flat = values.reshape(len(values), -1)
    np.savetxt(sys.stdout if path is None else path, flat, fmt=f"%.{digits}g", delimiter=",")
