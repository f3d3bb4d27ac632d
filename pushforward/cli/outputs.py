"""What `pushforward client` writes: arrays to .npy, .npz, .csv and .parquet, or JSON."""

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.checkpoints.files import written
from models.datasets.dataset import optional_package

Array = NDArray[Any]

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


def write(
    path: Path | None, outputs: Mapping[str, Any], names: Sequence[str], *, header: bool
) -> None:
    """Write outputs to a file, or as CSV to standard output.

    .npz holds them all under their names; .parquet, and .csv with a header, as columns beside each
    other; .npy and .csv the first of them. A masked number is NaN, in CSV an empty cell.

    Args:
        path: of the file.
        outputs: the arrays of rows, and scalars, which .npz alone holds.
        names: of the columns of x, none where they have none.
        header: whether CSV begins with names.

    Raises:
        OSError: the file cannot be written.
        ValueError: pyarrow is missing.
    """
    arrays = {name: value for name, value in outputs.items() if isinstance(value, np.ndarray)}
    first = next(iter(arrays.values()))
    table = _columns(arrays, names)
    if path is None:
        sys.stdout.write(_to_csv(table if header else {"": first}, header=header))
        sys.stdout.flush()
        return
    if path.suffix == ".parquet":
        _write_parquet(path, table)
        return
    if path.suffix == ".npz":
        write_arrays(path, outputs)
        return
    with written(path) as fresh, fresh.open("wb") as file:
        if path.suffix == ".csv":
            file.write(_to_csv(table if header else {"": first}, header=header).encode())
            return
        # numpy seeks, which a pipe cannot, and makes of a full disk an error without a name.
        buffer = io.BytesIO()
        np.save(buffer, _filled(first), allow_pickle=False)
        file.write(buffer.getbuffer())


def write_arrays(path: Path, values: Mapping[str, Any]) -> None:
    """Write values to a .npz file: arrays, and what is one number or text.

    Objects and lists become JSON text. The rest is left out.

    Raises:
        OSError: the file cannot be written.
    """
    values = {
        name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in values.items()
    }
    kept = (np.ndarray, str, int, float)
    arrays = {name: _filled(value) for name, value in values.items() if isinstance(value, kept)}
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


def _columns(arrays: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """A column for each number of a row; those of x are called as the model calls them."""
    columns: dict[str, Array] = {}
    for name, values in arrays.items():
        flat = values.reshape(len(values), -1)
        if values.ndim == 1:
            columns[name] = values
        elif name == "x" and len(names) == flat.shape[1]:
            columns |= zip(names, flat.T, strict=True)
        else:
            columns |= {f"{name}_{index}": column for index, column in enumerate(flat.T)}
    return columns


def _to_csv(columns: Mapping[str, Array], *, header: bool) -> str:
    # A line a row, whatever its shape; as many digits as tell every number from its neighbours.
    flat = [values.reshape(len(values), -1) for values in columns.values()]
    digits = [9 if values.dtype == np.float32 else 17 for values in flat for _ in values.T]
    table: Any = np.ma.concatenate(flat, axis=1)  # type: ignore[no-untyped-call]
    lines = io.StringIO()
    if header:
        csv.writer(lines, lineterminator="\n").writerow(columns)
    if np.ma.is_masked(table):
        write = csv.writer(lines, lineterminator="\n").writerow
        for row, hidden in zip(table.data.tolist(), np.ma.getmaskarray(table), strict=True):
            write(
                "" if is_hidden else f"{value:.{digit}g}"
                for value, is_hidden, digit in zip(row, hidden, digits, strict=True)
            )
    else:
        np.savetxt(lines, table.data, fmt=[f"%.{digit}g" for digit in digits], delimiter=",")
    return lines.getvalue()


def _write_parquet(path: Path, columns: Mapping[str, Array]) -> None:
    pyarrow = optional_package("pyarrow", needed_for="writing .parquet", extra="files")
    parquet = optional_package("pyarrow.parquet", needed_for="writing .parquet", extra="files")
    table = pyarrow.table(
        {
            name: pyarrow.array(np.ma.getdata(values), mask=np.ma.getmaskarray(values))
            for name, values in columns.items()
        }
    )
    with written(path) as fresh:
        parquet.write_table(table, str(fresh))


def _filled(value: Any) -> Array:
    """An array with NaN in the place of what is masked."""
    if isinstance(value, np.ma.MaskedArray):
        return value.filled(False if value.dtype == bool else np.nan)
    return np.asarray(value)
