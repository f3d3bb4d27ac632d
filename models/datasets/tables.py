"""Rows of numbers from files: tables whose columns may have names, .npy and .npz.

Training makes data sets of them (`load_table`, `load_array`), which hold no NaN; what asks a server
reads the same rows (`read_rows`), which may.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import Dataset, DatasetError, encode_labels
from models.datasets.schema import check_columns
from models.datasets.spec import Spec
from models.datasets.table_files import TABLE_SUFFIXES, TableFile, open_table

__all__ = [
    "ARRAY_SUFFIXES",
    "TABLE_SUFFIXES",
    "Rows",
    "file_kind",
    "load_array",
    "load_table",
    "read_rows",
]

ARRAY_SUFFIXES = (".npy", ".npz")

# Options that say nothing of the rows themselves: a text that training took is taken here.
_OF_TRAINING = ("normal", "discrete", "labels")
_CHANNELS = (1, 3)  # of pictures: grey, RGB


class Rows(NamedTuple):
    """Rows of a file.

    values: (B, *event_shape), NaN where one is missing.
    columns: names of the columns of a table; none where it has none.
    ignored: other columns of the table.
    """

    values: NDArray[Any]
    columns: tuple[str, ...]
    ignored: tuple[str, ...]


def read_rows(
    text: str, features: Callable[[], Sequence[str]] | None = None, array: str = "x"
) -> Rows:
    """Read rows to ask a model about.

    Text is a path with the options of `load` behind a question mark. A first line of numbers is a
    row.

    Args:
        text: which file.
        features: names of the columns that the model takes, none where it knows none; asked for
            where the file has names. Other columns are left out. Left out itself, all columns are
            taken as they are.
        array: the array that is read of an .npz file.

    Raises:
        DatasetError: the file cannot be read, has names and the model knows none, or lacks a
            column of the model.
    """
    spec = Spec.parse(text) if not Path(text).exists() else Spec(text, text, {})
    path = Path(spec.name)
    kind = file_kind(path)
    if kind in ARRAY_SUFFIXES:
        rows = Rows(_read_array(path, spec, array)[0], (), ())
    elif kind in TABLE_SUFFIXES:
        rows = _read_table(path, spec, features)
    else:
        known = ", ".join((*ARRAY_SUFFIXES, *TABLE_SUFFIXES))
        raise DatasetError(f"{path}: expected {known}, got {path.suffix or 'no suffix'}")
    for name in _OF_TRAINING:
        spec.text_option(name)
    spec.finish()
    return rows


def file_kind(path: Path) -> str:
    """The suffix that says how a file is read, in small letters; two where it is compressed."""
    suffix = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    return suffix.lower()


def _read_table(path: Path, spec: Spec, features: Callable[[], Sequence[str]] | None) -> Rows:
    table = open_table(path, spec, numbers_are_rows=True)
    wanted = features() if features is not None and table.has_names else ()
    chosen = _choose_columns(path, table, spec, wanted)
    is_nameless = features is not None and table.has_names and not wanted
    if is_nameless and spec.list_option("columns") is None:
        raise DatasetError(
            f"{path}: the table names its columns, and the model does not know those of its "
            "columns: say which it takes, in its order: "
            f"{path.name}?columns={','.join(chosen.features)}"
        )
    values = np.stack([table.numbers(name) for name in chosen.features], axis=1)
    columns = chosen.features if table.has_names and not is_nameless else ()
    return Rows(values, columns, chosen.ignored)


class _Chosen(NamedTuple):
    features: tuple[str, ...]
    label: str | None
    ignored: tuple[str, ...]


def _choose_columns(
    path: Path, table: TableFile, spec: Spec, model_features: Sequence[str]
) -> _Chosen:
    """Which columns are features, by the options and by what the model takes.

    Raises:
        DatasetError: a column is missing, or none is left.
    """
    label = spec.text_option("label")
    wanted, dropped = spec.list_option("columns"), spec.list_option("drop") or []
    names = table.names
    asked = (*(wanted or ()), *model_features, label)
    index = [name for name in table.index if name not in asked]
    for name in (*(wanted or ()), *dropped, *([label] if label else ())):
        if name not in names:
            raise DatasetError(f"{path}: no column {name!r}; its columns are {', '.join(names)}")
    left_out = (*dropped, *index, label)
    features = [name for name in (wanted or names) if name not in left_out]
    if model_features and table.has_names:
        check_columns(str(path), features, model_features)
        features = list(model_features)
    if not features:
        raise DatasetError(f"{path}: no column is left to train on")
    ignored = tuple(
        name
        for name in names
        if name and name not in (*features, *dropped, label) and (model_features or name in index)
    )
    return _Chosen(tuple(features), label, ignored)


def load_table(path: Path, spec: Spec, model_features: Sequence[str] = ()) -> Dataset:
    """Read a table as a data set.

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
    table = open_table(path, spec)
    features, label, ignored = _choose_columns(path, table, spec, model_features)
    columns = [table.numbers(name) for name in features]
    labels, label_names = encode_labels(table.classes(label) if label else None)
    return Dataset(
        name=path.name,
        # A missing value is NaN here; the data set says in which rows.
        x=np.stack(columns, axis=1),
        labels=labels,
        label_names=label_names,
        columns=features if table.has_names else (),
        source=f"the file {path.name}",
        ignored=ignored,
    )


def load_array(path: Path, spec: Spec) -> Dataset:
    """Read an .npy file, or x and, where present, y from an .npz file.

    uint8 arrays of rank 3 or 4 are images, (N, H, W) or (N, C, H, W), with pixels 0 .. 255.
    Options: `labels=FILE.npy`, `channels=last` for images (N, H, W, C).

    Raises:
        DatasetError: if the file is damaged, holds Python objects or has no array `x`, or if
            channels seem to come last and no option says where they are.
    """
    labels_path = spec.text_option("labels")
    x, y = _read_array(path, spec, "x")
    if labels_path is not None:
        given = _read_numpy(Path(labels_path))
        if isinstance(given, dict):
            raise DatasetError(f"{labels_path}: expected an .npy file of labels, got an .npz file")
        y = given
    labels, label_names = encode_labels(y)
    is_image = x.dtype == np.uint8 and x.ndim == 4
    return Dataset(
        name=path.name,
        x=x,
        labels=labels,
        label_names=label_names,
        num_levels=256 if is_image else None,
        source=f"the file {path.name}",
    )


def _read_array(path: Path, spec: Spec, name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The rows of a file, images as (N, C, H, W), and the array y of an .npz file."""
    channels = spec.text_option("channels")
    content = _read_numpy(path)
    y = None
    if isinstance(content, dict):
        if name not in content:
            held = ", ".join(sorted(content)) or "nothing"
            raise DatasetError(f"{path}: expected an array named {name!r}, got {held}")
        x, y = content[name], content.get("y")
    else:
        x = content
    x = _channels_first(path, x, channels)
    is_image = x.dtype == np.uint8 and x.ndim == 3
    return (x[:, None] if is_image else x), y


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
