"""Trains what the zoo has not: flows of clothes, and a PixelCNN of redrawn pixels.

    python -m benchmarks.images.train [NAME ...] [--fashion 'fashion_mnist?folder=FOLDER']

By the recipes of the zoo on no more rows, but in fewer epochs: some minutes of one thread. They get
no graphs; models that are there are kept. Debian's dataset-fashion-mnist has the clothes.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.images.rows import FASHION, MNIST, data_of, read_data, training_rows
from models.training import TrainingOptions, train
from models.training.progress import ProgressBar
from tools.zoo.recipes import RECIPES

RUNS = Path("runs/images")


@dataclass(frozen=True, slots=True)
class Variant:
    """A recipe of the zoo with other data or options.

    Attributes:
        recipe: its name in the zoo.
        options: of the training that differ from it.
    """

    recipe: str
    options: Mapping[str, Any] = field(default_factory=dict)


# Clothes are tested by the benchmark, on rows that are not given to the training at all.
_FEW_TESTS = {"test_fraction": 0.002}
VARIANTS = {
    "fashion-glow": Variant("digits-glow", {"epochs": 2, **_FEW_TESTS}),
    "fashion-pixelcnn": Variant("digits-pixelcnn", {"epochs": 1, **_FEW_TESTS}),
    "digits-pixelcnn-coarse": Variant(
        "digits-pixelcnn",
        {
            "coarse_bits": 5,
            "epochs": 2,
            "batch_rows": 16,
            "learning_rate": 3e-3,
            "ema_decay": 0.99,
        },
    ),
}


def options_of(name: str) -> Mapping[str, Any]:
    """How a model of the zoo, or of this table, was trained."""
    if name not in VARIANTS:
        return RECIPES[name].options
    variant = VARIANTS[name]
    return {**RECIPES[variant.recipe].options, **variant.options}


def make(name: str, fashion: str, runs: Path = RUNS) -> None:
    """Train one of them, unless it is there; without graphs."""
    folder, variant = runs / name, VARIANTS[name]
    if folder.exists():
        return
    recipe = RECIPES[variant.recipe]
    options = TrainingOptions.parse(options_of(name))
    data = read_data(data_of(folder), fashion)
    if data_of(folder) == FASHION:
        data = training_rows(data)
    train(data, recipe.family, recipe.config, folder, options=options, listener=ProgressBar())


def main() -> None:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(VARIANTS), choices=[*VARIANTS, []])
    parser.add_argument("--fashion", default=FASHION, help=f"data of the clothes, not of {MNIST}")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.names:
        make(name, chosen.fashion)


if __name__ == "__main__":
    main()
