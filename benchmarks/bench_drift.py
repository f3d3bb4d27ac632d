"""How soon the drift test alarms, and how often it does without drift.

The scores are -log p of the zoo's `magic`. Without drift: windows of 10,000 rows, drawn without
replacement from all rows of MAGIC, or from the flow itself; a share of at most delta of them may
exceed 1/delta, for every number of calibration rows. With drift: one feature of the rows that come
is shifted by half a standard deviation, and counted is after how many rows the martingale exceeds
1/0.01. Writes benchmarks/drift.json and benchmarks/drift.md.

    python -m benchmarks.bench_drift [--quick]
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import machine
from models import load as load_flow
from models.datasets import load as load_rows
from models.flow import Flow
from models.scoring.martingale import DELTA, WINDOW_ROWS, OnlinePValues, SimpleJumper

Array = NDArray[np.float64]

OUT = Path("benchmarks/drift.json")
MODEL = Path("models/zoo/magic")
CALIBRATION_ROWS = (500, 1000, 5000)
DELTAS = (0.05, 0.01)
WINDOWS = 1000
STREAMS = 200
DRAWN = 500_000
SHIFT = 0.5
# Rows of the window before the shift; the second for samples alone, of which there are enough.
BEFORE = (0, 5000)
# What the tables call the two sources of rows.
ROWS, SAMPLES = "rows of MAGIC", "samples of the flow"


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Of windows without drift: the share that exceeded 1/delta."""

    source: str
    calibration_rows: int
    delta: float
    windows: int
    share: float

    @property
    def bound(self) -> float:
        """The highest share that agrees with the promise: delta and three standard errors."""
        return self.delta + 3 * math.sqrt(self.delta * (1 - self.delta) / self.windows)


@dataclass(frozen=True, slots=True)
class Delay:
    """Of streams with a shifted feature: rows from the shift to the alarm, null where none came."""

    source: str
    feature: str
    calibration_rows: int
    rows_before: int
    streams: int
    alarms: float
    median: float | None
    nine_in_ten: float | None


def log_values(calibration: Array, stream: Array, generator: np.random.Generator) -> Array:
    """Give ln of the martingale after each row of one window."""
    p_values = OnlinePValues(np.sort(calibration), generator).draw(stream)
    return SimpleJumper().advance(p_values)


def false_alarms(
    source: str, pool: Array, rows: int, windows: int, generator: np.random.Generator
) -> list[FalseAlarms]:
    """Count the windows without drift that exceed 1/delta, drawn without replacement."""
    largest = np.empty(windows)
    for index in range(windows):
        drawn = generator.choice(pool, rows + WINDOW_ROWS, replace=False)
        largest[index] = log_values(drawn[:rows], drawn[rows:], generator).max()
    return [
        FalseAlarms(source, rows, delta, windows, float((largest > -math.log(delta)).mean()))
        for delta in DELTAS
    ]


def delay(
    names: tuple[str, str],
    pools: tuple[Array, Array],
    rows: int,
    before: int,
    *,
    streams: int,
    generator: np.random.Generator,
) -> Delay:
    """Count the rows from a shift to the alarm.

    Args:
        names: of the source and of the feature that is shifted.
        pools: scores of the same rows as they are, and shifted.
        rows: of calibration.
        before: how many rows of the window come before the shift.
        streams: how many.
        generator: draws them.
    """
    plain, shifted = pools
    taken = np.full(streams, np.inf)
    for index in range(streams):
        size = min(rows + WINDOW_ROWS, len(plain))
        drawn = generator.choice(len(plain), size, replace=False)
        first = rows + before
        stream = np.concatenate([plain[drawn[rows:first]], shifted[drawn[first:]]])
        values = log_values(plain[drawn[:rows]], stream, generator)[before:]
        above = np.flatnonzero(values > -math.log(DELTA))
        if len(above):
            taken[index] = above[0] + 1
    middle, most = (_finite(np.quantile(taken, q, method="higher")) for q in (0.5, 0.9))
    alarms = float(np.isfinite(taken).mean())
    return Delay(*names, rows, before, streams, alarms, middle, most)


def scores(flow: Flow, x: NDArray[Any]) -> Array:
    """Give -log p of rows."""
    with torch.inference_mode():
        log_prob = flow.log_prob(torch.from_numpy(x).to(flow.dtype))
    return -log_prob.double().numpy()


def measure(quick: bool) -> tuple[list[FalseAlarms], list[Delay]]:
    """Run all simulations."""
    windows, streams, drawn = (50, 20, 50_000) if quick else (WINDOWS, STREAMS, DRAWN)
    flow, data = load_flow(MODEL), load_rows("magic?normal=g")
    generator = np.random.default_rng(20)
    with torch.inference_mode():
        samples = flow.sample(drawn, seed=20)[0].double().numpy()
    assert data.anomaly is not None
    gammas = data.x[~data.anomaly]
    pools = {ROWS: scores(flow, data.x), SAMPLES: scores(flow, samples)}
    alarms = [
        one
        for source, pool in pools.items()
        for rows in CALIBRATION_ROWS
        for one in false_alarms(source, pool, rows, windows, generator)
    ]
    delays = []
    for source, x in ((ROWS, gammas), (SAMPLES, samples)):
        plain = scores(flow, x)
        for column, feature in enumerate(data.columns):
            moved = x.copy()
            moved[:, column] += SHIFT * gammas[:, column].std()
            both = plain, scores(flow, moved)
            delays += [
                delay((source, feature), both, rows, before, streams=streams, generator=generator)
                for before in (BEFORE if source == SAMPLES else BEFORE[:1])
                for rows in CALIBRATION_ROWS
            ]
    return alarms, delays


def report(alarms: list[FalseAlarms], delays: list[Delay]) -> str:
    """Write the tables."""
    lines = [
        "# The drift test, simulated",
        "",
        "`python -m benchmarks.bench_drift` writes this page and `drift.json`. Scores are -log p",
        "of the zoo's `magic`.",
        "",
        f"Without drift, {alarms[0].windows:,} windows of {WINDOW_ROWS:,} rows a line: how many",
        "exceeded 1/delta, and how many may (delta and three standard errors).",
        "",
        "| rows | calibration rows | delta | exceeded | may |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.source} | {one.calibration_rows:,} | {one.delta:g} | {one.share:.3f} "
        f"| {one.bound:.4f} |"
        for one in alarms
    ]
    heading = " | ".join(f"{rows:,} calibration rows" for rows in CALIBRATION_ROWS)
    lines += [
        "",
        f"With one feature shifted by {SHIFT} of its standard deviation, {delays[0].streams:,}",
        f"streams of at most {WINDOW_ROWS:,} rows a cell: how many rows after the shift the",
        "martingale exceeded 1/0.01, in half of the streams / in nine of ten. The shift comes",
        "after so many rows of the window. Most rows of MAGIC (gammas) trained the flow; its",
        "samples did not.",
        "",
        f"| rows | after | feature | {heading} |",
        "|---|---|---|" + "---|" * len(CALIBRATION_ROWS),
    ]
    groups: dict[tuple[str, int, str], list[Delay]] = {}
    for one in delays:
        groups.setdefault((one.source, one.rows_before, one.feature), []).append(one)
    for (source, before, feature), group in sorted(groups.items()):
        cells = " | ".join(f"{_shown(one.median)} / {_shown(one.nine_in_ten)}" for one in group)
        lines.append(f"| {source} | {before:,} | {feature} | {cells} |")
    return "\n".join(lines) + "\n"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few windows; writes nothing")
    quick: bool = parser.parse_args().quick
    torch.set_num_threads(1)
    alarms, delays = measure(quick)
    text = report(alarms, delays)
    print(text)
    if quick:
        return
    result: Mapping[str, Any] = {
        "false_alarms": [{**asdict(one), "bound": one.bound} for one in alarms],
        "delays": [asdict(one) for one in delays],
        "machine": machine(),
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    OUT.with_suffix(".md").write_text(text, encoding="utf-8")
    broken = [one for one in alarms if one.share > one.bound]
    if broken:
        raise SystemExit(f"more false alarms than promised: {broken}")


if __name__ == "__main__":
    main()
