"""chrischute/real-nvp: RealNVP of images, with two squeezes and latents in the layout of the image.

Its conventions: pixels become logits inside the model; checkerboards b = (row + column) mod 2 and
its complement by turns, b = 1 stays; channel-wise couplings on squeezed channels, the first half
moves, then the second; residual networks with weight norm give (scale, shift) as halves,
y = (x + t) exp(w tanh(s)) with a weight-normed w a channel, w = g v / |v|.

Reference: github.com/chrischute/real-nvp, models/real_nvp, models/resnet, util (2019-08-23).
"""

import re

from models.importers.layouts.glow import swap_halves
from models.importers.layouts.images import ImageSize, multiples, pixel_steps, sides
from models.importers.source import (
    Conversion,
    Count,
    Fragment,
    Inference,
    Source,
    SourceConfig,
    numbered,
    prefixed,
)
from models.importers.sources.chrischute.common import TRAINING, batch_norm, logit, nats_loss
from models.importers.weights import Weights

# Couplings of each kind at every scale; the last scale has one checkerboard more.
_COUPLINGS = 3


class Config(SourceConfig):
    """Arguments of `RealNVP`, and the side of its images."""

    num_scales: Count
    in_channels: Count
    mid_channels: Count
    num_blocks: int
    image_size: ImageSize


def infer(weights: Weights) -> Inference:
    """Read everything but the size of the images off the weights."""
    seen = Inference()
    scales = 1
    while weights.has(rf"{re.escape(_scale(scales))}\.in_couplings\..*"):
        scales += 1
    first = "flows.in_couplings.0.st_net"
    seen.know("num_scales", scales, "`next_block` in the keys")
    channels = weights.shape(f"{first}.in_norm.weight")[0]
    seen.know("in_channels", channels, f"{first}.in_norm.weight")
    middle = weights.shape(f"{first}.in_conv.conv.weight_v")[0]
    seen.know("mid_channels", middle, f"{first}.in_conv.conv.weight_v")
    blocks = weights.count(rf"{re.escape(first)}\.blocks\.(\d+)\.")
    seen.know("num_blocks", blocks, f"{first}.blocks")
    seen.ask("image_size", multiples(scales - 1))
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a RealNVP for images."""
    height, width = sides(config.image_size)
    return Conversion(
        family="realnvp_image",
        config={
            "event_shape": [config.in_channels, height, width],
            "num_scales": config.num_scales,
            "num_couplings": _COUPLINGS,
            "mid_channels": config.mid_channels,
            "num_blocks": config.num_blocks,
            "scale": "tanh",
            "form": "shift_then_scale",
            "latent_order": "image",
        },
        layers=_layers(config, weights, 0),
        inputs=(logit(weights, "data_constraint"),),
        pixels=pixel_steps(),
        data="u = pixels / 256",
        reported=nats_loss(config.in_channels * height * width),
    )


def _scale(index: int) -> str:
    return ".".join(["flows", *["next_block"] * index])


def _layers(config: Config, weights: Weights, scale: int) -> list[Fragment]:
    """State of the transforms of one scale; the scales after it are inside its `FactorOut`."""
    name = _scale(scale)
    channels, middle = config.in_channels * 2**scale, config.mid_channels * 2**scale
    is_last = scale == config.num_scales - 1
    checkerboards = [
        _coupling(weights, f"{name}.in_couplings.{index}", (channels, middle), config)
        for index in range(_COUPLINGS + is_last)
    ]
    if is_last:
        return checkerboards
    channel_wise = [
        _coupling(weights, f"{name}.out_couplings.{index}", (2 * channels, 2 * middle), config)
        for index in range(_COUPLINGS)
    ]
    rest = prefixed("rest.transforms.", numbered(_layers(config, weights, scale + 1)))
    squeeze: Fragment = {}
    return [*checkerboards, squeeze, *channel_wise, squeeze, squeeze, rest]


def _coupling(weights: Weights, name: str, size: tuple[int, int], config: Config) -> Fragment:
    channels, _ = size
    gain = weights.take(f"{name}.rescale.weight_g", channels, 1, 1)
    direction = weights.take(f"{name}.rescale.weight_v", channels, 1, 1)
    net = _residual_net(weights, f"{name}.st_net", size, config.num_blocks)
    return {
        "elementwise.scale_weight": gain * direction / direction.abs(),
        **prefixed("conditioner.", net),
    }


def _residual_net(weights: Weights, name: str, size: tuple[int, int], num_blocks: int) -> Fragment:
    channels, middle = size

    def conv(part: str, size: int, inputs: int = middle, *, bias: bool = True) -> Fragment:
        return _normed_conv(weights, f"{name}.{part}.conv", (middle, inputs, size), bias=bias)

    output = _normed_conv(weights, f"{name}.out_conv.conv", (2 * channels, middle, 1), bias=True)
    net = {
        **prefixed("input_norm.", batch_norm(weights, f"{name}.in_norm", channels)),
        **prefixed("input_conv.", conv("in_conv", 3, 2 * channels)),
        **prefixed("input_skip.", conv("in_skip", 1)),
        **prefixed("output_norm.", batch_norm(weights, f"{name}.out_norm", middle)),
        **prefixed("output_conv.", {key: swap_halves(value) for key, value in output.items()}),
    }
    for index in range(num_blocks):
        block = f"blocks.{index}"
        layers = {
            **prefixed("0.", batch_norm(weights, f"{name}.{block}.in_norm", middle)),
            **prefixed("2.", conv(f"{block}.in_conv", 3, bias=False)),
            **prefixed("3.", batch_norm(weights, f"{name}.{block}.out_norm", middle)),
            **prefixed("5.", conv(f"{block}.out_conv", 3)),
        }
        net |= prefixed(f"{block}.layers.", layers)
        net |= prefixed(f"skips.{index}.", conv(f"skips.{index}", 1))
    return net


def _normed_conv(
    weights: Weights, name: str, shape: tuple[int, int, int], *, bias: bool
) -> Fragment:
    outputs, inputs, size = shape
    fragment = {
        "gain": weights.take(f"{name}.weight_g", outputs, 1, 1, 1),
        "direction": weights.take(f"{name}.weight_v", outputs, inputs, size, size),
    }
    if bias:
        fragment["bias"] = weights.take(f"{name}.bias", outputs)
    return fragment


SOURCE = Source(
    name="chrischute/real-nvp",
    short_names=("chrischute-real-nvp", "chrischute/realnvp"),
    signature=(r"flows\.(next_block\.)*in_couplings\.\d+\.st_net\.",),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=TRAINING,
)
