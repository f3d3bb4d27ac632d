"""Trains the flows of the scoring benchmark with `pushforward train`, one after the other.

    python -m benchmarks.scoring.train [NAME ...]

Models that are there already are kept. About ten minutes for the tables and ten for the images on
one core.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RUNS = Path("runs/scoring")
PUSHFORWARD = (str(Path(sys.executable).with_name("pushforward")),)

_REALNVP = ("num_layers=8", 'conditioner={"kind":"mlp","widths":[128,128]}')
_GLOW = (
    "num_levels=2",
    "num_steps=6",
    "hidden_channels=32",
    'preprocessing=[{"kind":"dequantise"},{"kind":"shift_scale","scale":0.00390625,"shift":-0.5}]',
)


@dataclass(frozen=True)
class Recipe:
    """How one flow is trained.

    Attributes:
        family: `--family`.
        settings: `--set`, one each.
        data: file below the folder of the data.
        discrete: whether every column is of whole numbers, which takes uniform noise.
        options: other flags and their values.
    """

    family: str
    settings: tuple[str, ...]
    data: str = "train.csv"
    discrete: bool = False
    options: Mapping[str, object] = field(default_factory=dict)


def _table(epochs: int, *, discrete: bool) -> Recipe:
    options = {"epochs": epochs, "ema-decay": 0.995, "patience": 20}
    return Recipe("realnvp", _REALNVP, discrete=discrete, options=options)


def _images(epochs: int) -> Recipe:
    options = {"epochs": epochs, "batch-rows": 64, "ema-decay": 0.99, "validation-fraction": 0.02}
    return Recipe("glow", _GLOW, data="train.npy", options=options)


RECIPES = {
    "magic": _table(120, discrete=False),
    "shuttle": _table(40, discrete=True),
    "satellite": _table(100, discrete=True),
    "fashion": _images(3),
    "penbased": _table(100, discrete=True),
    "letter": _table(100, discrete=True),
    "mnist": _images(25),
    "background": _images(1),
}


def train(name: str, runs: Path = RUNS) -> None:
    """Train one flow, unless it is there.

    Raises:
        SystemExit: there are no data to train on.
    """
    recipe = RECIPES[name]
    folder = runs / name / "model"
    if folder.exists():
        return
    data = runs / name / recipe.data
    if not data.exists():
        sys.exit(f"{data}: is missing; benchmarks/bench_scoring.py says how to get the data")
    text = str(data)
    if recipe.discrete:
        text += "?discrete=" + data.read_text().partition("\n")[0]
    command = [*PUSHFORWARD, "train", "--data", text]
    command += ["--family", recipe.family, "--out", str(folder)]
    for setting in recipe.settings:
        command += ["--set", setting]
    for option, value in {"test-fraction": 0.02, **recipe.options}.items():
        command += [f"--{option}", str(value)]
    subprocess.run(command, check=True)


def main() -> None:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(RECIPES), choices=[*RECIPES, []])
    for name in parser.parse_args().names:
        train(name)


if __name__ == "__main__":
    main()
