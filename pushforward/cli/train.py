"""`pushforward train`: from data to a model folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pushforward.cli.graphs import Export, write_graphs
from pushforward.cli.plain_errors import (
    FAULT_EXIT_CODE,
    SIGNALLED,
    fail,
    interruptible,
    plain_errors,
    warn,
)

if TYPE_CHECKING:
    from models.datasets import Dataset
    from models.training import TrainingOptions

Data = Annotated[
    str,
    typer.Option(
        help="A named set (two_moons, mnist, ...), a .csv, .parquet, .npy or .npz file, a folder "
        "of images or idx:FILE; options follow a question mark, as in 'two_moons?rows=5000' or "
        "'table.csv?discrete=smoker,children'."
    ),
]
Family = Annotated[str, typer.Option(help="Architecture; `pushforward families` lists them.")]
Out = Annotated[Path, typer.Option(help="Model folder to write.")]
Config = Annotated[
    Path | None, typer.Option(help="JSON file with the arguments of the family.", exists=True)
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="One argument of the family, key=value; the value is JSON. `pushforward families "
        "NAME` lists them.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; one makes runs repeatable.")]
Objective = Annotated[
    Literal["likelihood", "flow_matching"] | None,
    typer.Option(help="What is minimised; flow matching is for continuous flows (likelihood)."),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data, at most (100).")]
BatchRows = Annotated[int | None, typer.Option(help="Rows a step (256).")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate of Adam (0.001).")]
WarmupSteps = Annotated[int | None, typer.Option(help="Steps of linear warm-up (100).")]
Schedule = Annotated[
    Literal["cosine", "constant"] | None, typer.Option(help="After the warm-up (cosine).")
]
WeightDecay = Annotated[float | None, typer.Option(help="Of AdamW; 0 is Adam (0.0).")]
ClipNorm = Annotated[
    float | None,
    typer.Option(help="Largest gradient norm, loss in nats a dimension; 0: any (1.0)."),
]
Patience = Annotated[
    int | None, typer.Option(help="Epochs without a better validation before stopping (20).")
]
EmaDecay = Annotated[
    float | None, typer.Option(help="Store this moving average of the weights (None).")
]
CoarseBits = Annotated[
    int | None, typer.Option(help="Redraw 8-bit pixels within bins of so many bits (None).")
]
ValidationFraction = Annotated[float | None, typer.Option(help="Of the rows (0.1).")]
TestFraction = Annotated[float | None, typer.Option(help="Of the rows (0.1).")]
Seed = Annotated[int | None, typer.Option(help="Of the split, weights and noise (0).")]
SaveSeconds = Annotated[
    float | None, typer.Option(help="How often the state for --resume is saved (30.0).")
]
PictureTemperature = Annotated[
    float | None, typer.Option(help="Of the samples in samples.png (1.0).")
]
Calibrate = Annotated[
    bool,
    typer.Option(
        help="Calibrate anomaly scores on the test rows, as `pushforward calibrate` does on others."
    ),
]


def train(
    *,
    data: Data,
    family: Family,
    out: Out,
    config: Config = None,
    settings: Settings = None,
    resume: Resume = False,
    threads: Threads = 1,
    objective: Objective = None,
    epochs: Epochs = None,
    batch_rows: BatchRows = None,
    learning_rate: LearningRate = None,
    warmup_steps: WarmupSteps = None,
    schedule: Schedule = None,
    weight_decay: WeightDecay = None,
    clip_norm: ClipNorm = None,
    patience: Patience = None,
    ema_decay: EmaDecay = None,
    coarse_bits: CoarseBits = None,
    validation_fraction: ValidationFraction = None,
    test_fraction: TestFraction = None,
    seed: Seed = None,
    save_seconds: SaveSeconds = None,
    picture_temperature: PictureTemperature = None,
    export: Export = False,
    calibrate: Calibrate = True,
) -> None:
    """Train a flow by maximum likelihood and write it as a model folder."""
    flags = {
        "objective": objective,
        "epochs": epochs,
        "batch_rows": batch_rows,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
        "patience": patience,
        "ema_decay": ema_decay,
        "coarse_bits": coarse_bits,
        "validation_fraction": validation_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "save_seconds": save_seconds,
        "picture_temperature": picture_temperature,
    }
    with plain_errors():
        arguments = read_arguments(config, settings or [])
        rows = _run(data, family, arguments, out, flags=flags, resume=resume, threads=threads)
        with interruptible():
            try:
                if export:
                    write_graphs(out)
            finally:  # by the graphs, which will serve, where there are some
                if calibrate:
                    _calibrate(out, rows, flags)


def read_arguments(config: Path | None, settings: list[str]) -> dict[str, Any]:
    """Join the arguments of --config and --set; the latter win.

    Raises:
        ValueError: if the file is not a JSON object, or a setting is not key=value.
    """
    arguments: dict[str, Any] = {}
    if config is not None:
        try:
            content = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{config}: not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{config}: expected a JSON object of arguments")
        arguments |= content
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise ValueError(f"--set {setting}: expected key=value")
        try:
            arguments[key] = json.loads(text)
        except ValueError:
            arguments[key] = text  # a bare word is a string: --set permutation=lu_conv
    return arguments


def _run(
    data: str,
    family: str,
    arguments: dict[str, Any],
    out: Path,
    *,
    flags: dict[str, Any],
    resume: bool,
    threads: int,
) -> "Dataset":
    """Train, and give the data back."""
    import torch

    from models.checkpoints.naming import warn_of_name
    from models.datasets import load
    from models.datasets.discrete import warnings_of
    from models.registry import check_arguments
    from models.training import TrainingInterrupted, TrainingKept, train
    from models.training.keep import check_out
    from models.training.progress import ProgressBar

    torch.set_num_threads(threads)
    options = _options(flags)
    # Before the data, which may take long.
    check_arguments(family, arguments)
    check_out(out, resume=resume)
    if reason := warn_of_name(out):
        warn(reason)
    rows = load(data)
    for line in warnings_of(rows):
        warn(line)
    try:
        report = train(
            rows,
            family,
            arguments,
            out,
            options=options,
            resume=resume,
            listener=ProgressBar(options.objective),
        )
    except TrainingInterrupted as stop:
        fail(str(stop), SIGNALLED + stop.number)
    except TrainingKept as kept:
        typer.echo(kept.path)
        fail(str(kept), FAULT_EXIT_CODE)
    if report.solver_note:
        warn(report.solver_note)
    bits = report.test.bits_per_dim
    typer.echo(
        f"{out}: {report.parameters:,} parameters, test {report.test.nats:.4f} nats"
        + (f", {bits:.4f} bits/dim" if bits is not None else "")
        + f"; look at {out / 'samples.png'}"
    )
    return rows


def _options(flags: dict[str, Any]) -> "TrainingOptions":
    from models.training import TrainingOptions

    return TrainingOptions.parse({k: v for k, v in flags.items() if v is not None})


def _calibrate(folder: Path, rows: "Dataset", flags: dict[str, Any]) -> None:
    """Calibrate on the test rows; a model that cannot be is trained all the same."""
    from models.scoring.card import threshold_rows
    from pushforward.cli.calibration import calibrate_held_out

    try:
        made = calibrate_held_out(folder, rows, _options(flags))
    except (ValueError, RuntimeError, OSError) as error:
        warn(f"{folder}: not calibrated: {error}; see pushforward calibrate --help")
        return
    facts = made.facts()
    stated = ", ".join(f"alpha {alpha}: {value}" for alpha, value, _ in threshold_rows(facts))
    typer.echo(
        f"{folder}: calibrated by {facts['statistic']} on {facts['rows']:,} test rows; thresholds: "
        f"{stated}",
        err=True,
    )
    for line in facts["warnings"]:
        warn(str(line))
