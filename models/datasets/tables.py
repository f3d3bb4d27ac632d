"""Rows of numbers from files: .csv, .csv.gz and .parquet (through pyarrow), .npy and .npz."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import Dataset, DatasetError, encode_labels, optional_package
from models.datasets.dialect import MISSING, check_separators, find_dialect
from models.datasets.schema import check_columns
from models.datasets.spec import Spec

TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
ARRAY_SUFFIXES = (".npy", ".npz")

_CHANNELS = (1, 3)  # of pictures: grey, RGB


def load_table(path: Path, spec: Spec, model_features: Sequence[str] = ()) -> Dataset:
    """Read a .csv, .csv.gz or .parquet file.

    Options: `label=COLUMN` (kept out of x), `columns=A,B` (only these), `drop=A,B` (not these),
    `header=yes|no`. Separators ; and tab, decimal commas and latin-1 are told from the file;
    columns that pandas wrote as an index are left out.

    Args:
        path: the file.
        spec: the options.
        model_features: the columns that a model takes; then no others are read but the label.

    Raises:
        DatasetError: if the file cannot be read, a column is missing or does not hold numbers.
    """
    label = spec.text_option("label")
    wanted, dropped = spec.list_option("columns"), spec.list_option("drop") or []
    table, has_names = _read(path, spec)
    names: list[str] = table.column_names
    asked = (*(wanted or ()), *model_features, label)
    index = [name for name in _index_columns(table) if name not in asked]
    for name in (*(wanted or ()), *dropped, *([label] if label else ())):
        if name not in names:
            raise DatasetError(f"{path}: no column {name!r}; its columns are {', '.join(names)}")
    left_out = (*dropped, *index, label)
    features = [name for name in (wanted or names) if name not in left_out]
    if model_features and has_names:
        check_columns(str(path), features, model_features)
        features = list(model_features)
    if not features:
        raise DatasetError(f"{path}: no column is left to train on")
    columns = [_numbers(path, name, table.column(name)) for name in features]
    labels, label_names = encode_labels(_classes(path, table, label) if label else None)
    return Dataset(
        name=path.name,
        x=np.stack(columns, axis=1),
        labels=labels,
        label_names=label_names,
        columns=tuple(features) if has_names else (),
        source=f"the file {path.name}",
        ignored=tuple(
            name
            for name in names
            if name
            and name not in (*features, *dropped, label)
            and (model_features or name in index)
        ),
    )


def _classes(path: Path, table: Any, label: str) -> NDArray[Any]:
    """The class of every row, as the file has it."""
    values = table.column(label)
    if values.null_count:
        raise DatasetError(f"{path}: {values.null_count} rows have no {label!r}; remove them")
    classes: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return classes


def load_array(path: Path, spec: Spec) -> Dataset:
    """Read an .npy file, or x and, where present, y from an .npz file.

    uint8 arrays of rank 3 or 4 are images, (N, H, W) or (N, C, H, W), with pixels 0 .. 255.
    Options: `labels=FILE.npy`, `channels=last` for images (N, H, W, C).

    Raises:
        DatasetError: if the file is damaged, holds Python objects or has no array `x`, or if
            channels seem to come last and no option says where they are.
    """
    labels_path, channels = spec.text_option("labels"), spec.text_option("channels")
    content = _read_numpy(path)
    if isinstance(content, dict):
        if "x" not in content:
            held = ", ".join(sorted(content)) or "nothing"
            raise DatasetError(f"{path}: expected an array named 'x', got {held}")
        x, y = content["x"], content.get("y")
    else:
        x, y = content, None
    if labels_path is not None:
        given = _read_numpy(Path(labels_path))
        if isinstance(given, dict):
            raise DatasetError(f"{labels_path}: expected an .npy file of labels, got an .npz file")
        y = given
    labels, label_names = encode_labels(y)
    x = _channels_first(path, x, channels)
    is_image = x.dtype == np.uint8 and x.ndim in (3, 4)
    return Dataset(
        name=path.name,
        x=x[:, None] if is_image and x.ndim == 3 else x,
        labels=labels,
        label_names=label_names,
        num_levels=256 if is_image else None,
        source=f"the file {path.name}",
    )


def _channels_first(path: Path, x: NDArray[Any], channels: str | None) -> NDArray[Any]:
    """Images (N, C, H, W) of an array of rank 4, whose channels are first or, if told, last."""
    if channels not in (None, "first", "last"):
        raise DatasetError(f"{path}: channels must be first or last, got {channels!r}")
    if x.ndim != 4:
        return x
    if channels is None and x.shape[1] not in _CHANNELS and x.shape[3] in _CHANNELS:
        raise DatasetError(
            f"{path}: expected images (N, C, H, W), got {x.shape}, whose channels seem to come "
            "last: say ?channels=last (then the model takes (C, H, W)), or ?channels=first if they "
            "do not"
        )
    return np.moveaxis(x, 3, 1) if channels == "last" else x


def _read(path: Path, spec: Spec) -> tuple[Any, bool]:
    """The table, and whether its columns have names; else they are called "1", "2", ..."""
    pyarrow = optional_package("pyarrow", needed_for="reading tables")
    suffix, has_names = path.suffix.lower(), True
    try:
        if suffix == ".parquet":
            parquet = optional_package("pyarrow.parquet", needed_for="reading .parquet")
            table = parquet.read_table(str(path))
        else:
            table, has_names = _read_text(path, spec)
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{path}: not a readable {path.suffix} file: {error}") from error
    if len(set(table.column_names)) != len(table.column_names):
        raise DatasetError(f"{path}: two columns have the same name; rename one")
    if not table.num_rows:
        raise DatasetError(f"{path}: it holds no rows, only a line of names")
    return table, has_names


def _read_text(path: Path, spec: Spec) -> tuple[Any, bool]:
    pyarrow = optional_package("pyarrow", needed_for="reading .csv")
    csv = optional_package("pyarrow.csv", needed_for="reading .csv")
    dialect = find_dialect(path, spec)
    names = dialect.header
    table = csv.read_csv(
        pyarrow.input_stream(str(path), compression=dialect.compression),
        csv.ReadOptions(encoding=dialect.encoding, autogenerate_column_names=names is None),
        csv.ParseOptions(delimiter=dialect.separator),
        csv.ConvertOptions(null_values=MISSING, decimal_point=dialect.decimal),
    )
    if names is None:
        return table.rename_columns([str(index + 1) for index in range(table.num_columns)]), False
    return table.rename_columns([name.strip() for name in table.column_names]), True


def _index_columns(table: Any) -> list[str]:
    """Columns that number the rows and were written beside them, as pandas does."""
    names: list[str] = table.column_names
    index_columns = (table.schema.pandas_metadata or {}).get("index_columns", ())
    written = [
        name
        for name in names
        if re.fullmatch(r"__index_level_\d+__", name) or name in index_columns
    ]
    types = optional_package("pyarrow.types", needed_for="reading tables")
    for name in names:
        kind = table.column(name).type
        is_first = name == names[0] and types.is_integer(kind)
        # A separator at the end of each line makes a column without a name or a value.
        if (name in ("", "Unnamed: 0") and is_first) or (name == "" and types.is_null(kind)):
            written.append(name)
    return written


def _numbers(path: Path, name: str, column: Any) -> NDArray[np.float64]:
    types = optional_package("pyarrow.types", needed_for="reading tables")
    kind = column.type
    if types.is_null(kind):
        raise DatasetError(f"{path}: column {name!r} is empty; leave it out with ?drop={name}")
    if types.is_string(kind):
        check_separators(path, name, column.drop_null().to_pylist())
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise DatasetError(
            f"{path}: column {name!r} holds {kind}, not numbers; leave it out with ?drop={name} "
            f"or, where it is the class, name it with ?label={name}"
        )
    # Nulls become NaN here, and Dataset says in which rows they are.
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _read_numpy(path: Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    if not path.is_file():
        raise DatasetError(f"{path}: no such file")
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return _native(content)
        with content:
            return {name: _native(content[name]) for name in content.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise DatasetError(f"{path}: not a readable {path.suffix} file: {error}") from error


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers in a form that torch takes: other byte orders, half and long doubles are float64."""
    kind = values.dtype
    if kind.kind == "f" and (kind.itemsize not in (4, 8) or not kind.isnative):
        return values.astype(np.float64)
    return values if kind.isnative else values.astype(kind.newbyteorder("="))
