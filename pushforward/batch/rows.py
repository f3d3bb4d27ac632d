"""Rows for a model, and what is wrong with those that no request can hold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pushforward.batch.calls import RowCall
from pushforward.batch.status import UNKNOWN_LABEL
from service.codec.missing import MISSING
from service.codec.tensors import Array
from service.contracts import ModelCard

# What is wrong with which row, as `pushforward.batch.status` numbers it.
Codes = dict[int, int]
# Reads a column of numbers: its name, its values, and where to say what is wrong.
ReadNumbers = Callable[[str, Any, Codes], Array]


class InputRows(NamedTuple):
    """Rows of a table.

    values: float64 (B, *shape), `MISSING` where there is no number.
    context: None of an unconditional model.
    codes: of rows that are known to be bad.
    """

    values: Array
    context: Array | None
    codes: Codes

    def call(self, operation: str, fields: Mapping[str, Any], tensor: str) -> RowCall:
        """Ask an operation about them."""
        rows = {tensor: self.values}
        if self.context is not None:
            rows["context"] = self.context
        return RowCall(operation, fields, rows, len(self.values))

    def codes_with(self, answered: Array) -> Array:
        """The codes of the answer, with what was known before."""
        if self.codes:
            answered = answered.copy()
            answered[list(self.codes)] = list(self.codes.values())
        return answered


def context_of(
    columns: Sequence[Any], card: ModelCard, codes: Codes, read: ReadNumbers
) -> Array | None:
    """What rows are conditioned on: float64 (B, ...), or labels (B,), NaN where there is none."""
    if not columns:
        return None
    if card.num_classes is None:
        numbers = [read("context", column, codes) for column in columns]
        return np.stack(numbers, axis=1).reshape(-1, *(card.context_shape or ()))
    return _labels(np.asarray(columns[0]), card, codes)


def _labels(column: Array, card: ModelCard, codes: Codes) -> Array:
    """One-hot rows of labels, by name where classes have names; a row of `MISSING` where none is.

    A label that the model does not know is a fault of its row.
    """
    numbers = range(card.num_classes or 0)
    known: dict[Any, int] = {index: index for index in numbers}
    known |= {str(index): index for index in numbers}
    if card.class_names is not None:
        known |= {name: index for index, name in enumerate(card.class_names)}
    context = np.zeros((len(column), card.num_classes or 0))
    for row, label in enumerate(column.tolist()):
        index = None if _is_absent(label) else known.get(label, known.get(str(label).strip()))
        if index is not None:
            context[row, index] = 1
            continue
        context[row] = MISSING
        if not _is_absent(label):
            codes[row] = UNKNOWN_LABEL
    return context


def _is_absent(label: Any) -> bool:
    return label is None or label == "" or label != label
