"""A calibration comes back as it was, or is refused with the reason."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from models.checkpoints.manifest import WEIGHTS_FILE, digest
from models.scoring.calibration import arrays_of
from models.scoring.errors import CalibrationError
from models.scoring.storage import (
    CALIBRATION_FILE,
    MAX_JSON_BYTES,
    SCORES_FILE,
    read_calibration,
    write_calibration,
)
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


Edit = Callable[[Path], object]


def _json(**changes: object) -> Edit:
    """Change members of calibration.json; an empty text takes one out."""

    def edit(folder: Path) -> None:
        path = folder / CALIBRATION_FILE
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value != ""}))

    return edit


def _tensors(bind: bool = True, **changes: np.ndarray | None) -> Edit:
    """Change tensors, with the digest in calibration.json that an attentive editor would write."""

    def edit(folder: Path) -> None:
        path = folder / SCORES_FILE
        tensors = load(path.read_bytes()) | changes
        content = save({key: value for key, value in tensors.items() if value is not None})
        path.write_bytes(content)
        if bind:
            _json(scores_sha256=hashlib.sha256(content).hexdigest())(folder)

    return edit


def _cut(name: str, size: int) -> Edit:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def _huge_header(folder: Path) -> None:
    """A header that says it is larger than the file, and than any header may be."""
    path = folder / SCORES_FILE
    path.write_bytes((2**60).to_bytes(8, "little") + path.read_bytes()[8:])


def _pipe(folder: Path) -> None:
    (folder / SCORES_FILE).unlink()
    os.mkfifo(folder / SCORES_FILE)


ASCENDING = np.arange(100.0)
REFUSED: dict[str, tuple[Edit, str]] = {
    "no scores": (lambda folder: (folder / SCORES_FILE).unlink(), "safetensors: is missing"),
    "no json": (lambda folder: (folder / CALIBRATION_FILE).unlink(), "json: is missing beside"),
    "a pipe": (_pipe, "expected a file"),
    "scores cut": (_cut(SCORES_FILE, 300), "not a readable safetensors file"),
    "scores empty": (_cut(SCORES_FILE, 0), "not a readable safetensors file"),
    "huge header": (_huge_header, "not a readable safetensors file"),
    "json cut": (_cut(CALIBRATION_FILE, 50), "the file: Invalid JSON"),
    "json of bytes": (
        lambda folder: (folder / CALIBRATION_FILE).write_bytes(b"\xff\xfe"),
        "cannot be read",
    ),
    "json too large": (
        lambda folder: (folder / CALIBRATION_FILE).write_bytes(b" " * (MAX_JSON_BYTES + 1)),
        "expected at most",
    ),
    "scores edited": (_tensors(bind=False, scores=ASCENDING), "not the file that"),
    "scores edited with digest": (_tensors(scores=ASCENDING), "id: the content is that of"),
    "unsorted": (_tensors(scores=ASCENDING[::-1].copy()), "scores: expected ascending values"),
    "NaN at the end": (_tensors(scores=np.append(ASCENDING[1:], np.nan)), "without NaN"),
    "one NaN": (_tensors(scores=np.where(ASCENDING == 5, np.nan, ASCENDING)), "without NaN"),
    "single precision": (_tensors(scores=np.float32(ASCENDING)), "100 values of float64"),
    "a matrix": (_tensors(scores=ASCENDING.reshape(10, 10)), "expected 100 values"),
    "fewer scores": (_tensors(scores=ASCENDING[:50]), r"expected 100 values .* got \(50,\)"),
    "rows lie": (_json(rows=1000), "expected 1000 values"),
    "no row": (_json(rows=0), "rows: Input should be greater than 0"),
    "rows of text": (_json(rows="100"), "rows: Input should be a valid integer"),
    "class lies": (_json(class_rows={"0": 30}), "class.0: expected 30 values"),
    "class unknown": (_json(class_rows={"0": 34, "7": 34}), "class.7: there is no such tensor"),
    "class no number": (_json(class_rows={"cat": 34}), "expected labels, got 'cat'"),
    "class untold": (_json(class_rows={}), r"unknown tensors \['class.0'\]"),
    "tensor unknown": (_tensors(more=ASCENDING), r"unknown tensors \['more'\]"),
    "no scores within": (_tensors(scores=None), "scores: there is no such tensor"),
    "grid cut": (_tensors(grid=np.zeros((3, 3))), r"grid: expected \(16, D\)"),
    "grid of NaN": (_tensors(grid=np.full((16, 3), np.nan)), "grid: expected finite values"),
    "no median": (_tensors(**{"parameter.median": None}), "expected the parameters"),
    "median of NaN": (
        _tensors(**{"parameter.median": np.array([np.nan])}),
        "median: expected finite values",
    ),
    "median of two": (
        _tensors(**{"parameter.median": np.zeros(2)}),
        r"expected 1 values of median, got shapes \[\(2,\)\]",
    ),
    "median of a matrix": (_tensors(**{"parameter.median": np.zeros((1, 1))}), "expected 1 values"),
    "median of no axis": (_tensors(**{"parameter.median": np.array(1.0)}), "expected 1 values"),
    "class of another name": (_json(class_rows={"00": 34}), "expected labels, got '00'"),
    "class below none": (_json(class_rows={"-1": 34}), "expected labels, got '-1'"),
    "report no object": (_json(report=[]), "report: Input should be"),
    "warnings of text": (_json(report={"warnings": "so"}), "report.warnings: Input should be"),
    "probes of numbers": (_json(report={"probes": [1]}), "report.probes.0: Input should be"),
    "anomalies of text": (_json(report={"anomalies": "so"}), "report.anomalies: Input should be"),
    "key unknown": (_json(contamination=0.1), "contamination: Extra inputs"),
    "key missing": (_json(dtype=""), "dtype: Field required"),
    "version": (_json(format_version=2), "format_version: Input should be 1"),
    "digest no digest": (_json(scores_sha256="abc"), "scores_sha256: String should match"),
    "id edited": (_json(id="0" * 12), "id: the content is that of"),
    "dataset edited": (_json(dataset="others"), "id: the content is that of"),
    "other statistic": (_json(statistic="neg_log_prob"), "expected the parameters"),
    "statistic unknown": (_json(statistic="depth"), "expected one of neg_log_prob"),
    "ratio of nothing": (_json(statistic="ratio:a"), "background_sha256: ratio:a needs one"),
    "background of none": (_json(background_sha256=BACKGROUND), "typicality has none"),
    "other weights": (_json(weights_sha256=BACKGROUND), "made for other weights"),
    "other precision": (_json(dtype="float64"), "scores are of float64, the model computes in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    edit, reason = REFUSED[case]
    labels = np.append(np.zeros(34, int), np.arange(1, 67))
    write_calibration(tmp_path, calibrated(statistic="typicality", labels=labels, class_rows=34))
    assert read_calibration(tmp_path, weights=WEIGHTS, dtype="float32") is not None
    edit(tmp_path)
    with pytest.raises(CalibrationError, match=reason) as error:
        read_calibration(tmp_path, weights=WEIGHTS, dtype="float32")
    assert str(tmp_path) in str(error.value)


def test_the_weights_beside_it_are_those_it_is_compared_with(tmp_path: Path) -> None:
    weights = tmp_path / WEIGHTS_FILE
    weights.write_bytes(b"weights")
    write_calibration(tmp_path, calibrated(weights=digest(tmp_path)))
    assert read_calibration(tmp_path) is not None
    weights.write_bytes(b"other weights")
    with pytest.raises(CalibrationError, match="made for other weights"):
        read_calibration(tmp_path)
    weights.unlink()
    with pytest.raises(CalibrationError, match="the weights cannot be read"):
        read_calibration(tmp_path)


def test_a_calibration_takes_the_place_of_another(tmp_path: Path) -> None:
    for rows in (100, 50):
        write_calibration(tmp_path, calibrated(rows))
        read = read_calibration(tmp_path, weights=WEIGHTS)
        assert read is not None
        assert read.rows == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == [CALIBRATION_FILE, SCORES_FILE]


def test_the_json_is_written_last(tmp_path: Path) -> None:
    """Where it cannot be, what is there is refused, and not taken for another calibration."""
    (tmp_path / CALIBRATION_FILE).mkdir()
    with pytest.raises(OSError, match=CALIBRATION_FILE):
        write_calibration(tmp_path, calibrated())
    assert (tmp_path / SCORES_FILE).is_file()
    with pytest.raises(CalibrationError, match="expected a file, got a folder"):
        read_calibration(tmp_path, weights=WEIGHTS)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (
            {"mean": np.zeros(2), "std": np.ones(1)},
            r"1 or 2 values .* got shapes \[\(1,\), \(2,\)\]",
        ),
        ({"mean": np.zeros(3), "std": np.ones(3)}, "1 or 2 values"),
        ({"mean": np.zeros(1), "std": np.zeros(1)}, "std: expected values above 0"),
    ],
)
def test_parameters_that_no_rows_give_are_refused(
    tmp_path: Path, parameters: dict[str, np.ndarray], reason: str
) -> None:
    write_calibration(tmp_path, replace(calibrated(statistic="latent"), parameters=parameters))
    with pytest.raises(CalibrationError, match=reason):
        read_calibration(tmp_path, weights=WEIGHTS)


@pytest.mark.parametrize("change", [{"report": {"auroc": float("nan")}}, {"dtype": "float16"}])
def test_what_could_not_be_read_is_not_written(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"JSON compliant|expected float32 or float64"):
        write_calibration(tmp_path, calibrated(**change))
    assert not list(tmp_path.iterdir())


def test_a_single_score_is_no_nan(tmp_path: Path) -> None:
    write_calibration(tmp_path, replace(calibrated(), scores=np.array([np.nan])))
    with pytest.raises(CalibrationError, match="without NaN"):
        read_calibration(tmp_path, weights=WEIGHTS)


def test_infinite_scores_are_kept(tmp_path: Path) -> None:
    written = replace(calibrated(), scores=np.append(np.arange(99.0), np.inf))
    write_calibration(tmp_path, written)
    read = read_calibration(tmp_path, weights=WEIGHTS)
    assert read is not None
    assert read.scores[-1] == np.inf
