"""Two ports of OpenAI's Glow, chaiyujin's and y0ast's, that differ in the names of their keys.

Both: actnorm y = (x + t) exp(s); the first half of the channels conditions; the network gives
(shift, scale) as even and odd channels, y = (x + t) sigmoid(s + 2); priors of splits likewise give
(mean, log_std) as even and odd channels; the top prior is a convolution of zeros plus a linear map
of the class, constant over pixels, its halves mean and log_std. The flow is one flat list: squeeze,
steps, split, squeeze, ...

Reference: Kingma & Dhariwal 2018 (arXiv 1807.03039) and its code, github.com/openai/glow.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from models.importers.layouts import glow as glow
from models.importers.report import ImportRefused
from models.importers.source import Count, Fragment, Inference, SourceConfig, prefixed
from models.importers.weights import Weights

Permutation = Literal["invconv", "reverse", "shuffle"]
LOG_SCALE_FACTOR = 3.0

SHUFFLE_REFUSED = (
    "flow_permutation 'shuffle': the order is drawn when the model is built and is not in the "
    "checkpoint, so this model cannot be recovered"
)


class PortConfig(SourceConfig):
    """Arguments of `Glow` in both ports."""

    image_shape: tuple[Count, Count, Count]
    hidden_channels: Count
    K: Count
    L: Count
    flow_permutation: Permutation
    flow_coupling: Literal["affine", "additive"]
    LU_decomposed: bool = False
    learn_top: bool
    y_condition: bool
    y_classes: Count | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """What a port calls things, where the two differ.

    Attributes:
        net: the coupling network.
        conv: what stands between a convolution's name and its `weight` and `bias`.
        linear: likewise of linear layers.
        learn_top: the convolution of the top prior.
        lower, upper: of the LU form.
    """

    net: str
    conv: str
    linear: str
    learn_top: str
    lower: str
    upper: str


@dataclass(frozen=True, slots=True)
class _Port:
    """What every step of a conversion needs."""

    weights: Weights
    config: PortConfig
    names: Names


def infer(weights: Weights, names: Names) -> Inference:
    """Read everything off the weights, but for permutations that leave none."""
    seen = Inference()
    levels = _levels(weights)
    steps = [len(level) for level in levels]
    first = f"flow.layers.{levels[0][0]}"
    channels = weights.shape(f"{first}.actnorm.bias")[1]
    seen.know("L", len(levels), "splits in the list of layers, and one")
    seen.know("K", glow.same_everywhere("K", steps), "steps between splits")
    width = weights.shape(f"{first}.{names.net}.0{names.conv}.weight")[0]
    seen.know("hidden_channels", width, f"{first}.{names.net}.0")
    outputs = weights.shape(f"{first}.{names.net}.4{names.conv}.weight")[0]
    coupling = "affine" if outputs == channels else "additive"
    seen.know("flow_coupling", coupling, f"the coupling network has {outputs} outputs")
    _infer_permutation(seen, weights, first, names)
    learns = f"{names.learn_top}.logs" in weights
    seen.know("learn_top", learns, f"{names.learn_top} in the keys, or not")
    is_conditional = "project_ycond.logs" in weights
    seen.know("y_condition", is_conditional, "project_ycond in the keys, or not")
    if is_conditional:
        classes = weights.shape(f"project_ycond{names.linear}.weight")[1]
        seen.know("y_classes", classes, "inputs of project_ycond")
    else:
        seen.mark_idle("y_classes", "not used: y_condition is off")
    _, _, height, width = weights.shape("prior_h")
    scale = 2 ** len(levels)
    shape = [height * scale, width * scale, channels // 4]
    seen.know("image_shape", shape, f"prior_h is {height} x {width}, {len(levels)} halvings down")
    return seen


def _infer_permutation(seen: Inference, weights: Weights, first: str, names: Names) -> None:
    has_lu = f"{first}.invconv.{names.lower}" in weights
    if has_lu or f"{first}.invconv.weight" in weights:
        seen.know("flow_permutation", "invconv", "invconv in the keys")
        seen.know("LU_decomposed", has_lu, f"invconv.{names.lower}, or invconv.weight")
    else:
        seen.mark_idle("LU_decomposed", "not used: there are no 1x1 convolutions")
        seen.ask(
            "flow_permutation",
            "'reverse' (no invconv is in the keys; with 'shuffle' the model is lost)",
        )


def _levels(weights: Weights) -> list[list[int]]:
    """Numbers of the flow steps in the list of layers, level by level."""
    steps = weights.indices(r"flow\.layers\.(\d+)\.actnorm\.")
    splits = weights.indices(r"flow\.layers\.(\d+)\.conv\.")
    edges = [-1, *splits, max([*steps, *splits], default=0) + 1]
    levels = [[step for step in steps if low < step < high] for low, high in pairwise(edges)]
    expected = [
        step
        for level, low in zip(levels, edges, strict=False)
        for step in range(low + 2, low + 2 + len(level))
    ]
    if steps != expected or not all(levels):
        raise ImportRefused(
            f"flow.layers: expected a squeeze, steps and a split at every level, got steps at "
            f"{steps} and splits at {splits}; parts of the checkpoint are missing"
        )
    return levels


def convert(
    config: PortConfig, weights: Weights, names: Names
) -> tuple[dict[str, object], list[Fragment]]:
    """Turn the weights into the configuration and the layers of a Glow.

    Raises:
        ImportRefused: for channels shuffled in an order that was not saved.
    """
    if config.flow_permutation == "shuffle":
        raise ImportRefused(SHUFFLE_REFUSED)
    port = _Port(weights, config, names)
    height, width, colours = config.image_shape
    numbers = _levels(weights)
    levels = []
    for index, steps in enumerate(numbers):
        channels = 4 * colours * 2**index
        parts = [_step(port, f"flow.layers.{step}", channels) for step in steps]
        if index < len(numbers) - 1:
            split = f"flow.layers.{steps[-1] + 1}.conv"
            prior = _zeros_conv(port, split, (channels, channels // 2), glow.even_then_odd)
            levels.append(glow.Level(parts, prior, is_conv=True))
        else:
            levels.append(glow.Level(parts, _top_prior(port, channels)))
    weights.report.recognised(
        "actnorm", "this source keeps no flag in its checkpoints: taken as initialised"
    )
    has_prior = config.learn_top or config.y_condition
    settings: dict[str, object] = {
        "event_shape": [colours, height, width],
        "num_levels": config.L,
        "num_steps": config.K,
        "hidden_channels": config.hidden_channels,
        "permutation": _permutation(config),
        "coupling": config.flow_coupling,
        "log_scale_factor": LOG_SCALE_FACTOR,
        "top_prior": "channel" if has_prior else "standard",
        "num_classes": config.y_classes if config.y_condition else None,
    }
    return settings, glow.lay_out(levels)


def _permutation(config: PortConfig) -> str:
    if config.flow_permutation == "reverse":
        return "reverse"
    return "lu_conv" if config.LU_decomposed else "conv"


def _step(port: _Port, name: str, channels: int) -> glow.Step:
    weights, config, names = port.weights, port.config, port.names
    half, width = channels // 2, config.hidden_channels
    is_affine = config.flow_coupling == "affine"
    net = f"{name}.{names.net}"
    coupling: Fragment = {
        "conditioner.layers.0.weight": weights.take(
            f"{net}.0{names.conv}.weight", width, half, 3, 3
        ),
        **prefixed("conditioner.layers.1.", _actnorm(weights, f"{net}.0.actnorm", width)),
        "conditioner.layers.3.weight": weights.take(
            f"{net}.2{names.conv}.weight", width, width, 1, 1
        ),
        **prefixed("conditioner.layers.4.", _actnorm(weights, f"{net}.2.actnorm", width)),
    }
    outputs = channels if is_affine else half
    rows = glow.even_then_odd if is_affine else glow.as_it_is
    output = _zeros_conv(port, f"{net}.4", (outputs, width), rows)
    coupling |= prefixed("conditioner.layers.6.", output)
    actnorm = _actnorm(weights, f"{name}.actnorm", channels)
    return glow.Step(actnorm, _mixing(port, f"{name}.invconv", channels), coupling)


def _actnorm(weights: Weights, name: str, channels: int) -> Fragment:
    return {
        "shift": weights.take(f"{name}.bias", 1, channels, 1, 1).flatten(),
        "log_scale": weights.take(f"{name}.logs", 1, channels, 1, 1).flatten(),
    }


def _mixing(port: _Port, name: str, channels: int) -> Fragment:
    weights, config, names = port.weights, port.config, port.names
    if config.flow_permutation == "reverse":
        return {"indices": torch.arange(channels).flip(0)}
    if config.LU_decomposed:
        parts = ("p", names.lower, names.upper, "log_s", "sign_s")
        return glow.lu_conv(weights, glow.LUKeys(*(f"{name}.{part}" for part in parts)), channels)
    return glow.plain_conv(weights, f"{name}.weight", channels, channels)


def _zeros_conv(port: _Port, name: str, size: tuple[int, int], rows: glow.Rows) -> Fragment:
    weights = port.weights
    outputs, inputs = size
    conv = f"{name}{port.names.conv}"
    return {
        "conv.weight": rows(weights.take(f"{conv}.weight", outputs, inputs, 3, 3)),
        "conv.bias": rows(weights.take(f"{conv}.bias", outputs)),
        "log_scale": rows(weights.take(f"{name}.logs", outputs, 1, 1)),
    }


def _top_prior(port: _Port, channels: int) -> Fragment:
    """The top prior, computed once: a padded convolution of zeros is its bias everywhere."""
    weights, config, names = port.weights, port.config, port.names
    weights.skip(r"project_class\..*", "a classifier beside the flow: no part of the density")
    _check_start(weights, channels, config)
    total = torch.zeros(2 * channels, dtype=torch.float64)
    if config.learn_top:
        size = (2 * channels, 2 * channels)
        conv = _zeros_conv(port, names.learn_top, size, glow.as_it_is)
        total = total + conv["conv.bias"] * _gain(conv["log_scale"])
    if not config.y_condition:
        return _gaussian(total) if config.learn_top else {}
    linear = f"project_ycond{names.linear}"
    gain = _gain(weights.take("project_ycond.logs", 2 * channels))
    total = total + gain * weights.take(f"{linear}.bias", 2 * channels)
    table = gain * weights.take(f"{linear}.weight", 2 * channels, config.y_classes or 0).T
    mean, log_std = table[..., None, None].chunk(2, 1)
    return {**_gaussian(total), "mean_context": mean, "log_std_context": log_std}


def _gaussian(total: Tensor) -> Fragment:
    mean, log_std = total[:, None, None].chunk(2)
    return {"mean": mean, "log_std": log_std}


def _check_start(weights: Weights, channels: int, config: PortConfig) -> None:
    """Take `prior_h`, which is zeros of any batch size in every model of this code."""
    height, width, _ = config.image_shape
    rows = weights.shape("prior_h")[0]
    side = 2**config.L
    start = weights.take("prior_h", rows, 2 * channels, height // side, width // side)
    if start.count_nonzero():
        weights.problem("prior_h", "expected zeros, from which the top prior is computed")


def _gain(log_scale: Tensor) -> Tensor:
    return (LOG_SCALE_FACTOR * log_scale).exp().flatten()
