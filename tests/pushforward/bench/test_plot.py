"""Pictures: what stands at their axes, and which line is which."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from pushforward.bench.plot import draw, make_figure
from tests.pushforward.bench.fake_loads import recorded

REPORT: dict[str, Any] = {"model": "moons", "operation": "log_prob", "rows": 1, "format": "json"}


def knee_report(*rates: float) -> dict[str, Any]:
    """A search whose last rate is not reached; latencies grow with the rate."""
    steps = [
        {
            "rate": rate,
            "is_reached": rate < rates[-1],
            "latency_ms": {"p50": rate / 1000, "p90": rate / 500, "p99": rate / 50},
        }
        for rate in rates
    ]
    knee = rates[-2] if len(rates) > 1 else None
    return {**REPORT, "steps": steps, "p99_ms": 50.0, "knee_per_second": knee}


def numbers_at(axes: Axes, which: str) -> list[str]:
    """What stands at an axis where it can be seen."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [one.label1.get_text() for one in ticks if low <= one.get_loc() <= high]


def drawn(report: dict[str, Any]) -> Axes:
    figure = make_figure(report, None)
    figure.draw_without_rendering()
    return figure.axes[0]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((2000.0, 3500.0, 5500.0), ["2,000", "3,000", "4,000", "5,000"]),
        ((400.0, 800.0, 1600.0, 3200.0, 6400.0), ["500", "1,000", "2,000", "5,000"]),
    ],
)
def test_rates_stand_at_the_axis_as_people_write_them(
    rates: tuple[float, ...], expected: list[str]
) -> None:
    axes = drawn(knee_report(*rates))
    shown = [text for text in numbers_at(axes, "x") if text]
    assert set(expected) <= set(shown)
    assert len(shown) >= 4
    assert len([text for text in numbers_at(axes, "y") if text]) >= 4


def test_each_line_has_a_colour_of_its_own() -> None:
    lines = drawn(knee_report(1000.0, 4000.0, 2000.0)).get_lines()
    colours = {str(line.get_color()): line.get_label() for line in lines}
    names = ["p50", "p90", "p99", "not reached", "bound of p99", "knee"]
    assert list(colours.values()) == names
    np.testing.assert_allclose(lines[2].get_xydata(), [[1000, 20], [2000, 40], [4000, 80]])
    np.testing.assert_allclose(lines[3].get_xydata(), [[2000, 40], [4000, 80]])
    assert not {"green", "#2ca02c"} & {colour for colour, name in colours.items() if name != "p99"}


@pytest.mark.parametrize(("rows", "title"), [(1, "1 row,"), (1000, "1,000 rows,")])
def test_the_title_says_what_was_asked(rows: int, title: str) -> None:
    figure = make_figure({**knee_report(1000.0), "rows": rows}, None)
    assert f"moons log_prob, {title} json" in figure.get_suptitle()


def test_a_load_is_drawn_over_time_and_by_share() -> None:
    due = np.arange(1000) / 100
    figure = make_figure(REPORT, recorded(due, 0.002 + 0.03 * (due > 5)))
    figure.draw_without_rendering()
    over_time, over_share, rates = figure.axes
    assert {"2", "5", "10", "20"} <= set(numbers_at(over_time, "y"))
    assert {"2", "5", "10", "20"} <= set(numbers_at(over_share, "x"))
    p50 = over_time.get_lines()[0]
    np.testing.assert_allclose(np.asarray(p50.get_ydata())[[0, -1]], [2.0, 32.0])
    assert over_time.get_zorder() > rates.get_zorder()  # else it runs through the legend
    answered = np.asarray(rates.get_lines()[0].get_ydata())
    np.testing.assert_allclose(answered, 100, rtol=0.05)
    beyond = over_share.get_lines()[0].get_xydata()
    assert beyond[beyond[:, 0] > 10][0].tolist() == pytest.approx([32.0, 0.499])


@pytest.mark.parametrize("recording", [None, recorded([1.0], 0.1, status=429)])
def test_nothing_answered_is_drawn_as_well(tmp_path: Path, recording: Any) -> None:
    path = tmp_path / "empty.svg"
    draw(knee_report(), recording, path) if recording is None else draw(REPORT, recording, path)
    assert path.read_text().startswith("<?xml")
