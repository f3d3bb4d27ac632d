"""kamenbliznashki/normalizing_flows, glow.py: Glow with whitened latents.

Its conventions: actnorm y = (x - t) / s with s stored as it is; the second half of the channels
conditions; the network gives (shift, scale) as even and odd channels, y = x sigmoid(s + 2) + t; its
1x1 convolution pads, so zeros that went through a normalisation surround the image for the last
one; factors exp(l) without the usual 3; priors give (mean, log_std) as even and odd channels, the
last one from zeros, so it is its bias. `n_levels` counts splits: there is one level more.

Reference: github.com/kamenbliznashki/normalizing_flows, glow.py (2020-01-21).
"""

import math
import re

from models.importers.layouts import glow as glow
from models.importers.layouts.images import BITS, Bits, dequantisation, multiples, pixel_steps
from models.importers.likelihood import Reported, Term
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

# Preprocess counts -log(256) a value whatever n_bits is.
_BINS = 256
_LOG_SCALE_FACTOR = 1.0


class Config(SourceConfig):
    """Arguments of `Glow`, and `n_bits` of the script."""

    width: Count
    depth: Count
    n_levels: int
    input_dims: tuple[Count, Count, Count]
    n_bits: Bits
    lu_factorize: bool


def infer(weights: Weights) -> Inference:
    """Read everything but the size of the images and their bits off the weights."""
    seen = Inference()
    splits = weights.count(r"flowlevels\.(\d+)\.")
    names = [*(f"flowlevels.{level}.flowsteps" for level in range(splits)), "flowstep"]
    depths = [weights.count(rf"{re.escape(name)}\.(\d+)\.") for name in names]
    channels = weights.shape(f"{names[0]}.0.0.scale")[1]
    seen.know("n_levels", splits, "flowlevels in the keys")
    seen.know("depth", glow.same_everywhere("depth", depths), "steps in each level")
    seen.know("width", weights.shape(f"{names[0]}.0.2.conv1.weight")[0], "conv1 of the couplings")
    seen.know("lu_factorize", f"{names[0]}.0.1.log_s" in weights, "log_s or w in 1x1 convolutions")
    seen.ask(
        "input_dims",
        f"[{channels // 4}, H, W] with H and W {multiples(splits + 1)}; "
        f"{channels // 4} channels because the first actnorm has {channels}",
    )
    seen.ask("n_bits", f"{BITS}; the script's default is 5")
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a Glow."""
    for key, expected in (("base_dist_mean", 0.0), ("base_dist_var", 1.0)):
        if key in weights and float(weights.take(key, 1)) != expected:
            weights.problem(key, f"expected {expected}: the base of this model is N(0, 1)")
    weights.skip(r"flow.*\.1\.l_mask", "masks of the LU form: constants")
    colours = config.input_dims[0]
    levels = []
    for level in range(config.n_levels):
        name, channels = f"flowlevels.{level}", 4 * colours * 2**level
        prior = _gaussianize(weights, f"{name}.split.gaussianize", channels // 2)
        levels.append(
            glow.Level(_steps(weights, f"{name}.flowsteps", channels, config), prior, is_conv=True)
        )
    channels = 4 * colours * 2**config.n_levels
    levels.append(
        glow.Level(_steps(weights, "flowstep", channels, config), _top_prior(weights, channels))
    )
    center: Step = {"kind": "shift_scale", "scale": 1.0, "shift": -0.5}
    return Conversion(
        family="glow",
        config={
            "event_shape": list(config.input_dims),
            "num_levels": config.n_levels + 1,
            "num_steps": config.depth,
            "hidden_channels": config.width,
            "permutation": "lu_conv" if config.lu_factorize else "conv",
            "form": "scale_then_shift",
            "keep_first": False,
            "actnorm_form": "unshift_then_unscale",
            "actnorm_storage": "direct",
            "output_padding": "middle",
            "log_scale_factor": _LOG_SCALE_FACTOR,
        },
        layers=glow.lay_out(levels),
        inputs=(center,),
        pixels=pixel_steps(bits=config.n_bits),
        data="x = floor(pixels / 2^(8 - n_bits)) / 2^n_bits, in [0, 1)",
        reported=_reported(config),
    )


def _steps(weights: Weights, name: str, channels: int, config: Config) -> list[glow.Step]:
    return [
        glow.Step(
            _actnorm(weights, f"{name}.{step}.0", channels),
            _conv(weights, f"{name}.{step}.1", channels, config),
            _coupling(weights, f"{name}.{step}.2", channels, config.width),
        )
        for step in range(config.depth)
    ]


def _actnorm(weights: Weights, name: str, channels: int) -> Fragment:
    glow.check_flag(weights, f"{name}.initialized")
    return {
        "shift": weights.take(f"{name}.bias", 1, channels, 1, 1).flatten(),
        "scale": weights.take(f"{name}.scale", 1, channels, 1, 1).flatten(),
    }


def _conv(weights: Weights, name: str, channels: int, config: Config) -> Fragment:
    if not config.lu_factorize:
        return glow.plain_conv(weights, f"{name}.w", channels, channels)
    keys = glow.LUKeys(*(f"{name}.{part}" for part in ("p", "l", "u", "log_s", "sign_s")))
    return glow.lu_conv(weights, keys, channels)


def _coupling(weights: Weights, name: str, channels: int, width: int) -> Fragment:
    layers = "conditioner.layers"
    half = channels // 2
    return {
        f"{layers}.0.weight": weights.take(f"{name}.conv1.weight", width, half, 3, 3),
        **prefixed(f"{layers}.1.", _actnorm(weights, f"{name}.actnorm1", width)),
        f"{layers}.3.weight": weights.take(f"{name}.conv2.weight", width, width, 1, 1),
        **prefixed(f"{layers}.4.", _actnorm(weights, f"{name}.actnorm2", width)),
        **prefixed(f"{layers}.6.", _scaled_conv(weights, name, "conv3", (channels, width))),
    }


def _scaled_conv(weights: Weights, name: str, conv: str, size: tuple[int, int]) -> Fragment:
    outputs, inputs = size
    weight = weights.take(f"{name}.{conv}.weight", outputs, inputs, 3, 3)
    bias = weights.take(f"{name}.{conv}.bias", outputs)
    scale = weights.take(f"{name}.log_scale_factor", outputs, 1, 1)
    parts = {"conv.weight": weight, "conv.bias": bias, "log_scale": scale}
    return {key: glow.even_then_odd(value) for key, value in parts.items()}


def _gaussianize(weights: Weights, name: str, half: int) -> Fragment:
    return _scaled_conv(weights, name, "net", (2 * half, half))


def _top_prior(weights: Weights, channels: int) -> Fragment:
    conv = _gaussianize(weights, "gaussianize", channels)
    total = conv["conv.bias"][:, None, None] * conv["log_scale"].exp()
    mean, log_std = total.chunk(2)
    return {"mean": mean, "log_std": log_std}


def _reported(config: Config) -> Reported:
    values = math.prod(config.input_dims)
    note = "Preprocess: -log(256) a value, whatever n_bits is"
    if config.n_bits < 8:
        note += f"; with n_bits = {config.n_bits} it should be -log({2**config.n_bits})"
    bins = Term("bins", -values * math.log(_BINS), note)
    noise = dequantisation(f"uniform noise in [0, 1/{2**config.n_bits})")
    return Reported(
        "log_prob(bits_per_pixel=True), bits per value, negated: loss of glow.py",
        (bins, noise),
        factor=-1 / (values * math.log(2)),
    )


# Arguments of glow.py that do not change the function.
_TRAINING = frozenset(
    {
        *("train", "evaluate", "generate", "visualize", "restore_file", "seed", "data_dir", "lr"),
        *("output_dir", "results_file", "log_interval", "save_interval", "eval_interval"),
        *("dataset", "z_std", "batch_size", "batch_size_init", "n_epochs", "n_epochs_warmup"),
        *("start_epoch", "mini_data_size", "grad_norm_clip", "checkpoint_grads", "distributed"),
        *("world_size", "local_rank", "vis_img", "vis_attrs", "vis_alphas"),
    }
)

SOURCE = Source(
    name="kamenbliznashki/normalizing_flows (glow.py)",
    short_names=(
        "kamen",
        "kamen/glow",
        "kamenbliznashki/glow",
        "kamenbliznashki/normalizing_flows",
    ),
    signature=(r"flowstep\.\d+\.0\.scale", r"gaussianize\.net\.weight"),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=_TRAINING,
)
