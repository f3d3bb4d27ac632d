"""`pushforward calibrate`: scores of held-out rows beside a model, so that alarms have a rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from pushforward.cli.model_argument import LocalModelFolder, model_path
from pushforward.cli.plain_errors import plain_errors, warn

if TYPE_CHECKING:
    from models.datasets import Dataset
    from models.scoring.calibration import Calibration
    from pushforward.cli.calibration import Inputs
    from pushforward.cli.evidence import OpenedModel

Data = Annotated[
    str,
    typer.Option(help="Rows that the model was never trained on: what `train --data` takes."),
]
Anomalies = Annotated[
    str | None,
    typer.Option(help="Rows that should be found, the same way: AUROC, AP and TPR are reported."),
]
Statistic = Annotated[
    str,
    typer.Option(
        help="auto, neg_log_prob, typicality, complexity, latent, or ratio:NAME or "
        "ratio:NAME@VERSION with --background; auto is complexity for 8-bit images, else "
        "neg_log_prob."
    ),
]
Background = Annotated[
    Path | None,
    typer.Option(
        parser=model_path,
        help="Folder of the model NAME of ratio:NAME, which the server must serve too.",
    ),
]
Rows = Annotated[
    Literal["all", "auto", "test"],
    typer.Option(
        help="all: every row, refused where the model was trained on one; auto: every row but "
        "those; test: the model's test rows."
    ),
]
OrderColumn = Annotated[
    str | None,
    typer.Option(help="Column with the time of each row: the last part in time is taken."),
]
Share = Annotated[
    float, typer.Option(help="Of the rows, with --order: how large the last part is.")
]
Context = Annotated[
    str | None,
    typer.Option(
        help="File with the context of each row, or one row for all, of a model that is "
        "conditional on numbers. (Classes are a column of --data: ?label=COLUMN.)"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


class _Request(NamedTuple):
    """What was asked for."""

    folder: Path
    data: str
    anomalies: str | None
    statistic: str
    background: Path | None
    rows: str
    order: str | None
    share: float
    context: str | None


def calibrate(
    folder: LocalModelFolder,
    *,
    data: Data,
    anomalies: Anomalies = None,
    statistic: Statistic = "auto",
    background: Background = None,
    rows: Rows = "all",
    order: OrderColumn = None,
    share: Share = 0.2,
    context: Context = None,
    json: Json = False,
) -> None:
    """Calibrate anomaly scores on held-out rows, so that a false-alarm rate can be asked for."""
    request = _Request(folder, data, anomalies, statistic, background, rows, order, share, context)
    with plain_errors():
        made = _run(request)
        show(folder, made, as_json=json)


def _run(request: _Request) -> "Calibration":
    from pushforward.cli.calibration import CalibrationPlan, calibrate_model, store
    from pushforward.cli.evidence import open_model

    other = _background(request)
    model = open_model(request.folder)
    inputs, dataset, checks = _read(request, model)
    given = None if request.anomalies is None else _anomalies(request.anomalies, model)
    unchecked = () if checks["is_checked"] else (checks["training_rows"],)
    plan = CalibrationPlan(
        dataset=dataset,
        statistic=request.statistic,
        background=other,
        anomalies=given,
        checks=checks,
        warnings=unchecked,
    )
    made = calibrate_model(model, inputs, plan)
    store(request.folder, made)
    return made


def _background(request: _Request) -> "OpenedModel | None":
    """Open the other model of a ratio.

    Raises:
        ValueError: a ratio without one, one without a ratio, or of another name or version.
    """
    from models.scoring.statistics import parse_statistic
    from pushforward.cli.evidence import open_model

    reference = None
    if request.statistic != "auto":
        _, reference = parse_statistic(request.statistic)
    folder = request.background
    if folder is None:
        if reference is not None:
            raise ValueError(
                f"--statistic {request.statistic}: name the folder of the model {reference} with "
                "--background FOLDER"
            )
        return None
    if reference is None:
        raise ValueError(
            f"--background: expected --statistic ratio:NAME beside it, got {request.statistic}"
        )
    model = open_model(_background_folder(folder, reference))
    if model.facts.context_shape is not None:
        raise ValueError(f"--background {folder}: expected a model without context")
    return model


def _background_folder(given: Path, reference: str) -> Path:
    """The folder of NAME or NAME@VERSION, which is or lies in the one that is given.

    Raises:
        ValueError: it is of another name or version.
    """
    from pushforward.batch.locate import Reference, locate, path_in_repository
    from service.launch.exits import StartupError

    name, at, version = reference.partition("@")
    try:
        location = locate(given)
        if at and Reference.of(given).version is None and location.folder != given:
            location = locate(Path(f"{given}@{version}"))
    except StartupError as error:
        raise ValueError(str(error)) from None
    if location.name != name or (at and location.version != version):
        has_version = at or "/" in path_in_repository(location)
        called = f"{location.name}@{location.version}" if has_version else location.name
        raise ValueError(
            f"--statistic ratio:{reference}: a server calls the model in {given} {called!r}: "
            f"write ratio:{called}"
        )
    return location.folder


def _read(request: _Request, model: "OpenedModel") -> "tuple[Inputs, str, dict[str, Any]]":
    """The calibration rows, what they are called, and what was checked of them.

    Raises:
        ValueError: they are not the model's kind of rows, or it was trained on some of them.
    """
    import numpy as np

    from models.datasets.order import read_order, without_column
    from models.datasets.schema import feature_names
    from models.datasets.tables import read_rows
    from models.scoring.rows import check_unseen, last_in_order
    from pushforward.cli.calibration import make_inputs
    from pushforward.cli.choose_rows import choose_rows

    facts, text = model.facts, request.data
    order = None if request.order is None else read_order(text, request.order)
    if request.order is not None and request.order not in feature_names(facts.provenance):
        text = without_column(text, request.order)
    data = _load(text, model)
    context = None if request.context is None else read_rows(request.context).values
    inputs = make_inputs(facts, data, context)
    chosen = choose_rows(
        data,
        request.rows,
        request.folder,
        facts.provenance,
        instead="give it rows that were kept apart",
    )
    dataset = data.recipe or data.name
    dataset += f", {request.rows} rows" if request.rows == "test" else ""
    if order is not None:
        if not 0 < request.share <= 1:
            raise ValueError(f"--share: expected more than 0 and at most 1, got {request.share:g}")
        last = last_in_order(order[chosen], request.share)
        typer.echo(
            f"the last {len(last)} of {len(chosen)} rows by {request.order}, from "
            f"{order[chosen][last[0]]} on",
            err=True,
        )
        chosen = chosen[np.sort(last)]
        dataset += f", last {request.share:.0%} by {request.order}"
    inputs = inputs.take(chosen)
    whole = data if request.rows == "all" else None
    checked = check_unseen(inputs.data, request.folder, facts.provenance, whole=whole)
    checks = {
        "training_rows": checked.what,
        "is_checked": checked.is_known,
        "rows_given": len(data),
        "rows": len(inputs.data),
        "order": request.order,
        "share": request.share if request.order is not None else None,
    }
    return inputs, dataset, checks


def _load(text: str, model: "OpenedModel") -> "Dataset":
    """Rows by name, as `evaluate` reads them."""
    from models.datasets import load, schema

    provenance = model.facts.provenance
    data = load(text, features=schema.feature_names(provenance))
    if data.ignored:
        typer.echo(f"columns that the model does not have: {', '.join(data.ignored)}", err=True)
    elif data.columns and not schema.feature_names(provenance):
        typer.echo(
            "the model does not know the names of its columns: those of the table are taken in "
            "their order",
            err=True,
        )
    return schema.match_classes(data, schema.class_names(provenance))


def _anomalies(text: str, model: "OpenedModel") -> "Inputs":
    from pushforward.cli.calibration import make_inputs

    data = _load(text, model)
    if data.anomaly is not None and data.anomaly.any():
        data = data.take(data.anomaly)
    return make_inputs(model.facts, data)


def show(folder: Path, calibration: "Calibration", *, as_json: bool) -> None:
    """Print what a calibration says: thresholds, probes, anomalies; warnings on stderr."""
    from models.scoring.card import probe_rows, threshold_rows

    facts = calibration.facts()
    checks = calibration.report["checks"]
    if as_json:
        import orjson

        content = {"folder": str(folder), **facts, "checks": checks}
        typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    else:
        by = " (auto)" if checks["statistic_chosen_by"] == "auto" else ""
        typer.echo(
            f"{folder}: calibration {facts['id']}: {facts['statistic']}{by} of "
            f"{facts['rows']:,} rows ({facts['dataset']})"
        )
        _print_table(("alpha", "threshold", "95 % bound"), threshold_rows(facts))
        if found := probe_rows(facts):
            _print_table(("rows", "statistic", "AUROC"), found)
    for line in facts["warnings"]:
        warn(str(line))


def _print_table(headings: tuple[str, ...], rows: list[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*headings, box=None)
    for cells in rows:
        table.add_row(*cells)
    Console().print(table)
