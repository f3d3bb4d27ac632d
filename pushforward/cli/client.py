"""`pushforward client`: what the Python client does, with files."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from models.checkpoints.files import write_file
from pushforward.cli import client_rows
from pushforward.cli.client_call import call
from pushforward.cli.client_rows import check_file, check_writable, read_context
from pushforward.cli.connection import Model, connected

Rows = Annotated[
    str,
    typer.Argument(
        callback=check_file,
        metavar="FILE",
        help="Rows, as `pushforward train --data` takes them: .npy, .npz, .csv, .tsv (or either "
        ".gz), .parquet, .arrow, .feather, with options as FILE?header=no; or one .png or .jpg.",
    ),
]
Latents = Annotated[
    str, typer.Argument(callback=check_file, metavar="FILE", help="Latents: a file as above.")
]
Context = Annotated[
    str | None,
    typer.Option(
        callback=check_file,
        metavar="FILE",
        help="Of a conditional model: .npy, .csv or a table, one row for all or one each.",
    ),
]
Label = Annotated[int | None, typer.Option(help="Of a class-conditional model, for all rows.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        callback=check_writable,
        help="A .npy, .csv or .png file, of the first output; .npz or .parquet, of all. Left out, "
        "CSV is printed.",
    ),
]
Header = Annotated[
    bool,
    typer.Option("--header", help="Begin CSV with a line of names, and write all outputs."),
]
Scale = Annotated[int, typer.Option(min=1, max=16, help="Size of a pixel in a .png.")]
ChunkRows = Annotated[int, typer.Option(min=1, help="At most so many rows in one request.")]
Invalid = Annotated[
    Literal["refuse", "null"],
    typer.Option(help="Rows with NaN or a missing value: refuse the call, or answer them null."),
]
Failed = Annotated[
    Literal["values", "mask", "raise"],
    typer.Option(
        help="Rows without an answer: write NaN or an infinity, nothing, or end with exit code 3."
    ),
]

client = typer.Typer(
    help="Ask a running server: sample, log-prob, score, encode, decode, or any operation by call.",
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
    *,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", min=1)] = 16,
    seed: Annotated[int | None, typer.Option(min=0, help="Made, and printed, if absent.")] = None,
    temperature: Annotated[float, typer.Option(min=0)] = 1.0,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    scale: Scale = 1,
    chunk_rows: ChunkRows = 1024,
    failed: Failed = "values",
    header: Header = False,
    output: Output = None,
) -> None:
    """Draw samples; large draws come in chunks, with a progress bar."""
    draw: dict[str, Any] = {"seed": seed, "temperature": temperature}
    with connected(options, model) as server:
        draw["context"] = read_context(context, label)
        if output is not None and output.suffix == ".png":
            write_file(output, server.sample_picture(num_samples, scale=scale, **draw))
            return
        drawn = client_rows.draw(server, num_samples, chunk_rows, failed, draw)
        client_rows.write(server, drawn, failed, output, header=header)
    typer.echo("{model} {version}, seed {seed}".format_map(drawn), err=True)


@client.command("log-prob")
def log_prob(
    options: typer.Context,
    rows: Rows,
    *,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    chunk_rows: ChunkRows = 1024,
    invalid: Invalid = "refuse",
    failed: Failed = "values",
    header: Header = False,
    output: Output = None,
) -> None:
    """Score rows, in nats; many go in pieces, with a progress bar."""
    with connected(options, model) as server:
        asked = client_rows.RowRequest(rows, context, label, chunk_rows, invalid, failed)
        scores = client_rows.ask(server, "log_prob", asked, model)
        client_rows.write(server, scores, failed, output, header=header)


@client.command()
def score(
    options: typer.Context,
    rows: Rows,
    *,
    alpha: Annotated[
        float | None, typer.Option(help="Flag rows with p <= alpha: so many false alarms a row.")
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option(help="Flag rows with q <= fdr: the share of false alarms among all flagged."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Flag rows with a higher score.")] = None,
    explain: Annotated[
        int | None,
        typer.Option(min=1, help="Name so many features that explain each flagged row."),
    ] = None,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    chunk_rows: ChunkRows = 1024,
    invalid: Invalid = "refuse",
    failed: Failed = "values",
    header: Header = False,
    output: Output = None,
) -> None:
    """Score rows as anomalies, higher is more anomalous; --header writes p-values and flags too."""
    decision = {"alpha": alpha, "fdr": fdr, "threshold": threshold}
    with connected(options, model) as server:
        score_options = {**decision, "explain": explain}
        asked = client_rows.RowRequest(
            rows, context, label, chunk_rows, invalid, failed, score_options
        )
        scored = client_rows.ask(server, "score", asked, model)
        client_rows.write(server, scored, failed, output, header=header)
    client_rows.report_anomalies(scored, decision)
    client_rows.report_explanation(scored)


@client.command()
def encode(
    options: typer.Context,
    rows: Rows,
    *,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    chunk_rows: ChunkRows = 1024,
    invalid: Invalid = "refuse",
    failed: Failed = "values",
    header: Header = False,
    output: Output = None,
) -> None:
    """Map rows to latents; many go in pieces, with a progress bar."""
    with connected(options, model) as server:
        asked = client_rows.RowRequest(rows, context, label, chunk_rows, invalid, failed)
        encoded = client_rows.ask(server, "encode", asked, model)
        client_rows.write(server, encoded, failed, output, header=header)


@client.command()
def decode(
    options: typer.Context,
    latents: Latents,
    *,
    model: Model = None,
    context: Context = None,
    label: Label = None,
    scale: Scale = 1,
    chunk_rows: ChunkRows = 1024,
    invalid: Invalid = "refuse",
    failed: Failed = "values",
    header: Header = False,
    output: Output = None,
) -> None:
    """Map latents to rows; many go in pieces, with a progress bar."""
    with connected(options, model) as server:
        if output is not None and output.suffix == ".png":
            given = read_context(context, label)
            z = client_rows.read_values(latents, "z")
            write_file(output, server.decode_picture(z, context=given, scale=scale))
            return
        asked = client_rows.RowRequest(latents, context, label, chunk_rows, invalid, failed)
        decoded = client_rows.ask(server, "decode", asked, model)
        client_rows.write(server, decoded, failed, output, header=header)
