"""The schema of a table: which columns a model was trained on, and rows matched to it by name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from models.datasets.dataset import Dataset, DatasetError

COLUMNS_KEY = "columns"
CLASSES_KEY = "class_names"
# "mass [kg]", "mass (kg)": the unit as files state it.
_UNIT = re.compile(r".*\S\s*[\[(]([^\])]+)[\])]\s*$")


@dataclass(frozen=True, slots=True)
class Column:
    """A feature of a table.

    Args:
        name: as the file has it.
        kind: "integer" where every value is a whole number, else "real"; None where unknown.
        unit: as the file states it, None where it does not.
        low, high: smallest and largest value trained on, None where unknown.
        discrete: True where the flow was trained on whole numbers with uniform noise, else None.
    """

    name: str
    kind: str | None = None
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    discrete: bool | None = None


def describe(data: Dataset) -> tuple[Column, ...]:
    """The columns of a table, in the order in which a flow takes them; none without names."""
    columns = []
    for index, (name, values) in enumerate(zip(data.columns, data.x.T, strict=False)):
        whole = bool(np.all(values == np.floor(values)))
        unit = _UNIT.match(name)
        columns.append(
            Column(
                name,
                "integer" if whole else "real",
                unit.group(1) if unit else None,
                float(values.min()),
                float(values.max()),
                True if index in data.discrete else None,
            )
        )
    return tuple(columns)


def named(names: Sequence[str], features: int) -> tuple[Column, ...]:
    """Columns of which the names alone are known.

    Raises:
        DatasetError: if they are not as many as the flow has features, empty, or not distinct.
    """
    if len(names) != features:
        raise DatasetError(f"feature names: expected {features}, one a feature, got {len(names)}")
    if not all(names) or len(set(names)) != len(names):
        raise DatasetError(f"feature names: expected {features} different names, got {names}")
    return tuple(map(Column, names))


def to_json(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """As `provenance` holds them: what is unknown is left out."""
    return [{k: v for k, v in asdict(column).items() if v is not None} for column in columns]


def columns_of(provenance: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns that a model's provenance states; none in folders without."""
    return tuple(Column(**fields) for fields in provenance.get(COLUMNS_KEY, ()))


def feature_names(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the features of a model, in its order; none where they are not known."""
    return tuple(column.name for column in columns_of(provenance))


def class_names(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes of a class-conditional model, by index; none where not known."""
    return tuple(provenance.get(CLASSES_KEY, ()))


def discrete_names(
    discrete: Sequence[int], provenance: Mapping[str, Any]
) -> tuple[str, ...] | tuple[int, ...]:
    """The columns of whole numbers of a model, by name, or by index where names are not known."""
    names = feature_names(provenance)
    return tuple(names[index] for index in discrete) if names else tuple(discrete)


def match(data: Dataset, names: Sequence[str]) -> Dataset:
    """The data with the columns of a model, in its order.

    Columns without names are taken in the order they have. Columns that the model does not have
    are left out, and named in `ignored`.

    Raises:
        DatasetError: if a column is missing.
    """
    if not names or not data.columns or data.columns == tuple(names):
        return data
    check_columns(data.name, data.columns, names)
    order = [data.columns.index(name) for name in names]
    others = tuple(name for name in data.columns if name not in names)
    return replace(
        data,
        x=data.x[:, order],
        columns=tuple(names),
        ignored=(*data.ignored, *others),
        discrete=tuple(new for new, old in enumerate(order) if old in data.discrete),
    )


def check_columns(source: str, found: Sequence[str], names: Sequence[str]) -> None:
    """Compare the columns of a table with those that a model needs.

    Raises:
        DatasetError: naming the columns that are missing, and those that are there.
    """
    missing = [name for name in names if name not in found]
    if missing:
        others = [name for name in found if name not in names]
        shown = ", ".join(map(repr, missing[:5])) + (" ..." if len(missing) > 5 else "")
        beside = f"; columns it does not know: {', '.join(map(repr, others[:5]))}" if others else ""
        raise DatasetError(
            f"{source}: the model needs the column{'s' if len(missing) > 1 else ''} {shown}, and "
            f"the table has none of that name{beside}; name its columns as the model does: "
            f"{', '.join(names)}"
        )


def match_classes(data: Dataset, names: Sequence[str]) -> Dataset:
    """The data with the classes of a model: its numbers for the labels that the rows have.

    Raises:
        DatasetError: if a row has a label that the model does not know.
    """
    if not names or data.labels is None or data.label_names == tuple(names):
        return data
    unknown = [label for label in data.label_names if label not in names]
    if unknown:
        raise DatasetError(
            f"{data.name}: no class {unknown[0]!r}; the model's classes are {', '.join(names)}"
        )
    indices = np.array([names.index(label) for label in data.label_names], np.int64)
    return replace(data, labels=indices[data.labels], label_names=tuple(names))
