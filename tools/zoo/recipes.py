"""The zoo as one table: which data, which flow, how trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        calibration: what it is calibrated on; left out, the test rows of its own data.
        statistic: its anomaly score.
        serving: its serving.toml, where the service's settings do not suit it.
    """

    summary: str
    data: str
    family: str
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())
    calibration: str = ""
    statistic: str = "auto"
    serving: str = ""


def _pixels(scale: float, **shift: float) -> list[dict[str, Any]]:
    """Dequantise pixels, then bring them to where a flow can start."""
    return [{"kind": "dequantise"}, {"kind": "shift_scale", "scale": scale, **shift}]


_FEW_DIGITS = (
    "4,000 digits are few: the model is small, and the weights of the epoch that was best on the "
    "validation rows are kept."
)
_COARSE_BITS = (
    "While training, every pixel was redrawn within its bin of five bits (Glow's paper trains on "
    "five bits too): the model spends itself on shapes, not on the exact grey of the paper. It is "
    "a bijection of 8-bit pixels all the same, and its figures are those of the pixels as they are "
    "(the loss curve: of redrawn ones)."
)
_WHOLE_PIXELS = (
    "Its pixels were not redrawn, as those of the other flows of digits were: a distribution over "
    "levels can give black a probability of its own, and with it 784 pixels cost 1.15 bits each "
    "and not 3 more. The strokes of its samples are sharp, and many are strokes of a digit but no "
    "digit: nothing tells it, while it draws the upper rows, which digit it is to be."
)

_WIDE_ENDS = (
    "The logit makes the ends of the levels wide. Black lies at an end of the bin in which it was "
    "redrawn, which costs a Gaussian over plain levels many bits: most of what this model gains on "
    "`digits-glow` on pixels as they are comes from there, not from the transformer."
)
_CLASSES = (
    "It often draws another digit than the one asked for: a logistic regression, right on 89 % of "
    "the test digits, finds that one in 57 % of the samples at temperature 0.6, in 42 % at 0.8 and "
    "in 34 % at 1. Nor does it tell classes well: 34.6 % of the test digits are likeliest under "
    "their own."
)
_TARFLOW = {
    "patch_size": 4,
    "channels": 64,
    "num_blocks": 2,
    "layers_per_block": 4,
    "head_dim": 32,
    # Background and ink, both at an end of the levels, are wide behind the logit, and the second
    # shift puts the background about zero.
    "preprocessing": [
        *_pixels(1 / 256),
        {"kind": "logit", "alpha": 0.001},
        {"kind": "shift_scale", "shift": 4.2},
    ],
}
_TARFLOW_OPTIONS = {
    "epochs": 14,
    "batch_rows": 32,
    "coarse_bits": 5,
    "learning_rate": 3e-3,
    "warmup_steps": 100,
    "ema_decay": 0.99,
    "picture_temperature": 0.8,
}

# Two hidden layers without gates.
_TWO_LAYERS = {"layer_type": "ignore", "time_input": "fourier", "nonlinearity": "swish"}
_CHEAP_TRACE = (
    "Two hidden layers without gates: the exact trace then costs no more than the field itself, at "
    "any number of dimensions."
)

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
        calibration="two_moons?rows=5000&seed=1",
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
        calibration="pinwheel?rows=5000&seed=1",
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
    "magic-planar": Recipe(
        summary=(
            "32 planar maps on the ten numbers of magic: 672 weights and no network, where RealNVP "
            "has 148,600."
        ),
        data="magic?normal=g",
        family="planar",
        config={"num_layers": 32},
        options={"epochs": 50, "learning_rate": 1e-2, "ema_decay": 0.995},
        notes=(
            "Each map bends space across one hyperplane by a tanh. Scoring takes the formula; a "
            "sample takes its inverse, one increasing function of one number a map, which is "
            "solved to the last bit.",
        ),
    ),
    "digits-nice": Recipe(
        summary=(
            "NICE with six additive couplings on 28 x 28 digits: the oldest flow, volume "
            "preserving but for one scale a pixel."
        ),
        data="mnist",
        family="nice",
        config={
            "num_couplings": 6,
            "widths": [96, 96],
            "base": "normal",
            # The second shift and scale put the background, logit(0.05) = -2.94, near zero and
            # give its bins unit width, so that the scales have little to learn.
            "preprocessing": [
                *_pixels(1 / 256),
                {"kind": "logit", "alpha": 0.05},
                {"kind": "shift_scale", "scale": 4.0, "shift": 11.7},
            ],
        },
        options={
            "epochs": 60,
            "batch_rows": 64,
            "coarse_bits": 5,
            "learning_rate": 3e-3,
            "warmup_steps": 200,
            "weight_decay": 0.03,
            "ema_decay": 0.99,
            "patience": 8,
            "picture_temperature": 0.85,
        },
        notes=(_FEW_DIGITS, _COARSE_BITS),
    ),
    "digits-realnvp": Recipe(
        summary="RealNVP with three scales on 28 x 28 digits, pixels 0 .. 255.",
        data="mnist",
        family="realnvp_image",
        config={
            "num_scales": 3,
            "mid_channels": 8,
            "num_blocks": 2,
            "preprocessing": _pixels(1 / 32),
        },
        options={
            "epochs": 30,
            "batch_rows": 32,
            "coarse_bits": 5,
            "learning_rate": 2e-3,
            "warmup_steps": 200,
            "ema_decay": 0.995,
            "picture_temperature": 0.9,
        },
        # With complexity, pictures richer than digits pass: AUROC 0.15 on Fashion-MNIST.
        statistic="neg_log_prob",
        notes=(_FEW_DIGITS, _COARSE_BITS),
    ),
    "digits-glow": Recipe(
        summary="Glow with two levels of eight steps on 28 x 28 digits, pixels 0 .. 255.",
        data="mnist",
        family="glow",
        config={
            "num_levels": 2,
            "num_steps": 8,
            "hidden_channels": 64,
            "preprocessing": _pixels(1 / 256, shift=-0.5),
        },
        options={
            "epochs": 25,
            "batch_rows": 32,
            "coarse_bits": 5,
            "learning_rate": 1e-3,
            "ema_decay": 0.999,
            "picture_temperature": 0.8,
        },
        # With complexity, pictures richer than digits pass: AUROC 0.15 on Fashion-MNIST.
        statistic="neg_log_prob",
        notes=(_FEW_DIGITS, _COARSE_BITS),
    ),
    "digits-tarflow": Recipe(
        summary="TarFlow of 49 patches in two blocks on 28 x 28 digits, pixels 0 .. 255.",
        data="mnist",
        family="tarflow",
        config=_TARFLOW,
        options=_TARFLOW_OPTIONS,
        statistic="neg_log_prob",
        notes=(_FEW_DIGITS, _COARSE_BITS, _WIDE_ENDS),
    ),
    "digits-classes": Recipe(
        summary="TarFlow of 49 patches in four blocks given the class, on 28 x 28 digits.",
        data="mnist",
        family="tarflow",
        config={**_TARFLOW, "num_blocks": 4, "layers_per_block": 2, "num_classes": 10},
        options={**_TARFLOW_OPTIONS, "epochs": 20, "picture_temperature": 0.6},
        statistic="neg_log_prob",
        notes=(_FEW_DIGITS, _COARSE_BITS, _CLASSES),
    ),
    "magic-iaf": Recipe(
        summary=(
            "An inverse autoregressive flow on the ten numbers of magic: a sample takes one pass "
            "of its networks, a score ten."
        ),
        data="magic?normal=g",
        family="iaf",
        config={
            "num_layers": 5,
            # Bounded, so that far rows keep a density.
            "scale": "tanh",
            "conditioner": {"kind": "mlp", "widths": [64, 64]},
        },
        options={"epochs": 50, "learning_rate": 2e-3, "ema_decay": 0.995},
        notes=(
            "Trained in its slow direction, by fixed-point iteration and the derivatives of the "
            "implicit function.",
        ),
    ),
    "magic-ffjord": Recipe(
        summary=(
            "A continuous flow on the ten numbers of magic, trained by flow matching: its equation "
            "was never solved for a gradient."
        ),
        data="magic?normal=g",
        family="ffjord",
        config={**_TWO_LAYERS, "hidden_features": [256, 256], "num_frequencies": 4},
        options={
            "objective": "flow_matching",
            "epochs": 150,
            "batch_rows": 256,
            "learning_rate": 2e-3,
            "ema_decay": 0.998,
            "patience": 150,
        },
        notes=(_CHEAP_TRACE,),
    ),
    "digits-pixelcnn": Recipe(
        summary=(
            "PixelCNN with six gated layers on 28 x 28 digits: for each pixel, 256 probabilities "
            "given those before it; its likelihoods are exact, of whole pixels."
        ),
        data="mnist",
        family="pixelcnn",
        config={
            "levels": 256,
            "width": 32,
            "num_layers": 6,
            "dilations": [1, 2, 4],
            "decoding": "sequential",
            "preprocessing": _pixels(1 / 256),
        },
        options={
            "epochs": 4,
            "batch_rows": 8,
            "learning_rate": 2e-3,
            "ema_decay": 0.995,
        },
        statistic="neg_log_prob",
        notes=(_FEW_DIGITS, _WHOLE_PIXELS),
        serving="# A row costs the same in any batch: large ones would make the others wait.\n"
        "max_batch_size = 4\n",
    ),
    "digits-ffjord": Recipe(
        summary="A continuous flow on 8 x 8 digits, pixels 0 .. 16, trained by flow matching.",
        data="digits",
        family="ffjord",
        config={
            **_TWO_LAYERS,
            "hidden_features": [256, 256],
            "num_frequencies": 4,
            "preprocessing": [
                {"kind": "dequantise", "levels": 17},
                {"kind": "shift_scale", "scale": 1 / 6, "shift": -5.5 / 6},
            ],
        },
        options={
            "objective": "flow_matching",
            "epochs": 300,
            "batch_rows": 128,
            "learning_rate": 2e-3,
            "weight_decay": 0.01,
            "ema_decay": 0.998,
            "patience": 300,
            "picture_temperature": 0.9,
        },
        notes=(_CHEAP_TRACE,),
    ),
}
