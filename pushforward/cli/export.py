"""`pushforward export`: the certified ONNX graphs of a model folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushforward.cli.model_argument import LocalModelFolder
from pushforward.cli.plain_errors import interruptible, plain_errors

if TYPE_CHECKING:
    from models.onnx.export import Export
    from models.onnx.stages import OnStage

Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder to write to; left out, the model folder, where the server finds the graphs."
    ),
]
InPlace = Annotated[
    bool,
    typer.Option(
        "--in-place", help="Write into the model folder, which is where they go without --out too."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="fp32 or fp64, of inputs and outputs; left out, that of the model's config.json."
    ),
]
Opset = Annotated[int, typer.Option(help="Version of the ONNX operators, 18 to 23.")]
FixedSteps = Annotated[
    int | None,
    typer.Option(
        help="Continuous flows: equal steps for every row and no Loop, for runtimes without it."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")]


def export(
    folder: LocalModelFolder,
    *,
    out: Out = None,
    in_place: InPlace = False,
    precision: Precision = None,
    opset: Opset = 20,
    fixed_steps: FixedSteps = None,
    json: Json = False,
) -> None:
    """Write encode.onnx and decode.onnx of a model, certified against float64 torch."""
    with plain_errors():
        if in_place and out is not None:
            raise ValueError(f"--in-place: expected no --out beside it, got {out}")
        options = {"precision": precision, "opset": opset, "fixed_steps": fixed_steps}
        _run(folder, out or folder, options, as_json=json)


def _run(folder: Path, out: Path, options: dict[str, Any], *, as_json: bool) -> None:
    from models.checkpoints.files import try_folder
    from models.onnx.export import export_folder
    from models.onnx.runtime import RuntimeMissing, SessionError

    began = time.monotonic()
    try_folder(out)
    with interruptible(), _progress() as on_stage:
        try:
            made = export_folder(folder, **options, on_stage=on_stage)
        except (RuntimeMissing, SessionError) as error:
            raise ValueError(str(error)) from None
        made.write(out)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(made.certificate.describe(), option=orjson.OPT_INDENT_2))
        return
    _show(made, out, time.monotonic() - began)


@contextmanager
def _progress() -> "Iterator[OnStage]":
    """Show on stderr what is being done and for how long; a line a stage if it is no terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage: typer.echo(f"{stage} ...", err=True)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description} ..."), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda stage: progress.update(task, description=stage)


def _show(made: "Export", out: Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    certificate = made.certificate
    table = Table(title=f"{out}: written in {seconds:.1f} s", title_justify="left", box=None)
    for heading in ("error against float64", "median", "p90", "p99", "max"):
        table.add_column(heading, justify="left" if heading.startswith("error") else "right")
    for name, errors in (
        ("log_prob (nats)", certificate.log_prob),
        ("log_prob of samples (nats)", certificate.sample_log_prob),
        ("z", certificate.z),
        ("x", certificate.x),
        ("x by generate", certificate.generated),
        ("round trip", certificate.round_trip),
    ):
        if errors is None:
            continue
        table.add_row(
            name, *(f"{value:.2g}" for value in (errors.median, errors.p90, errors.p99, errors.max))
        )
    console = Console()
    console.print(table)
    rows = sum(sum(kinds.values()) for kinds in certificate.rows.values())
    invariance = "the same bits" if certificate.is_batch_invariant else "rounding that differs"
    console.print(
        f"{rows} rows in batches of {', '.join(map(str, certificate.batch_sizes))}: {invariance} "
        f"in all; inputs and outputs {certificate.precision}, networks {certificate.networks}, "
        f"opset {certificate.opset}",
        highlight=False,
    )
