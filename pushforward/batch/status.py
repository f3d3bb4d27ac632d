"""The column `status`: "" of a row that has its numbers, else what it has in the place of them."""

from typing import Any

import numpy as np

from models.datasets.dataset import optional_package
from service.codec.tensors import Array
from service.operations.failures import CODES

_INVALID = "invalid_input"
# What can be wrong with a row of a file that no request can hold.
_OF_FILES = ("text", "malformed_row", "wrong_length", "unknown_label")

TEXTS = (
    "",
    *(f"{status}: {reason}" for status, reason in CODES[1:]),
    *(f"{_INVALID}: {reason}" for reason in _OF_FILES),
)
TEXT, MALFORMED_ROW, WRONG_LENGTH, UNKNOWN_LABEL = range(len(CODES), len(TEXTS))


def arrow_texts_of(codes: Array) -> Any:
    """The statuses of codes, as an array of Arrow."""
    pyarrow = optional_package("pyarrow", needed_for="files", extra="files")
    if not codes.any():
        # As `pyarrow.repeat("", len(codes))`, which imports pandas where it is installed.
        offsets = pyarrow.py_buffer(np.zeros(len(codes) + 1, np.int32))
        buffers = [None, offsets, pyarrow.py_buffer(b"")]
        return pyarrow.Array.from_buffers(pyarrow.string(), len(codes), buffers)
    return pyarrow.array(TEXTS, pyarrow.string()).take(pyarrow.array(codes))


def texts_of(codes: Array) -> Array:
    """The statuses of codes, as text."""
    texts: Array = np.array(TEXTS)[codes]
    return texts
