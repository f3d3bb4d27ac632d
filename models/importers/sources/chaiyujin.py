"""chaiyujin/glow-pytorch: a port of OpenAI's Glow, see `openai_port`.

Its inputs are pixels / 255, not centred, with normal noise of standard deviation 1/256 around each.
The "nll" it reports counts pixels where it should count values: the channels are missing from both
the divisor and the constant.

Reference: github.com/chaiyujin/glow-pytorch, glow/models.py, glow/modules.py (2019-04-25).
"""

import math
from collections.abc import Mapping
from typing import Any

from models.importers.layouts import openai_port as port
from models.importers.layouts.images import dequantisation
from models.importers.likelihood import Reported, Term
from models.importers.source import Conversion, Inference, Source, Step
from models.importers.weights import Weights

_NAMES = port.Names(net="f", conv="", linear="", learn_top="learn_top", lower="l", upper="u")

# The noise is centred on pixels / 255: the bin is moved so that its midpoint is there too.
_PIXELS: tuple[Step, ...] = (
    {"kind": "dequantise"},
    {"kind": "shift_scale", "scale": 1 / 255, "shift": -0.5 / 255},
)


class Config(port.PortConfig):
    """The section "Glow" of the hparams files."""


def unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the section "Glow" out of an hparams file, whole or under "hparams"."""
    hparams = settings.get("hparams", settings)
    if not isinstance(hparams, Mapping) or "Glow" not in hparams:
        return settings
    beside = {key: value for key, value in settings.items() if key not in _SECTIONS}
    return {**hparams["Glow"], **beside}


def infer(weights: Weights) -> Inference:
    """Read everything off the weights, but for permutations that leave none."""
    return port.infer(weights, _NAMES)


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a Glow."""
    settings, layers = port.convert(config, weights, _NAMES)
    height, width, colours = config.image_shape
    pixels = height * width
    bins = Term(
        "bins",
        -pixels * math.log(256),
        f"Glow.normal_flow: -log(256) a pixel, where a value was meant: the factor of {colours} "
        "channels is missing, here and in the divisor",
    )
    noise = dequantisation("normal noise of standard deviation 1/256")
    return Conversion(
        family="glow",
        config=settings,
        layers=layers,
        pixels=_PIXELS,
        data="x = pixels / 255",
        reported=Reported(
            "nll, bits per pixel of all channels", (bins, noise), factor=-1 / (pixels * math.log(2))
        ),
    )


_SECTIONS = frozenset(
    {"hparams", "Dir", "Glow", "Criterion", "Data", "Optim", "Device", "Train", "Infer"}
)

SOURCE = Source(
    name="chaiyujin/glow-pytorch",
    short_names=("chaiyujin", "chaiyujin/glow"),
    signature=(r"flow\.layers\.\d+\.actnorm\.logs", r"flow\.layers\.\d+\.f\.0\.weight"),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset({"actnorm_scale"}),  # of the first batch, in its initialisation
    unfold=unfold,
)
