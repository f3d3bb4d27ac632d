"""The direction probe: does a model find rows that are plainly not its data more likely than them?

A flow may: one trained on clothes finds digits more likely than clothes, and blank images more
likely than any. It says so before such a model raises, or misses, its first alarm. Each probe is a
kind of rows made of the calibration rows; a statistic tells them from the data as well as its AUROC
says, and the wrong way round where that is below a half.

Reference: Nalisnick et al. 2019, "Do deep generative models know what they don't know?"
(arXiv 1810.09136).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.scoring.calibration import STATED_ALPHAS
from models.scoring.detection import auroc, auroc_interval, average_precision, tpr_at
from models.scoring.errors import TooFewRows

Array = NDArray[Any]

PROBE_ROWS = 500
_SEED = 0
_CHANNELS = (1, 3)


class Probe(NamedTuple):
    """Rows that are not data.

    name: of the probe. what: as a sentence calls them. x: (m, *event_shape). source: (m,) indices
    of the calibration rows whose context or label they take.
    """

    name: str
    what: str
    x: Array
    source: Array


class _Rows(NamedTuple):
    """What probes are made of: rows x (m, *event_shape), and all (n, D) they were drawn from."""

    x: Array
    whole: Array
    num_levels: int | None
    discrete: Sequence[int]


def make_probes(
    x: Array, num_levels: int | None, discrete: Sequence[int] = (), rows: int = PROBE_ROWS
) -> list[Probe]:
    """Make the probes that suit a kind of data.

    Images: one grey everywhere, uniform noise, upside down, pixels in another order. Other rows:
    uniform noise between the least and largest value of each feature, and features shuffled each
    for itself, which leaves all of them as they are but not what they have to do with each other.

    Args:
        x: (n, *event_shape), calibration rows.
        num_levels: of pixels; None where the rows are no pixels.
        discrete: indices of columns that hold whole numbers.
        rows: of each probe, at most.
    """
    rng = np.random.default_rng(_SEED)
    source = np.sort(rng.permutation(len(x))[:rows])
    given = _Rows(x[source], x.reshape(len(x), -1), num_levels, discrete)
    if x.ndim == 4:
        made = _IMAGES
    elif x[0].size > 1:
        made = _TABLES
    else:
        made = {name: _TABLES[name] for name in ("noise",)}
    probes = [Probe(name, what, make(given, rng), source) for name, (what, make) in made.items()]
    return [probe for probe in probes if (probe.x != given.x).any()]


def _low_high(rows: _Rows) -> tuple[Any, Any]:
    if rows.num_levels is not None:
        return 0, rows.num_levels - 1
    return rows.whole.min(0), rows.whole.max(0)


def _noise(rows: _Rows, rng: np.random.Generator) -> Array:
    shape = (len(rows.x), rows.whole.shape[1])
    if rows.num_levels is not None:
        return rng.integers(rows.num_levels, size=rows.x.shape).astype(rows.x.dtype)
    low, high = _low_high(rows)
    noise = rng.uniform(low, high, size=shape).astype(rows.x.dtype)
    whole = list(rows.discrete)
    noise[:, whole] = np.rint(noise[:, whole])
    return noise.reshape(rows.x.shape)


def _shuffled(rows: _Rows, rng: np.random.Generator) -> Array:
    flat = rows.x.reshape(len(rows.x), -1)
    return rng.permuted(flat, axis=0).reshape(rows.x.shape)


def _constants(rows: _Rows, rng: np.random.Generator) -> Array:
    """Every image of one level, from the least to the largest."""
    low, high = (np.min(value) for value in _low_high(rows))
    levels = np.linspace(low, np.max(high), len(rows.x))
    levels = (np.rint(levels) if rows.num_levels is not None else levels).astype(rows.x.dtype)
    return np.broadcast_to(levels[:, None, None, None], rows.x.shape).copy()


def _flipped(rows: _Rows, rng: np.random.Generator) -> Array:
    """Upside down: (N, C, H, W), or (N, H, W, C) where the channels are the last axis."""
    is_last = rows.x.shape[1] not in _CHANNELS and rows.x.shape[3] in _CHANNELS
    return np.flip(rows.x, axis=1 if is_last else 2).copy()


def _permuted(rows: _Rows, rng: np.random.Generator) -> Array:
    """The values of each image in an order of its own."""
    flat = rows.x.reshape(len(rows.x), -1)
    return rng.permuted(flat, axis=1).reshape(rows.x.shape)


_Made = Mapping[str, tuple[str, Callable[[_Rows, np.random.Generator], Array]]]
_IMAGES: _Made = {
    "constants": ("blank images", _constants),
    "noise": ("images of noise", _noise),
    "flipped": ("images upside down", _flipped),
    "permuted": ("images whose pixels are shuffled", _permuted),
}
_TABLES: _Made = {
    "noise": ("rows of uniform noise", _noise),
    "permuted": ("rows whose columns are shuffled", _shuffled),
}


def measure(normal: Array, anomalous: Array, *, is_full: bool = False) -> dict[str, Any]:
    """How well scores tell rows from the calibration rows.

    Args:
        normal: (n,) scores of the calibration rows.
        anomalous: (m,) of the others; NaN are not counted.
        is_full: with average precision, and the true-positive rate at each alpha.

    Returns:
        auroc and its 95 % interval (low, high), null where there is no score; rows.
    """
    scored = anomalous[~np.isnan(anomalous)]
    if not len(scored):
        return {"rows": 0, "auroc": None, "low": None, "high": None}
    low, high = auroc_interval(normal, scored)
    found: dict[str, Any] = {
        "rows": len(scored),
        "auroc": auroc(normal, scored),
        "low": low,
        "high": high,
    }
    if is_full:
        rates = {f"{alpha:g}": _rate(normal, scored, alpha) for alpha in STATED_ALPHAS}
        found |= {"average_precision": average_precision(normal, scored), "tpr": rates}
    return found


def _rate(normal: Array, anomalous: Array, alpha: float) -> float | None:
    """The true-positive rate at an alpha; None where the calibration rows are too few for it."""
    try:
        return tpr_at(normal, anomalous, alpha)
    except TooFewRows:
        return None


def warnings_of(what: str, measured: Mapping[str, Mapping[str, Any]], statistic: str) -> list[str]:
    """What to say in words where a statistic takes anomalies for data, surely.

    Args:
        what: the anomalies, as a sentence calls them.
        measured: by statistic, what `measure` gives; neg_log_prob is one of them.
        statistic: which is calibrated.
    """
    log_prob = measured["neg_log_prob"]
    lines = []
    chosen = measured[statistic]
    if _is_reversed(log_prob):
        line = (
            f"this model finds {what} more likely than its own data: AUROC of -log p "
            f"{_interval(log_prob)}"
        )
        if statistic != "neg_log_prob" and not _is_reversed(chosen):
            line += f"; of {statistic}, which is calibrated, {_interval(chosen)}"
        lines.append(line)
    if statistic != "neg_log_prob" and _is_reversed(chosen):
        lines.append(
            f"this model finds {what} less anomalous than its own data by {statistic}, which is "
            f"calibrated: AUROC {_interval(chosen)}"
        )
    return lines


def _is_reversed(measured: Mapping[str, Any]) -> bool:
    return measured["high"] is not None and measured["high"] < 0.5


def _interval(measured: Mapping[str, Any]) -> str:
    if measured["auroc"] is None:
        return "unknown"
    return f"{measured['auroc']:.2f} ({measured['low']:.2f} to {measured['high']:.2f})"
