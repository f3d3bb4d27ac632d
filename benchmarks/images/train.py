"""Trains what the zoo has not: flows of clothes, and a PixelCNN of coarse pixels.

    python -m benchmarks.images.train [NAME ...] [--fashion 'fashion_mnist?folder=FOLDER']

By the recipes of the zoo on as many rows, but in fewer epochs. Models that are there are kept; on
one thread all of them take about half an hour. Debian's dataset-fashion-mnist has the clothes.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.images.rows import FASHION, MNIST, data_of, read_data
from models.onnx.export import export_folder
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


VARIANTS = {
    "fashion-glow": Variant("digits-glow", {"epochs": 8}),
    "fashion-tarflow": Variant("digits-tarflow", {"epochs": 8}),
    "digits-pixelcnn-coarse": Variant("digits-pixelcnn", {"coarse_bits": 5}),
}


def make(name: str, fashion: str, runs: Path = RUNS) -> None:
    """Train one of them with its graphs, unless it is there."""
    folder, variant = runs / name, VARIANTS[name]
    if folder.exists():
        return
    recipe = RECIPES[variant.recipe]
    options = TrainingOptions.parse({**recipe.options, **variant.options})
    data = read_data(data_of(folder), fashion)
    train(data, recipe.family, recipe.config, folder, options=options, listener=ProgressBar())
    export_folder(folder).write(folder)


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
