"""Digits against clothes, both ways: what `/score` says of rows that are no data of the model."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from benchmarks.images.caller import Caller
from benchmarks.images.rows import FASHION, MNIST, data_of, held_out, test_rows
from benchmarks.process import serving
from models.datasets import Dataset
from models.onnx.names import ENCODE_FILE
from models.scoring.calibration import calibrate
from models.scoring.detection import auroc, auroc_interval
from models.scoring.storage import write_calibration
from pushforward.cli.calibration import make_inputs
from pushforward.cli.evidence import gather_evidence, open_model

Array: TypeAlias = NDArray[Any]

ALPHA = 0.05
ROWS_A_REQUEST = 50
SCORED = ("score", "is_anomaly", "log_prob")
STATISTICS = ("neg_log_prob", "typicality", "complexity", "latent")


class Detected(TypedDict):
    """One statistic of one model on rows of the other kind.

    flagged, false_alarms: shares flagged at ALPHA of the other kind, and of normal rows that were
    not calibrated on. nats: the means of -log p of normal rows and of the other kind.
    """

    model: str
    trained_on: str
    statistic: str
    auroc: float
    auroc_interval: tuple[float, float]
    flagged: float
    false_alarms: float
    nats: tuple[float, float]


def detect(folders: Mapping[str, Path], data: Mapping[str, Dataset]) -> list[Detected]:
    """Calibrate copies of the models with every statistic, serve them, and send rows.

    Args:
        folders: of the models by name; the name says on what one was trained.
        data: by name, `mnist` and `fashion_mnist`.
    """
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in folders.items():
            found += _detect(name, folder, data, Path(scratch))
    return found


def _detect(name: str, folder: Path, data: Mapping[str, Dataset], scratch: Path) -> list[Detected]:
    own = data_of(folder)
    parts = held_out(data[own])
    other = test_rows(data[MNIST if own == FASHION else FASHION])
    copies = _calibrated(folder, parts.calibration, scratch)
    log, found = scratch / "log", []
    options = () if (folder / ENCODE_FILE).exists() else ("--engine", "torch")
    with serving(log, *map(str, copies.values()), *options, "--log-level", "warning") as server:
        caller = Caller(server.url)
        for statistic, copy in copies.items():
            normal, anomalous = (_score(caller, copy.name, rows) for rows in (parts.normal, other))
            found.append(
                Detected(
                    model=name,
                    trained_on=own,
                    statistic=statistic,
                    auroc=auroc(normal["score"], anomalous["score"]),
                    auroc_interval=auroc_interval(normal["score"], anomalous["score"]),
                    flagged=float(anomalous["is_anomaly"].mean()),
                    false_alarms=float(normal["is_anomaly"].mean()),
                    nats=(_nats(normal), _nats(anomalous)),
                )
            )
    return found


def _calibrated(folder: Path, rows: Dataset, scratch: Path) -> dict[str, Path]:
    """Copies of a model, calibrated by one statistic each."""
    model = open_model(folder)
    given = make_inputs(model.facts, rows)
    evidence = gather_evidence(model, given.data.x, given.context)
    copies = {}
    for statistic in STATISTICS:
        made = calibrate(
            evidence,
            statistic=statistic,
            weights=model.weights,
            dtype=model.engine.dtype,
            dataset="test rows, first half",
        )
        copies[statistic] = scratch / f"{folder.name}-{statistic.replace('_', '-')}"
        shutil.copytree(folder, copies[statistic])
        write_calibration(copies[statistic], made)
    return copies


def _score(caller: Caller, model: str, rows: Dataset) -> dict[str, Array]:
    """What the server says of rows, some a request."""
    parts = []
    for start in range(0, len(rows), ROWS_A_REQUEST):
        part = rows.take(np.arange(start, min(start + ROWS_A_REQUEST, len(rows))))
        arrays = {"x": part.x.astype(np.float32), **caller.context(model, part)}
        parts.append(caller.call("score", model, arrays, alpha=ALPHA))
    return {key: np.concatenate([part[key] for part in parts]) for key in SCORED}


def _nats(scored: Mapping[str, Array]) -> float:
    return float(-scored["log_prob"].mean(dtype=np.float64))
