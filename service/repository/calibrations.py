"""The calibration of anomaly scores in a model's folder: read, tried on the model, and told of."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.checkpoints.errors import CheckpointError
from models.checkpoints.manifest import digest
from models.scoring.calibration import Calibration
from models.scoring.card import CARD_FILE
from models.scoring.statistics import Evidence, parse_statistic
from models.scoring.storage import CALIBRATION_FILE, SCORES_FILE, read_calibration
from service.contracts import ModelCard
from service.repository.folders import Stamp
from service.settings import flag_name

# What a calibration writes: nothing else of a model follows from these.
_FILES = (CALIBRATION_FILE, SCORES_FILE, CARD_FILE)
_ALLOWED = "allow_uncalibrated"

_log = logging.getLogger(__name__)


class FoundCalibration(NamedTuple):
    """What lies in a folder.

    calibration: None where there is none that can be used. fault: why what is there cannot.
    """

    calibration: Calibration | None
    fault: str | None = None


def digest_weights(folder: Path) -> str:
    """SHA-256 of a model's weights; empty where the file cannot be read."""
    try:
        return digest(folder)
    except (OSError, CheckpointError):
        return ""


def find_calibration(folder: Path, card: ModelCard) -> FoundCalibration:
    """Read the calibration of a model and try it on a row of zeros."""
    try:
        found = read_calibration(folder, weights=card.weights or None, dtype=card.dtype)
        if found is not None:
            _try(found, card)
    except (CheckpointError, OSError, ValueError, LookupError) as error:
        return FoundCalibration(None, str(error))
    return FoundCalibration(found)


def is_recalibrated(before: Stamp, now: Stamp) -> bool:
    """Whether nothing but a calibration has changed in a folder."""
    return bool(now) and _without_calibration(before) == _without_calibration(now)


def why_not_in_its_place(former: ModelCard, card: ModelCard, fault: str | None) -> str | None:
    """Say why a version may not replace another: every request with alpha would then fail.

    Args:
        former: what is served.
        card: what would be.
        fault: why the calibration beside it, if there is one, cannot be used.

    Returns:
        None where it may.
    """
    if former.calibration is None or card.calibration is not None:
        return None
    what = f"its calibration cannot be used: {fault}" if fault else "it has no calibration"
    allow = f"or allow it by {flag_name(_ALLOWED)} true"
    if (card.version, card.weights) == (former.version, former.weights):
        return (
            f"{what}; the one from before, {former.calibration.id}, stays in use: calibrate it "
            f"again (pushforward calibrate), {allow}"
        )
    return (
        f"{what}; the version that is served, {former.version}, has one, and requests with alpha "
        f"or fdr would fail: calibrate it (pushforward calibrate), {allow}"
    )


def log_calibration(card: ModelCard, fault: str | None) -> None:
    """Tell once, when it is served, what is known of a model's calibration."""
    calibration = card.calibration
    if fault is not None:
        _log.warning("%s %s is served without calibration: %s", card.name, card.version, fault)
    if calibration is None:
        return
    _log.info(
        "%s %s: calibration %s, %s over %d rows of %s",
        *(card.name, card.version, calibration.id),
        *(calibration.statistic, calibration.rows, calibration.dataset),
    )
    for warning in calibration.report.get("warnings") or ():
        _log.warning("%s %s: %s", card.name, card.version, warning)


def _without_calibration(seen: Stamp) -> Stamp:
    # Files that are being written are hidden, until they take their place.
    return tuple(entry for entry in seen if entry[0] not in _FILES and not entry[0].startswith("."))


def _try(calibration: Calibration, card: ModelCard) -> None:
    """Score a row.

    Raises:
        ValueError, LookupError: the statistic is not for rows of this model, or lacks parameters.
    """
    statistic, _ = parse_statistic(calibration.statistic)
    zeros = np.zeros((1, *card.event_shape), card.numpy_dtype)
    latents = np.zeros((1, card.features), card.numpy_dtype)
    evidence = Evidence(zeros, np.zeros(1), latents, np.zeros(1), card.num_levels)
    statistic.score(evidence, calibration.parameters)
    for name, fitted in statistic.fit(evidence).items():
        stored = calibration.parameters[name]
        if stored.shape != fitted.shape:
            raise ValueError(
                f"{name}: expected {len(fitted)} values of {calibration.statistic} for rows of "
                f"this model, got {len(stored)}; calibrate it again"
            )
    unknown = [label for label in calibration.class_scores if label >= (card.num_classes or 0)]
    if unknown:
        raise ValueError(
            f"class_rows: the model has {card.num_classes or 'no'} classes, got {unknown}; "
            "calibrate it again"
        )
    grid = calibration.grid
    if grid is not None and grid.shape[1:] != (card.features,):
        raise ValueError(
            f"grid: expected {card.features} features, got {grid.shape[1]}; calibrate it again"
        )
