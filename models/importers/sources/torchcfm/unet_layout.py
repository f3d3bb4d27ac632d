"""What the keys of guided diffusion's U-Net say of its layers, and its weights as ours has them."""

import re
from dataclasses import dataclass

from torch import Tensor

from models.importers.report import ImportRefused
from models.importers.source import Fragment
from models.importers.weights import Weights
from models.ode.fields.unet import UNetDynamics
from models.ode.fields.unet_layers import Attention, frequencies

# Names of our modules, and theirs.
_PLACES = (
    (r"time_embedding\.first\.", "time_embed.0."),
    (r"time_embedding\.second\.", "time_embed.2."),
    (r"class_embedding\.", "label_emb."),
    (r"first\.", "input_blocks.0.0."),
    (r"middle\.", "middle_block."),
    (r"up\.", "output_blocks."),
    (r"norm\.", "out.0."),
    (r"last\.", "out.2."),
)
_PARTS = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "embed": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
    "project": "proj_out",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What the keys say.

    colours: channels of an image. num_channels: of the time's cosines and sines. channels: at every
    resolution, the finest first. num_blocks: at every resolution. attention_factors: by how much
    the resolutions with attention are coarser than the image. scale_shift: whether embeddings scale
    and shift. residual_resampling, learned_resampling: what stands between resolutions.
    """

    colours: int
    num_channels: int
    channels: tuple[int, ...]
    num_blocks: int
    attention_factors: tuple[int, ...]
    scale_shift: bool
    residual_resampling: bool
    learned_resampling: bool
    num_classes: int | None


def find_layout(weights: Weights) -> Layout:
    """Read the layers off the keys.

    Raises:
        ImportRefused: if they are not those of a velocity field over images.
    """
    colours = weights.shape("input_blocks.0.0.weight")[1]
    given = weights.shape("out.2.weight")[0]
    if given != colours or len(weights.shape("out.2.weight")) != 4:
        raise ImportRefused(
            f"out.2.weight: expected a convolution of images to the {colours} channels that come "
            f"in (input_blocks.0.0.weight), got {weights.shape('out.2.weight')}; a network that "
            "gives variances too (learn_sigma), or takes a second image, is no velocity field"
        )
    stages = 1 + max(weights.indices(r"output_blocks\.(\d+)\."), default=0)
    halvings, residual, learned = _resampling(weights, stages)
    per_level, rest = divmod(stages, halvings + 1)
    if rest:
        raise ImportRefused(
            f"output_blocks: expected as many at each of {halvings + 1} resolutions, got {stages}"
        )
    # Upwards, so that there is a block of every resolution even where none is on the way down.
    firsts = [per_level * (halvings - level) for level in range(halvings + 1)]
    names = [f"output_blocks.{first}" for first in firsts]
    channels = [weights.shape(f"{name}.0.out_layers.0.weight")[0] for name in names]
    factors = [2**level for level, name in enumerate(names) if f"{name}.1.qkv.weight" in weights]
    entering = weights.shape(f"{names[0]}.0.emb_layers.1.weight")[0]
    has_labels = "label_emb.weight" in weights
    return Layout(
        colours=colours,
        num_channels=weights.shape("time_embed.0.weight")[1],
        channels=tuple(channels),
        num_blocks=per_level - 1,
        attention_factors=tuple(factors),
        scale_shift=entering == 2 * channels[0],
        residual_resampling=residual,
        learned_resampling=learned,
        num_classes=weights.shape("label_emb.weight")[0] if has_labels else None,
    )


def _resampling(weights: Weights, stages: int) -> tuple[int, bool, bool]:
    """How often the image is halved, whether by residual blocks, and whether by convolutions."""
    residual = weights.indices(r"output_blocks\.(\d+)\.[12]\.in_layers\.")
    if residual:
        return len(residual), True, True
    learned = weights.indices(r"input_blocks\.(\d+)\.0\.op\.")
    if learned:
        return len(learned), False, True
    # Halvings without weights are numbered like the others, and have no keys.
    there = weights.indices(r"input_blocks\.(\d+)\.")
    return stages - len(there), False, len(there) == stages


def take_field(weights: Weights, field: UNetDynamics, *, new_order: bool) -> Fragment:
    """Take the weights as the state dict of our field.

    Args:
        weights: of the source.
        field: of which names and shapes are read.
        new_order: q, k and v are cut apart before the heads are (use_new_attention_order).
    """
    state: Fragment = {}
    for name, blank in field.state_dict().items():
        if name.endswith("frequencies"):
            state[name] = frequencies(field.settings.time_features).double()
        elif name == "class_embedding.weight":
            state[name] = weights.take("label_emb.weight", *blank.shape[::-1]).T
        else:
            state[name] = _take(weights, _their_name(name), blank)
    if new_order:
        for name, part in field.named_modules():
            if isinstance(part, Attention):
                for key in (f"{name}.qkv.weight", f"{name}.qkv.bias"):
                    state[key] = _heads_first(state[key], part.num_heads)
    return state


def _their_name(name: str) -> str:
    """A key of our field as the public code has it."""
    stage = re.match(r"down\.(\d+)\.", name)
    if stage:
        name = f"input_blocks.{int(stage.group(1)) + 1}.{name[stage.end() :]}"
    for place, theirs in _PLACES:
        if found := re.match(place, name):
            name = f"{theirs}{name[found.end() :]}"
            break
    *outer, part, key = name.split(".")
    if part == "convolution":
        part = "op" if outer[0] == "input_blocks" else "conv"
    return ".".join([*outer, _PARTS.get(part, part), key])


def _take(weights: Weights, key: str, blank: Tensor) -> Tensor:
    """Take a tensor; 1x1 convolutions of attention are over a sequence there."""
    if re.search(r"\.(qkv|proj_out)\.weight$", key):
        return weights.take(key, *blank.shape[:3]).unsqueeze(3)
    return weights.take(key, *blank.shape)


def _heads_first(mixed: Tensor, heads: int) -> Tensor:
    """Channels [q of all heads, k, v] as [q, k, v of the first head, of the next, ...]."""
    by_head = mixed.view(3, heads, -1, *mixed.shape[1:]).transpose(0, 1)
    return by_head.reshape(mixed.shape)
