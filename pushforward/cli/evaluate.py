"""`pushforward evaluate`: figures of a model on data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pushforward.cli.plain_errors import plain_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.datasets import Dataset
    from models.datasets.rows import Digests

Folder = Annotated[Path, typer.Argument(help="Model folder.", exists=True, file_okay=False)]
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
    folder: Folder,
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
    data = _choose(data, rows, folder, flow.provenance)
    figures = asdict(evaluate.evaluate(flow, data, seed=seed))
    if as_json:
        typer.echo(orjson.dumps(figures))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        if value is not None:
            typer.echo(f"{name:<{width}}  {value:.6g}")


def _trained_on(folder: Path) -> str:
    """The text that named the training data; empty in a folder that was not trained here."""
    from models.training.report import REPORT_FILE, TrainingReport

    return TrainingReport.read(folder).data.spec if (folder / REPORT_FILE).is_file() else ""


def _choose(data: "Dataset", rows: str, folder: Path, provenance: dict[str, Any]) -> "Dataset":
    """The rows to score.

    Raises:
        ValueError: if no such row is there.
    """
    from models.datasets.rows import read_rows

    if rows == "all":
        return data
    digests = None if data.recipe else read_rows(folder)
    if digests is None:
        return _choose_by_split(data, rows, provenance, _trained_on(folder))
    return _choose_by_row(data, rows, digests)


def _choose_by_row(data: "Dataset", rows: str, digests: "Mapping[str, Digests]") -> "Dataset":
    """By what the folder holds: a digest of every row, trained on or kept apart."""
    import numpy as np

    from models.datasets.rows import is_among

    if rows != "auto":
        is_part = is_among(data, digests[rows])
        if not is_part.any():
            raise ValueError(
                f"--rows {rows}: none of these rows is one of the model's {rows} rows; use "
                "--rows all"
            )
        chosen = data.take(is_part)
        typer.echo(f"the model's {rows} rows: {len(chosen)} of {len(data)}", err=True)
        return chosen
    is_trained_on = is_among(data, np.concatenate([digests["train"], digests["validation"]]))
    if not is_trained_on.any():
        return data
    if is_trained_on.all():
        raise ValueError("the model was trained on all of these rows; score them with --rows all")
    chosen = data.take(~is_trained_on)
    typer.echo(
        f"the model was trained on {int(is_trained_on.sum())} of {len(data)} rows; the other "
        f"{len(chosen)} are scored",
        err=True,
    )
    return chosen


def _choose_by_split(
    data: "Dataset", rows: str, provenance: dict[str, Any], trained_on: str
) -> "Dataset":
    """By splitting again: generated data, and folders that hold no digests of rows."""
    from models.datasets import is_named, is_same_split, split

    is_training_data = is_named(data, provenance.get("data_sha256"), trained_on)
    if rows == "auto" and not is_training_data:
        return data
    if not is_training_data:
        raise ValueError(
            f"--rows {rows}: the model was not trained on these data, so there is no split; use "
            "--rows all"
        )
    if not is_same_split(data, trained_on):
        raise ValueError(
            "the folder does not hold which rows were kept apart, and other options split the "
            f"data in another way: use --data '{trained_on}', or --rows all"
        )
    facts = provenance["split"]
    parts = split(
        data,
        validation=facts["validation_fraction"],
        test=facts["test_fraction"],
        seed=facts["seed"],
    )
    name = "test" if rows == "auto" else rows
    chosen: Dataset = getattr(parts, name)
    typer.echo(f"the model's own data: {len(chosen)} {name} rows of {len(data)}", err=True)
    return chosen
