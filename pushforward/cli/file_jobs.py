"""What the commands over files share: their options, the bar, what is printed, the exit code."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pushforward.cli.client_progress import progress_bar
from pushforward.cli.model_argument import ModelFolder
from pushforward.cli.plain_errors import FAULT_EXIT_CODE, fail, interruptible, plain_errors, warn

if TYPE_CHECKING:
    from pushforward.batch.plan import FilePlan, FileSummary

BAD_ROWS_EXIT_CODE = 3

Model = ModelFolder
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="IN...",
        help="Files of rows: .parquet, .arrow, .feather, .npy, .csv, .tsv (or either .gz), with "
        "FILE?header=no where it has none; folders, globs, and URLs as s3://bucket/*.parquet.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="File to write, there once it is complete: .parquet, .csv or .csv.gz; .npy has the "
        "first output alone.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        help="Column that holds a feature, once for each, in the model's order, or A,B,C; left "
        "out, columns are found by the model's names."
    ),
]
Context = Annotated[
    list[str] | None,
    typer.Option(help="Column that a conditional model is conditioned on: labels, or numbers."),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(help="Column of the input to carry along, as often as wanted, or A,B,C."),
]
OnBadRow = Annotated[
    Literal["null", "fail"],
    typer.Option(help="Rows without an answer: null, with why in `status`; or end at the first."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file at -o.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what an interrupted run has left.")
]
Instances = Annotated[
    int | None, typer.Option(min=1, help="Batches computed at a time; left out: one a core.")
]
NumThreads = Annotated[int | None, typer.Option(min=1, help="Of one batch; left out: 1.")]
Json = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]


def split(names: list[str] | None) -> tuple[str, ...]:
    """The names of an option that may be given several times, and hold several each."""
    return tuple(part for name in names or () for part in name.split(",") if part)


def make_plan(operation: str, model: Path, output: Path, **options: Any) -> "FilePlan":
    """What the options of a command ask for; those that are None are left out."""
    from pushforward.batch.plan import FilePlan

    columns = split(options.pop("columns", None)) or None
    for name in ("context", "keep"):
        options[name] = split(options.get(name))
    given = {name: value for name, value in options.pop("fields", {}).items() if value is not None}
    instances: Any = options.pop("instances", None) or "auto"
    return FilePlan(
        operation, model, output, fields=given, columns=columns, instances=instances, **options
    )


def row_command(operation: str, summary: str) -> Callable[..., None]:
    """Make the command of an operation on rows that has no options of its own.

    Args:
        operation: its name.
        summary: what the help says.
    """

    def command(
        model: Model,
        inputs: Inputs,
        *,
        output: Output,
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
        plan = make_plan(
            operation,
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
        )
        run_plan(plan, as_json=json)

    command.__name__, command.__doc__ = operation, summary
    return command


def run_plan(plan: "FilePlan", *, as_json: bool) -> None:
    """Run a command over files, and exit as it went.

    Raises:
        Exit: with 3 where rows have no answer, 1 where the engine failed.
    """
    with plain_errors(), interruptible(), progress_bar(plan.operation) as show:
        from pushforward.batch.calls import ComputeError
        from pushforward.batch.job import run
        from pushforward.batch.plan import BadRow

        try:
            summary = run(plan, show)
        except BadRow as error:
            fail(f"{error} (--on-bad-row fail)", BAD_ROWS_EXIT_CODE)
        except ComputeError as error:
            fail(str(error), FAULT_EXIT_CODE)
    _tell(summary, as_json=as_json)
    if summary.bad_rows:
        raise typer.Exit(BAD_ROWS_EXIT_CODE)


def _tell(summary: "FileSummary", *, as_json: bool) -> None:
    if as_json:
        import json

        told = {
            "out": summary.out,
            "rows": summary.rows,
            "bad_rows": summary.bad_rows,
            "statuses": dict(summary.statuses),
            "first_bad": summary.first_bad,
            "resumed_rows": summary.resumed_rows,
            "is_done_before": summary.is_done_before,
        }
        if summary.seed is not None:
            told["seed"] = summary.seed
        typer.echo(json.dumps(told))
        return
    if summary.is_done_before:
        typer.echo(f"{summary.out}: it is complete, nothing to do", err=True)
        return
    resumed = f", {summary.resumed_rows:,} of them before" if summary.resumed_rows else ""
    seed = "" if summary.seed is None else f", seed {summary.seed}"
    typer.echo(f"{summary.out}: {summary.rows:,} rows{resumed}{seed}", err=True)
    if summary.bad_rows:
        kinds = ", ".join(f"{count:,} {status}" for status, count in summary.statuses.items())
        first = ", ".join(f"{bad['row']} ({bad['status']})" for bad in summary.first_bad[:3])
        warn(f"{summary.bad_rows:,} rows have no answer: {kinds}; first: {first}")
