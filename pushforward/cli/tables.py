"""Rows and pictures that the client reads from files, by the reader that training has."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from models.datasets.tables import Rows, read_rows

PICTURES = (".png", ".jpg", ".jpeg")


def find_file(text: str) -> Path:
    """The file that a text names, which may have options behind a question mark.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(text)
    if not path.exists():
        path = Path(text.partition("?")[0])
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return path


def read(
    text: str, features: Callable[[], Sequence[str]] | None = None, array: str = "x"
) -> Rows | bytes:
    """Read rows, or the bytes of a picture.

    Args:
        text: which file, as `pushforward train --data` takes it.
        features: asks for the names of the model's columns, none if it knows none; left out, all
            columns are taken in the order of the file.
        array: the one that is read of an .npz file.

    Raises:
        ValueError: it is neither, or the file is not what its name says, or lacks a column.
        OSError: it cannot be read.
    """
    path = find_file(text)
    if path.suffix.lower() in PICTURES:
        return path.read_bytes()
    return read_rows(text, features, array)
