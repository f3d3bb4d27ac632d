"""What a registry stores beside a model: its folders, and a few rows that it takes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.datasets.dataset import optional_package
from pushforward.batch.calls import RowCall
from pushforward.batch.session import Session
from service.codec.tensors import Array

_ROWS = 3


class ModelExample(NamedTuple):
    """A model that was loaded once.

    name: its own.
    path: of it among the folders.
    engine: that computes it.
    folders: by their path in the repository, of all models that it needs.
    frame: rows that it takes, as pandas has them.
    """

    name: str
    path: str
    engine: str
    folders: Mapping[str, Path]
    frame: Any


def example_of(model: Path, operation: str, settings: Mapping[str, Any]) -> ModelExample:
    """Load a model, and make rows for an operation of it.

    Args:
        model: its folder.
        operation: which takes rows.
        settings: of `Scorer`: columns and context name the columns.

    Raises:
        ValueError: the model cannot be loaded, or the operation takes no rows.
    """
    session = Session(model)
    try:
        frame = _frame(session, operation, settings)
        name, engine = session.location.name, session.card.engine
        path = next(iter(session.folders))
        return ModelExample(name, path, engine, session.folders, frame)
    finally:
        session.close()


def _frame(session: Session, operation: str, settings: Mapping[str, Any]) -> Any:
    pandas = optional_package("pandas", needed_for="models in MLflow", extra="mlflow")
    card, tensor = session.card, session.operation(operation).tensor_name
    if tensor is None:
        raise ValueError(f"operation: expected one that takes rows, got {operation!r}")
    names = settings.get("columns") or (card.feature_names if tensor == "x" else None)
    rows = _rows(session, operation)
    if names is None:
        columns: dict[str, Any] = {tensor: rows.tolist()}
    else:
        columns = dict(zip(names, rows.T, strict=True))
    label = 0.0 if card.num_classes is None else (card.class_names or (0,))[0]
    columns |= {column: [label] * _ROWS for column in settings.get("context") or ()}
    return pandas.DataFrame(columns)


def _rows(session: Session, operation: str) -> Array:
    """Rows of the model's own where nothing conditions them, else zeros."""
    card, chosen = session.card, session.operation(operation)
    width = math.prod(chosen.row_shape(card))
    if card.context_shape is not None or chosen.tensor_name != "x":
        return np.zeros((_ROWS, width))
    drawn = session.compute(RowCall("sample", {"seed": 0}, {}, _ROWS, 0))
    return drawn.outputs["x"].reshape(_ROWS, width).astype(np.float64)
