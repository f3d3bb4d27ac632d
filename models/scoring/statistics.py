"""Statistics: what is calibrated and served as the score of a row; higher is more anomalous.

A score is a function of one row and of what the flow says of it, bit for bit: whatever rows are
scored beside it. Sums run along the values of a row in memory order, and all else is exact rounding
of one operation.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.scoring.errors import StatisticError

Array: TypeAlias = NDArray[Any]
Parameters: TypeAlias = Mapping[str, Array]

RATIO = "ratio"
_BYTE_LEVELS = 256
_BITS_PER_NAT = 1 / math.log(2)


class Evidence(NamedTuple):
    """What statistics read of B rows.

    x: (B, *event_shape), as the caller has them. log_prob: (B,), nats. z: (B, D).
    background: (B,), log_prob of the ratio's other model. num_levels: how many values a pixel can
    take, None where the data are not pixels.
    """

    x: Array
    log_prob: Array
    z: Array
    background: Array | None = None
    num_levels: int | None = None


def _nothing(evidence: Evidence) -> dict[str, Array]:
    return {}


@dataclass(frozen=True, slots=True)
class Statistic:
    """One statistic.

    name: as it is asked for. summary: for the manual. formula: the score, of rows with a finite
    log_prob. fit: its parameters, of the calibration rows. parameter_names: theirs.
    widths: how many values each of them may have. positive: those above 0. machine: facts of the
    machine among them, which must be the same where rows are scored. needs_x, needs_z,
    needs_background: which parts of the evidence it reads beside log_prob.
    """

    name: str
    summary: str
    formula: Callable[[Evidence, Parameters], Array]
    fit: Callable[[Evidence], dict[str, Array]] = _nothing
    parameter_names: tuple[str, ...] = ()
    widths: tuple[int, ...] = (1,)
    positive: tuple[str, ...] = ()
    machine: Callable[[], dict[str, Array]] = dict
    needs_x: bool = False
    needs_z: bool = False
    needs_background: bool = False

    def score(self, evidence: Evidence, parameters: Parameters) -> Array:
        """Score rows.

        Returns:
            (B,) float64. +inf where log_prob is -inf: outside the support nothing is more
            anomalous, whatever the statistic. NaN where log_prob is NaN or +inf, no density.

        Raises:
            StatisticError: the model's rows cannot be scored by it.
        """
        log_prob = np.asarray(evidence.log_prob, np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            scores = self.formula(evidence._replace(log_prob=log_prob), parameters)
        is_finite = np.isfinite(log_prob)
        if is_finite.all():
            return scores
        return np.where(np.isneginf(log_prob), np.inf, np.where(is_finite, scores, np.nan))

    def check(self, parameters: Parameters) -> None:
        """See that rows can be scored here as they were where the parameters come from.

        Raises:
            StatisticError: parameters are missing, unknown, or none that `fit` gives, or this
                machine gives other scores.
        """
        if set(parameters) != set(self.parameter_names):
            raise StatisticError(
                f"{self.name}: expected the parameters {sorted(self.parameter_names)}, got "
                f"{sorted(parameters)}"
            )
        shapes = {np.shape(value) for value in parameters.values()}
        if len(shapes) > 1 or not shapes <= {(width,) for width in self.widths}:
            raise StatisticError(
                f"{self.name}: expected {' or '.join(map(str, self.widths))} values of "
                f"{' and of '.join(self.parameter_names)}, got shapes {sorted(shapes)}"
            )
        for name in self.positive:
            if not (parameters[name] > 0).all():
                raise StatisticError(f"{self.name}: {name}: expected values above 0")
        for name, value in self.machine().items():
            if not np.array_equal(parameters[name], value):
                raise StatisticError(
                    f"{self.name}: {name} of this machine compresses to other lengths than where "
                    "the model was calibrated, so scores would differ"
                )


def _neg_log_prob(evidence: Evidence, parameters: Parameters) -> Array:
    return -evidence.log_prob


def _median(evidence: Evidence) -> dict[str, Array]:
    surprise = -np.asarray(evidence.log_prob, np.float64)
    return {"median": np.array([np.median(surprise[np.isfinite(surprise)])])}


def _typicality(evidence: Evidence, parameters: Parameters) -> Array:
    distance: Array = np.abs(-evidence.log_prob - parameters["median"])
    return distance


def _complexity(evidence: Evidence, parameters: Parameters) -> Array:
    rows = _bytes_of(evidence)
    features = rows.shape[1]
    compressed = [len(zlib.compress(row.tobytes(), 9)) for row in rows]
    bits = -evidence.log_prob * _BITS_PER_NAT - 8.0 * np.array(compressed)
    per_dimension: Array = bits / features
    return per_dimension


def _zlib_lengths() -> dict[str, Array]:
    """To how many bytes zlib brings known ones: builds of it (zlib-ng is one) differ in that."""
    ramp = bytes(value % 256 for value in range(1024))
    known = (ramp, bytes(value * value // 7 % 61 for value in range(3072)), ramp[::-1] + ramp)
    return {"zlib": np.array([len(zlib.compress(text, 9)) for text in known], np.float64)}


def _fit_complexity(evidence: Evidence) -> dict[str, Array]:
    return _zlib_lengths()


def _bytes_of(evidence: Evidence) -> Array:
    """Pixels as bytes, (B, D); NaN becomes any, and has no score."""
    levels = evidence.num_levels
    if levels is None or levels > _BYTE_LEVELS:
        found = "no pixels" if levels is None else f"{levels} levels"
        raise StatisticError(
            f"complexity: expected pixels of at most {_BYTE_LEVELS} levels, the model has {found}; "
            "take another statistic"
        )
    flat = np.asarray(evidence.x).reshape(len(evidence.x), -1)
    pixels: Array = np.clip(np.rint(flat), 0, levels - 1)
    return pixels.astype(np.uint8)


def _ratio(evidence: Evidence, parameters: Parameters) -> Array:
    if evidence.background is None:
        raise StatisticError("ratio: expected log_prob of the background model, got none")
    return np.asarray(evidence.background, np.float64) - evidence.log_prob


def _fit_latent(evidence: Evidence) -> dict[str, Array]:
    moments = _latent_moments(evidence)
    moments = moments[np.isfinite(moments).all(1)]
    spread = moments.std(0)
    return {"mean": moments.mean(0), "std": np.where(spread > 0, spread, 1.0)}


def _latent(evidence: Evidence, parameters: Parameters) -> Array:
    standardised = (_latent_moments(evidence) - parameters["mean"]) / parameters["std"]
    # Of one or two columns: a sum has one order.
    distance: Array = np.sqrt((standardised * standardised).sum(1))
    return distance


@np.errstate(invalid="ignore", over="ignore")
def _latent_moments(evidence: Evidence) -> Array:
    """||z||^2 and, of pixels or channels, the correlation of neighbours in z: (B, 1 or 2)."""
    # A copy in the order of rows: sums over another order round otherwise.
    z = np.ascontiguousarray(evidence.z, np.float64).reshape(len(evidence.z), -1)
    norm: Array = (z * z).sum(1)
    if np.ndim(evidence.x) <= 2 or z.shape[1] < 2:
        return norm[:, None]
    centred = z - z.mean(1)[:, None]
    spread = (centred * centred).sum(1)
    together = (centred[:, 1:] * centred[:, :-1]).sum(1)
    # In a constant z every value is like its neighbour.
    correlation = np.where(spread == 0, 1.0, together / np.where(spread == 0, 1.0, spread))
    return np.stack([norm, correlation], 1)


_ALL = (
    Statistic(
        "neg_log_prob",
        "−log p: rows where the density is low. For tables.",
        _neg_log_prob,
    ),
    Statistic(
        "typicality",
        "|−log p − its median over the calibration rows|: rows that are unlikely, or likelier than "
        "data are.",
        _typicality,
        fit=_median,
        parameter_names=("median",),
    ),
    Statistic(
        "complexity",
        "Bits a dimension of the model less those of zlib: images that cost the model more than "
        "their detail explains. For pixels of at most 256 levels.",
        _complexity,
        fit=_fit_complexity,
        parameter_names=("zlib",),
        widths=(3,),
        machine=_zlib_lengths,
        needs_x=True,
    ),
    Statistic(
        RATIO,
        "log p of a background model less log p of this one: rows that the background explains "
        "better. Asked for as ratio:NAME.",
        _ratio,
        needs_background=True,
    ),
    Statistic(
        "latent",
        "How far ||z||² lies from its mean over the calibration rows, in standard deviations, "
        "either side; for images √(that² + c²) with c the same of the correlation of neighbours "
        "in z.",
        _latent,
        fit=_fit_latent,
        parameter_names=("mean", "std"),
        widths=(1, 2),
        positive=("std",),
        needs_z=True,
    ),
)
STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in _ALL}


def choose_statistic(num_levels: int | None) -> str:
    """What `auto` takes: complexity for 8-bit images, neg_log_prob for all else."""
    return "complexity" if num_levels == _BYTE_LEVELS else "neg_log_prob"


def parse_statistic(text: str) -> tuple[Statistic, str | None]:
    """Read a statistic as it is asked for.

    Args:
        text: a key of `STATISTICS`, or ratio:NAME.

    Returns:
        The statistic, and the name of its background model where it has one.

    Raises:
        StatisticError: there is none of that name, or a ratio without the name of a model.
    """
    name, colon, background = text.partition(":")
    statistic = STATISTICS.get(name)
    if statistic is None or bool(colon) != statistic.needs_background or (colon and not background):
        known = ", ".join(f"{RATIO}:NAME" if key == RATIO else key for key in STATISTICS)
        raise StatisticError(f"statistic: expected one of {known}, got {text!r}")
    return statistic, background or None
