"""Rows of a model's table in the order of its columns, from whatever order a client has."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from service.codec.columns import (
    FIELD,
    Table,
    check_objects,
    find_order,
    name_keys,
    order_objects,
)
from service.codec.tensors import Array
from service.contracts import ModelCard
from service.errors import InvalidParameter, InvalidRequest


def is_by_name(value: Any) -> bool:
    """Whether rows name their columns themselves."""
    kind = type(value)
    return (kind is list and len(value) > 0 and type(value[0]) is dict) or kind is Table


def read_by_name(
    value: Any,
    columns: Sequence[str] | None,
    card: ModelCard,
    name: str,
    read: Callable[[Any], Array],
) -> Array:
    """Read rows whose columns have names.

    Args:
        value: lists or an array beside `columns`, or objects or a `Table`.
        columns: the field of that name.
        card: of the model that they are for.
        name: of the tensor.
        read: reads rows whose columns are in some order, and checks them.

    Returns:
        What `read` gives, in the order of the model.

    Raises:
        InvalidParameter: the model's columns have no names, or they are named in two places.
        UnknownField, MissingField: the names are not the model's.
        InvalidRequest: of `read`, saying in which column.
    """
    wanted = names_of(card, FIELD if columns is not None else name)
    if not is_by_name(value):
        assert columns is not None
        order = find_order(columns, wanted, FIELD, f"/{FIELD}")
        try:
            return read(value).take(order, axis=1)
        except InvalidRequest as error:
            error.name_columns(columns)
            raise
    if columns is not None:
        raise InvalidParameter(
            f"{FIELD}: leave it out, the rows name their columns themselves", at=f"/{FIELD}"
        )
    try:
        if type(value) is Table:
            order = find_order(value.columns, wanted, name, f"/{name}")
            return read(value.values).take(order, axis=1)
        return read(order_objects(value, name, wanted))
    except InvalidRequest as error:
        if type(value) is list:
            check_objects(value, name)
        name_keys(error, value.columns if type(value) is Table else wanted)
        raise


def answer_order(columns: Sequence[str] | None, card: ModelCard) -> list[int] | None:
    """Find in which order the columns of an answer are wanted; None is the model's own.

    Raises:
        InvalidParameter: the model's columns have no names.
        UnknownField, MissingField: the names are not the model's.
    """
    if columns is None:
        return None
    wanted = names_of(card, FIELD)
    order = find_order(columns, wanted, FIELD, f"/{FIELD}")
    inverse: list[int] = np.argsort(order).tolist()
    return inverse


def names_of(card: ModelCard, field: str) -> tuple[str, ...]:
    """The names of a model's columns.

    Raises:
        InvalidParameter: they have none.
    """
    if card.feature_names is None:
        raise InvalidParameter(
            f"{field}: the columns of model {card.name} have no names, send rows as lists in its "
            "own order",
            at=f"/{field}",
        )
    return card.feature_names


def name_rows(fields: dict[str, Any], card: ModelCard) -> dict[str, Any]:
    """Write the rows of a request's x as objects."""
    names = names_of(card, FIELD)
    rows = [dict(zip(names, row, strict=True)) for row in fields["x"]]
    return {**fields, "x": rows}
