"""Pictures of a load: its latencies and rate over time, or latencies over the rates of a search."""

from collections.abc import Sequence
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.extras import install_command
from pushforward.bench.recording import Recording
from pushforward.bench.summary import PERCENTILES, percentile
from pushforward.bench.text import number, rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = ("p50", "p90", "p99")
_STEPS = 40
# Values that differ by more are drawn on a logarithmic axis.
_WIDE = 10.0


def require_plots() -> None:
    """Say what is missing before anything is measured.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import_module("matplotlib")
    except ModuleNotFoundError:
        raise ValueError(f"--plot needs matplotlib: {install_command('bench')}") from None


def draw(report: dict[str, Any], recording: Recording | None, path: Path) -> None:
    """Draw a report into a .png or .svg file; see `make_figure`."""
    make_figure(report, recording).savefig(path, dpi=120)


def make_figure(report: dict[str, Any], recording: Recording | None) -> "Figure":
    """Draw a report.

    Args:
        report: as it is printed.
        recording: of one load; None of a search.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    title = f"{report['model']} {report['operation']}, {rows(report['rows'])}, {report['format']}"
    figure.suptitle(title, fontsize="medium")
    if recording is None:
        _draw_rates(figure.add_subplot(), report)
    else:
        over_time, over_share = figure.subplots(1, 2)
        _draw_time(over_time, recording)
        _draw_shares(over_share, recording)
    return figure


def _draw_rates(axes: "Axes", report: dict[str, Any]) -> None:
    """Latencies over the rate, of all rates that were tried."""
    steps = sorted(
        (step for step in report["steps"] if step["latency_ms"]), key=lambda step: step["rate"]
    )
    rates = [step["rate"] for step in steps]
    latencies = {name: [step["latency_ms"][name] for step in steps] for name in _SHOWN}
    for name, values in latencies.items():
        axes.plot(rates, values, marker=".", label=name)
    missed = [step for step in steps if not step["is_reached"]]
    axes.plot(
        [step["rate"] for step in missed],
        [step["latency_ms"]["p99"] for step in missed],
        "rx",
        label="not reached",
    )
    axes.axhline(report["p99_ms"], color="gray", linestyle=":", label="bound of p99")
    if report["knee_per_second"]:
        axes.axvline(report["knee_per_second"], color="black", linestyle="--", label="knee")
    axes.set(xlabel="requests/s", ylabel="latency, ms")
    _scale(axes, "x", rates)
    _scale(axes, "y", [report["p99_ms"], *chain.from_iterable(latencies.values())])
    axes.legend(fontsize="small")


def _scale(axes: "Axes", which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Make one axis linear or logarithmic, with numbers at it that people read."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    if values and max(values) > _WIDE * min(values):
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _draw_time(axes: "Axes", recording: Recording) -> None:
    """Latencies by when requests were due, and how many were answered."""
    good = recording.is_ok
    if not good.any():
        return
    due, latency = recording.due[good], 1e3 * (recording.done - recording.due)[good]
    start = due.min()
    edges = np.linspace(0, due.max() - start + 1e-9, _STEPS + 1)
    step = np.clip(np.digitize(due - start, edges) - 1, 0, _STEPS - 1)
    middles = (edges[:-1] + edges[1:]) / 2
    filled = np.unique(step)
    shown = []
    for name, percent in zip(_SHOWN, PERCENTILES, strict=False):
        found = [percentile(latency[step == index], percent) for index in filled]
        axes.plot(middles[filled], found, label=name)
        shown += found
    axes.set(xlabel="seconds", ylabel="latency, ms")
    _scale(axes, "y", shown)
    axes.legend(fontsize="small", loc="upper left")
    rates = axes.twinx()
    width = edges[1] - edges[0]
    rates.plot(middles, np.bincount(step, minlength=_STEPS) / width, color="gray", alpha=0.5)
    rates.set(ylabel="answered requests/s (gray)", ylim=(0, None))
    _scale(rates, "y", [])
    # Behind the latencies and their legend.
    axes.set(zorder=rates.get_zorder() + 1, facecolor="none")


def _draw_shares(axes: "Axes", recording: Recording) -> None:
    """Which share of the requests took longer than what."""
    latency = np.sort(1e3 * (recording.done - recording.due)[recording.is_ok])
    if not len(latency):
        return
    beyond = 1 - np.arange(len(latency)) / len(latency)
    axes.plot(latency, beyond)
    axes.set(xlabel="latency, ms", ylabel="share of requests beyond", yscale="log")
    _scale(axes, "x", latency[[0, -1]].tolist())
    axes.grid(alpha=0.3)
