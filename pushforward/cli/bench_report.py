"""The report of `pushforward bench` as text."""

from typing import TYPE_CHECKING, Any

import typer

from pushforward.bench.summary import num_requests
from pushforward.bench.text import number, rows

if TYPE_CHECKING:
    from rich.table import Table

    from pushforward.bench.knee import Step

_COLUMNS = ("mean", "p50", "p90", "p99", "p99.9", "max")


def show_step(step: "Step") -> None:
    """Print one rate of a search while it goes on, to standard error."""
    latency = step.figures["latency_ms"]
    p99 = f"p99 {number(latency['p99'])} ms" if latency else "no answers"
    outcome = f"not reached: {step.problem}" if step.problem else "reached"
    longer = ", tried for longer" if step.is_confirmation else ""
    typer.echo(f"{number(step.rate):>10}/s  {p99:<16} {outcome}{longer}", err=True)


def show(report: dict[str, Any]) -> None:
    """Print a report."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 120
    console.print(_headline(report))
    if report["mode"] == "knee":
        knee = report["knee"]
        if knee is None:
            is_ended = report["is_interrupted"] or report["given_up"]
            none = f"No rate has a p99 below {report['p99_ms']:g} ms"
            found = "The search was ended early" if is_ended else none
            console.print(f"{found}: {report['problem']}")
            return
        console.print(
            f"The highest rate with p99 below {report['p99_ms']:g} ms: "
            f"{number(report['knee_per_second'])} requests/s"
        )
        console.print(_rates(report))
        report = {**report, **knee, "limited_by": report["limited_by"]}
    console.print(_facts(report))
    console.print(_latencies(report))


def _headline(report: dict[str, Any]) -> str:
    return (
        f"{report['operation']} of {report['model']} {report['version']} ({report['engine']}), "
        f"{rows(report['rows'])} a request, {report['format']}, "
        f"{report['request_bytes']:,.0f} bytes; {_mode(report)}"
    )


def _mode(report: dict[str, Any]) -> str:
    if report["mode"] == "closed":
        return f"closed loop of {report['connections']} connections"
    arrivals = f"{report['arrivals']} arrivals"
    if report["mode"] == "open":
        return f"open loop at {number(report['rate'])}/s, {arrivals}"
    return f"search of the knee, {arrivals}"


def _facts(report: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(report):
        table.add_row(name, text)
    return table


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    errors, generator = report["errors"], report["generator"]
    offered = report.get("offered_per_second")
    of = f" (due: {number(offered)})" if offered else ""
    refused = ", ".join(f"{status}: {n:,}" for status, n in errors["by_status"].items())
    waiting = generator["waiting_share"]
    waited = "" if waiting is None else f", waited for one {100 * waiting:.0f} %"
    late = generator["late_ms"]
    if offered and late:
        waited += f"; late by {number(late['p99'])} ms (p99)"
    shares = "; shares its cores with the server" if report["shares_cores"] else ""
    return [
        ("requests/s", f"{number(report['requests_per_second'])}{of}"),
        ("rows/s", f"{number(report['rows_per_second'])}"),
        ("requests", f"{report['requests']:,} answered in {number(report['seconds'])} s"),
        ("errors", f"{errors['total']:,}{f' ({refused})' if refused else ''}"),
        ("server", _server(report["server_metrics"], report["warmup_seconds"])),
        ("generator", f"on a core {100 * generator['cpu_share']:.0f} %{waited}{shares}"),
        ("limited by", _limit(report)),
    ]


def _limit(report: dict[str, Any]) -> str:
    limit, errors = report["limited_by"], report["errors"]["total"]
    if limit == "server" and errors:
        return f"{limit}: {errors:,} of {num_requests(report):,} requests have no numbers"
    return limit or "nothing: the rate was kept"


def _server(counted: dict[str, Any], warmup_seconds: float) -> str:
    if "unavailable" in counted:
        return str(counted["unavailable"])
    if counted["mean_batch_rows"] is None:
        return "no batches counted"
    warmup = ", with the warm-up" if warmup_seconds else ""
    return (
        f"{counted['batches']:,.0f} batches of {number(counted['mean_batch_rows'])} rows, "
        f"computed in {number(counted['mean_compute_ms'])} ms{warmup}"
    )


def _latencies(report: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(title="milliseconds", title_justify="left", box=None)
    table.add_column("")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    timing = report["server_timing_ms"]
    for name, values in (
        ("latency", report["latency_ms"]),
        ("from when it was sent", report.get("latency_from_sent_ms")),
        ("queue (Server-Timing)", timing["queue"]),
        ("compute (Server-Timing)", timing["compute"]),
        ("errors", report["errors"]["latency_ms"]),
    ):
        if values:
            table.add_row(name, *(number(values[column]) for column in _COLUMNS))
    return table


def _rates(report: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(box=None)
    for name in ("asked/s", "answered/s", "p50 ms", "p99 ms", "errors", ""):
        table.add_column(name, justify="right" if name else "left")
    for step in report["steps"]:
        latency = step["latency_ms"] or {}
        shown = (number(latency[name]) if latency else "" for name in ("p50", "p99"))
        table.add_row(
            f"{number(step['rate'])}",
            f"{number(step['requests_per_second'])}",
            *shown,
            f"{step['errors']['total']:,}",
            step["problem"] or "",
        )
    return table
