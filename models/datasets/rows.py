"""Which rows a model was trained on and which were kept apart: a digest a row, in its folder.

    rows.safetensors     train, validation, test: int64 digests of the rows, sorted

A row is named by its values, so it is recognised in a file with other rows, in another order, with
its columns in another order. Generated data are not stored: their recipe names them, and their last
bits are those of the CPU that drew them.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from models.checkpoints.files import write_file
from models.datasets.dataset import Dataset, DatasetError, Split

ROWS_FILE = "rows.safetensors"
PARTS = ("train", "validation", "test")

Digests = NDArray[np.int64]


def row_digests(x: NDArray[Any]) -> Digests:
    """BLAKE2b, 64 bits, of each row's values as float64. x (N, ...) -> (N,)."""
    flat = np.ascontiguousarray(x.reshape(len(x), math.prod(x.shape[1:])), dtype="<f8")
    flat = flat + 0.0  # minus zero is zero
    found = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in flat)
    return np.frombuffer(found, "<i8").astype(np.int64)


def write_rows(folder: Path, parts: Split) -> None:
    """Write the digests of a split beside the model that was trained on it."""
    arrays = {name: np.sort(row_digests(getattr(parts, name).x)).astype(np.int64) for name in PARTS}
    write_file(folder / ROWS_FILE, to_bytes(arrays, {"digest": "blake2b-64 of float64 values"}))


def read_rows(folder: Path) -> Mapping[str, Digests] | None:
    """The digests in a model folder; None where it has none.

    Raises:
        DatasetError: if the file is damaged.
    """
    path = folder / ROWS_FILE
    if not path.is_file():
        return None
    try:
        arrays = load_file(path)
        return {name: arrays[name] for name in PARTS}
    except (OSError, KeyError, SafetensorError) as error:
        raise DatasetError(f"{path}: not the digests of rows: {error}") from error


def is_among(data: Dataset, digests: Digests) -> NDArray[np.bool_]:
    """Which rows are among digests, each as often as it is there.

    Returns:
        (N,).
    """
    left = Counter(digests.tolist())
    found = np.zeros(len(data), bool)
    for index, digest in enumerate(row_digests(data.x).tolist()):
        if left[digest] > 0:
            left[digest] -= 1
            found[index] = True
    return found
