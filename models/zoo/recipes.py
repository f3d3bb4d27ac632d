"""The zoo as one table: which data, which flow, how trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_STEP = 1 / 256


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model of the zoo.

    Attributes:
        summary: what it is, one sentence for its card.
        data: what `models.datasets.load` takes.
        family: name in the registry.
        config: arguments of the family; the rest comes from the data and defaults.
        options: of `TrainingOptions` that differ from the defaults.
        notes: further paragraphs of its card.
    """

    summary: str
    data: str
    family: str
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())


_PIXELS_TO_UNIT = {"kind": "shift_scale", "scale": _STEP}

RECIPES: Mapping[str, Recipe] = {
    "moons": Recipe(
        summary="RealNVP with five affine couplings on two moons: the lecture's first example.",
        data="two_moons",
        family="realnvp",
        config={
            "num_layers": 5,
            "conditioner": {"kind": "mlp", "widths": [64, 64], "activation": "silu"},
        },
        options={
            "epochs": 200,
            "batch_rows": 512,
            "learning_rate": 3e-3,
            "ema_decay": 0.998,
            "patience": 40,
        },
        notes=(
            "The thin bridge between the moons is not a flaw of training: a diffeomorphism of the "
            "plane cannot tear one Gaussian in two.",
        ),
    ),
    "pinwheel": Recipe(
        summary="FFJORD with exact trace on a pinwheel: a continuous flow of 4,872 numbers.",
        data="pinwheel",
        family="ffjord",
        config={"hidden_features": [64, 64], "training": {"rtol": 1e-4, "atol": 1e-4}},
        options={
            "epochs": 35,
            "batch_rows": 512,
            "learning_rate": 5e-3,
            "ema_decay": 0.99,
            "patience": 40,
        },
        notes=("Trained by the adjoint equation, one step of the solver for the whole batch.",),
    ),
    "magic": Recipe(
        summary=(
            "RealNVP on ten numbers that describe showers of gamma rays in a telescope; showers of "
            "hadrons, never trained on, are the anomalies."
        ),
        data="magic?normal=g",
        family="realnvp",
        config={"num_layers": 8, "conditioner": {"kind": "mlp", "widths": [128, 128]}},
        options={"epochs": 150, "learning_rate": 1e-3, "ema_decay": 0.995},
    ),
    "digits-glow": Recipe(
        summary=(
            "Glow on handwritten digits of 28 x 28 pixels: two scales of eight steps, 5-bit pixels."
        ),
        data="mnist",
        family="glow",
        config={
            "num_levels": 2,
            "num_steps": 8,
            "hidden_channels": 64,
            "preprocessing": [
                {"kind": "reduce_bits", "bits": 5},
                {"kind": "dequantise"},
                {**_PIXELS_TO_UNIT, "shift": -0.5},
            ],
        },
        options={
            "epochs": 20,
            "batch_rows": 32,
            "learning_rate": 1e-3,
            "ema_decay": 0.999,
            "picture_temperature": 0.8,
        },
    ),
}
