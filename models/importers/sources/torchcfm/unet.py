"""torchcfm's U-Net, that of guided diffusion: `torchcfm.models.unet.UNetModelWrapper`.

v(t, x[, y]) with noise at time 0 and data at time 1; the time is taken as it is. The widths and the
places of attention are in the keys; how channels are cut into heads is not.

Reference: github.com/atong01/conditional-flow-matching, torchcfm 1.0.7, models/unet/unet.py, and
examples/images/cifar10 for its checkpoints.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from pydantic import Field

from models.importers.layouts import continuous
from models.importers.layouts.images import pixel_steps
from models.importers.likelihood import Reported, Term
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.sources.torchcfm.unet_layout import Layout, find_layout, take_field
from models.importers.weights import Weights
from models.ode.divergence import DivergenceSettings, Trace, is_exact, seeded_probes
from models.ode.fields.unet import UNetDynamics, UNetSettings
from models.registry import check_arguments

# The public code has group norms of 32 groups, whatever the channels.
_GROUPS = 32
# Its word for "not given".
_UNSET = -1
_HEADS = ("num_heads", "num_head_channels", "num_heads_upsample", "use_new_attention_order")
# CIFAR's images as the script has them: pixels / 127.5 - 1, so the bins are moved by half of one.
_PIXELS = pixel_steps(levels=127.5, shift=-1 - 1 / 255)


class Config(SourceConfig):
    """Arguments of `UNetModelWrapper` (and of `UNetModel`), and where on the time axis data are."""

    dim: tuple[Count, Count, Count]
    num_channels: Count
    num_res_blocks: int = Field(ge=0)
    channel_mult: tuple[float, ...] | None = Field(None, description="shown by the shapes")
    attention_resolutions: str | tuple[int, ...] | None = Field(
        None, description="shown by the keys: layers of attention"
    )
    num_heads: Count
    num_head_channels: int
    num_heads_upsample: int
    use_new_attention_order: bool
    use_scale_shift_norm: bool
    resblock_updown: bool
    conv_resample: bool
    class_cond: bool
    num_classes: Count | None
    t_data: float = Field(default=1.0, description="the library's convention")
    t_noise: float = Field(default=0.0, description="the library's convention")
    trace: Trace = Field("auto", description="exact up to 64 values, beyond that an estimate")
    num_probes: Count = Field(
        DivergenceSettings().num_probes, description="of the estimate; not the library's"
    )


def infer(weights: Weights) -> Inference:
    """Read the widths off the shapes; the size of the images and the heads are in none.

    Raises:
        ImportRefused: for networks that are no velocity field over images.
    """
    layout = find_layout(weights)
    seen = Inference()
    halvings = len(layout.channels) - 1
    unit = 2**halvings
    seen.ask(
        "dim",
        f"[{layout.colours}, H, W], the size of the images, where {unit} divides H and W"
        if halvings
        else f"[{layout.colours}, H, W], the size of the images",
    )
    seen.know("num_channels", layout.num_channels, "time_embed.0")
    seen.know("num_res_blocks", layout.num_blocks, "the number of stages")
    seen.know("use_scale_shift_norm", layout.scale_shift, "emb_layers of the residual blocks")
    if halvings:
        seen.know("resblock_updown", layout.residual_resampling, "what stands between resolutions")
    else:
        seen.suppose("resblock_updown", False, "there is one resolution")
    if halvings and not layout.residual_resampling:
        seen.know("conv_resample", layout.learned_resampling, "what stands between resolutions")
    else:
        seen.suppose("conv_resample", True, "there is nothing that it could change")
    _infer_labels(seen, layout)
    for name, value in zip(_HEADS, (1, _UNSET, _UNSET, False), strict=True):
        seen.suppose(name, value, "the constructor's own; no weight shows it")
    _show_others(seen, layout)
    return seen


def _infer_labels(seen: Inference, layout: Layout) -> None:
    seen.know("class_cond", layout.num_classes is not None, "whether there is a label_emb")
    if layout.num_classes is None:
        seen.suppose("num_classes", None, "there is no label_emb")
        seen.mark_idle("num_classes", "without class_cond it changes nothing")
    else:
        seen.know("num_classes", layout.num_classes, "label_emb")


def _show_others(seen: Inference, layout: Layout) -> None:
    names = ("UNetModelWrapper", "UNetModel")
    places = ("", "torchcfm.models.unet.", "torchcfm.models.unet.unet.")
    seen.show("model", *(f"{place}{name}" for place in places for name in names), reason="the keys")
    seen.show("learn_sigma", False, reason="as many channels come as go")
    seen.show("dims", 2, reason="convolutions of images")
    for name in ("in_channels", "out_channels"):
        seen.show(name, layout.colours, reason="the first and the last convolution")


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a continuous flow whose data are at the end of time.

    Raises:
        ImportRefused: if arguments do not fit the weights, or each other.
    """
    if (config.t_noise, config.t_data) != (0.0, 1.0):
        raise ImportRefused(
            f"t_noise {config.t_noise:g}, t_data {config.t_data:g}: expected 0 and 1"
        )
    layout = find_layout(weights)
    _compare(config, layout)
    _warn_of_heads(weights)
    settings = UNetSettings(
        channels=layout.channels,
        num_residual_blocks=layout.num_blocks,
        attention_factors=layout.attention_factors,
        time_features=layout.num_channels,
        num_groups=_GROUPS,
        scale_shift_norm=config.use_scale_shift_norm,
        residual_resampling=config.resblock_updown,
        learned_resampling=config.conv_resample,
        num_classes=config.num_classes if config.class_cond else None,
        **_heads(config),
    )
    described = {
        "event_shape": list(config.dim),
        "hidden_channels": settings.channels,
        **{name: value for name, value in asdict(settings).items() if name != "channels"},
        "solver": continuous.SOLVER,
    }
    check_arguments("cnf_unet", described)
    divergence: dict[str, Any] = {"evaluation": config.trace}
    with torch.device("meta"):
        field = UNetDynamics(config.dim, settings)
    block = continuous.block(
        torch.tensor(1.0),
        (),
        dynamics=take_field(weights, field, new_order=config.use_new_attention_order),
    )
    if not is_exact(config.trace, field):
        divergence["num_probes"] = config.num_probes
        block["probes"] = seeded_probes(DivergenceSettings(**divergence), config.dim).double()
    return Conversion(
        family="cnf_unet",
        config={**described, "divergence": divergence},
        layers=[block],
        reported=_reported(),
        pixels=_PIXELS,
        data="x = pixels / 127.5 - 1",
    )


def _heads(config: Config) -> dict[str, Any]:
    """How channels are cut into heads; a number of channels goes before numbers of heads."""
    up, channels = config.num_heads_upsample, config.num_head_channels
    return {
        "num_heads": config.num_heads,
        "num_heads_up": None if up == _UNSET else up,
        "head_channels": None if channels == _UNSET else channels,
    }


def _plain_names(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of `UNetModel` as those of the wrapper."""
    found = dict(settings)
    if "model_channels" in found:
        found["num_channels"] = found.pop("model_channels")
    if "image_size" in found and "in_channels" in found:
        side = found.pop("image_size")
        found.setdefault("dim", [found["in_channels"], side, side])
    return found


def _warn_of_heads(weights: Weights) -> None:
    """Say which numbers were taken on trust."""
    settings = [setting for setting in weights.report.settings if setting.name in _HEADS]
    if any(setting.origin in ("given", "checkpoint") for setting in settings):
        return
    weights.report.warning(
        "num_heads",
        "1 was taken, the constructor's own: the weights fit any other (and num_head_channels) as "
        "well, and its numbers would be others; CIFAR's script has num_heads 4, "
        "num_head_channels 64",
    )


def _compare(config: Config, layout: Layout) -> None:
    """Compare what is given with what the keys show, where several spellings mean the same.

    Raises:
        ImportRefused: names both.
    """
    if config.dim[0] != layout.colours:
        raise ImportRefused(
            f"dim: {list(config.dim)} was given, but input_blocks.0.0 takes {layout.colours} "
            "channels; leave it out or correct it"
        )
    mult, channels = config.channel_mult, list(layout.channels)
    if mult is not None:
        wanted = [int(factor * layout.num_channels) for factor in mult]
        if wanted != channels:
            raise ImportRefused(
                f"channel_mult: {list(mult)} times num_channels is {wanted}, but the stages have "
                f"{channels} channels; leave it out or correct it"
            )
    given = config.attention_resolutions
    if given is not None:
        wanted = [
            2**level for level in range(len(channels)) if 2**level in _factors(given, config.dim[2])
        ]
        if wanted != list(layout.attention_factors):
            raise ImportRefused(
                f"attention_resolutions: {given!r} means attention at {wanted} (how much coarser "
                f"than images of {config.dim[2]} pixels), but the keys show it at "
                f"{list(layout.attention_factors)}; correct it or dim"
            )


def _factors(resolutions: str | tuple[int, ...], side: int) -> set[int]:
    """Attention where the image is so many times coarser: the wrapper counts pixels instead."""
    if not isinstance(resolutions, str):
        return set(resolutions)
    try:
        return {side // int(pixels) for pixels in resolutions.split(",")}
    except (ValueError, ZeroDivisionError):
        raise ImportRefused(
            f"attention_resolutions: expected sizes with commas such as '16,8', got {resolutions!r}"
        ) from None


def _reported() -> Reported:
    trace = Term(
        "trace", 0.0, "exact here up to 64 values; Hutchinson's estimate with fixed probes beyond"
    )
    solver = continuous.tolerance_term("the scripts sample by dopri5 at 1e-5, or by Euler steps")
    return Reported("log p(x) of the flow's ODE: nats; the scripts report FID", (solver, trace))


SOURCE = Source(
    name="torchcfm",
    short_names=("atong01/conditional-flow-matching", "conditional-flow-matching"),
    signature=(r"input_blocks\.0\.0\.weight$", r"output_blocks\.0\.0\.", r"time_embed\.0\."),
    config=Config,
    infer=infer,
    convert=convert,
    unfold=_plain_names,
    training_only=frozenset(
        {
            *("sigma", "matcher", "dropout", "use_checkpoint", "use_fp16", "lr", "ema_decay"),
            *("batch_size", "total_steps", "warmup", "grad_clip", "num_workers", "save_step"),
            *("output_dir", "parallel", "integration_method", "integration_steps", "tol"),
        }
    ),
)
