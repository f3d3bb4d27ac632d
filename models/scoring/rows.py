"""Calibration rows: rows that a model never saw, checked by the digests that its folder holds.

Conformal p-values hold for rows that are exchangeable with the calibration rows. Rows that a model
was trained on are more likely to it than new ones, so a threshold of theirs is too low: it alarms
more often than it says.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.datasets import Dataset, DatasetError, is_named, load, split
from models.datasets.rows import Digests, read_rows, row_digests
from models.datasets.spec import Spec
from models.datasets.toys import TOYS

# Written by training beside the model; see `models.training.report`, which needs torch.
_REPORT_FILE = "training.json"
# Standard errors above the rate of twins in the model's own split.
_ERRORS = 3.0


def trained_on(folder: Path) -> str:
    """The text that named the training data; empty in a folder that was not trained here."""
    try:
        report = json.loads((folder / _REPORT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    return str(report["data"]["spec"])


class CheckedRows(NamedTuple):
    """What is known of calibration rows.

    what: as a sentence. is_known: whether it could be checked.
    """

    what: str
    is_known: bool


def check_unseen(
    data: Dataset, folder: Path, provenance: Mapping[str, Any], *, whole: Dataset | None = None
) -> CheckedRows:
    """See that a model was neither trained nor validated on any of these rows.

    Tables of few different values have rows that are equal without being the same ones: as large a
    share of equal rows as the model's own test rows have with its training rows is let pass.

    Args:
        data: the rows.
        folder: of the model.
        provenance: of the model, as config.json has it.
        whole: what they were taken from, where that was not by the split of training.

    Raises:
        DatasetError: it was; says of how many rows, and what to do.
    """
    record = _record(folder, provenance)
    if record is None:
        sha256, text = provenance.get("data_sha256"), trained_on(folder)
        if whole is not None and is_named(whole, sha256, text):
            raise _seen(len(data), len(data), data.name)
        return CheckedRows(
            "whether the model was trained on its calibration rows could not be checked: its "
            "folder holds no record of its training rows",
            is_known=False,
        )
    seen = np.concatenate([record["train"], record["validation"]])
    equal = int(np.isin(row_digests(data.x), seen).sum())
    if equal > _twins(record["test"], seen, len(data)):
        raise _seen(equal, len(data), data.name)
    rows = f"{len(seen)} rows that the model was trained or validated on"
    if equal:
        what = f"{equal} of {len(data)} rows equal one of the {rows}, as its own test rows do"
    else:
        what = f"none of {len(data)} rows is among the {rows}"
    return CheckedRows(what, is_known=True)


def _twins(test: Digests, seen: Digests, rows: int) -> float:
    """How many of so many unseen rows may equal a seen one, judged by the rows of the test."""
    rate = float(np.isin(test, seen).mean()) if len(test) else 0.0
    return rows * rate + _ERRORS * math.sqrt(rows * rate * (1 - rate))


def _record(folder: Path, provenance: Mapping[str, Any]) -> Mapping[str, Digests] | None:
    """Digests of the rows of the split: those in the folder, or those of data generated again."""
    stored = read_rows(folder)
    text, facts = trained_on(folder), provenance.get("split")
    if stored is not None or facts is None or Spec.parse(text).name not in TOYS:
        return stored
    data = load(text)
    if not is_named(data, provenance.get("data_sha256"), text):
        return None
    parts = split(
        data,
        validation=facts["validation_fraction"],
        test=facts["test_fraction"],
        seed=facts["seed"],
    )
    return {name: row_digests(getattr(parts, name).x) for name in parts._fields}


def _seen(equal: int, rows: int, name: str) -> DatasetError:
    return DatasetError(
        f"{name}: the model was trained or validated on {equal} of these {rows} rows, which it "
        "finds more likely than new ones: a threshold of theirs gives more false alarms than it "
        "says; give it rows that were kept apart, or leave the others out with --rows auto"
    )


def last_in_order(order: NDArray[Any], share: float) -> NDArray[np.int64]:
    """Indices of the last rows in an order, as many as a share of them; of equals, later rows.

    Args:
        order: (N,) numbers or times.
        share: of the rows, in (0, 1].

    Returns:
        Indices in that order, at least one.
    """
    count = max(1, round(share * len(order)))
    return np.argsort(order, kind="stable")[-count:].astype(np.int64)
