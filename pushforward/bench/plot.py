"""Pictures of a load: its latencies and rate over time, or latencies over the rates of a search."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.extras import install_command
from pushforward.bench.recording import Recording
from pushforward.bench.summary import PERCENTILES, percentile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = ("p50", "p90", "p99")
_STEPS = 40


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
    """Draw a report.

    Args:
        report: as it is printed.
        recording: of one load; None of a search.
        path: a .png or .svg file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    title = f"{report['model']} {report['operation']}, {report['rows']} rows, {report['format']}"
    figure.suptitle(title, fontsize="medium")
    if recording is None:
        _draw_rates(figure.add_subplot(), report)
    else:
        over_time, over_share = figure.subplots(1, 2)
        _draw_time(over_time, recording)
        _draw_shares(over_share, recording)
    figure.savefig(path, dpi=120)


def _draw_rates(axes: "Axes", report: dict[str, Any]) -> None:
    """Latencies over the rate, of all rates that were tried."""
    steps = sorted(
        (step for step in report["steps"] if step["latency_ms"]), key=lambda step: step["rate"]
    )
    for name in _SHOWN:
        latencies = [step["latency_ms"][name] for step in steps]
        axes.plot([step["rate"] for step in steps], latencies, marker=".", label=name)
    missed = [step for step in steps if not step["is_reached"]]
    axes.plot(
        [step["rate"] for step in missed],
        [step["latency_ms"]["p99"] for step in missed],
        "rx",
        label="not reached",
    )
    axes.axhline(report["p99_ms"], color="gray", linestyle=":", label="bound of p99")
    if report["knee_per_second"]:
        axes.axvline(report["knee_per_second"], color="green", linestyle="--", label="knee")
    axes.set(xlabel="requests/s", ylabel="latency, ms", xscale="log", yscale="log")
    axes.legend(fontsize="small")


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
    for name, percent in zip(_SHOWN, PERCENTILES, strict=False):
        found = [percentile(latency[step == index], percent) for index in filled]
        axes.plot(middles[filled], found, label=name)
    axes.set(xlabel="seconds", ylabel="latency, ms", yscale="log")
    axes.legend(fontsize="small", loc="upper left")
    rates = axes.twinx()
    width = edges[1] - edges[0]
    rates.plot(middles, np.bincount(step, minlength=_STEPS) / width, color="gray", alpha=0.5)
    rates.set(ylabel="answered requests/s (gray)", ylim=(0, None))


def _draw_shares(axes: "Axes", recording: Recording) -> None:
    """Which share of the requests took longer than what."""
    latency = np.sort(1e3 * (recording.done - recording.due)[recording.is_ok])
    if not len(latency):
        return
    beyond = 1 - np.arange(len(latency)) / len(latency)
    axes.plot(latency, beyond)
    axes.set(xlabel="latency, ms", ylabel="share of requests beyond", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
