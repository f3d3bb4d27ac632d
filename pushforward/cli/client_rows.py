"""What the commands on rows share: files to arrays, pieces with a bar, arrays to files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pushforward.cli.connection import check_output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pushforward.client import Client, Failure, Samples
    from pushforward.client.failures import Failed

    Array = NDArray[np.generic]

_SHOWN = 5
_MOST_EXPLAINED = 20


@dataclass(frozen=True, slots=True)
class RowRequest:
    """What a command on rows was given."""

    file: str
    context: str | None
    label: int | None
    chunk_rows: int
    invalid: str
    failed: str
    options: Mapping[str, Any] = field(default_factory=dict)


def check_file(text: str | None) -> str | None:
    """Refuse a file that is not there before a server is asked.

    Raises:
        BadParameter: it does not exist.
    """
    from pushforward.cli import tables

    if text is not None:
        try:
            tables.find_file(text)
        except FileNotFoundError as error:
            raise typer.BadParameter(f"file {error.filename!r} does not exist") from None
    return text


def check_writable(path: Path | None) -> Path | None:
    """Refuse an output that cannot be written before anything is computed for it."""
    suffixes = (".npy", ".npz", ".csv", ".parquet", ".png")
    return None if path is None else check_output(path, suffixes)


def read_context(file: str | None, label: int | None) -> Any:
    """Read the context of a call.

    Raises:
        BadParameter: it is given twice.
    """
    if file is not None and label is not None:
        raise typer.BadParameter("give --context or --label, not both")
    return label if file is None else read_values(file, "context")


def read_values(file: str, array: str) -> "Array | bytes":
    """Read a file whose columns have no names that a model knows."""
    from pushforward.cli import tables

    rows = tables.read(file, array=array)
    return rows if isinstance(rows, bytes) else rows.values


def ask(server: "Client", operation: str, asked: RowRequest, model: str | None) -> dict[str, Any]:
    """Ask for an operation on rows, in pieces with a bar.

    Returns:
        What the client's method gives, by name.
    """
    from pushforward.cli.client_progress import progress_bar

    context = read_context(asked.context, asked.label)
    values, columns = _read_rows(asked.file, operation, server, model)
    with progress_bar(operation) as progress:
        answer = getattr(server, operation)(
            values,
            context=context,
            columns=columns,
            chunk_rows=asked.chunk_rows,
            invalid=asked.invalid,
            failed=_to_client(asked.failed),
            progress=progress,
            **asked.options,
        )
    outputs: dict[str, Any] = answer._asdict() if hasattr(answer, "_asdict") else {}
    return outputs or {operation: answer}


def draw(
    server: "Client", num_samples: int, chunk_rows: int, failed: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Draw in chunks with a bar, all by one version of the model.

    Raises:
        ValueError: the model was replaced in between.
    """
    from pushforward.cli.client_progress import progress_bar
    from pushforward.client.failures import join_masked

    parts: list[Samples] = []
    options = {**options, "chunk_rows": chunk_rows, "failed": _to_client(failed)}
    with progress_bar("sample") as progress:
        for part in server.stream(num_samples, **options):
            parts.append(part)
            if part.version != parts[0].version:
                versions = f"{parts[0].version} became {part.version}"
                raise ValueError(f"{part.model} {versions}: draw again")
            progress(sum(len(one.x) for one in parts), num_samples)
    outputs = parts[0]._asdict()
    for name in ("x", "log_prob"):
        outputs[name] = join_masked([getattr(part, name) for part in parts])
    return outputs


def write(
    server: "Client", outputs: dict[str, Any], failed: str, output: Path | None, *, header: bool
) -> None:
    """Write an answer, and say which rows have none."""
    import numpy as np

    from pushforward.cli import outputs as files

    first = next(iter(outputs.values()))
    _report(getattr(first, "failures", ()), len(first))
    if failed == "values":
        outputs = {
            name: value.data if isinstance(value, np.ma.MaskedArray) else value
            for name, value in outputs.items()
        }
    names: Sequence[str] = ()
    if "x" in outputs and (header or (output is not None and output.suffix == ".parquet")):
        names = server.describe(outputs["model"]).get("feature_names") or ()
    files.write(output, outputs, names, header=header)


def report_anomalies(scored: dict[str, Any], decision: Mapping[str, float | None]) -> None:
    """Say how many rows are anomalies, by what, and after which calibration."""
    import numpy as np

    if scored["is_anomaly"] is None:
        return
    limit = next(f"{name} {value:g}" for name, value in decision.items() if value is not None)
    known = scored["calibration"]
    by = "" if known is None else f", calibration {known['id']}"
    # Of several classes there may be no one number.
    by += f" of {known['rows']} rows" if known is not None and known["rows"] is not None else ""
    flags = np.ma.filled(scored["is_anomaly"], fill_value=False)
    typer.echo(f"{flags.sum()} of {len(flags)} rows are anomalies ({limit}{by})", err=True)


def report_explanation(scored: dict[str, Any]) -> None:
    """Say which features explain the first rows that are explained."""
    rows = [(row, named) for row, named in enumerate(scored["explanation"] or ()) if named]
    for row, named in rows[:_MOST_EXPLAINED]:
        parts = [
            f"{one['feature']} {one['value']:g}, expected {one['expected']:g} "
            f"({math.inf if one['nats'] is None else one['nats']:.3g} nats)"
            for one in named
        ]
        typer.echo(f"row {row}: {'; '.join(parts)}", err=True)
    if len(rows) > _MOST_EXPLAINED:
        typer.echo(f"and {len(rows) - _MOST_EXPLAINED} more; -o FILE.npz holds all", err=True)


def _to_client(failed: str) -> "Failed":
    # With a mask comes what became of each row.
    return "raise" if failed == "raise" else "mask"


def _report(failures: "Sequence[Failure]", rows: int) -> None:
    """Say which rows have no answer, and why."""
    if failures:
        shown = ", ".join(
            f"{row} ({status}{f': {reason}' if reason else ''})"
            for row, status, reason in failures[:_SHOWN]
        )
        more = f" and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        typer.echo(f"{len(failures)} of {rows} rows have no answer: rows {shown}{more}", err=True)


def _read_rows(
    file: str, operation: str, server: "Client", model: str | None
) -> "tuple[Array | bytes, Sequence[str] | None]":
    from pushforward.cli import tables

    if operation == "decode":  # latents have no names
        return read_values(file, "z"), None
    rows = tables.read(file, lambda: _feature_names(server, model))
    if isinstance(rows, bytes):
        return rows, None
    if rows.ignored:
        typer.echo(f"columns that the model does not have: {', '.join(rows.ignored)}", err=True)
    return rows.values, rows.columns or None


def _feature_names(server: "Client", model: str | None) -> list[str]:
    if model is not None and "@" in model:  # a version of it, which need not be the one listed
        return list(server.describe(model).get("feature_names") or ())
    served = server.models()
    if model is None and len(served) > 1:
        raise ValueError("name the model with --model: its columns are matched by name")
    names = [facts for facts in served if model in (None, facts["name"])]
    return list(names[0].get("feature_names") or ()) if names else []
