"""jet-pytorch: transformers over patches as affine couplings.

Its conventions: images are (H, W, C) there and (C, H, W) here; patches have the channel last; a
coupling permutes the values of each patch, or the patches, by a matrix that is saved, keeps the
first half, and is undone behind it; its network gives (bias, s), y = (x + bias) scale_factor
sigmoid(s). The patches that a spatial coupling keeps are cut in two, so that all networks see as
many tokens.

Reference: jet-pytorch 0.0.2 (Kolesnikov et al. 2024, arXiv 2412.15129).
"""

import math
from itertools import cycle, islice
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

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
from models.transforms.patches import channel_split, patch_indices, spatial_split

CouplingType = Literal["channels", "spatial"]

_HALF_LEVELS = 127.5
_CHANNELS: CouplingType = "channels"
_SPATIAL: CouplingType = "spatial"


class Config(SourceConfig):
    """Arguments of `Jet`."""

    patch_size: Count
    patch_dim: Count
    n_patches: Count
    img_dims: tuple[Count, Count] = Field(description="height and width of the images")
    channels: Count
    coupling_layers: Count
    coupling_types: tuple[CouplingType, ...] = Field(min_length=1)
    block_depth: Count
    block_width: Count
    num_heads: Count
    scale_factor: float = Field(gt=0)


def infer(weights: Weights) -> Inference:
    """Read everything but sides, heads and the order of the couplings off the shapes."""
    seen = Inference()
    blocks = weights.count(r"blocks\.(\d+)\.")
    _, tokens, width = weights.shape("blocks.0.dnn.pos_emb")
    size = 2 * weights.shape("blocks.0.dnn.init_proj.weight")[1]
    depth = weights.count(r"blocks\.0\.dnn\.encoder\.blocks\.(\d+)\.")
    seen.know("coupling_layers", blocks, "blocks in the keys")
    seen.know("block_depth", depth, "layers of blocks.0")
    seen.know("block_width", width, "blocks.0.dnn.pos_emb")
    seen.know("n_patches", tokens, "blocks.0.dnn.pos_emb")
    seen.know("patch_dim", size, "blocks.0.dnn.init_proj has half of them as inputs")
    seen.suppose("channels", 3, "RGB, as the library's own training")
    fitting = [side for side in range(1, size + 1) if size % side**2 == 0]
    seen.ask("patch_size", f"{' or '.join(map(str, fitting))}: patches have {size} values")
    seen.ask("img_dims", f"height and width with {tokens} patches")
    seen.ask("num_heads", f"a divisor of the width {width}")
    seen.suppose("scale_factor", 2.0, "the default of the library")
    _infer_types(seen, weights, blocks)
    return seen


def _infer_types(seen: Inference, weights: Weights, blocks: int) -> None:
    default = (*[_CHANNELS] * 4, _SPATIAL)
    counts = _counts(weights)
    usual = list(islice(cycle(default), blocks))
    if 0 in counts.values():
        (kind,) = (name for name, count in counts.items() if count)
        seen.suppose("coupling_types", (kind,), "there are buffers of this kind alone")
    elif counts == {kind: usual.count(kind) for kind in counts}:
        seen.suppose("coupling_types", default, "the default of the library, which fits")
    else:
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        seen.ask("coupling_types", f"a list with {told} in {blocks} couplings")


def _counts(weights: Weights) -> dict[CouplingType, int]:
    kinds = (_CHANNELS, _SPATIAL)
    keys = {kind: f"{_stem(kind)}_projections" for kind in kinds}
    return {kind: weights.shape(key)[0] if key in weights else 0 for kind, key in keys.items()}


def _stem(kind: CouplingType) -> str:
    return "channel" if kind == _CHANNELS else _SPATIAL


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a Jet."""
    shape = (config.channels, *config.img_dims)
    try:
        patches = patch_indices(shape, config.patch_size, "channel_last")
    except ValueError as error:
        raise ImportRefused(str(error)) from None
    types = list(islice(cycle(config.coupling_types), config.coupling_layers))
    counts = {kind: types.count(kind) for kind in (_CHANNELS, _SPATIAL)}
    if counts != _counts(weights):
        raise ImportRefused(
            f"coupling_types: {counts} in {len(types)} couplings, and the weights have "
            f"{_counts(weights)}"
        )
    permutations = {
        kind: iter(_permutations(weights, kind, config, counts[kind])) for kind in counts
    }
    layers: list[Fragment] = [{}, {"indices": torch.tensor(patches)}]
    for index, kind in enumerate(types):
        order = next(permutations[kind])
        if kind == _CHANNELS:
            kept_first = torch.tensor(channel_split(config.n_patches, order))
        else:
            kept_first = torch.tensor(spatial_split(order, config.patch_dim))
        network = _network(weights, f"blocks.{index}.dnn", config)
        coupling = prefixed("conditioner.", network)
        layers += [{"indices": kept_first}, coupling, {"indices": kept_first.argsort()}]
    return Conversion(
        family="jet",
        config={
            "event_shape": list(shape),
            "patch_size": config.patch_size,
            "coupling_layers": config.coupling_layers,
            "coupling_types": list(config.coupling_types),
            "block_depth": config.block_depth,
            "block_width": config.block_width,
            "num_heads": config.num_heads,
            "scale_factor": config.scale_factor,
        },
        layers=layers,
        pixels=pixel_steps(levels=_HALF_LEVELS, shift=-1.0),
        data="x = (pixels + u) / 127.5 - 1, as (C, H, W)",
        reported=reported_bits(
            math.prod(shape),
            _HALF_LEVELS,
            where="the library",
            note="pixels on (-1, 1): log 127.5 a value",
        ),
    )


def _permutations(weights: Weights, kind: CouplingType, config: Config, count: int) -> list[Tensor]:
    """For each coupling of a kind, which value or patch comes first, second, ..."""
    side = config.patch_dim if kind == _CHANNELS else config.n_patches
    key = f"{_stem(kind)}_projections"
    if key not in weights and not count:
        return []
    matrices = weights.take(key, count, side, side)
    orders = matrices.argmax(1)
    ones = torch.zeros_like(matrices).scatter_(1, orders[:, None], 1.0)
    if not torch.equal(matrices, ones) or any(len(order.unique()) < side for order in orders):
        weights.problem(key, "expected permutation matrices")
    return list(orders)


def _network(weights: Weights, name: str, config: Config) -> Fragment:
    width, half = config.block_width, config.patch_dim // 2
    state = {
        "position": weights.take(f"{name}.pos_emb", 1, config.n_patches, width)[0],
        **prefixed("entry.", transformer.linear(weights, f"{name}.init_proj", width, half)),
        **prefixed("final_norm.", transformer.norm(weights, f"{name}.encoder.ln", width)),
        **prefixed("exit.", transformer.linear(weights, f"{name}.final_proj", 2 * half, width)),
    }
    layers = [
        _layer(weights, f"{name}.encoder.blocks.{index}", width)
        for index in range(config.block_depth)
    ]
    return state | prefixed("blocks.", numbered(layers))


def _layer(weights: Weights, name: str, width: int) -> Fragment:
    modules = ("ln1", "mha.out_proj", "ln2", "mlp.in_proj", "mlp.out_proj")
    names = transformer.Names(*(f"{name}.{module}" for module in modules))
    qkv = {
        "weight": weights.take(f"{name}.mha.in_proj_weight", 3 * width, width),
        "bias": weights.take(f"{name}.mha.in_proj_bias", 3 * width),
    }
    return transformer.block(weights, names, qkv, width)


SOURCE = Source(
    name="jet-pytorch",
    short_names=("jet", "jet_pytorch"),
    signature=(r"blocks\.\d+\.dnn\.pos_emb", r"blocks\.\d+\.dnn\.final_proj\.weight"),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset({"spatial_coupling_projs"}),  # their matrices are in the weights
)
