"""Which rows of the data a command takes: by what a model folder knows of its training rows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from models.datasets import Dataset, is_named, is_same_split, split
from models.datasets.rows import Digests, is_among, read_rows
from models.scoring.rows import trained_on

Indices = NDArray[np.int64]


def choose_rows(
    data: Dataset,
    rows: str,
    folder: Path,
    provenance: Mapping[str, Any],
    *,
    instead: str = "score them with --rows all",
) -> Indices:
    """Choose rows: `all`, those of a part of the model's split, or `auto`, all but the trained on.

    What was chosen is told on stderr.

    Args:
        data: to choose of.
        rows: which.
        folder: of the model.
        provenance: of the model.
        instead: what to do where the model was trained on all of them.

    Returns:
        Their indices.

    Raises:
        ValueError: if no such row is there.
    """
    if rows == "all":
        return np.arange(len(data))
    digests = None if data.recipe else read_rows(folder)
    if digests is None:
        return _choose_by_split(data, rows, provenance, trained_on(folder))
    return _choose_by_row(data, rows, digests, instead)


def _choose_by_row(
    data: Dataset, rows: str, digests: Mapping[str, Digests], instead: str
) -> Indices:
    """By what the folder holds: a digest of every row, trained on or kept apart."""
    if rows != "auto":
        is_part = is_among(data, digests[rows])
        if not is_part.any():
            raise ValueError(
                f"--rows {rows}: none of these rows is one of the model's {rows} rows; use "
                "--rows all"
            )
        chosen = np.flatnonzero(is_part)
        typer.echo(f"the model's {rows} rows: {len(chosen)} of {len(data)}", err=True)
        return chosen
    is_trained_on = is_among(data, np.concatenate([digests["train"], digests["validation"]]))
    if is_trained_on.all():
        raise ValueError(f"the model was trained on all of these rows; {instead}")
    chosen = np.flatnonzero(~is_trained_on)
    if is_trained_on.any():
        typer.echo(
            f"the model was trained on {int(is_trained_on.sum())} of {len(data)} rows; the other "
            f"{len(chosen)} are scored",
            err=True,
        )
    return chosen


def _choose_by_split(data: Dataset, rows: str, provenance: Mapping[str, Any], text: str) -> Indices:
    """By splitting again: generated data, and folders that hold no digests of rows."""
    is_training_data = is_named(data, provenance.get("data_sha256"), text)
    if rows == "auto" and not is_training_data:
        return np.arange(len(data))
    if not is_training_data:
        raise ValueError(
            f"--rows {rows}: the model was not trained on these data, so there is no split; use "
            "--rows all"
        )
    if not is_same_split(data, text):
        raise ValueError(
            "the folder does not hold which rows were kept apart, and other options split the "
            f"data in another way: use --data '{text}', or --rows all"
        )
    facts = provenance["split"]
    parts = split(
        # The labels carry the indices of the rows.
        replace(data, labels=np.arange(len(data))),
        validation=facts["validation_fraction"],
        test=facts["test_fraction"],
        seed=facts["seed"],
    )
    name = "test" if rows == "auto" else rows
    chosen: Indices = getattr(parts, name).labels
    typer.echo(f"the model's own data: {len(chosen)} {name} rows of {len(data)}", err=True)
    return chosen
