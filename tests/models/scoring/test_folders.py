"""A calibration in a model folder: on the card, and gone with the weights that it was made for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from models.checkpoints import files
from models.checkpoints.manifest import CALIBRATION_FILES, digest
from models.scoring.calibration import Calibration
from models.scoring.card import probe_rows, threshold_rows, write_calibration_section
from models.scoring.storage import read_calibration, write_calibration
from tests.cases import CASES, make_flow

NAME = next(name for name in sorted(CASES) if CASES[name].family == "realnvp")
MEASURED = {"rows": 40, "auroc": 0.02, "low": 0.01, "high": 0.03}
PROBE = {"name": "noise", "what": "rows of noise", "rows": 40}


def calibration_of(weights: str, **report: object) -> Calibration:
    return Calibration(
        statistic="neg_log_prob",
        parameters={},
        weights=weights,
        dtype="float32",
        scores=np.arange(200.0),
        dataset="t.csv, test rows",
        created="2026-01-02T03:04:05+00:00",
        report=report,
    )


@pytest.mark.parametrize("is_filled", [False, True], ids=["exchanged", "filled"])
def test_new_weights_drop_the_calibration_with_a_word(
    tmp_path: Path,
    is_filled: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "model"
    models.save(make_flow(NAME), folder)
    assert not caplog.records
    write_calibration(folder, calibration_of(digest(folder)))
    assert read_calibration(folder) is not None
    # As where the folder is a mount point: other files stay.
    monkeypatch.setattr(files, "is_filled_in_place", lambda _: is_filled)
    models.save(make_flow(NAME), folder)
    assert not any((folder / name).exists() for name in CALIBRATION_FILES)
    [record] = caplog.records
    assert "is gone: calibrate the new one with pushforward calibrate" in record.getMessage()
    models.save(make_flow(NAME), folder)
    assert len(caplog.records) == 1


def test_the_card_states_thresholds_bounds_probes_and_warnings(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# model\n\nWords.\n\n## Anomaly detection\n\nMore.\n")
    probes = [{**PROBE, "statistics": {"neg_log_prob": MEASURED}}]
    made = calibration_of("0" * 64, probes=probes, warnings=["it finds noise likely"])
    write_calibration_section(tmp_path, made)
    text = card.read_text()
    assert text.startswith("# model\n\nWords.\n\n## Anomaly detection\n\nMore.\n\n## Calibration\n")
    assert f"Calibration `{made.id}`: `neg_log_prob` of 200 rows (t.csv, test rows)" in text
    assert "| 0.05 | 190 | 0.07" in text
    assert "| 0.001 | needs 999 rows |  |" in text
    assert "| rows of noise | neg_log_prob | 0.020 (0.010 to 0.030) |" in text
    assert text.endswith("\n\n**Note:** it finds noise likely.\n")


def test_a_section_of_before_is_replaced_where_it_stands(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# model\n\n## Calibration\n\nOld.\n\n## Anomaly detection\n\nMore.\n")
    made = calibration_of("0" * 64)
    write_calibration_section(tmp_path, made)
    once = card.read_text()
    assert once.count("## Calibration") == 1
    assert "Old." not in once
    assert once.startswith("# model\n\n## Calibration\n")
    assert once.endswith("\n\n## Anomaly detection\n\nMore.\n")
    write_calibration_section(tmp_path, made)
    assert card.read_text() == once


def test_a_folder_without_a_card_gets_none(tmp_path: Path) -> None:
    write_calibration_section(tmp_path, calibration_of("0" * 64))
    assert not list(tmp_path.iterdir())


def test_what_has_no_number_is_said_in_words() -> None:
    facts = calibration_of("0" * 64).facts()
    outside = replace(calibration_of("0" * 64), scores=np.r_[np.arange(150.0), [np.inf] * 50])
    assert threshold_rows(outside.facts())[0][1] == "none: rows outside the support"
    unscored = {**PROBE, "statistics": {"latent": {**MEASURED, "auroc": None}}}
    assert probe_rows({**facts, "probes": [unscored]}) == [("rows of noise", "latent", "no scores")]
