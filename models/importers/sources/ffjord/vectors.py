"""rtqichen/ffjord: continuous flows of train_toy.py, train_tabular.py and train_cnf.py.

A model is a chain of CNFs, with a logit (or a shift by 1/2) in front of images and moving batch
norms between; or, with --multiscale, stacks of such chains between which the second half of the
channels is factored out. Everything about the networks is in the keys but the nonlinearity; the
arguments stand beside the weights. The end of time is read off the checkpoint, never off the
arguments; with --multiscale all layers are of type concat, whatever the arguments say.

Reference: github.com/rtqichen/ffjord (2020-09-22), lib/, train_misc.py, train_cnf.py.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from models.importers.layouts.continuous import SOLVER, block, tolerance_term
from models.importers.layouts.images import ImageSize, dequantisation, sides
from models.importers.likelihood import Reported, Term
from models.importers.report import ImportRefused
from models.importers.source import (
    Conversion,
    Count,
    Fragment,
    Inference,
    Source,
    SourceConfig,
    Step,
)
from models.importers.sources.ffjord import images as ffjord_image
from models.importers.sources.ffjord import networks as ffjord_nets
from models.importers.sources.ffjord.networks import CNF
from models.importers.weights import Weights

# Sizes to which train_cnf.py brings the images of its data sets unless told otherwise.
_SIZES = {"mnist": 28, "svhn": 32, "cifar10": 32, "celeba": 64, "lsun_church": 64}
_LEVELS = {True: 256.0, False: 255.0}
# Of train_misc.py, and what torchdiffeq has besides.
Solver = Literal[
    "dopri5", "bdf", "rk4", "midpoint", "adams", "explicit_adams", "fixed_adams", "dopri8",
    "bosh3", "fehlberg2", "adaptive_heun", "euler", "implicit_adams",
]  # fmt: skip
_NONLINEARITIES = "tanh, relu, softplus, elu, square or identity"


class Config(SourceConfig):
    """Arguments of the training scripts that decide about the function."""

    D: Count | None
    conv: bool
    dims: str
    strides: str | None
    num_blocks: Count
    batch_norm: bool
    multiscale: bool
    autoencode: bool
    nonlinearity: str
    residual: bool
    imagesize: ImageSize | None
    alpha: float | None
    add_noise: bool
    divergence_fn: Literal["approximate", "brute_force"]
    solver: Solver
    atol: float
    rtol: float


def infer(weights: Weights) -> Inference:
    """Read the networks off the keys.

    Raises:
        ImportRefused: for models with --parallel, and for other chains.
    """
    cnfs = ffjord_nets.find(weights)
    first = cnfs[0]
    is_image = first.is_conv or not _starts_at_once(weights)
    seen = Inference()
    seen.know("conv", first.is_conv, "the weights of the first layer")
    seen.know("multiscale", weights.has(r"transforms\..*"), "transforms.* in the keys")
    seen.know("autoencode", first.is_autoencoder, "encoder_layers, or layers")
    seen.know("batch_norm", weights.has(r"chain\.\d+\.running_mean"), "running_mean, or none")
    seen.know("num_blocks", ffjord_nets.blocks_of(cnfs), "the CNFs of the keys")
    separator = "," if first.is_conv or is_image else "-"
    seen.know("dims", separator.join(map(str, first.hidden)), "outputs of the layers")
    if first.is_conv:
        ffjord_image.infer(seen, first, weights)
    else:
        seen.know("D", first.channels, "outputs of the last layer")
        seen.suppose("imagesize", None, "the model takes vectors")
        seen.suppose("strides", None, "the model takes vectors")
    if is_image:
        seen.ask("alpha", "the --alpha of the script: 0.05 for train_cnf.py's own, 1e-6 for MNIST")
    else:
        seen.suppose("alpha", None, "there is no logit")
    if first.has_swish:
        seen.know("nonlinearity", "swish", "beta in the keys")
    else:
        seen.ask("nonlinearity", f"{_NONLINEARITIES}; the --nonlinearity of the script")
    _show(seen, first, weights)
    seen.suppose("residual", False, "the scripts' default")
    seen.suppose("add_noise", True, "the scripts' default")
    seen.suppose("divergence_fn", "approximate", "the scripts' default; here the trace is exact")
    seen.suppose("solver", "dopri5", "the scripts' default")
    seen.suppose("atol", 1e-5, "the scripts' default")
    seen.suppose("rtol", 1e-5, "the scripts' default")
    return seen


def _show(seen: Inference, first: CNF, weights: Weights) -> None:
    """Arguments that the keys show: compared with what a user gives.

    With --multiscale every layer is of type concat, whatever the arguments say.
    """
    if not seen.found["multiscale"].value:
        seen.show("layer_type", first.kind, reason="tensors of the first layer")
    else:
        seen.mark_idle("layer_type", "not used: with --multiscale all layers are of type concat")
    norms = weights.has(r".*weight_orig")
    seen.show("spectral_norm", norms, reason="weight_orig in the keys, or none")
    seen.show("parallel", False, reason="one network a CNF")
    if not first.is_conv:
        seen.show("nhidden", len(first.hidden), reason="layers")
        factors = {width // first.channels for width in first.hidden if not width % first.channels}
        if len(set(first.hidden)) == len(factors) == 1:
            seen.show("hdim_factor", *factors, reason="widths of the layers")


def _starts_at_once(weights: Weights) -> bool:
    """Whether nothing stands in front of the first layer with tensors."""
    return weights.has(r"chain\.0\..*")


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a continuous flow.

    Raises:
        ImportRefused: names what cannot be expressed.
    """
    weights.skip(r".*\._num_evals", "a counter of the solver")
    weights.skip(r".*chain\.\d+\.step", "a counter of the batch norm")
    cnfs = ffjord_nets.find(weights)
    described: dict[str, Any] = {
        "num_blocks": config.num_blocks,
        "nonlinearity": config.nonlinearity,
        "residual": config.residual,
        "batch_norm": config.batch_norm,
        "solver": SOLVER,
    }
    if config.conv:
        height, width = sides(config.imagesize or 1)
        image = (cnfs[0].channels, height, width)
        family = "ffjord_image"
        described |= ffjord_image.describe(config.strides, cnfs, image)
        layers = ffjord_image.lay_out(weights, cnfs, config.strides, described)
        inputs, pixels = _preprocessing(config)
    else:
        family = "ffjord"
        described |= _describe(cnfs)
        layers = _lay_out(weights, cnfs)
        inputs, pixels = ((), ()) if _starts_at_once(weights) else _preprocessing(config)
    features = math.prod(described["event_shape"])
    if config.D not in (None, features):
        raise ImportRefused(f"D: {config.D} was given, but an input has {features} numbers")
    return Conversion(
        family=family,
        config=described,
        layers=layers,
        inputs=inputs,
        pixels=pixels,
        data="x in [0, 1]: (pixels + noise) / 256" if pixels else "the table as the source has it",
        reported=_reported(config, features, is_image=bool(pixels)),
    )


def _describe(cnfs: list[CNF]) -> dict[str, Any]:
    kinds = {(cnf.kind, cnf.hidden, cnf.channels) for cnf in cnfs}
    if len(kinds) > 1:
        raise ImportRefused(f"expected CNFs of one architecture, got {sorted(map(str, kinds))}")
    return {
        "event_shape": [cnfs[0].channels],
        "layer_type": cnfs[0].kind,
        "hidden_features": list(cnfs[0].hidden),
    }


def _lay_out(weights: Weights, cnfs: list[CNF]) -> list[Fragment]:
    """The chain of a model over vectors: CNFs, or batch norms with a CNF between any two."""
    places = {cnf.place: cnf for cnf in cnfs}
    norms = weights.indices(r"chain\.(\d+)\.running_mean")
    found = sorted([*places, *norms])
    kinds = ["norm" if place in norms else "cnf" for place in found]
    if norms and kinds != ["norm", *["cnf", "norm"] * len(cnfs)]:
        raise ImportRefused(
            "chain: expected a batch norm in front of every CNF and one behind the last, got "
            f"{', '.join(kinds)}"
        )
    return [
        _block(weights, places[place])
        if place in places
        else ffjord_nets.norm(weights, f"chain.{place}", cnfs[0].channels)
        for place in found
    ]


def _block(weights: Weights, cnf: CNF) -> Fragment:
    return block(
        weights.take(f"{cnf.name}.sqrt_end_time").square(),
        ffjord_nets.dense_layers(weights, cnf),
        activations=ffjord_nets.betas(weights, cnf),
    )


def _preprocessing(config: Config) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """What the model does to x in [0, 1] first, and how pixels become x."""
    alpha = config.alpha or 0.0
    own: Step = (
        {"kind": "logit", "alpha": alpha} if alpha > 0 else {"kind": "shift_scale", "shift": -0.5}
    )
    noise: tuple[Step, ...] = ({"kind": "dequantise"},) if config.add_noise else ()
    scale = {"kind": "shift_scale", "scale": 1 / _LEVELS[config.add_noise]}
    return (own,), (*noise, scale)


def _reported(config: Config, features: int, *, is_image: bool) -> Reported:
    solver = tolerance_term(
        f"the script solves the whole batch by {config.solver} to atol {config.atol:g}, rtol "
        f"{config.rtol:g}"
    )
    trace = Term(
        "trace",
        0.0,
        f"--divergence_fn {config.divergence_fn}"
        + ("" if config.divergence_fn == "brute_force" else ": an estimate that draws noise"),
    )
    if not is_image:
        return Reported("log-likelihood of the script: nats", (solver, trace))
    levels = Term(
        "levels",
        -features * math.log(256),
        "train_cnf.py: bits/dim = -(log p(x) / D - log 256) / log 2, from the scale [0, 1) to that "
        "of pixels",
    )
    return Reported(
        "bits/dim of train_cnf.py",
        (levels, solver, trace, dequantisation()),
        factor=-1 / (features * math.log(2)),
    )


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the size of the images where the script has it: in its shape, or in the data set."""
    flat = {name: value for name, value in settings.items() if name != "input_shape"}
    shape = list(settings.get("input_shape") or ())
    if len(shape) not in (0, 1, 3):
        raise ImportRefused(f"input_shape: expected [D] or [C, H, W], got {shape}")
    if flat.get("imagesize") is None:
        flat.pop("imagesize", None)
        if len(shape) == 3:
            flat["imagesize"] = shape[1:]
        elif flat.get("data") in _SIZES:
            flat["imagesize"] = _SIZES[flat["data"]]
    elif len(shape) == 3 and list(sides(flat["imagesize"])) != shape[1:]:
        raise ImportRefused(
            f"input_shape: {shape} was given, and imagesize {flat['imagesize']}; leave one out"
        )
    if len(shape) == 1 and flat.setdefault("D", shape[0]) != shape[0]:
        raise ImportRefused(f"input_shape: {shape} was given, and D {flat['D']}; leave one out")
    return flat


SOURCE = Source(
    name="rtqichen/ffjord",
    short_names=("ffjord",),
    signature=(r"(transforms\.\d+\.)?chain\.\d+\.(sqrt_end_time|odefunc\.)",),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset(
        {
            *("args_in_checkpoint", "data", "time_length", "train_T", "step_size", "rademacher"),
            *("test_solver", "test_atol", "test_rtol", "bn_lag", "l1int", "l2int", "dl2int"),
            *("JFrobint", "JdiagFrobint", "JoffdiagFrobint", "time_penalty", "max_grad_norm"),
            *("niters", "num_epochs", "batch_size", "batch_size_schedule", "test_batch_size", "lr"),
            *("weight_decay", "warmup_iters", "early_stopping", "begin_epoch", "resume", "save"),
            *("val_freq", "log_freq", "viz_freq", "gpu", "evaluate", "spectral_norm_niter"),
            *("num_workers", "seed"),
        }
    ),
    unfold=_unfold,
)
