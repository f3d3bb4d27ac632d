"""`pushforward score`: the operation over files, in this process."""

from typing import Annotated

import typer

from pushforward.cli.file_jobs import (
    Columns,
    Context,
    Inputs,
    Instances,
    Json,
    Keep,
    Model,
    NumThreads,
    OnBadRow,
    Output,
    Overwrite,
    Resume,
    make_plan,
    run_plan,
)

Alpha = Annotated[
    float | None, typer.Option(help="Flag rows with p <= alpha: so many false alarms a row.")
]
Fdr = Annotated[
    float | None,
    typer.Option(help="Flag rows so that of those of the whole file this share are false alarms."),
]
Threshold = Annotated[float | None, typer.Option(help="Flag rows with a higher score.")]
Explain = Annotated[
    int | None, typer.Option(min=1, help="How many features to name that explain a flagged row.")
]


def score(
    model: Model,
    inputs: Inputs,
    *,
    output: Output,
    alpha: Alpha = None,
    fdr: Fdr = None,
    threshold: Threshold = None,
    explain: Explain = None,
    columns: Columns = None,
    context: Context = None,
    keep: Keep = None,
    on_bad_row: OnBadRow = "null",
    overwrite: Overwrite = False,
    resume: Resume = False,
    instances: Instances = None,
    num_threads: NumThreads = None,
    json: Json = False,
) -> None:
    """Score files of rows for anomalies, without a server."""
    plan = make_plan(
        "score",
        model,
        output,
        inputs=tuple(inputs),
        columns=columns,
        context=context,
        keep=keep,
        on_bad_row=on_bad_row,
        overwrite=overwrite,
        resume=resume,
        instances=instances,
        num_threads=num_threads,
        fields={"alpha": alpha, "fdr": fdr, "threshold": threshold, "explain": explain},
    )
    run_plan(plan, as_json=json)
