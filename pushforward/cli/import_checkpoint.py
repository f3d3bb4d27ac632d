"""`pushforward import`: from a checkpoint of public code to a model folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pushforward.cli.graphs import Export, write_graphs
from pushforward.cli.plain_errors import interruptible, plain_errors, warn
from pushforward.cli.train import read_arguments

if TYPE_CHECKING:
    from rich.console import Console

    from models.importers.report import Report

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[SOURCE] CHECKPOINT",
        help="The code that made the checkpoint, such as rosinality/glow-pytorch (left out, it is "
        "recognised by the keys), and its file.",
        show_default=False,
    ),
]
Out = Annotated[Path | None, typer.Option(help="Model folder to write.")]
Config = Annotated[
    Path | None,
    typer.Option(help="JSON file with hyper-parameters, named as in the source.", exists=True),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="One hyper-parameter, key=value; the value is JSON."),
]
Preprocessing = Annotated[
    Literal["source", "none"],
    typer.Option(
        help="source: the flow takes data as users have them, such as pixels 0..255; none: it "
        "takes the source's own inputs."
    ),
]
Weights = Annotated[
    Literal["model", "ema"] | None,
    typer.Option(
        help="The weights as trained, or their moving average, if the file has both; left out, "
        "those that the source's own script samples from.",
        show_default=False,
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        help="Name of the flow inside a larger module, such as model.flow: other tensors are "
        "left out.",
        show_default=False,
    ),
]
FeatureNames = Annotated[
    str | None,
    typer.Option(
        help="Names of the columns in the order the flow takes them, joined by commas.",
        show_default=False,
    ),
]
Decoding = Annotated[
    Literal["sequential", "jacobi", "passes"] | None,
    typer.Option(
        help="How autoregressive maps are computed in their slow direction; jacobi: all features "
        "at once, again until nothing changes, and answers can say how often.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report, and write nothing.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Let the model take the place of another in --out.")
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Run code that the file asks for; only for files whose author you trust.",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]

# Where output is not a terminal, tables are wide: nothing is cut off in logs.
_WIDTH_OF_LOGS = 180
_COLOURS = {
    "recognised": "green",
    "mended": "cyan",
    "ignored": "dim",
    "warning": "yellow",
    "refused": "bold red",
    "missing": "bold red",
}


def import_checkpoint(
    words: Words,
    *,
    out: Out = None,
    config: Config = None,
    settings: Settings = None,
    preprocessing: Preprocessing = "source",
    weights: Weights = None,
    prefix: Prefix = None,
    decoding: Decoding = None,
    feature_names: FeatureNames = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    allow_pickle: AllowPickle = False,
    json: Json = False,
    threads: Threads = 1,
    export: Export = False,
) -> None:
    """Turn a checkpoint of public code into a model folder with the same likelihood."""
    with plain_errors():
        if len(words) > 2:
            raise ValueError(f"expected [SOURCE] CHECKPOINT, got {' '.join(words)}")
        if out is None and not dry_run:
            raise ValueError("--out: expected a folder to write, or --dry-run")
        if out is not None and not dry_run:
            from models.checkpoints.folder import check_target
            from models.checkpoints.naming import warn_of_name

            check_target(out, replaces=overwrite)
            if reason := warn_of_name(out):
                warn(reason)
        if allow_pickle:
            warn("--allow-pickle lets the file run any code it holds, as you")
        asked = {
            "source": words[0] if len(words) == 2 else None,
            "config": read_arguments(config, settings or []),
            "preprocessing": preprocessing,
            "weights": weights,
            "prefix": prefix,
            "allow_pickle": allow_pickle,
            "decoding": decoding,
        }
        with interruptible():
            names = None if feature_names is None else feature_names.split(",")
            folder = None if dry_run else out
            _run(Path(words[-1]), asked, names, folder, as_json=json, threads=threads)
            if export and folder is not None:
                write_graphs(folder)


def _run(
    path: Path,
    asked: dict[str, Any],
    names: list[str] | None,
    out: Path | None,
    *,
    as_json: bool,
    threads: int,
) -> None:
    import torch

    from models.datasets import schema
    from models.importers.report import HyperParametersMissing, ImportRefused
    from models.importers.run import Request, run
    from models.importers.store import save_import

    torch.set_num_threads(threads)
    try:
        flow, report = run(path, Request(**asked))
    except ImportRefused as error:
        if error.report is not None:
            _show(error.report, as_json=as_json)
        if out is None and isinstance(error, HyperParametersMissing):
            typer.echo(f"to import it: {error}")
            return
        raise
    if names is not None:
        features = flow.features if len(flow.event_shape) == 1 else 0
        columns = schema.to_json(schema.named([name.strip() for name in names], features))
        flow.provenance[schema.COLUMNS_KEY] = columns
    if out is None:
        _show(report, as_json=as_json)
        return
    written = save_import(flow, out, report)
    report.likelihood, report.config = written.provenance["likelihood"], written.config
    _show(report, as_json=as_json)
    typer.echo(f"{out}: written; serve it with: pushforward serve {out}", err=as_json)


def _show(report: "Report", *, as_json: bool) -> None:
    if as_json:
        import orjson

        facts = {**report.provenance(), "family": report.family, "config": report.config}
        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_LOGS)
    _show_items(console, report)
    _show_settings(console, report)
    _show_likelihood(console, report)


def _show_items(console: "Console", report: "Report") -> None:
    rows = [
        (f"[{_COLOURS[item.kind]}]{item.kind}[/]", _plain(item.what), _plain(item.detail))
        for item in report.items
    ]
    _table(console, report.file, ("", "what", "finding"), rows)


def _show_settings(console: "Console", report: "Report") -> None:
    rows = []
    for item in report.settings:
        colour = _COLOURS.get(item.origin, "")
        origin = f"[{colour}]{item.origin}[/]" if colour else item.origin
        value = "?" if item.origin == "missing" else _value(item.value)
        rows.append((item.name, value, origin, _plain(item.reason)))
    if rows:
        _table(console, f"hyper-parameters of {report.source}", ("", "value", "", "why"), rows)


def _show_likelihood(console: "Console", report: "Report") -> None:
    likelihood = report.likelihood
    if not likelihood:
        return
    rows = [
        (
            term["name"],
            f"{term['nats']:+.6g}" if term["nats"] else "",
            f"{term['bits_per_dim']:+.6g}" if term["nats"] else "",
            _plain(term["note"]),
        )
        for term in likelihood["terms"]
    ]
    number = likelihood["source_number"]
    total = f"{number['factor']:.6g} * (log_prob {number['nats']:+.8g})"
    rows.append(("source's number", total, "", _plain(number["name"])))
    if "on_golden_rows" in likelihood:
        example = likelihood["on_golden_rows"]
        means = f"ours {example['log_prob']:.6g} nats, the source's {example['source_number']:.6g}"
        rows.append(("golden rows", means, f"{example['bits_per_dim']:.6g}", "means"))
    title = f"likelihood: log_prob is the {likelihood['log_prob']}"
    _table(console, title, ("the source adds", "nats", "bits/dim", "why"), rows)


def _table(
    console: "Console", title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> None:
    from rich.table import Table

    table = Table(title=_plain(title), title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", style="bold" if index == 0 else "")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _value(value: Any) -> str:
    import orjson

    return _plain(orjson.dumps(value).decode())


def _plain(text: str) -> str:
    """Text that rich prints as it is: brackets in keys and shapes are no markup."""
    from rich.markup import escape

    return escape(text)
