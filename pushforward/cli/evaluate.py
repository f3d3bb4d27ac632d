"""`pushforward evaluate`: figures of a model on data."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pushforward.cli.model_argument import ModelFolder
from pushforward.cli.plain_errors import plain_errors

Data = Annotated[str, typer.Option(help="What `pushforward train --data` takes.")]
Rows = Annotated[
    Literal["auto", "all", "train", "validation", "test"],
    typer.Option(
        help="all: every row; test: the model's test rows; auto: every row but those it was "
        "trained on."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the dequantization noise.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


def evaluate(
    folder: ModelFolder,
    *,
    data: Data,
    rows: Rows = "auto",
    seed: Seed = 0,
    json: Json = False,
    threads: Threads = 1,
) -> None:
    """Score data with a model: likelihood, float32 error, round trip, and AUROC of anomalies."""
    with plain_errors():
        _run(folder, data, rows, seed=seed, as_json=json, threads=threads)


def _run(folder: Path, text: str, rows: str, *, seed: int, as_json: bool, threads: int) -> None:
    from dataclasses import asdict

    import orjson
    import torch

    import models
    from models.datasets import load, schema
    from models.training import evaluate
    from pushforward.cli.choose_rows import choose_rows

    torch.set_num_threads(threads)
    flow = models.load(folder)
    data = load(text, features=schema.feature_names(flow.provenance))
    if data.ignored:
        typer.echo(f"columns that the model does not have: {', '.join(data.ignored)}", err=True)
    elif data.columns and not schema.feature_names(flow.provenance):
        typer.echo(
            "the model does not know the names of its columns: those of the table are taken in "
            "their order",
            err=True,
        )
    data = schema.match_classes(data, schema.class_names(flow.provenance))
    data = data.take(choose_rows(data, rows, folder, flow.provenance))
    figures = asdict(evaluate.evaluate(flow, data, seed=seed))
    if as_json:
        typer.echo(orjson.dumps(figures))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        if value is not None:
            typer.echo(f"{name:<{width}}  {value:.6g}")
