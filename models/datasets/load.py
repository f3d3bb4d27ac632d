"""From a text to a data set: the one way in."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.datasets.dataset import Dataset, DatasetError
from models.datasets.discrete import mark_discrete
from models.datasets.images import load_folder, load_idx
from models.datasets.named import NAMED, toy_recipe
from models.datasets.schema import match
from models.datasets.spec import Spec
from models.datasets.tables import (
    ARRAY_SUFFIXES,
    TABLE_SUFFIXES,
    file_kind,
    load_array,
    load_table,
)
from models.datasets.toys import TOYS


def load(text: str, *, features: Sequence[str] = ()) -> Dataset:
    """Load the data set that `text` names.

    Text: a name (`two_moons`, `mnist`, ...) or a path, with options behind a question mark:
    `two_moons?rows=5000&seed=1`, `flights.csv?label=carrier`, `faces/?size=32&mode=grey`,
    `idx:train-images-idx3-ubyte.gz?labels=train-labels-idx1-ubyte.gz`. For every labelled set,
    `normal=LABEL` marks the rows of all other labels as anomalies; for every table, `discrete=A,B`
    marks columns as whole numbers, `discrete=auto` those of few different whole numbers.

    Args:
        text: which data.
        features: names of the columns that a model takes: a table has them, in any order, and
            others are left out. Left out, every column but the label is a feature.

    Raises:
        DatasetError: saying what was expected, what is there and what to do.
    """
    spec = Spec.parse(text)
    normal, discrete = spec.text_option("normal"), spec.list_option("discrete")
    known = NAMED.get(spec.name)
    if known is not None:
        dataset = replace(known.load(spec), source=known.source, licence=known.licence)
    else:
        dataset = _load_path(spec, features)
    spec.finish()
    dataset = match(dataset, features)
    dataset = replace(dataset, spec=text)
    if normal is not None:
        dataset = dataset.with_normal(normal)
    return dataset if discrete is None else mark_discrete(dataset, discrete)


def is_named(data: Dataset, sha256: str | None, text: str = "") -> bool:
    """Whether data are those that a model's folder names.

    Args:
        data: loaded now.
        sha256: `data_sha256` in the folder's config.json: of the recipe of generated data, or, in
            folders of before, of their values, whose last bits are those of another CPU.
        text: what `load` was given when the model was trained, as training.json has it.
    """
    if sha256 in (data.digest(), data.values_digest()):
        return True
    spec = Spec.parse(text)
    return bool(data.recipe) and spec.name in TOYS and toy_recipe(spec).text == data.recipe


def is_same_split(data: Dataset, text: str) -> bool:
    """Whether rows are marked as anomalies by the options that a model was trained with.

    Anomalies are kept apart, so with others the same seed splits the rest in another way.
    """
    if data.recipe:
        return True
    now, then = Spec.parse(data.spec).options, Spec.parse(text).options
    marks = ("normal", "label", "labels")
    return all(now.get(name) == then.get(name) for name in marks)


def named_sets() -> tuple[str, ...]:
    """The names `load` knows."""
    return tuple(NAMED)


def _load_path(spec: Spec, features: Sequence[str]) -> Dataset:
    is_idx = spec.name.startswith("idx:")
    path = Path(spec.name.removeprefix("idx:"))
    if not path.exists():
        raise DatasetError(
            f"data {spec.text!r}: no such file or folder, and no such name; "
            f"the names are {', '.join(named_sets())}"
        )
    if is_idx:
        return load_idx(path, spec)
    if path.is_dir():
        return load_folder(path, spec)
    kind = file_kind(path)
    if kind in TABLE_SUFFIXES:
        return load_table(path, spec, features)
    if kind in ARRAY_SUFFIXES:
        return load_array(path, spec)
    raise DatasetError(
        f"{path}: expected a folder of images or a file .csv, .csv.gz, .tsv, .parquet, .arrow, "
        ".feather, .npy or .npz, "
        f"got {path.suffix or 'no suffix'}; name idx files as idx:{path.name}"
    )
