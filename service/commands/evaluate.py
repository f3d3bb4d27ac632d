"""`pushforward evaluate`: figures of a model on data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.commands.plain_errors import plain_errors

if TYPE_CHECKING:
    from models.datasets import Dataset

Folder = Annotated[Path, typer.Argument(help="Model folder.", exists=True, file_okay=False)]
Data = Annotated[str, typer.Option(help="What `pushforward train --data` takes.")]
Rows = Annotated[
    Literal["auto", "all", "test"],
    typer.Option(
        help="all rows; only those the model was not trained on; auto: the latter where the data "
        "are those it was trained on."
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
    from models import evaluate
    from models.datasets import load

    torch.set_num_threads(threads)
    flow = models.load(folder)
    data = _choose(load(text), rows, flow.provenance, _trained_on(folder))
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


def _choose(data: "Dataset", rows: str, provenance: dict[str, Any], trained_on: str) -> "Dataset":
    from models.datasets import is_named, split

    is_training_data = is_named(data, provenance.get("data_sha256"), trained_on)
    if rows == "all" or (rows == "auto" and not is_training_data):
        return data
    if not is_training_data:
        raise ValueError(
            "--rows test: the model was not trained on these data, so there is no split; use "
            "--rows all"
        )
    facts = provenance["split"]
    parts = split(
        data,
        validation=facts["validation_fraction"],
        test=facts["test_fraction"],
        seed=facts["seed"],
    )
    typer.echo(f"the model's own data: {len(parts.test)} test rows of {len(data)}", err=True)
    return parts.test
