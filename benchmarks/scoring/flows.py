"""Rows of the benchmark and what its flows say of them, in process."""

import csv
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.scoring.train import RUNS
from models.scoring.statistics import STATISTICS, Evidence
from pushforward import load

Array: TypeAlias = NDArray[Any]

BATCH_ROWS = 512


def read_rows(name: str, file: str, runs: Path = RUNS) -> Array:
    """Rows of a table or images, in float32 as the flow takes them."""
    path = runs / name / file
    if path.suffix == ".npy":
        return np.asarray(np.load(path), np.float32)
    return np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32, ndmin=2)


def feature_names(name: str, runs: Path = RUNS) -> list[str]:
    """The columns of a table."""
    with (runs / name / "train.csv").open() as lines:
        return next(csv.reader(lines))


class TrainedFlow:
    """A trained flow of the benchmark.

    Args:
        name: of its data.
    """

    def __init__(self, name: str, runs: Path = RUNS) -> None:
        self._flow = load(runs / name / "model")
        self.num_levels = self._flow.facts.num_levels

    def log_prob(self, rows: Array) -> Array:
        """log p of rows, (B,) float64 of what the flow's own precision gives."""
        parts = [self._flow.log_prob(part) for part in self._parts(rows)]
        return torch.cat(parts).double().numpy()

    def evidence(self, rows: Array, background: "TrainedFlow | None" = None) -> Evidence:
        """What statistics read of rows."""
        latents = [self._flow.encode(part)[0] for part in self._parts(rows)]
        return Evidence(
            x=rows,
            log_prob=self.log_prob(rows),
            z=torch.cat(latents).numpy(),
            background=None if background is None else background.log_prob(rows),
            num_levels=self.num_levels,
        )

    def _parts(self, rows: Array) -> tuple[torch.Tensor, ...]:
        tensor = torch.from_numpy(rows).to(self._flow.dtype)
        return tuple(torch.split(tensor, BATCH_ROWS))


def statistics_of(evidence: Evidence) -> list[str]:
    """The statistics that can score these rows."""
    return [
        name
        for name, statistic in STATISTICS.items()
        if (not statistic.needs_background or evidence.background is not None)
        and (name != "complexity" or evidence.num_levels is not None)
    ]


def scores_by_statistic(sets: dict[str, Evidence]) -> dict[str, dict[str, Array]]:
    """Scores of each set of rows with each statistic, fitted on the set `calibration`.

    Returns:
        Statistic -> set -> (B,).
    """
    fitted_on = sets["calibration"]
    found = {}
    for name in statistics_of(fitted_on):
        statistic = STATISTICS[name]
        parameters = statistic.fit(fitted_on)
        found[name] = {key: statistic.score(rows, parameters) for key, rows in sets.items()}
    return found
