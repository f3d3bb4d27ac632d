"""Rows and calibrations that the tests of scoring share."""

from typing import Any

import numpy as np

from models.scoring.calibration import Calibration, calibrate
from models.scoring.statistics import Evidence

WEIGHTS = "a" * 64
BACKGROUND = "b" * 64


def evidence(rows: int, *, shape: tuple[int, ...] = (3,), levels: int | None = None) -> Evidence:
    """Rows of a table, or of images where there are levels, with log_prob as a model might say."""
    rng = np.random.default_rng(rows)
    features = int(np.prod(shape))
    z = rng.normal(size=(rows, features)).astype(np.float32)
    if levels is None:
        x = 2 * z.reshape(rows, *shape) + 1
    else:
        x = rng.integers(0, levels, size=(rows, *shape)).astype(np.float32)
    log_prob = -0.5 * (z.astype(np.float64) ** 2).sum(1) - features * np.log(2 * np.pi) / 2
    return Evidence(x, log_prob, z, log_prob + rng.normal(size=rows), levels)


def calibrated(rows: int = 100, **changes: Any) -> Calibration:
    """A calibration of a table by −log p."""
    settings: dict[str, Any] = {
        "statistic": "neg_log_prob",
        "weights": WEIGHTS,
        "dtype": "float32",
        "dataset": "held-out rows",
        "created": "2026-11-28T12:00:00+00:00",
    }
    return calibrate(evidence(rows), **(settings | changes))
