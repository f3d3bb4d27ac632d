"""A calibration in the folder of its model: two files, bound to each other and to the weights."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import save as to_bytes

from models.checkpoints.errors import CheckpointError
from models.checkpoints.files import check_regular, write_file
from models.checkpoints.manifest import CALIBRATION_FILES, digest
from models.checkpoints.tensor_file import read_arrays
from models.scoring.calibration import Calibration, arrays_of
from models.scoring.errors import CalibrationError, StatisticError
from models.scoring.explain import GRID_SIZE
from models.scoring.statistics import Statistic, parse_statistic

Array: TypeAlias = NDArray[Any]

CALIBRATION_FILE, SCORES_FILE = CALIBRATION_FILES

FORMAT_VERSION: Literal[1] = 1
MAX_JSON_BYTES = 4 * 2**20
# 2^27 scores.
MAX_SCORES_BYTES = 2**30
_AGAIN = "run pushforward calibrate again"

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Rows = Annotated[int, Field(gt=0)]


class StoredReport(BaseModel):
    """The content of `report`: what is shown of it, and whatever else was found."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    probes: list[dict[str, Any]] = []
    anomalies: dict[str, Any] | None = None
    warnings: list[str] = []


class CalibrationManifest(BaseModel):
    """The content of calibration.json."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format_version: Literal[1]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    statistic: str
    weights_sha256: _Digest
    background_sha256: _Digest | None = None
    dtype: Literal["float32", "float64"]
    rows: _Rows
    class_rows: dict[str, _Rows] = {}
    dataset: str
    created: str
    scores_sha256: _Digest
    report: StoredReport = StoredReport()


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write a calibration beside the weights; it is complete once calibration.json is there.

    Raises:
        OSError: it cannot be written.
        ValueError, TypeError: its report is no JSON.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays_of(calibration).items()}
    content = to_bytes(arrays)
    manifest = CalibrationManifest(
        format_version=FORMAT_VERSION,
        id=calibration.id,
        statistic=calibration.statistic,
        weights_sha256=calibration.weights,
        background_sha256=calibration.background,
        dtype=_dtype(calibration.dtype),
        rows=calibration.rows,
        class_rows={str(key): len(scores) for key, scores in calibration.class_scores.items()},
        dataset=calibration.dataset,
        created=calibration.created,
        scores_sha256=hashlib.sha256(content).hexdigest(),
        report=StoredReport(**calibration.report),
    )
    text = json.dumps(manifest.model_dump(exclude_unset=True), indent=2, allow_nan=False)
    write_file(folder / SCORES_FILE, content)
    write_file(folder / CALIBRATION_FILE, f"{text}\n".encode())


def read_calibration(
    folder: Path, *, weights: str | None = None, dtype: str | None = None
) -> Calibration | None:
    """Read the calibration of a model.

    Args:
        folder: the model's.
        weights: SHA-256 of its weights file; left out, it is computed.
        dtype: what the model computes in; left out, it is not compared.

    Returns:
        None where the folder has none.

    Raises:
        CalibrationError: it cannot be read, was edited, or is of other weights, of another
            precision or of a statistic that there is none of.
    """
    path = folder / CALIBRATION_FILE
    there = [(folder / name).exists() for name in (CALIBRATION_FILE, SCORES_FILE)]
    if not any(there):
        return None
    if not all(there):
        lacking = CALIBRATION_FILE if there[1] else SCORES_FILE
        raise CalibrationError(f"{folder / lacking}: is missing beside its other half; {_AGAIN}")
    manifest = _read_manifest(path)
    _check_model(path, manifest, weights or _weights(folder), dtype)
    arrays = _read_scores(folder / SCORES_FILE, manifest)
    calibration = _assemble(path, manifest, arrays)
    if calibration.id != manifest.id:
        raise CalibrationError(f"{path}: id: the content is that of {calibration.id}; {_AGAIN}")
    # Remembered from now on: the first request must not wait for an import of scipy.
    calibration.facts()
    return calibration


def _weights(folder: Path) -> str:
    try:
        return digest(folder)
    except OSError as error:
        raise CalibrationError(f"{folder}: the weights cannot be read: {error}") from None


def _dtype(name: str) -> Literal["float32", "float64"]:
    if name == "float32":
        return "float32"
    if name == "float64":
        return "float64"
    raise ValueError(f"dtype: expected float32 or float64, got {name}")


def _read_manifest(path: Path) -> CalibrationManifest:
    try:
        check_regular(path, MAX_JSON_BYTES)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: cannot be read: {error}") from None
    try:
        return CalibrationManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CalibrationError(f"{path}: {where}: {first['msg']}") from None


def _check_model(
    path: Path, manifest: CalibrationManifest, weights: str, dtype: str | None
) -> None:
    if manifest.weights_sha256 != weights:
        raise CalibrationError(
            f"{path}: weights_sha256: it was made for other weights than those beside it; {_AGAIN}"
        )
    if dtype is not None and manifest.dtype != dtype:
        raise CalibrationError(
            f"{path}: dtype: its scores are of {manifest.dtype}, the model computes in {dtype}; "
            f"{_AGAIN}"
        )
    statistic = _statistic(path, manifest.statistic)
    if statistic.needs_background != (manifest.background_sha256 is not None):
        raise CalibrationError(
            f"{path}: background_sha256: {manifest.statistic} "
            f"{'needs one' if statistic.needs_background else 'has none'}; {_AGAIN}"
        )


def _statistic(path: Path, text: str) -> Statistic:
    try:
        return parse_statistic(text)[0]
    except StatisticError as error:
        raise CalibrationError(f"{path}: {error}; {_AGAIN}") from None


def _check_parameters(path: Path, statistic: str, parameters: Mapping[str, Array]) -> None:
    try:
        _statistic(path, statistic).check(parameters)
    except StatisticError as error:
        raise CalibrationError(f"{path}: {error}; {_AGAIN}") from None


def _read_scores(path: Path, manifest: CalibrationManifest) -> dict[str, Array]:
    try:
        check_regular(path, MAX_SCORES_BYTES)
        arrays, found = read_arrays(path)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error.strerror or error}") from None
    except CheckpointError as error:  # it names the file
        raise CalibrationError(f"{error}; {_AGAIN}") from None
    if found != manifest.scores_sha256:
        raise CalibrationError(
            f"{path}: it is not the file that {CALIBRATION_FILE} was written with; {_AGAIN}"
        )
    return arrays


def _assemble(
    path: Path, manifest: CalibrationManifest, arrays: Mapping[str, Array]
) -> Calibration:
    remaining = dict(arrays)
    scores = _scores(path, remaining, "scores", manifest.rows)
    class_scores = {
        _label(path, name): _scores(path, remaining, f"class.{name}", rows)
        for name, rows in manifest.class_rows.items()
    }
    grid = remaining.pop("grid", None)
    parameters = {
        name.removeprefix("parameter."): remaining.pop(name)
        for name in list(remaining)
        if name.startswith("parameter.")
    }
    if remaining:
        raise CalibrationError(f"{path}: unknown tensors {sorted(remaining)}; {_AGAIN}")
    _check_values(path, grid, parameters)
    _check_parameters(path, manifest.statistic, parameters)
    return Calibration(
        statistic=manifest.statistic,
        parameters=parameters,
        weights=manifest.weights_sha256,
        dtype=manifest.dtype,
        scores=scores,
        dataset=manifest.dataset,
        created=manifest.created,
        background=manifest.background_sha256,
        class_scores=class_scores,
        grid=grid,
        report=manifest.report.model_dump(exclude_unset=True),
    )


def _label(path: Path, name: str) -> int:
    if not (name.isascii() and name.isdecimal() and str(int(name)) == name):
        raise CalibrationError(f"{path}: class_rows: expected labels, got {name!r}; {_AGAIN}")
    return int(name)


def _scores(path: Path, arrays: dict[str, Array], name: str, rows: int) -> Array:
    scores = arrays.pop(name, None)
    if scores is None:
        raise CalibrationError(f"{path}: {name}: there is no such tensor; {_AGAIN}")
    if scores.shape != (rows,) or scores.dtype != np.float64:
        raise CalibrationError(
            f"{path}: {name}: expected {rows} values of float64, got "
            f"{scores.shape} of {scores.dtype}; {_AGAIN}"
        )
    # Not sorted, or NaN: a comparison with NaN is false.
    if np.isnan(scores[0]) or not (scores[:-1] <= scores[1:]).all():
        raise CalibrationError(f"{path}: {name}: expected ascending values without NaN; {_AGAIN}")
    return scores


def _check_values(path: Path, grid: Array | None, parameters: Mapping[str, Array]) -> None:
    if grid is not None and (grid.ndim != 2 or len(grid) != GRID_SIZE):
        raise CalibrationError(f"{path}: grid: expected ({GRID_SIZE}, D), got {grid.shape}")
    values = {**parameters, **({} if grid is None else {"grid": grid})}
    for name, value in values.items():
        if value.dtype != np.float64 or not np.isfinite(value).all():
            raise CalibrationError(f"{path}: {name}: expected finite values of float64; {_AGAIN}")
