"""A calibration comes back as it was, or is refused with the reason."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.scoring.calibration import arrays_of
from models.scoring.storage import read_calibration, write_calibration
from tests.models.scoring.cases import BACKGROUND, WEIGHTS, calibrated


@pytest.mark.parametrize("statistic", ["neg_log_prob", "typicality", "latent", "ratio:broad"])
def test_what_is_read_is_what_was_written(tmp_path: Path, statistic: str) -> None:
    labels = np.arange(100) % 3
    background = BACKGROUND if statistic.startswith("ratio") else None
    written = calibrated(
        statistic=statistic,
        background=background,
        labels=labels,
        class_rows=34,
        report={"probes": [{"name": "noise", "auroc": 0.5}], "warnings": ["so"]},
    )
    write_calibration(tmp_path, written)
    read = read_calibration(tmp_path, weights=WEIGHTS, dtype="float32")
    assert read is not None
    assert set(arrays_of(read)) == set(arrays_of(written)) >= {"scores", "class.0", "grid"}
    for name, array in arrays_of(written).items():
        assert arrays_of(read)[name].tobytes() == array.tobytes()
        assert arrays_of(read)[name].dtype == np.float64
    assert (read.id, read.statistic, read.background) == (written.id, statistic, background)
    assert (read.describe(0.05), read.facts()) == (written.describe(0.05), written.facts())
    assert read.report == written.report


def test_no_calibration(tmp_path: Path) -> None:
    assert read_calibration(tmp_path, weights=WEIGHTS) is None


def test_another_report_is_the_same_calibration() -> None:
    assert replace(calibrated(), report={"warnings": ["x"]}).id == calibrated().id
    assert replace(calibrated(), dataset="others").id != calibrated().id
