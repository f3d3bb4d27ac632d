"""Columns of Arrow to the rows of a model: numbers, and what is wrong with which row."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from models.datasets.dataset import optional_package
from models.datasets.dialect import MISSING as MISSING_TEXTS
from pushforward.batch.layout import Layout, Wanted
from pushforward.batch.rows import Codes, InputRows, context_of
from pushforward.batch.status import TEXT, WRONG_LENGTH
from service.codec.missing import MISSING
from service.codec.tensors import Array
from service.contracts import ModelCard

# What Arrow reads as a number, and what it does not: a sign before it, blanks around it.
_NUMBER = r"^(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_INFINITE = r"^[+-]?(?i:inf|infinity)$"


def check_types(schema: Any, layout: Layout, wanted: Wanted, source: str) -> None:
    """Refuse columns that hold no numbers, and lists of what are none.

    Raises:
        ValueError: naming the first of them.
    """
    types = optional_package("pyarrow.types", needed_for="reading tables")
    context = () if wanted.has_labels else layout.context
    for name in (*layout.features, *context):
        kind = schema.field(name).type
        inner = kind.value_type if layout.is_tensor and is_list(kind) else kind
        inner = inner.value_type if types.is_dictionary(inner) else inner
        is_number = (
            types.is_integer(inner)
            or types.is_floating(inner)
            or types.is_decimal(inner)
            or types.is_null(inner)
        )
        if not is_number or (is_list(kind) and not layout.is_tensor):
            raise ValueError(
                f"{source}: column {name!r} holds {kind}, not numbers; write it as numbers, or "
                "name other columns by columns"
            )


def check_kept(files: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Refuse files whose columns to keep are not of the types of the first file, or narrower ones.

    Args:
        files: of each its name, for messages, and its columns to keep as fields of Arrow.

    Raises:
        ValueError: naming the first of them.
    """
    (first, wanted), *others = files
    for source, fields in others:
        for field, expected in zip(fields, wanted, strict=True):
            kind, wider = _kept_type(field.type), _kept_type(expected.type)
            if not _holds(wider, kind):
                raise ValueError(
                    f"{source}: keep: column {field.name!r} holds {kind}, and {wider} in the first "
                    f"file, {first}; write one type, or name the wider one first"
                )


def _kept_type(kind: Any) -> Any:
    """A type without how it is stored: dictionaries, and long or viewed text."""
    pyarrow = optional_package("pyarrow", needed_for="reading tables")
    types = optional_package("pyarrow.types", needed_for="reading tables")
    kind = kind.value_type if types.is_dictionary(kind) else kind
    is_text = types.is_large_string(kind) or types.is_string_view(kind)
    return pyarrow.string() if is_text else kind


def _holds(expected: Any, kind: Any) -> bool:
    """Whether a column of a type has a place for all values of another: numbers as text do too."""
    pyarrow = optional_package("pyarrow", needed_for="reading tables")
    types = optional_package("pyarrow.types", needed_for="reading tables")
    if types.is_string(expected) and types.is_primitive(kind):
        return True
    schemas = [pyarrow.schema([("column", each)]) for each in (expected, kind)]
    try:
        wider = pyarrow.unify_schemas(schemas, promote_options="permissive")
    except pyarrow.ArrowTypeError:
        return False
    return bool(wider.field(0).type == expected)


def is_list(kind: Any) -> bool:
    """Whether a column of this type holds a list a row."""
    types = optional_package("pyarrow.types", needed_for="reading tables")
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def rows_of_table(
    table: Any, layout: Layout, wanted: Wanted, card: ModelCard, *, codes: Codes, decimal: str
) -> InputRows:
    """The rows of a model in a table.

    Args:
        table: as Arrow has it.
        layout: which columns are what.
        wanted: what the model takes.
        card: the model's.
        codes: what is wrong with rows already; added to.
        decimal: the decimal mark of numbers in text.
    """
    read = partial(_numbers, decimal=decimal)
    total = table.num_rows
    plain = _plain_rows(table, layout, card.numpy_dtype)
    if plain is not None and not codes and not layout.context:
        return InputRows(plain.reshape(total, *wanted.shape), None, codes)
    if layout.is_tensor:
        values = _lists(table.column(layout.features[0]), wanted.width, codes)
    else:
        values = np.empty((total, len(layout.features)))
        for index, name in enumerate(layout.features):
            values[:, index] = read(name, table.column(name), codes)
    if codes:
        values[list(codes)] = MISSING
    columns: Sequence[Any] = [table.column(name) for name in layout.context]
    if columns and card.num_classes is not None:
        columns = [_plain(columns[0]).to_numpy(zero_copy_only=False)]
    context = context_of(columns, card, codes, read)
    return InputRows(values.reshape(total, *wanted.shape), context, codes)


def _plain_rows(table: Any, layout: Layout, dtype: np.dtype[Any]) -> Array | None:
    """Rows of numbers that are all there and fit, in the model's dtype; None of all others.

    Most files hold no others, and these take a copy less.
    """
    types = optional_package("pyarrow.types", needed_for="reading tables")
    columns = [table.column(name) for name in layout.features]
    if any(not types.is_floating(each.type) or each.null_count for each in columns):
        return None
    values = np.empty((table.num_rows, len(columns)), dtype)
    with np.errstate(over="ignore"):
        for index, column in enumerate(columns):
            start = 0
            for chunk in column.chunks:
                # Not `to_numpy`, which imports pandas where it is installed: half a second.
                values[start : start + len(chunk), index] = np.from_dlpack(chunk)
                start += len(chunk)
    return values if np.isfinite(values).all() else None


def _numbers(name: str, column: Any, codes: Codes, *, decimal: str) -> Array:
    types = optional_package("pyarrow.types", needed_for="reading tables")
    column = _plain(column)
    if types.is_string(column.type):
        return _text_numbers(column, codes, decimal)
    return _as_floats(column)


def _plain(column: Any) -> Any:
    types = optional_package("pyarrow.types", needed_for="reading tables")
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column


def _as_floats(column: Any) -> Array:
    pyarrow = optional_package("pyarrow", needed_for="reading tables")
    floats = column.cast(pyarrow.float64(), safe=False)
    is_missing = None
    if floats.null_count:
        is_missing = floats.is_null().to_numpy(zero_copy_only=False)
        floats = floats.fill_null(0.0)
    values: Array = floats.to_numpy(zero_copy_only=False)
    if is_missing is not None:
        values = values.copy()
        values[is_missing] = MISSING
    return values


def _text_numbers(column: Any, codes: Codes, decimal: str) -> Array:
    """The numbers of a column of text; a text that is none is a fault of its row."""
    pyarrow = optional_package("pyarrow", needed_for="reading tables")
    compute = optional_package("pyarrow.compute", needed_for="reading tables")
    if decimal != ".":
        column = compute.replace_substring(column, decimal, ".")
    try:
        values = _as_floats(column)
    except pyarrow.ArrowInvalid:
        trimmed = compute.replace_substring_regex(
            compute.utf8_trim_whitespace(column), r"^\+", "", max_replacements=1
        )
        is_number = compute.or_(
            compute.match_substring_regex(trimmed, _NUMBER),
            compute.match_substring_regex(trimmed, _INFINITE),
        ).fill_null(False)
        is_absent = compute.is_in(trimmed, value_set=pyarrow.array([*MISSING_TEXTS]))
        is_absent = compute.or_(is_absent, trimmed.is_null())
        values = _as_floats(compute.if_else(is_number, trimmed, None))
        is_text = compute.invert(compute.or_(is_number, is_absent))
        found = np.flatnonzero(is_text.to_numpy(zero_copy_only=False))
        codes |= {row: TEXT for row in found.tolist() if row not in codes}
        return values
    if np.isnan(values).any():
        values = values.copy()
        values[np.isnan(values)] = MISSING  # "nan" in a text is one of the words for it
    return values


def _lists(column: Any, width: int, codes: Codes) -> Array:
    """Rows of a column of lists; one of another length is a fault of its row."""
    compute = optional_package("pyarrow.compute", needed_for="reading tables")
    column = _plain(column)
    lengths = compute.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    is_whole = (lengths == width) & ~is_null
    values = np.full((len(column), width), MISSING)
    if is_whole.all():
        values = _as_floats(_plain(column.flatten())).reshape(-1, width)
    elif is_whole.any():
        kept = compute.array_filter(column, _mask(is_whole)).flatten()
        values[is_whole] = _as_floats(_plain(kept)).reshape(-1, width)
    codes |= dict.fromkeys(np.flatnonzero(~is_whole & ~is_null).tolist(), WRONG_LENGTH)
    return values


def _mask(values: Array) -> Any:
    return optional_package("pyarrow", needed_for="reading tables").array(values)
