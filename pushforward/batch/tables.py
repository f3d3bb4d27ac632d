"""Tables of Arrow and frames of pandas, to what an output file holds: null where a row has none."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.datasets.dataset import optional_package
from pushforward.batch.arrays import number_columns
from pushforward.batch.calls import CallResult
from pushforward.batch.columns import check_types, is_list, rows_of_table
from pushforward.batch.compute import compute_rows, draw_rows
from pushforward.batch.layout import Layout, Wanted, find_layout
from pushforward.batch.session import Session
from pushforward.batch.writers import OutputColumns

_SOURCE = "the batch"
_WHOLE = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")


def answer_table(
    session: Session,
    operation: str,
    fields: Mapping[str, Any],
    table: Any,
    *,
    columns: Sequence[str] | None,
    context: Sequence[str] | None,
    keep: Sequence[str],
) -> Any:
    """Compute the rows of a table, to one with the columns that an output file has.

    Raises:
        ValueError: the columns are not the model's.
    """
    if session.operation(operation).tensor_name is None:
        (name,) = number_columns(table.column_names, operation, keep)
        result = draw_rows(session, operation, fields, table.column(name).to_numpy())
    else:
        wanted = Wanted.of(session, operation, columns=columns, context=context, keep=keep)
        result = _compute(session, operation, fields, table, wanted)
    kept = tuple(table.schema.field(name) for name in keep)
    outputs = OutputColumns.of(result.outputs, session.card.feature_names, kept)
    return outputs.table(result, table) if len(result.codes) else outputs.schema.empty_table()


def _compute(
    session: Session, operation: str, fields: Mapping[str, Any], table: Any, wanted: Wanted
) -> CallResult:
    table = _plain(table)
    lists = frozenset(field.name for field in table.schema if is_list(field.type))
    layout = find_layout(table.column_names, wanted, _SOURCE, lists)
    check_types(table.schema, _without_text(layout, table.schema), wanted, _SOURCE)
    rows = rows_of_table(table, layout, wanted, session.card, codes={}, decimal=".")
    return compute_rows(session, operation, fields, wanted.tensor, rows)


def _plain(table: Any) -> Any:
    """The table without types of extensions (tensors of Ray), and with one type of text."""
    pyarrow = optional_package("pyarrow", needed_for="tables", extra="files")
    columns = []
    for column in table.columns:
        if isinstance(column.type, pyarrow.BaseExtensionType):
            column = pyarrow.chunked_array(
                [chunk.storage for chunk in column.chunks], column.type.storage_type
            )
        if pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pyarrow.types.is_large_string(column.type) or pyarrow.types.is_string_view(column.type):
            column = column.cast(pyarrow.string())
        columns.append(column)
    return pyarrow.table(columns, names=table.column_names)


def _without_text(layout: Layout, schema: Any) -> Layout:
    """The columns whose type says what they hold; cells of text are looked at one by one."""
    types = optional_package("pyarrow.types", needed_for="tables", extra="files")

    def kept(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if not types.is_string(schema.field(name).type))

    return layout._replace(features=kept(layout.features), context=kept(layout.context))


def answer_record_batch(
    session: Session, operation: str, fields: Mapping[str, Any], batch: Any, **named: Any
) -> Any:
    """Compute the rows of a record batch, to one.

    Args:
        named: columns, context, keep.

    Raises:
        ValueError: the columns are not the model's.
    """
    pyarrow = optional_package("pyarrow", needed_for="tables", extra="files")
    table = pyarrow.Table.from_batches([batch])
    answer = answer_table(session, operation, fields, table, **named)
    whole = [column.combine_chunks() for column in answer.columns]
    return pyarrow.record_batch(whole, schema=answer.schema)


def answer_frame(
    session: Session,
    operation: str,
    fields: Mapping[str, Any],
    frame: Any,
    *,
    keep: Sequence[str],
    **named: Any,
) -> Any:
    """Compute the rows of a frame of pandas, to one with the same index.

    Whole numbers and truth values have pandas' types that know missing ones, so that a column is of
    one type in all partitions.

    Args:
        named: columns, context.

    Raises:
        ValueError: the columns are not the model's.
    """
    pandas = sys.modules["pandas"]  # there is a frame, so it is imported
    pyarrow = optional_package("pyarrow", needed_for="frames of pandas", extra="files")
    table, names = _table_of(frame, pyarrow), [str(name) for name in keep]
    answer = answer_table(session, operation, fields, table, keep=names, **named)
    answer = answer.drop_columns(names)
    nullable = {pyarrow.bool_(): pandas.BooleanDtype()} | {
        getattr(pyarrow, name.lower())(): getattr(pandas, f"{name}Dtype")() for name in _WHOLE
    }
    computed = answer.to_pandas(types_mapper=nullable.get)
    computed.index = frame.index
    return pandas.concat([frame[list(keep)], computed], axis=1)


def _table_of(frame: Any, pyarrow: Any) -> Any:
    """The columns of a frame; one of mixed objects is one of texts."""
    columns = [_column(pyarrow, values) for _, values in frame.items()]
    return pyarrow.table(columns, names=[str(name) for name in frame.columns])


def _column(pyarrow: Any, values: Any) -> Any:
    try:
        return pyarrow.array(values, from_pandas=True)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError):
        cells = zip(values, values.isna(), strict=True)
        texts = [None if is_missing else str(value) for value, is_missing in cells]
        return pyarrow.array(texts, pyarrow.string())


# By the class of what holds the rows.
ANSWERS: dict[str, Callable[..., Any]] = {
    "DataFrame": answer_frame,
    "RecordBatch": answer_record_batch,
    "Table": answer_table,
}
