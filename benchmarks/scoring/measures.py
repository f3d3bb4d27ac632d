"""The figures of a detector, the same for flows and peers: AUROC, AP, TPR and FPR at a rate."""

from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from models.scoring.conformal import threshold
from models.scoring.detection import auroc, auroc_interval, average_precision
from models.scoring.errors import TooFewRows

Array: TypeAlias = NDArray[Any]

ALPHAS = (0.05, 0.01, 0.001)


class AtRate(TypedDict):
    """What is flagged at one alpha: shares of the anomalies and of the normal test rows."""

    alpha: float
    tpr: float | None
    fpr: float | None


class Measures(TypedDict):
    """The figures of one detector on one set of anomalies."""

    auroc: float
    auroc_interval: tuple[float, float]
    average_precision: float
    at: list[AtRate]


def halves(rows: int, seed: int = 0) -> tuple[Array, Array]:
    """Indices of the held-out normal rows that calibrate, and of those that test."""
    order = np.random.default_rng(seed).permutation(rows)
    return order[: rows // 2], order[rows // 2 :]


def measure(calibration: Array, normal: Array, anomalous: Array) -> Measures:
    """Measure a detector.

    Args:
        calibration: scores of normal rows, which set the thresholds.
        normal: of others.
        anomalous: of anomalies.
    """
    return Measures(
        auroc=auroc(normal, anomalous),
        auroc_interval=auroc_interval(normal, anomalous),
        average_precision=average_precision(normal, anomalous),
        at=[_at(np.sort(calibration), normal, anomalous, alpha) for alpha in ALPHAS],
    )


def _at(calibration: Array, normal: Array, anomalous: Array, alpha: float) -> AtRate:
    try:
        limit = threshold(calibration, alpha)
    except TooFewRows:
        return AtRate(alpha=alpha, tpr=None, fpr=None)
    tpr, fpr = float((anomalous > limit).mean()), float((normal > limit).mean())
    return AtRate(alpha=alpha, tpr=tpr, fpr=fpr)
