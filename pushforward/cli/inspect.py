"""`pushforward inspect`: what a model folder holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushforward.cli.plain_errors import plain_errors

if TYPE_CHECKING:
    from models.flow import Flow

Folder = Annotated[Path, typer.Argument(help="Model folder.", exists=True, file_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def inspect(folder: Folder, *, json: Json = False) -> None:
    """Show what a model folder holds and whether it reproduces itself."""
    with plain_errors():
        _run(folder, as_json=json)


def _run(folder: Path, *, as_json: bool) -> None:
    import models
    from models.checkpoints.folder import digest

    flow = models.load(folder)
    weights = digest(folder)
    facts = {**describe(flow), "weights_sha256": weights, **_graphs(folder, flow, weights)}
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


def describe(flow: "Flow") -> dict[str, Any]:
    """All that is known of a loaded flow, as JSON can hold it.

    It was loaded, so it has reproduced its golden rows; `accuracy` says how closely.
    """
    from models.datasets.schema import class_names, discrete_names, feature_names

    support = flow.facts.support
    return {
        "family": flow.family,
        "event_shape": list(flow.event_shape),
        "features": flow.features,
        "context_shape": None if flow.context_shape is None else list(flow.context_shape),
        "num_classes": flow.facts.num_classes,
        "feature_names": list(feature_names(flow.provenance)) or None,
        "class_names": list(class_names(flow.provenance)) or None,
        "discrete": list(discrete_names(flow.facts.discrete, flow.provenance)) or None,
        "num_levels": flow.facts.num_levels,
        "support": None if support is None else [support.low, support.high],
        "dtype": str(flow.dtype).removeprefix("torch."),
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "bytes": sum(tensor.nbytes for tensor in flow.state_dict().values()),
        "golden_replay": "passed",
        "accuracy": flow.accuracy,
        "provenance": flow.provenance,
        "config": flow.config,
    }


def _graphs(folder: Path, flow: "Flow", weights_digest: str) -> dict[str, Any]:
    """The certificate of the folder's ONNX graphs, or why they are refused; nothing without."""
    from models.onnx.load import has_export, read_export
    from models.onnx.validate import GraphRefused

    if not has_export(folder):
        return {}
    try:
        return {"onnx": read_export(folder, flow, weights_digest).certificate}
    except GraphRefused as error:
        return {"onnx": f"refused: {error}"}


def _lines(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested facts to rows of a table; what is absent is left out."""
    lines: list[tuple[str, str]] = []
    for name, value in facts.items():
        label = f"{prefix}{name}"
        if isinstance(value, dict):
            lines += _lines(value, f"{label}.")
        elif value is not None:
            lines.append((label, f"{value:.6g}" if isinstance(value, float) else str(value)))
    return lines
