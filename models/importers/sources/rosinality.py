"""rosinality/glow-pytorch: Glow with a prior at every level, and ones around its last convolutions.

Its conventions: actnorm y = s (x + t) with s stored as it is; the first half of the channels
conditions; the network gives (scale, shift) as halves, y = (x + t) sigmoid(s + 2); the last
convolution of every network and of every prior pads with ones, so the prior of the last level,
computed from zeros, differs at the border of the image: it becomes one Gaussian an element.
Models built without LU keep it in their last block: the kind is read off each block.

Reference: github.com/rosinality/glow-pytorch, model.py and train.py (2020-10-07).
"""

import math

import torch.nn.functional as F
from pydantic import Field

from models.importers.layouts import glow as glow
from models.importers.layouts.images import (
    BITS,
    Bits,
    ImageSize,
    dequantisation,
    multiples,
    pixel_steps,
    sides,
)
from models.importers.likelihood import Reported, Term
from models.importers.source import Conversion, Count, Fragment, Inference, Source, SourceConfig
from models.importers.weights import Weights

_LOG_SCALE_FACTOR = 3.0
# train.py divides by the values of an image with three channels, whatever the images have.
_CHANNELS_IN_LOSS = 3


class Config(SourceConfig):
    """Arguments of train.py; `in_channel` of `Glow`, `filter_size` of `AffineCoupling`."""

    in_channel: Count
    img_size: ImageSize
    n_flow: Count
    n_block: Count
    affine: bool
    no_lu: bool
    n_bits: Bits
    filter_size: Count = Field(description="width of the coupling networks")


def infer(weights: Weights) -> Inference:
    """Read everything but the size of the images and their bits off the weights."""
    seen = Inference()
    blocks = weights.count(r"blocks\.(\d+)\.flows\.0\.")
    flows = [weights.count(rf"blocks\.{block}\.flows\.(\d+)\.") for block in range(blocks)]
    first = "blocks.0.flows.0"
    channels = weights.shape(f"{first}.actnorm.loc")[1]
    seen.know("n_block", blocks, "blocks in the keys")
    seen.know("n_flow", glow.same_everywhere("n_flow", flows), "flows in each block")
    seen.know("in_channel", channels // 4, f"actnorm of the first block has {channels} = 4 x")
    width, half = weights.shape(f"{first}.coupling.net.0.weight")[:2]
    seen.know("filter_size", width, f"{first}.coupling.net.0.weight")
    outputs = weights.shape(f"{first}.coupling.net.4.conv.weight")[0]
    seen.know("affine", outputs == 2 * half, f"the coupling network has {outputs} outputs")
    is_plain = f"{first}.invconv.weight" in weights
    if blocks > 1 or is_plain:
        seen.know("no_lu", is_plain, "invconv.weight, or invconv.w_l, in the first block")
    else:
        reason = "the last block, here the only one, is LU whatever was asked"
        seen.suppose("no_lu", False, reason)
        seen.mark_idle("no_lu", f"not used: {reason}")
    seen.ask("img_size", multiples(blocks))
    seen.ask("n_bits", BITS)
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a Glow."""
    weights.skip(r".*\.invconv\.(u_mask|l_mask|l_eye)", "masks of the LU form: constants")
    height, width = sides(config.img_size)
    last = config.n_block - 1
    levels = []
    for block in range(config.n_block):
        channels = 4 * config.in_channel * 2**block
        steps = [
            _step(weights, f"blocks.{block}.flows.{flow}", channels, config)
            for flow in range(config.n_flow)
        ]
        name = f"blocks.{block}.prior"
        if block < last:
            prior = _zero_conv(weights, name, (channels, channels // 2), glow.as_it_is)
        else:
            size = (height >> config.n_block, width >> config.n_block)
            prior = _top_prior(weights, name, channels, size)
        levels.append(glow.Level(steps, prior, is_conv=block < last))
    return Conversion(
        family="glow",
        config={
            "event_shape": [config.in_channel, height, width],
            "num_levels": config.n_block,
            "num_steps": config.n_flow,
            "hidden_channels": config.filter_size,
            "permutation": "conv" if _has_plain(weights) else "lu_conv",
            "coupling": "affine" if config.affine else "additive",
            "actnorm_storage": "direct",
            "normalisation": "none",
            "output_padding": "ones",
            "log_scale_factor": _LOG_SCALE_FACTOR,
            "top_prior": "element",
        },
        layers=glow.lay_out(levels),
        pixels=pixel_steps(shift=-0.5, bits=config.n_bits),
        data="x = floor(pixels / 2^(8 - n_bits)) / 2^n_bits - 0.5",
        reported=_reported(config),
    )


def _has_plain(weights: Weights) -> bool:
    return weights.has(r"blocks\.\d+\.flows\.\d+\.invconv\.weight")


def _step(weights: Weights, name: str, channels: int, config: Config) -> glow.Step:
    half = channels // 2
    net = f"{name}.coupling.net"
    actnorm = {
        "shift": weights.take(f"{name}.actnorm.loc", 1, channels, 1, 1).flatten(),
        "scale": weights.take(f"{name}.actnorm.scale", 1, channels, 1, 1).flatten(),
    }
    glow.check_flag(weights, f"{name}.actnorm.initialized")
    width = config.filter_size
    outputs = channels if config.affine else half
    rows = glow.swap_halves if config.affine else glow.as_it_is
    coupling = {
        "conditioner.layers.0.weight": weights.take(f"{net}.0.weight", width, half, 3, 3),
        "conditioner.layers.0.bias": weights.take(f"{net}.0.bias", width),
        "conditioner.layers.2.weight": weights.take(f"{net}.2.weight", width, width, 1, 1),
        "conditioner.layers.2.bias": weights.take(f"{net}.2.bias", width),
    }
    output = _zero_conv(weights, f"{net}.4", (outputs, width), rows)
    coupling |= {f"conditioner.layers.4.{key}": value for key, value in output.items()}
    return glow.Step(actnorm, _invconv(weights, f"{name}.invconv", channels), coupling)


def _invconv(weights: Weights, name: str, channels: int) -> Fragment:
    if f"{name}.weight" in weights:
        return glow.plain_conv(weights, f"{name}.weight", channels, channels, 1, 1)
    keys = glow.LUKeys(*(f"{name}.{part}" for part in ("w_p", "w_l", "w_u", "w_s", "s_sign")))
    fragment = glow.lu_conv(weights, keys, channels)
    return glow.multiplied_out(fragment) if _has_plain(weights) else fragment


def _zero_conv(weights: Weights, name: str, size: tuple[int, int], rows: glow.Rows) -> Fragment:
    outputs, inputs = size
    return {
        "conv.weight": rows(weights.take(f"{name}.conv.weight", outputs, inputs, 3, 3)),
        "conv.bias": rows(weights.take(f"{name}.conv.bias", outputs)),
        "log_scale": rows(weights.take(f"{name}.scale", 1, outputs, 1, 1)[0]),
    }


def _top_prior(weights: Weights, name: str, channels: int, size: tuple[int, int]) -> Fragment:
    """What the convolution makes of zeros with ones around them, computed once in float64."""
    conv = _zero_conv(weights, name, (2 * channels, channels), glow.as_it_is)
    zeros = conv["conv.weight"].new_zeros(1, channels, *size)
    framed = F.pad(zeros, (1, 1, 1, 1), value=1.0)
    made = F.conv2d(framed, conv["conv.weight"], conv["conv.bias"])[0]
    mean, log_std = (made * (_LOG_SCALE_FACTOR * conv["log_scale"]).exp()).chunk(2)
    return {"mean": mean, "log_std": log_std}


def _reported(config: Config) -> Reported:
    height, width = sides(config.img_size)
    values = height * width * _CHANNELS_IN_LOSS
    bins = Term(
        "bins",
        -values * math.log(2**config.n_bits),
        f"train.py: loss = -log(2^n_bits) n_pixel, with n_pixel = {values} (it counts "
        f"{_CHANNELS_IN_LOSS} channels; these images have {config.in_channel})",
    )
    noise = dequantisation(f"uniform noise in [0, 1/{2**config.n_bits})")
    return Reported(
        "loss of train.py, bits per value of an image with 3 channels",
        (bins, noise),
        factor=-1 / (math.log(2) * values),
    )


SOURCE = Source(
    name="rosinality/glow-pytorch",
    short_names=("rosinality", "rosinality/glow"),
    signature=(
        r"blocks\.\d+\.flows\.\d+\.actnorm\.loc",
        r"blocks\.\d+\.flows\.\d+\.coupling\.net\.",
    ),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset({"batch", "iter", "lr", "temp", "n_sample", "path", "conv_lu"}),
)
