"""Versions of a model, each another flow with its own calibration, and what they are asked."""

from pathlib import Path

import numpy as np
import torch

import models
from models.checkpoints.folder import digest
from models.scoring.calibration import Calibration
from models.scoring.storage import write_calibration
from tests.e2e.test_clients import X, make_flow

VERSIONS = ("1", "2", "3")


def write_flows(folder: Path) -> None:
    """Write them, each into a folder of its number: they score X in different ways."""
    for version in VERSIONS:
        flow = make_flow(20 + int(version))
        models.save(flow, folder / version)
        # As many as give each version p-values of its own.
        rows = np.resize(np.concatenate([X / 3, 3 * X]), (40 + int(version), X.shape[1]))
        calibration = Calibration(
            statistic="neg_log_prob",
            parameters={},
            weights=digest(folder / version),
            dtype="float32",
            scores=np.sort(-log_probs(folder / version, rows).astype(np.float64)),
            dataset="3 X",
            created="2026-11-29T08:00:00+00:00",
        )
        write_calibration(folder / version, calibration)


def log_probs(folder: Path, rows: np.ndarray) -> np.ndarray:
    """log p of rows by the flow in a folder."""
    values: np.ndarray = models.load(folder).log_prob(torch.from_numpy(rows.copy())).numpy()
    return values
