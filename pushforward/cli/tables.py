"""Files of rows that the client reads and writes; what it needs is numpy alone."""

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from models.checkpoints.files import written

Array = NDArray[np.generic]

PICTURES = (".png", ".jpg", ".jpeg")


def read(path: Path) -> Array | bytes:
    """Read an array, or the bytes of a picture.

    Raises:
        ValueError: it is neither, or the file is not what its name says.
    """
    if path.suffix.lower() in PICTURES:
        return path.read_bytes()
    if path.suffix == ".npy":
        array: Array = np.load(path, allow_pickle=False)
        return array
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", ndmin=2)
    raise ValueError(f"{path}: expected .npy, .csv, .png or .jpg")


def read_rows(path: Path, feature_names: Callable[[], Sequence[str]]) -> Array | bytes:
    """Read rows; where a .csv file begins with names its columns are those of the model, in order.

    Args:
        path: of the file.
        feature_names: asks for the names that the model has, none if it knows none.

    Raises:
        ValueError: the model does not know names, or the table lacks one of its columns.
    """
    found = _read_header(path)
    if not found:
        return read(path)
    wanted = feature_names()
    if not wanted:
        raise ValueError(
            f"{path}: the first line holds names, and the model does not know those of its "
            "columns: remove the line, and give the columns in the model's order"
        )
    _check_columns(path, found, wanted)
    order = [found.index(name) for name in wanted]
    return np.loadtxt(path, delimiter=",", ndmin=2, skiprows=1, usecols=order)


def _read_header(path: Path) -> list[str]:
    """The names in the first line of a .csv file; none where it holds numbers alone."""
    if path.suffix.lower() != ".csv":
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = [cell.strip() for cell in next(csv.reader(file), [])]
    try:
        [float(cell) for cell in first]
    except ValueError:
        return first
    return []


def _check_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    # `models.datasets.schema` says the same of training data; it takes PyTorch along.
    missing = [name for name in wanted if name not in found]
    if missing:
        others = [name for name in found if name not in wanted]
        shown = ", ".join(map(repr, missing[:5])) + (" ..." if len(missing) > 5 else "")
        beside = f"; columns it does not know: {', '.join(map(repr, others[:5]))}" if others else ""
        raise ValueError(
            f"{path}: the model needs the column{'s' if len(missing) > 1 else ''} {shown}, and "
            f"the table has none of that name{beside}; name its columns as the model does: "
            f"{', '.join(wanted)}"
        )


def write(path: Path | None, values: Array) -> None:
    """Write rows to a .npy or .csv file, or as CSV to standard output.

    Raises:
        OSError: the file cannot be written.
    """
    if path is None:
        _write_csv(sys.stdout, values)
        sys.stdout.flush()
        return
    with written(path) as fresh, fresh.open("wb") as file:
        if path.suffix == ".csv":
            _write_csv(file, values)
            return
        # numpy seeks, which a pipe cannot, and makes of a full disk an error without a name.
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        file.write(buffer.getbuffer())


def write_arrays(path: Path, values: Mapping[str, Any]) -> None:
    """Write values to a .npz file: arrays, and what is one number or text; the rest is left out.

    Raises:
        OSError: the file cannot be written.
    """
    kept = (np.ndarray, str, int, float)
    arrays = {name: np.asarray(value) for name, value in values.items() if isinstance(value, kept)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    with written(path) as fresh:
        fresh.write_bytes(buffer.getbuffer())


def write_json(values: Mapping[str, Any]) -> None:
    """Print values as one JSON document; a number that JSON cannot hold is null."""
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
    print(json.dumps(_finite(plain)), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(file: IO[Any], values: Array) -> None:
    # A line a row, whatever its shape; as many digits as tell every number from its neighbours.
    digits = 9 if values.dtype == np.float32 else 17
    flat = values.reshape(len(values), -1)
    np.savetxt(file, flat, fmt=f"%.{digits}g", delimiter=",")
