"""`pushforward bench`: how many requests a server answers, and how fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pushforward.cli.connection import check_output
from pushforward.cli.plain_errors import SIGNALLED, fail, interruptible, plain_errors, warn

if TYPE_CHECKING:
    from pushforward.bench.load import Load
    from pushforward.bench.measure import Trial

EXIT_FAILED = 1
_SIGINT = 2
_CONNECTIONS = 16
_MOST_CONNECTIONS = 512


def _check_plot(path: Path | None) -> Path | None:
    return None if path is None else check_output(path, (".png", ".svg"))


Server = Annotated[
    str,
    typer.Argument(
        metavar="URL|MODEL",
        help="A running server, or a model folder or the name of a model of the zoo: a server is "
        "started for it, with the settings of PUSHFORWARD_* variables, and ended.",
    ),
]
Model = Annotated[str | None, typer.Option(help="May be left out where the server has one.")]
Operation = Literal["log_prob", "encode", "decode", "sample", "score"]
Rows = Annotated[int, typer.Option(min=1, help="Rows of a request, or samples.")]
Connections = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Closed loop: so many clients who each wait for an answer before they ask again "
        f"[{_CONNECTIONS}]. With --rate or --knee: at most so many connections "
        f"[{_MOST_CONNECTIONS}].",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Open loop: so many requests a second, whatever has been answered; latency counts "
        "from when a request was due.",
    ),
]
Arrivals = Annotated[
    Literal["poisson", "constant"],
    typer.Option(help="Of --rate and --knee: at random, as crowds come, or at equal distances."),
]
Seconds = Annotated[float, typer.Option(min=0.1, help="Measured; of --knee, each rate.")]
Warmup = Annotated[float, typer.Option(min=0, help="Before them, not measured.")]
BodyFormat = Annotated[Literal["json", "npy"], typer.Option("--format", help="Of body and answer.")]
Compress = Annotated[bool, typer.Option("--compress", help="Send bodies in gzip.")]
Processes = Annotated[
    int, typer.Option(min=1, max=64, help="That send the load, where one core is not enough.")
]
Knee = Annotated[
    bool, typer.Option("--knee", help="Search the highest rate with p99 below --p99-ms.")
]
Bound = Annotated[float, typer.Option(min=0.01, help="Of --knee, in milliseconds.")]
Plot = Annotated[
    Path | None,
    typer.Option(
        callback=_check_plot,
        help="A .png or .svg file: latencies and rate over time; of --knee over the rates.",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="PUSHFORWARD_API_KEY", help="Better as a variable: flags are seen."),
]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds a request may take.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the rows and of the arrivals.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def bench(
    target: Server,
    *,
    model: Model = None,
    operation: Operation = "log_prob",
    rows: Rows = 1,
    connections: Connections = None,
    rate: Rate = None,
    arrivals: Arrivals = "poisson",
    seconds: Seconds = 10.0,
    warmup_seconds: Warmup = 2.0,
    form: BodyFormat = "json",
    compress: Compress = False,
    knee: Knee = False,
    p99_ms: Bound = 50.0,
    plot: Plot = None,
    processes: Processes = 1,
    api_key: ApiKey = None,
    timeout: Timeout = 30.0,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure how many requests a server answers in a second, and how fast."""
    if knee and rate is not None:
        raise typer.BadParameter("give --rate or --knee, not both")
    with _measurable():
        from pushforward.bench.measure import open_trial
        from pushforward.bench.plot import require_plots
        from pushforward.bench.requests import RequestKind

        if plot is not None:
            require_plots()
        kind = RequestKind(operation, rows, form, compress, seed)
        if rate is not None or knee:
            connections = connections or _MOST_CONNECTIONS
        with open_trial(target, model, api_key, kind) as trial:
            load = trial.load(
                seconds=seconds,
                warmup_seconds=warmup_seconds,
                connections=connections or _CONNECTIONS,
                rate=rate,
                arrivals=arrivals,
                timeout_seconds=timeout,
                processes=processes,
            )
            report = _knee(trial, load, p99_ms) if knee else trial.measure(load)
            _finish(report, plot, as_json=json)


def _knee(trial: "Trial", load: "Load", p99_ms: float) -> dict[str, Any]:
    from pushforward.cli.bench_report import show_step

    return trial.find_knee(load, p99_ms, show_step)


def _finish(report: dict[str, Any], plot: Path | None, *, as_json: bool) -> None:
    """Print a report, draw it, and exit.

    Raises:
        Exit: it was interrupted, or nothing was answered.
    """
    from pushforward.bench.plot import draw
    from pushforward.cli.bench_report import show

    for line in report["warnings"]:
        warn(line)
    recording = report.pop("recording", None)
    if as_json:
        import json

        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        show(report)
    if plot is not None:
        draw(report, recording, plot)
    if report["is_interrupted"]:
        raise typer.Exit(SIGNALLED + _SIGINT)
    figures = report["knee"] if report["mode"] == "knee" else report
    if figures is None or not figures["requests"] or figures["given_up"]:
        raise typer.Exit(EXIT_FAILED)


@contextmanager
def _measurable() -> Iterator[None]:
    """Turn what can go wrong with a server into one line and an exit code."""
    from pushforward.bench.endpoint import UnreachableError
    from pushforward.bench.own_server import StartFailedError
    from pushforward.client import AccessDenied, ClientError

    try:
        with plain_errors(), interruptible():
            yield
    except AccessDenied as error:
        fail(f"{error}; set PUSHFORWARD_API_KEY, or give --api-key", EXIT_FAILED)
    except (ClientError, StartFailedError, UnreachableError) as error:
        fail(str(error), EXIT_FAILED)
