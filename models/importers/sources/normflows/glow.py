"""normflows: `MultiscaleFlow` of `GlowBlock`s, the library's Glow.

Its conventions: the library's own direction is from latents to data, so blocks are listed backwards
and level 0 is the deepest; a block, from data to latents, is actnorm (x - t) exp(-s), 1x1
convolution, coupling; the first half conditions (split_mode "channel") or the second
("channel_inv"); the network gives (shift, scale) as even and odd channels, and the second half
becomes (x - t) sigmoid(s + 2), (x - t) exp(-s) or (x - t) / sigmoid(s + 2), by `scale_map`.
Latents are ordered from the deepest level on.

Reference: normflows 1.7.3, flows/affine/glow.py, core.py, distributions/base.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.importers.layouts import glow as glow
from models.importers.layouts.images import dequantisation, multiples, pixel_steps
from models.importers.likelihood import Reported
from models.importers.report import ImportRefused
from models.importers.source import (
    Conversion,
    Count,
    Fragment,
    Inference,
    Source,
    SourceConfig,
    Step,
    prefixed,
)
from models.importers.weights import Weights

Base = Literal["diag", "classcond", "glow"]

# GlowBase multiplies its log scales by this.
_BASE_FACTOR = 3.0
_CHECKERBOARD = (
    "split_mode 'checkerboard' hands the network half of the columns of an image, squeezed "
    "together; the family glow splits channels, so this model cannot be expressed"
)


class Config(SourceConfig):
    """Arguments of `GlowBlock`, and how the blocks were put together."""

    input_shape: tuple[Count, Count, Count]
    L: Count
    K: Count
    hidden_channels: Count
    scale: bool
    scale_map: Literal["sigmoid", "exp", "sigmoid_inv"]
    split_mode: Literal["channel", "channel_inv", "checkerboard", "checkerboard_inv"]
    use_lu: bool
    net_actnorm: bool
    leaky: Annotated[float, Field(ge=0, lt=1)]
    base: Base
    num_classes: Count | None
    class_cond: bool
    logit_alpha: Annotated[float, Field(ge=0, lt=0.5)] | None
    shift: float | None = Field(default=None, description="none; that of transforms.Shift")


def infer(weights: Weights) -> Inference:
    """Read the architecture off the weights; the maps inside it leave no trace there."""
    seen = Inference()
    levels = weights.count(r"flows\.(\d+)\.")
    steps = [weights.count(rf"flows\.{level}\.(\d+)\.") for level in range(levels)]
    finest = f"flows.{levels - 1}.0"
    channels = weights.shape(f"{finest}.flows.2.s")[1]
    net = f"{finest}.flows.0.flows.1.param_map.net"
    width, inputs = weights.shape(f"{net}.0.weight")[:2]
    has_actnorm = f"{net}.1.actNorm.s" in weights
    outputs = weights.shape(f"{net}.{6 if has_actnorm else 4}.weight")[0]
    seen.know("L", levels, "levels in the keys")
    seen.know("K", glow.same_everywhere("K", steps), "blocks in each level")
    seen.know("hidden_channels", width, f"{net}.0.weight")
    seen.know("use_lu", f"{finest}.flows.1.log_S" in weights, "log_S or W in 1x1 convolutions")
    seen.know("net_actnorm", has_actnorm, "actNorm in the coupling networks, or not")
    has_scale = outputs == 2 * (channels - inputs if inputs < channels else channels)
    seen.know("scale", has_scale, f"the coupling network has {outputs} outputs")
    _infer_base(seen, weights, channels // 4, levels)
    if has_scale:
        seen.ask("scale_map", "'sigmoid' (the default of GlowBlock), 'exp' or 'sigmoid_inv'")
    else:
        seen.suppose("scale_map", "sigmoid", "not used: the couplings have no scale")
    seen.ask("split_mode", "'channel' (the default of GlowBlock) or 'channel_inv'")
    seen.ask("leaky", "0.0 (the default of GlowBlock) up to 1: the slope of its LeakyReLU")
    seen.ask("logit_alpha", "null (no transforms.Logit) or its alpha, such as 0.05")
    seen.show("logscale_factor", _BASE_FACTOR, reason="the default, which is in no file")
    seen.show("actnorm", has_actnorm, reason="actNorm in the coupling networks, or not")
    seen.show("channels", channels, reason=f"{finest}.flows.2.s")
    for name in ("kernel_size", "shape", "weight_std"):
        seen.mark_idle(name, "what the constructor is given here is in the file")
    return seen


def _infer_base(seen: Inference, weights: Weights, colours: int, levels: int) -> None:
    shape = weights.shape("q0.0.loc")
    classes: int | None = None
    if "q0.0.loc_logs" in weights:
        base: Base = "glow"
        if "q0.0.loc_cc" in weights:
            classes = weights.shape("q0.0.loc_cc")[0]
        seen.ask("input_shape", f"[{colours}, H, W], H and W {multiples(levels)}")
    else:
        base = "diag" if shape[0] == 1 else "classcond"
        classes = shape[-1] if base == "classcond" else None
        height, width = shape[2:4] if base == "diag" else shape[1:3]
        size = [colours, height * 2**levels, width * 2**levels]
        seen.know("input_shape", size, f"q0.0.loc is {height} x {width}, {levels} halvings down")
    seen.know("base", base, f"keys of q0.0, of shape {shape}")
    seen.know("num_classes", classes, "q0.0 has a table of classes, or not")
    seen.know("class_cond", classes is not None, "q0.0 has a table of classes, or not")


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a Glow.

    Raises:
        ImportRefused: for a split along a checkerboard.
    """
    if config.split_mode.startswith("checkerboard"):
        raise ImportRefused(_CHECKERBOARD)
    return Conversion(
        family="glow",
        config=_family_config(config),
        layers=glow.lay_out([_level(weights, index, config) for index in range(config.L)]),
        inputs=_transform(config),
        pixels=pixel_steps(),
        data="x = pixels / 256",
        reported=Reported(
            "log_prob of the model, nats an image",
            (dequantisation("uniform noise of one pixel value (Jitter in the examples)"),),
        ),
    )


def _family_config(config: Config) -> dict[str, Any]:
    prior = "channel" if config.base == "glow" else "element"
    form = _FORMS[config.scale_map]
    return {
        "event_shape": list(config.input_shape),
        "num_levels": config.L,
        "num_steps": config.K,
        "hidden_channels": config.hidden_channels,
        "permutation": "lu_conv" if config.use_lu else "conv",
        "coupling": "affine" if config.scale else "additive",
        "scale": form.scale,
        "form": form.form,
        "keep_first": config.split_mode == "channel",
        "actnorm_form": "unshift_then_unscale",
        "normalisation": "actnorm" if config.net_actnorm else "none",
        "negative_slope": config.leaky,
        "log_scale_factor": None,
        "split_prior": prior,
        "top_prior": prior,
        "num_classes": config.num_classes,
        "latent_order": "coarse_first",
    }


def _level(weights: Weights, index: int, config: Config) -> glow.Level:
    """Level `index` counted from the data; the library counts from the other end."""
    colours, height, width = config.input_shape
    number = config.L - 1 - index
    channels = 4 * colours * 2**index
    blocks = reversed(range(config.K))
    steps = [_block(weights, f"flows.{number}.{block}", channels, config) for block in blocks]
    latent = channels if number == 0 else channels // 2
    shape = (latent, height >> (index + 1), width >> (index + 1))
    return glow.Level(steps, _base(weights, f"q0.{number}", shape, config))


@dataclass(frozen=True, slots=True)
class _AffineForm:
    """How a scale map of the library is one of our affine maps; `sign` is that of its shift."""

    scale: str
    form: str
    sign: float


_FORMS = {
    "sigmoid": _AffineForm("sigmoid", "shift_then_scale", -1.0),
    "exp": _AffineForm("exp", "unshift_then_unscale", 1.0),
    "sigmoid_inv": _AffineForm("sigmoid", "unshift_then_unscale", 1.0),
}


def _transform(config: Config) -> tuple[Step, ...]:
    steps: list[dict[str, Any]] = []
    if config.logit_alpha is not None:
        steps.append({"kind": "logit", "alpha": config.logit_alpha})
    if config.shift is not None:
        steps.append({"kind": "shift_scale", "scale": 1.0, "shift": config.shift})
    return tuple(steps)


def _block(weights: Weights, name: str, channels: int, config: Config) -> glow.Step:
    glow.check_flag(weights, f"{name}.flows.2.data_dep_init_done")
    actnorm = {
        "shift": weights.take(f"{name}.flows.2.t", 1, channels, 1, 1).flatten(),
        "log_scale": weights.take(f"{name}.flows.2.s", 1, channels, 1, 1).flatten(),
    }
    conv = f"{name}.flows.1"
    if config.use_lu:
        keys = glow.LUKeys(*(f"{conv}.{part}" for part in ("P", "L", "U", "log_S", "sign_S")))
        mixing = glow.lu_conv(weights, keys, channels)
        weights.take(f"{conv}.eye", channels, channels)
    else:
        mixing = glow.plain_conv(weights, f"{conv}.W", channels, channels)
    net = _net(weights, f"{name}.flows.0.flows.1.param_map.net", channels // 2, config)
    return glow.Step(actnorm, mixing, prefixed("conditioner.layers.", net))


def _net(weights: Weights, name: str, half: int, config: Config) -> Fragment:
    width, has_actnorm = config.hidden_channels, config.net_actnorm
    # Positions of the three convolutions: the library and our net count the same parts.
    first, middle, last = (0, 3, 6) if has_actnorm else (0, 2, 4)
    outputs = 2 * half if config.scale else half
    net: Fragment = {
        f"{first}.weight": weights.take(f"{name}.{first}.weight", width, half, 3, 3),
        f"{middle}.weight": weights.take(f"{name}.{middle}.weight", width, width, 1, 1),
    }
    for index in (first, middle):
        if has_actnorm:
            actnorm = _inner_actnorm(weights, f"{name}.{index + 1}.actNorm", width)
            net |= prefixed(f"{index + 1}.", actnorm)
        else:
            net[f"{index}.bias"] = weights.take(f"{name}.{index}.bias", width)
    for part, shape in (("weight", (outputs, width, 3, 3)), ("bias", (outputs,))):
        net[f"{last}.conv.{part}"] = _output(weights.take(f"{name}.{last}.{part}", *shape), config)
    return net


def _output(rows: Tensor, config: Config) -> Tensor:
    if not config.scale:
        return -rows  # the library adds the shift on the way to the data
    shift, scale = rows[0::2], rows[1::2]
    return torch.cat((_FORMS[config.scale_map].sign * shift, scale))


def _inner_actnorm(weights: Weights, name: str, channels: int) -> Fragment:
    """x exp(s) + t, written as (x - t') exp(-s') like the actnorms of the flow."""
    glow.check_flag(weights, f"{name}.data_dep_init_done")
    log_scale = weights.take(f"{name}.s", 1, channels, 1, 1).flatten()
    shift = weights.take(f"{name}.t", 1, channels, 1, 1).flatten()
    return {"shift": -shift * (-log_scale).exp(), "log_scale": -log_scale}


def _base(weights: Weights, name: str, shape: tuple[int, int, int], config: Config) -> Fragment:
    """The base of one level as the state of a `GaussianPrior`."""
    match config.base:
        case "diag":
            return {
                "mean": weights.take(f"{name}.loc", 1, *shape)[0],
                "log_std": weights.take(f"{name}.log_scale", 1, *shape)[0],
            }
        case "classcond":
            return _class_table(weights, name, shape, config.num_classes or 0)
        case "glow":
            return _glow_base(weights, name, shape[0], config.num_classes)


def _class_table(
    weights: Weights, name: str, shape: tuple[int, int, int], classes: int
) -> Fragment:
    zeros = torch.zeros(shape, dtype=torch.float64)
    return {
        "mean": zeros,
        "log_std": zeros,
        "mean_context": weights.take(f"{name}.loc", *shape, classes).movedim(-1, 0),
        "log_std_context": weights.take(f"{name}.log_scale", *shape, classes).movedim(-1, 0),
    }


def _glow_base(weights: Weights, name: str, channels: int, classes: int | None) -> Fragment:
    fragment: Fragment = {}
    for ours, theirs in (("mean", "loc"), ("log_std", "log_scale")):
        value = weights.take(f"{name}.{theirs}", 1, channels, 1, 1)[0]
        log_scale = weights.take(f"{name}.{theirs}_logs", 1, channels, 1, 1)[0]
        fragment[ours] = value * (_BASE_FACTOR * log_scale).exp()
        if classes is not None:
            table = weights.take(f"{name}.{theirs}_cc", classes, channels)
            fragment[f"{ours}_context"] = table[..., None, None]
    return fragment


_BASES = {"DiagGaussian": "diag", "ClassCondDiagGaussian": "classcond", "GlowBase": "glow"}


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Classes of bases as the words for them."""
    base = settings.get("base")
    if isinstance(base, str) and base in _BASES:
        return {**settings, "base": _BASES[base]}
    return settings


SOURCE = Source(
    name="normflows",
    short_names=("normflows/glow", "vincentstimper/normalizing-flows"),
    signature=(
        r"q0\.\d+\.loc",
        r"flows\.\d+\.\d+\.flows\.0\.flows\.1\.param_map\.net\.0\.weight",
    ),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset({"init_zeros"}),
    unfold=_unfold,
)
