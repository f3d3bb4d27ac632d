"""The circular parts of normflows: splines with circular tails, PeriodicShift, periodic inputs.

Tails of a spline are linear (3 K - 1 parameters a feature), circular (3 K, the first derivative at
both ends) or a list, one a feature (3 K + 1, of which the last is not used). With a list the
library gives 0 outside the bounds, which is no bijection: here a linear feature keeps its value
there, and a circular one has no density.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from models.importers.layouts.chain_layers import Part, spline_bins
from models.importers.layouts.networks import Net, periodic
from models.importers.report import ImportRefused
from models.importers.source import Inference
from models.importers.sources.normflows.couplings import Arguments, Settings
from models.importers.weights import Weights

# Of a PeriodicShift.
KEYS = r"(bound|shift)"
# By which share a circle may be longer or shorter than its base is wide: rounding of float32.
_LARGEST_GAP = 1e-5


@dataclass(frozen=True, slots=True)
class Tails:
    """What the parameters of a spline say of its tails."""

    kind: Literal["linear", "circular", "list"]
    num_bins: int

    @property
    def used(self) -> int:
        """How many parameters a feature ours takes, of the first ones."""
        return 3 * self.num_bins - (self.kind == "linear")


def read_tails(count: int, name: str) -> Tails:
    """Bins and tails of a spline with so many parameters a feature.

    Raises:
        ImportRefused: if there is none.
    """
    linear = spline_bins(count)
    if linear is not None:
        return Tails("linear", linear)
    bins, rest = divmod(count, 3)
    if bins < 2:
        raise ImportRefused(
            f"{name}: {count} parameters a feature; expected 3 K - 1, 3 K or 3 K + 1, a "
            "rational-quadratic spline of K bins with linear or circular tails or a list of them. "
            "Other splines cannot be imported"
        )
    return Tails("list" if rest else "circular", bins)


def parameter_rows(features: int, count: int, tails: Tails) -> list[int]:
    """Rows that turn a network's outputs, feature by feature, into blocks of one parameter each."""
    return [feature * count + place for place in range(tails.used) for feature in range(features)]


def describe(
    weights: Weights,
    bound_key: str,
    chosen: Sequence[int],
    tails: Tails,
    settings: Settings,
    divisor: float = 1.0,
) -> dict[str, Any]:
    """The splines of the chosen features."""
    if bound_key not in weights and tails.kind == "linear":
        return settings.spline.describe(tails.num_bins, divisor)
    turning: Sequence[int] = range(len(chosen))
    if tails.kind != "circular":
        turning = [place for place, feature in enumerate(chosen) if feature in settings.circular]
    plain = settings.spline.describe(tails.num_bins, divisor)
    return {
        **plain,
        "kind": "circular_spline",
        "bound": _bounds(weights, bound_key, settings),
        "circular": list(turning) if tails.kind != "linear" else [],
        "ends": "unit" if tails.kind == "linear" else "tied",
    }


def _bounds(weights: Weights, key: str, settings: Settings) -> list[float]:
    if key in weights:
        return _numbers(weights, key)
    return [settings.spline.tail_bound]


def _numbers(weights: Weights, key: str) -> list[float]:
    return weights.take(key, *weights.shape(key)).flatten().tolist()


def own_splines(weights: Weights, name: str, chosen: list[int], settings: Settings) -> Part:
    """Splines of the kept features, with parameters of their own."""
    bins = weights.shape(f"{name}.unnormalized_widths")[-1]
    derivatives = weights.shape(f"{name}.unnormalized_derivatives")[-1]
    tails = read_tails(2 * bins + derivatives, name)
    raw = [
        weights.take(f"{name}.unnormalized_{key}", len(chosen), count)
        for key, count in (("widths", bins), ("heights", bins), ("derivatives", derivatives))
    ]
    elementwise = describe(weights, f"{name}.tail_bound", chosen, tails, settings)
    layer = {"kind": "pointwise", "chosen": chosen, "elementwise": elementwise}
    return Part(layer, {"params": torch.cat(raw, 1)[:, : tails.used].T})


def with_angles(weights: Weights, name: str, net: Net, settings: Settings) -> Net:
    """A network behind a PeriodicFeaturesElementwise, where it has one."""
    key = f"{name}.preprocessing"
    if f"{key}.weights" not in weights:
        return net
    weights.skip(rf"{re.escape(key)}\.(ind_|inv_perm)", "the other inputs")
    angles = weights.take_integers(f"{key}.ind", *weights.shape(f"{key}.ind")).flatten().tolist()
    mixed = weights.take(f"{key}.weights", len(angles), 2)
    scale = _numbers(weights, f"{key}.scale") if f"{key}.scale" in weights else None
    if not angles:
        return net
    bound = [settings.spline.tail_bound] if scale is None else [math.pi / value for value in scale]
    return periodic(net, angles, bound, mixed)


def shift(weights: Weights, name: str, settings: Settings) -> list[Part]:
    """A PeriodicShift, or a PeriodicWrap: what is in no tensor is a plain number that was given."""
    found: dict[str, list[float]] = {}
    for argument in ("bound", "shift"):
        key = f"{name}.{argument}"
        if key in weights:
            found[argument] = _numbers(weights, key)
        else:
            given = settings.given.bound if argument == "bound" else settings.given.shift
            if given is None:
                raise ImportRefused(
                    f"{argument}: {name} is a PeriodicShift or PeriodicWrap without it; give "
                    f"{_fitting(argument)}"
                )
            found[argument] = [given]
        if len(found[argument]) not in (1, len(settings.circular)):
            raise ImportRefused(
                f"{key}: expected {len(settings.circular)} numbers, one each of ind_circ "
                f"{list(settings.circular)}, got {len(found[argument])}"
            )
    layer = {"kind": "circular_shift", "chosen": list(settings.circular), **found}
    return [Part(layer, {})]


def _fitting(argument: str) -> str:
    default = 1 if argument == "bound" else 0
    return (
        f"that of the PeriodicShifts (the library's default is {default}): where it is a plain "
        "number and no tensor, it is not in the checkpoint; of a PeriodicWrap shift is 0"
    )


def shifts_behind(weights: Weights, config: Arguments, kinds: Mapping[int, str]) -> int:
    """How many PeriodicShifts of plain numbers stand behind the last flow that has tensors.

    Raises:
        ImportRefused: if num_flows says less than there are.
    """
    count = max(kinds) + 1
    if config.num_flows is not None:
        if config.num_flows < count:
            raise ImportRefused(
                f"num_flows: {config.num_flows} was given, but flows.{count - 1} is in the "
                f"checkpoint; expected {count}, and one more for every PeriodicShift behind it"
            )
        return config.num_flows - count
    if len(kinds) < count or _plain_shifts(weights, kinds):
        return 0
    return int(config.bound is not None or config.shift is not None)


def _plain_shifts(weights: Weights, kinds: Mapping[int, str]) -> list[str]:
    """Which arguments are no tensors in some PeriodicShift that has the other one as a tensor."""
    shifts = [f"flows.{place}" for place, kind in kinds.items() if kind == "periodic"]
    return [
        argument
        for argument in ("bound", "shift")
        if any(f"{name}.{argument}" not in weights for name in shifts)
    ]


def warn_of_the_end(weights: Weights, parts: Sequence[Part]) -> None:
    """Say that a PeriodicShift at the end would leave no trace, where it may be expected."""
    maps = [part.layer["elementwise"] for part in parts if "elementwise" in part.layer]
    if any(one.get("circular") for one in maps):
        weights.report.warning(
            "num_flows",
            "a PeriodicShift or PeriodicWrap of plain numbers behind the last flow with tensors "
            "leaves no trace, and none was taken; where there is one, give bound and shift, and "
            "num_flows (the length of flows) if others stand between the flows",
        )


def infer(
    weights: Weights, seen: Inference, kinds: Mapping[int, str], tails: Mapping[str, Tails]
) -> None:
    """Note which features are circular, and ask for the plain numbers of PeriodicShifts."""
    names = {one.kind for one in tails.values()}
    if len(names) == 1 and names != {"list"}:
        seen.show("tails", *names, reason="outputs of every spline")
    is_mixed = any(one.kind == "list" for one in tails.values())
    shifts = [f"flows.{place}" for place, kind in kinds.items() if kind == "periodic"]
    has_holes = len(kinds) <= max(kinds) and any(one.kind != "linear" for one in tails.values())
    plain = _plain_shifts(weights, kinds)
    if is_mixed or shifts or has_holes:
        _infer_features(weights, seen, tails)
    else:
        seen.suppose("ind_circ", None, "there are no circular parts")
    for argument in ("bound", "shift"):
        if has_holes or argument in plain:
            seen.ask(argument, _fitting(argument))
        else:
            seen.suppose(argument, None, "in the tensors of PeriodicShifts, if there are any")
    seen.suppose("num_flows", None, "the last flow is one with tensors")


def _infer_features(weights: Weights, seen: Inference, tails: Mapping[str, Tails]) -> None:
    """Networks that see a kept feature say whether it is circular."""
    features = seen.found["D"].value
    circular, plain = set[int](), set[int]()
    for name in tails:
        inner = f"{name}.prqct"
        if f"{inner}.identity_features" in weights:
            kept = weights.peek(f"{inner}.identity_features").long().tolist()
            key = f"{inner}.transform_net.preprocessing.ind"
        else:
            kept, key = list(range(features)), f"{name}.mprqat.autoregressive_net.preprocessing.ind"
        if tails[name].kind != "list":
            continue
        places = weights.peek(key).long().flatten().tolist() if key in weights else []
        circular |= {kept[place] for place in places}
        plain |= {feature for place, feature in enumerate(kept) if place not in places}
    if len(circular | plain) == features:
        seen.know("ind_circ", sorted(circular), "periodic inputs of the networks")
    elif "q0.ind" in weights:
        uniform = sorted(weights.peek("q0.ind").long().flatten().tolist())
        seen.suppose("ind_circ", uniform, "the uniform features of the base")
    else:
        seen.ask("ind_circ", "the circular features, as a list of numbers from 0")


def bounds(weights: Weights, splines: Sequence[str]) -> list[float]:
    """tail_bound of all features, where the splines have one each; else empty."""
    for name in splines:
        inner = f"{name}.prqct"
        if f"{inner}.tail_bound" in weights:
            found: dict[int, float] = {}
            for part, key in (
                ("transform_features", f"{inner}.tail_bound"),
                ("identity_features", f"{inner}.unconditional_transform.tail_bound"),
            ):
                features = weights.peek(f"{inner}.{part}").long().tolist()
                found |= dict(zip(features, weights.peek(key).tolist(), strict=True))
            return [found[feature] for feature in sorted(found)]
        if f"{name}.mprqat.tail_bound" in weights:
            each: list[float] = weights.peek(f"{name}.mprqat.tail_bound").flatten().tolist()
            return each
    return []


def check(weights: Weights, parts: Sequence[Part]) -> None:
    """Say what differs outside the bounds, and refuse a uniform base that is no density.

    Raises:
        ImportRefused: if a circle is longer than its base is wide: the library does not look.
    """
    maps = [part.layer["elementwise"] for part in parts if "elementwise" in part.layer]
    if any(one["kind"] == "circular_spline" for one in maps):
        weights.report.warning(
            "tail_bound",
            "outside the bounds the library gives 0 where tails are a list, which is no bijection; "
            "here a linear feature keeps its value there, and a circular one has no density",
        )
    circles = _circles(parts)
    base = parts[-1].layer if parts else {}
    if base.get("kind") != "uniform":
        return
    for feature, half in zip(base["chosen"], base["high"], strict=True):
        for bound in circles.get(feature, ()):
            if abs(half - bound) > _LARGEST_GAP * bound:
                raise ImportRefused(
                    f"q0.scale: {2 * half:g} for feature {feature}, whose circle is {2 * bound:g} "
                    "long; expected the same. The library does not compare them, and its number is "
                    "then no density"
                )


def _circles(parts: Sequence[Part]) -> dict[int, set[float]]:
    """Half the length of the circles that a feature goes through."""
    found: dict[int, set[float]] = {}
    for part in parts:
        layer = part.layer
        inner = layer.get("elementwise", layer)
        if inner["kind"] not in ("circular_spline", "circular_shift"):
            continue
        mask = layer.get("mask", layer.get("order", ()))
        moved = [index for index, flag in enumerate(mask) if not flag or "order" in layer]
        chosen = layer.get("chosen", moved)
        bound = [*inner["bound"]] * (len(chosen) if len(inner["bound"]) == 1 else 1)
        turning = inner.get("circular", range(len(chosen)))
        for place in turning:
            found.setdefault(chosen[place], set()).add(bound[place])
    return found
