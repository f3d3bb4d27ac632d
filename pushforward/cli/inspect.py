"""`pushforward inspect`: what a model folder holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushforward.cli.model_argument import ModelFolder
from pushforward.cli.plain_errors import plain_errors

if TYPE_CHECKING:
    from models.checkpoints.facts import ModelFacts

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def inspect(folder: ModelFolder, *, json: Json = False) -> None:
    """Show what a model folder holds and whether it reproduces itself."""
    with plain_errors():
        _run(folder, as_json=json)


def _run(folder: Path, *, as_json: bool) -> None:
    facts = describe_model(folder)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(folder), title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(facts):
        table.add_row(name, value)
    Console().print(table)


def describe_model(folder: Path) -> dict[str, Any]:
    """All that is known of a model, once it has reproduced its golden rows.

    Raises:
        ValueError: it does not, or there is none.
    """
    facts = _by_graphs(folder) or _by_torch(folder)
    facts["calibration"] = _calibration(folder, facts["dtype"])
    return facts


def _by_graphs(folder: Path) -> dict[str, Any]:
    """Replay the golden rows on certified graphs, without torch; nothing where that cannot be."""
    from models.checkpoints.manifest import WEIGHTS_FILE, digest
    from models.checkpoints.tensor_file import read_sizes
    from service.engines.certified import open_certified
    from service.engines.selection import EngineUnavailable

    try:
        facts, selection = open_certified(folder, None, 1)
    except EngineUnavailable:
        return {}
    size = sum(read_sizes(folder / WEIGHTS_FILE).values())
    return {
        **_describe(facts, selection.engine.dtype, size),
        "weights_sha256": digest(folder),
        "onnx": selection.certificate,
    }


def _by_torch(folder: Path) -> dict[str, Any]:
    """Load the flow, which replays its golden rows."""
    import models
    from models.checkpoints.facts import facts_of
    from models.checkpoints.folder import digest
    from models.onnx.load import has_export, read_export
    from models.onnx.validate import GraphRefused

    flow = models.load(folder)
    dtype = str(flow.dtype).removeprefix("torch.")
    size = sum(tensor.nbytes for tensor in flow.state_dict().values())
    weights = digest(folder)
    facts = {**_describe(facts_of(flow), dtype, size), "weights_sha256": weights}
    if not has_export(folder):
        return facts
    try:
        return {**facts, "onnx": read_export(folder, flow, weights).certificate}
    except GraphRefused as error:
        return {**facts, "onnx": f"refused: {error}"}


def _describe(facts: "ModelFacts", dtype: str, size: int) -> dict[str, Any]:
    """All that is known of a model, as JSON can hold it.

    It has reproduced its golden rows; `accuracy` says how closely.
    """
    from models.datasets.schema import class_names, discrete_names, feature_names

    return {
        "family": facts.family,
        "event_shape": list(facts.event_shape),
        "features": facts.features,
        "context_shape": None if facts.context_shape is None else list(facts.context_shape),
        "num_classes": facts.num_classes,
        "feature_names": list(feature_names(facts.provenance)) or None,
        "class_names": list(class_names(facts.provenance)) or None,
        "discrete": list(discrete_names(facts.discrete, facts.provenance)) or None,
        "num_levels": facts.num_levels,
        "support": None if facts.support is None else list(facts.support),
        "dtype": dtype,
        "parameters": facts.num_parameters,
        "bytes": size,
        "golden_replay": "passed",
        "accuracy": facts.accuracy,
        "provenance": facts.provenance,
        "config": facts.config,
    }


def _calibration(folder: Path, dtype: str) -> dict[str, Any] | str | None:
    """What a calibration says of itself, or why it is refused; nothing where there is none."""
    from models.scoring.errors import CalibrationError
    from models.scoring.storage import read_calibration

    try:
        calibration = read_calibration(folder, dtype=dtype)
    except CalibrationError as error:
        return f"refused: {error}"
    return None if calibration is None else calibration.facts()


def _calibration_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The same as rows of a table."""
    from models.scoring.card import probe_rows, threshold_rows

    lines = [
        (f"calibration.{name}", str(facts[name]))
        for name in ("id", "rows", "statistic", "direction", "dataset", "created")
    ]
    for alpha, threshold, bound in threshold_rows(facts):
        text = f"{threshold} (95 % bound {bound})" if bound else threshold
        lines.append((f"calibration.threshold.{alpha}", text))
    lines += [
        (f"calibration.auroc.{statistic}", f"{value}, {what}")
        for what, statistic, value in probe_rows(facts)
    ]
    return lines + [("calibration.warning", str(line)) for line in facts["warnings"]]


def _lines(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested facts to rows of a table; what is absent is left out."""
    lines: list[tuple[str, str]] = []
    for name, value in facts.items():
        label = f"{prefix}{name}"
        if name == "calibration" and isinstance(value, dict):
            lines += _calibration_lines(value)
        elif isinstance(value, dict):
            lines += _lines(value, f"{label}.")
        elif value is not None:
            lines.append((label, f"{value:.6g}" if isinstance(value, float) else str(value)))
    return lines
