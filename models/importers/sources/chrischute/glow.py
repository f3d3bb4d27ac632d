"""chrischute/glow: Glow of colour images with standard normal latents in the layout of the image.

Its conventions: pixels become logits inside the model; actnorm y = (x + t) exp(s); plain 1x1
convolutions; the second half of the channels conditions; the network, with batch norm, gives
(scale, shift) as even and odd channels, y = (x + t) exp(w tanh(s)) with a learned w a channel.
Levels squeeze first and halve then, which is the same as halving first.

Reference: github.com/chrischute/glow, models/glow, train.py (2021-01-18).
"""

import re

from models.importers.layouts import glow as glow
from models.importers.layouts.images import ImageSize, multiples, pixel_steps, sides
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig, prefixed
from models.importers.sources.chrischute.common import TRAINING, batch_norm, logit, nats_loss
from models.importers.weights import Weights

# `Glow` is built for squeezed colour images.
_COLOURS = 3


class Config(SourceConfig):
    """Arguments of `Glow`, and the side of its images."""

    num_channels: Count
    num_levels: Count
    num_steps: Count
    image_size: ImageSize


def infer(weights: Weights) -> Inference:
    """Read everything but the size of the images off the weights."""
    seen = Inference()
    levels = 1
    while weights.has(rf"{re.escape(_level(levels))}\.steps\..*"):
        levels += 1
    counts = [
        weights.count(rf"{re.escape(_level(level))}\.steps\.(\d+)\.") for level in range(levels)
    ]
    seen.know("num_levels", levels, "`next` in the keys")
    seen.know("num_steps", glow.same_everywhere("num_steps", counts), "steps in each level")
    width = weights.shape("flows.steps.0.coup.nn.in_conv.weight")[0]
    seen.know("num_channels", width, "flows.steps.0.coup.nn.in_conv.weight")
    seen.ask("image_size", multiples(levels))
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a Glow."""
    height, width = sides(config.image_size)
    levels = [
        glow.Level(
            [
                _step(weights, f"{_level(level)}.steps.{step}", level, config)
                for step in range(config.num_steps)
            ]
        )
        for level in range(config.num_levels)
    ]
    return Conversion(
        family="glow",
        config={
            "event_shape": [_COLOURS, height, width],
            "num_levels": config.num_levels,
            "num_steps": config.num_steps,
            "hidden_channels": config.num_channels,
            "permutation": "conv",
            "scale": "tanh",
            "keep_first": False,
            "normalisation": "batch_norm",
            "log_scale_factor": None,
            "split_prior": "standard",
            "top_prior": "standard",
            "latent_order": "image",
        },
        layers=glow.lay_out(levels),
        inputs=(logit(weights, "bounds"),),
        pixels=pixel_steps(),
        data="u = pixels / 256",
        reported=nats_loss(_COLOURS * height * width),
    )


def _level(index: int) -> str:
    return ".".join(["flows", *["next"] * index])


def _step(weights: Weights, name: str, level: int, config: Config) -> glow.Step:
    channels = 4 * _COLOURS * 2**level
    half, width = channels // 2, config.num_channels
    actnorm = {
        "shift": weights.take(f"{name}.norm.bias", 1, channels, 1, 1).flatten(),
        "log_scale": weights.take(f"{name}.norm.logs", 1, channels, 1, 1).flatten(),
    }
    glow.check_flag(weights, f"{name}.norm.is_initialized", 1)
    net = f"{name}.coup.nn"
    layers = "conditioner.layers"
    coupling = {
        "elementwise.scale_weight": weights.take(f"{name}.coup.scale", half, 1, 1),
        **prefixed(f"{layers}.0.", batch_norm(weights, f"{net}.in_norm", half)),
        f"{layers}.2.weight": weights.take(f"{net}.in_conv.weight", width, half, 3, 3),
        **prefixed(f"{layers}.3.", batch_norm(weights, f"{net}.mid_norm", width)),
        f"{layers}.5.weight": weights.take(f"{net}.mid_conv.weight", width, width, 1, 1),
        **prefixed(f"{layers}.6.", batch_norm(weights, f"{net}.out_norm", width)),
        f"{layers}.8.conv.weight": glow.odd_then_even(
            weights.take(f"{net}.out_conv.weight", channels, width, 3, 3)
        ),
        f"{layers}.8.conv.bias": glow.odd_then_even(weights.take(f"{net}.out_conv.bias", channels)),
    }
    mixing = glow.plain_conv(weights, f"{name}.conv.weight", channels, channels)
    return glow.Step(actnorm, mixing, coupling)


SOURCE = Source(
    name="chrischute/glow",
    short_names=("chrischute-glow",),
    signature=(r"flows\.(next\.)*steps\.\d+\.norm\.logs", r"flows\.steps\.\d+\.coup\.nn\."),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=TRAINING,
)
