"""`pushforward sample`: draws into a file, in this process."""

from typing import Annotated, Any

import typer

from pushforward.cli.file_jobs import (
    Instances,
    Json,
    Model,
    NumThreads,
    OnBadRow,
    Output,
    Overwrite,
    Resume,
    make_plan,
    run_plan,
)

NumSamples = Annotated[int, typer.Option("--num-samples", "-n", min=1, help="How many rows.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Made, and printed, if absent.")]
Temperature = Annotated[float, typer.Option(min=0, help="T of z ~ N(0, T^2 I).")]
Label = Annotated[int | None, typer.Option(help="Of a class-conditional model, for all rows.")]
Context = Annotated[
    str | None,
    typer.Option(help="Of a model that is conditional on numbers: they, for all rows, as 0.5,2."),
]


def sample(
    model: Model,
    *,
    num_samples: NumSamples,
    output: Output,
    seed: Seed = None,
    temperature: Temperature = 1.0,
    label: Label = None,
    context: Context = None,
    on_bad_row: OnBadRow = "null",
    overwrite: Overwrite = False,
    resume: Resume = False,
    instances: Instances = None,
    num_threads: NumThreads = None,
    json: Json = False,
) -> None:
    """Draw samples into a file, without a server."""
    given: Any = label
    if context is not None:
        if label is not None:
            raise typer.BadParameter("expected one of --label and --context")
        try:
            given = [float(text) for text in context.split(",")]
        except ValueError:
            raise typer.BadParameter(f"--context: expected numbers, got {context!r}") from None
    plan = make_plan(
        "sample",
        model,
        output,
        num_samples=num_samples,
        fields={"seed": seed, "temperature": temperature, "context": given},
        on_bad_row=on_bad_row,
        overwrite=overwrite,
        resume=resume,
        instances=instances,
        num_threads=num_threads,
    )
    run_plan(plan, as_json=json)
