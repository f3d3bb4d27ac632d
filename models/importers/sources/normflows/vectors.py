"""normflows: flows over vectors.

The library's own direction is from latents to data, and `flows` are listed in it, so data go
through them from the last to the first. From data to latents: MaskedAffineFlow (x - t) exp(-s)
where b is 0; AffineCouplingBlock the same with (shift, scale) as even and odd outputs and the scale
by `scale_map`; ActNorm (x - t) exp(-s); InvertibleAffine x W; LULinearPermute L U x[perm] + b;
spline flows as in nflows; MaskedAffineAutoregressive is an inverse autoregressive flow, fast from
latents to data. Planar and Radial are written from latents to data; from data to latents are their
inverses, which the library lacks but for act="leaky_relu".

Not in a checkpoint: activations, the bound of splines, `scale_map`, `split_mode`, and the places of
Permute(mode="swap"), the one flow over vectors without tensors; h of Planar flows (`act`).

Reference: normflows 1.7.3, flows/, nets/, distributions/base.py, core.py.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import ACTIVATIONS, ActivationName
from models.importers.likelihood import Reported, Term
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.sources.normflows import base as normflows_base
from models.importers.sources.normflows import circular as normflows_circular
from models.importers.sources.normflows import couplings as normflows_couplings
from models.importers.sources.normflows import described as normflows_described
from models.importers.sources.normflows import layers as normflows_layers
from models.importers.sources.normflows import shown as normflows_shown
from models.importers.sources.normflows.couplings import (
    PlanarAct,
    ScaleMap,
    Settings,
    SplitMode,
)
from models.importers.weights import Weights

Swaps = Literal["none", "swap", "swap_between"]


_Positive = Annotated[float, Field(gt=0)]
_Bounds = Annotated[tuple[_Positive, ...], Field(min_length=1)]


class Config(SourceConfig):
    """Arguments of the library's constructors that decide about the function."""

    D: Count
    num_context_channels: Annotated[int, Field(ge=0)]
    num_classes: Count | None
    num_bins: Count | None
    tail_bound: _Positive | _Bounds
    ind_circ: tuple[Annotated[int, Field(ge=0)], ...] | None
    bound: _Positive | None
    shift: float | None
    num_flows: Count | None
    activation: ActivationName
    leaky: Annotated[float, Field(ge=0, lt=1)]
    output_fn: str | None
    scale_map: ScaleMap | tuple[ScaleMap, ...]
    split_mode: SplitMode | tuple[SplitMode, ...]
    act: PlanarAct | tuple[PlanarAct, ...]
    permute: Swaps
    encoder_activation: ActivationName


def infer(weights: Weights) -> Inference:
    """Read the sizes off the weights; ask for activation and bound where they are used.

    Raises:
        ImportRefused: names the first flow or base that cannot be imported.
    """
    places = weights.indices(r"flows\.(\d+)\.")
    kinds = {place: normflows_layers.kind_of(weights, f"flows.{place}") for place in places}
    seen = Inference()
    features = normflows_base.features(weights) or normflows_layers.features(weights, kinds)
    seen.know("D", features, "the base, or the first flow")
    base = normflows_base.recognise(weights, features)
    seen.know("num_classes", base.num_classes, "the base")
    _infer_nets(weights, seen, kinds, base.context)
    _infer_encoder(seen, base)
    seen.suppose("leaky", 0.0, "the default of nets.MLP: plain ReLU")
    seen.suppose("output_fn", None, "the default of nets.MLP")
    _infer_blocks(weights, seen, kinds, features)
    _infer_planars(seen, kinds)
    normflows_shown.show(weights, seen, kinds, base)
    if seen.found["ind_circ"].value if "ind_circ" in seen.found else "ind_circ" in seen.asked:
        seen.suppose("permute", "none", "flows without tensors are PeriodicShifts")
    elif len(places) == places[-1] + 1:
        note = seen.know if seen.shown["K"].fitting[0] > 1 else seen.suppose
        note("permute", "none", "every flow has tensors")
    else:
        seen.ask(
            "permute",
            'swap or swap_between: flows without tensors are Permute(mode="swap"); "swap" has one '
            'behind every block, the last too, "swap_between" only between blocks; none where they '
            "are PeriodicShifts or PeriodicWraps, with ind_circ, bound and shift",
        )
    return seen


def _infer_nets(
    weights: Weights, seen: Inference, kinds: Mapping[int, str], base_context: int
) -> None:
    nets = {
        f"flows.{place}": kind for place, kind in kinds.items() if kind in normflows_layers.NETS
    }
    contexts = [normflows_layers.context(weights, name, kind) for name, kind in nets.items()]
    seen.know("num_context_channels", max([0, base_context, *contexts]), "inputs of the networks")
    splines = {name: kind for name, kind in nets.items() if kind in normflows_layers.SPLINES}
    tails = {
        name: normflows_circular.read_tails(normflows_layers.outputs(weights, name, kind), name)
        for name, kind in splines.items()
    }
    normflows_circular.infer(weights, seen, kinds, tails)
    bins = sorted({one.num_bins for one in tails.values()})
    if len(bins) > 1:
        seen.suppose("num_bins", None, f"the splines have {bins}")
    else:
        seen.know("num_bins", bins[0] if bins else None, "outputs of the networks")
    if nets:
        seen.ask("activation", f"{ACTIVATIONS} (the library's default is relu)")
    elif {"masked", "coupling"} & set(kinds.values()):
        seen.know("activation", "relu", "of nets.MLP; a leaky one is given as leaky")
    else:
        seen.suppose("activation", "relu", "there is no network that needs it")
    bounds = normflows_circular.bounds(weights, list(splines))
    if bounds:
        seen.know("tail_bound", bounds, "tail_bound of every spline")
    elif bins:
        seen.ask("tail_bound", "a positive number (the library's default is 3)")
    else:
        seen.suppose("tail_bound", 3.0, "there are no splines")


def _infer_encoder(seen: Inference, base: normflows_base.Base) -> None:
    if len(base.encoder) > 1 and not base.is_library_mlp:
        seen.ask("encoder_activation", f"{ACTIVATIONS}; of the base's context encoder")
    else:
        seen.suppose("encoder_activation", "relu", "the base's encoder has none of its own")


def _infer_blocks(
    weights: Weights, seen: Inference, kinds: Mapping[int, str], features: int
) -> None:
    """Ask what AffineCouplingBlocks do with their scales and which half they keep."""
    sizes = normflows_couplings.read_blocks(weights, _named(kinds, "coupling"))
    if not sizes:
        for name, default in (("scale_map", "exp"), ("split_mode", "channel")):
            seen.suppose(name, default, "there is no AffineCouplingBlock")
        return
    scaled = [outputs == 2 * (features - inputs) for inputs, outputs in sizes.values()]
    alike = len(set(sizes.values())) == 1
    some = "one for all" if alike else f"a list of {len(sizes)}, for they are not alike"
    if any(scaled):
        seen.ask(
            "scale_map",
            f"exp (the default of AffineCouplingBlock), sigmoid or sigmoid_inv: the weights fit "
            f"all three. {len(sizes)} blocks: {some}, or one each in the order of flows; and "
            "split_mode likewise, where it is not channel",
        )
    else:
        seen.suppose("scale_map", "exp", "the blocks have no scale")
        seen.mark_idle("scale_map", "the blocks have no scale")
    if features % 2:
        halves = [
            "channel" if inputs > features // 2 else "channel_inv" for inputs, _ in sizes.values()
        ]
        value = halves[0] if len(set(halves)) == 1 else halves
        seen.know("split_mode", value, f"inputs of the networks, of {features} features")
    elif any(scaled) and alike:
        seen.suppose("split_mode", "channel", "the default of AffineCouplingBlock")
    else:
        seen.ask(
            "split_mode",
            "channel (the default of AffineCouplingBlock), channel_inv, checkerboard or "
            f"checkerboard_inv; {some}, or one each",
        )


def _infer_planars(seen: Inference, kinds: Mapping[int, str]) -> None:
    """Ask for h of Planar flows."""
    names = _named(kinds, "planar")
    if not names:
        seen.suppose("act", "tanh", "there is no Planar")
        return
    more = f", or a list of {len(names)}, one each" if len(names) > 1 else ""
    seen.ask("act", f"tanh (the default of Planar) or leaky_relu: the weights fit both{more}")


def _named(kinds: Mapping[int, str], wanted: str) -> list[str]:
    return [f"flows.{place}" for place, kind in kinds.items() if kind == wanted]


def _check_blocks(config: "Config", weights: Weights, settings: Settings) -> None:
    """Refuse one value for blocks that are not alike, and say what one value decides.

    Raises:
        ImportRefused: names the blocks that differ.
    """
    sizes = normflows_couplings.read_blocks(weights, settings.blocks)
    scaled = [name for name, (inputs, outputs) in sizes.items() if outputs > config.D - inputs]
    for argument, value, names in (
        ("scale_map", config.scale_map if scaled else (), scaled),
        ("split_mode", config.split_mode if sizes else (), list(sizes)),
    ):
        if not isinstance(value, str):
            continue
        if len(set(sizes.values())) > 1 and not (argument == "split_mode" and config.D % 2):
            shapes = ", ".join(f"{name} {a} -> {b}" for name, (a, b) in sizes.items())
            raise ImportRefused(
                f"{argument}: {value} was given for all blocks, but they are not alike (inputs -> "
                f"outputs: {shapes}); give a list of {len(sizes)}, one each, in the order of flows"
            )
        if not (argument == "split_mode" and config.D % 2):
            weights.report.warning(
                argument,
                f"taken as {value} in {', '.join(names)}; no weight shows it: a list gives one "
                "each",
            )


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain.

    Raises:
        ImportRefused: names what cannot be expressed.
    """
    if config.output_fn is not None:
        raise ImportRefused(
            f"output_fn {config.output_fn!r}: of nets.MLP those without an output function can be "
            "imported"
        )
    weights.skip(r"(.*\.)?degrees", "the masks say the same")
    weights.skip(r"flows\.\d+\.(eye|inv_perm)", "a constant")
    weights.skip(r"p\..*", "the target of the reverse Kullback-Leibler loss")
    places = weights.indices(r"flows\.(\d+)\.")
    kinds = {place: normflows_layers.kind_of(weights, f"flows.{place}") for place in places}
    settings = Settings(
        config.D,
        config,
        blocks=_named(kinds, "coupling"),
        planars=_named(kinds, "planar"),
        unused_context=config.num_classes or 0,
        turns=bool(config.ind_circ) and config.permute == "none",
    )
    _check_blocks(config, weights, settings)
    parts: list[Part] = []
    behind = normflows_circular.shifts_behind(weights, config, kinds) if config.ind_circ else 0
    for place in _order(weights, config.permute, behind):
        parts += normflows_layers.convert(weights, f"flows.{place}", settings)
    parts += normflows_base.convert(weights, config.D, config)
    normflows_circular.check(weights, parts)
    if not behind and (not config.ind_circ or config.num_flows is None):
        normflows_circular.warn_of_the_end(weights, parts)
    described, layers = chain_layers.chain(
        parts,
        config.D,
        context_features=config.num_context_channels,
        num_classes=config.num_classes,
    )
    return Conversion(
        family="chain",
        config=described,
        layers=layers,
        reported=_reported(),
        data="the inputs of the flow",
    )


def _order(weights: Weights, permute: Swaps, behind: int) -> list[int]:
    """The places of flows as data go through them, those without tensors among them."""
    last = weights.indices(r"flows\.(\d+)\.")[-1]
    last += 1 if permute == "swap" else behind
    return list(range(last + 1))[::-1]


def _reported() -> Reported:
    rounding = Term(
        "rounding",
        0.0,
        "forward_kld() adds its log-determinants in float32, whatever the model has; log_prob() "
        "does not",
    )
    return Reported("log_prob of normflows: nats; forward_kld() is minus its mean", (rounding,))


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a description line by line apart; the word "Permute" in one of classes means swaps."""
    settings = normflows_described.unfold_order(normflows_described.unfold(settings))
    bounds = settings.get("tail_bound")
    if isinstance(bounds, list | tuple) and all(isinstance(each, int | float) for each in bounds):
        # A tensor of the library, in float32.
        settings = {**settings, "tail_bound": torch.tensor(bounds, dtype=torch.float32).tolist()}
    if settings.get("num_context_channels", 0) is None:
        settings = {**settings, "num_context_channels": 0}
    if "permute" not in settings and "swap" in str(settings.get("layer", "")).lower():
        return {**settings, "permute": "swap"}
    if settings.get("ind_circ") and {"bound", "shift"} & settings.keys():
        return {"permute": "none", **settings}
    return settings


SOURCE = Source(
    name="normflows",
    short_names=("vincentstimper/normalizing-flows", "normalizing-flows"),
    signature=(
        r"flows\.\d+\.(b|s|t|u|z_0|perm|W|P|prqct\..*|mprqat\..*|autoregressive_net\..*|"
        r"linear\.lower_entries|flows\.1\.param_map\..*|iresblock\..*)$",
        r"(q0\.(?!\d)|flows)",
    ),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset(
        {
            *("dropout_probability", "dropout", "trainable", "target"),
            *("init_identity", "identity_init", "init_zeros"),
        }
    ),
    unfold=_unfold,
)
