"""apple/ml-tarflow: transformers over patches as autoregressive maps.

Its conventions: patches are channel-major, as torch's `unfold` gives them; odd blocks run over the
reversed sequence, their position table with it; a block gives (log-scale, shift) for the patch that
follows, z = (x - shift) exp(-log-scale), and leaves the first one alone; log-dets are means over
the values of an image. The mean of all classes, which it takes where no label is given, and the
scales of latents that its sampler applies (`var`) are no part of the density.

Reference: github.com/apple/ml-tarflow, transformer_flow.py and evaluate_bpd.py (2024-12-16).
"""

import math

import torch
from pydantic import Field

from models.importers.layouts import transformer
from models.importers.layouts.images import pixel_steps, reported_bits
from models.importers.report import ImportRefused
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
from models.importers.weights import Weights
from models.transforms.patches import patch_indices, reversed_tokens

_HEAD_DIM = 64
_HALF_LEVELS = 128.0


class Config(SourceConfig):
    """Arguments of `Model`; `head_dim` of `MetaBlock`."""

    in_channels: Count
    img_size: Count
    patch_size: Count
    channels: Count
    num_blocks: Count
    layers_per_block: Count
    nvp: bool
    num_classes: int = Field(ge=0)
    head_dim: Count


def infer(weights: Weights) -> Inference:
    """Read everything but the images' channels and the heads off the shapes."""
    seen = Inference()
    blocks = weights.count(r"blocks\.(\d+)\.")
    tokens, width = weights.shape("blocks.0.pos_embed")
    size = weights.shape("blocks.0.proj_in.weight")[1]
    outputs = weights.shape("blocks.0.proj_out.weight")[0]
    layers = [weights.count(rf"blocks\.{index}\.attn_blocks\.(\d+)\.") for index in range(blocks)]
    if len(set(layers)) > 1:
        raise ImportRefused(f"layers_per_block: expected as many in every block, got {layers}")
    seen.know("num_blocks", blocks, "blocks in the keys")
    seen.know("channels", width, "blocks.0.pos_embed")
    seen.know("layers_per_block", layers[0], "attn_blocks in each block")
    seen.know("nvp", outputs == 2 * size, f"blocks.0.proj_out has {outputs} outputs")
    is_conditional = "blocks.0.class_embed" in weights
    classes = weights.shape("blocks.0.class_embed")[0] if is_conditional else 0
    seen.know("num_classes", classes, "blocks.0.class_embed")
    sides = {
        channels: math.isqrt(size // channels)
        for channels in range(1, size + 1)
        if channels * math.isqrt(size // channels) ** 2 == size
    }
    fitting = ", ".join(f"{channels} (patch_size {side})" for channels, side in sides.items())
    if len(sides) > 1:
        seen.ask("in_channels", fitting)
        seen.ask("patch_size", f"the root of {size} / in_channels")
    else:
        (one,) = sides.items()
        seen.know("in_channels", one[0], f"patches of {size} values")
        seen.know("patch_size", one[1], f"patches of {size} values")
    seen.ask("img_size", f"{math.isqrt(tokens)} x patch_size: there are {tokens} patches")
    if width % _HEAD_DIM:
        seen.ask("head_dim", f"a divisor of the width {width}")
    else:
        seen.suppose("head_dim", _HEAD_DIM, "the default of MetaBlock")
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a TarFlow."""
    weights.skip(r"blocks\.\d+\.attn_mask", "the causal mask: a constant")
    weights.skip("var", "the sampler's scales of the latents: no part of the density")
    shape = (config.in_channels, config.img_size, config.img_size)
    try:
        patches = patch_indices(shape, config.patch_size)
    except ValueError as error:
        raise ImportRefused(str(error)) from None
    size = config.in_channels * config.patch_size**2
    layers: list[Fragment] = [{}, {"indices": torch.tensor(patches)}]
    turn = {"indices": torch.tensor(reversed_tokens(len(patches), size))}
    for index in range(config.num_blocks):
        block = _block(weights, f"blocks.{index}", config, (len(patches) // size, size))
        if index % 2:
            block["position"] = block["position"].flip(0)
        around = [turn] if index % 2 else []
        layers += [*around, prefixed("conditioner.", block), *around]
    return Conversion(
        family="tarflow",
        config={
            "event_shape": list(shape),
            "patch_size": config.patch_size,
            "channels": config.channels,
            "num_blocks": config.num_blocks,
            "layers_per_block": config.layers_per_block,
            "head_dim": config.head_dim,
            "nvp": config.nvp,
            "num_classes": config.num_classes or None,
        },
        layers=layers,
        pixels=pixel_steps(levels=_HALF_LEVELS, shift=-1.0),
        data="x = (pixels + u) / 128 - 1",
        reported=reported_bits(
            math.prod(shape),
            _HALF_LEVELS,
            where="evaluate_bpd.py",
            note="evaluate_bpd.py: 256 levels on (-1, 1); it divides by 3 img_size^2 whatever the "
            "channels",
        ),
    )


def _block(weights: Weights, name: str, config: Config, patches: tuple[int, int]) -> Fragment:
    tokens, size = patches
    width = config.channels
    last = transformer.linear(weights, f"{name}.proj_out", size * (1 + config.nvp), width)
    # Ours: y = x + t where there is no scale.
    last = (
        transformer.swap_halves(last) if config.nvp else {key: -part for key, part in last.items()}
    )
    state = {
        "position": weights.take(f"{name}.pos_embed", tokens, width),
        **prefixed("entry.", transformer.linear(weights, f"{name}.proj_in", width, size)),
        **prefixed("exit.", last),
    }
    if config.num_classes:
        table = weights.take(f"{name}.class_embed", config.num_classes, 1, width)
        state["classes"] = table[:, 0]
    layers = [
        _layer(weights, f"{name}.attn_blocks.{index}", width)
        for index in range(config.layers_per_block)
    ]
    return state | prefixed("blocks.", numbered(layers))


def _layer(weights: Weights, name: str, width: int) -> Fragment:
    modules = ("attention.norm", "attention.proj", "mlp.norm", "mlp.main.0", "mlp.main.2")
    names = transformer.Names(*(f"{name}.{module}" for module in modules))
    qkv = transformer.linear(weights, f"{name}.attention.qkv", 3 * width, width)
    return transformer.block(weights, names, qkv, width)


SOURCE = Source(
    name="apple/ml-tarflow",
    short_names=("ml-tarflow", "tarflow"),
    signature=(
        r"blocks\.\d+\.attn_blocks\.\d+\.attention\.qkv\.",
        r"blocks\.\d+\.proj_out\.weight",
    ),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset(
        {"batch_size", "lr", "epochs", "noise_std", "noise_type", "cfg", "drop_label", "logdir"}
    ),
)
