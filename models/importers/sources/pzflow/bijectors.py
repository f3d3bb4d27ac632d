"""Bijectors of pzflow as layers of a `chain`: read off `bijector_info`, which names them in order.

A bijector is a name and its arguments; its numbers, where it has any, are below the same place of
the parameters. Data go through a Chain in order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.report import ImportRefused
from models.importers.source import Step
from models.importers.sources.pzflow.spline import SplineCoupling, convert_spline
from models.importers.weights import Weights

COUPLING = "NeuralSplineCoupling"
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Bijector:
    """A bijector that is no Chain.

    Attributes:
        name: its class.
        arguments: of its constructor, all of them, in order.
        key: the prefix of its tensors, without the last dot.
    """

    name: str
    arguments: tuple[Any, ...]
    key: str

    @property
    def coupling(self) -> SplineCoupling:
        """The arguments of a NeuralSplineCoupling.

        Raises:
            ImportRefused: if they are not what its constructor takes.
        """
        return SplineCoupling.of(self.key, self.arguments)


@dataclass(slots=True)
class Layers:
    """What bijectors become.

    Attributes:
        features: D.
        inputs: steps of preprocessing, in front of all layers.
        parts: the layers.
        is_noisy: whether whole numbers are dequantised.
        is_circular: whether there are periodic splines.
        origins: for every column behind the layers, the column behind the preprocessing that it
            still is; None for those that have changed, or that decided how another one did.
    """

    features: int
    inputs: list[Step] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    is_noisy: bool = False
    is_circular: bool = False
    origins: list[int | None] = field(init=False)

    def __post_init__(self) -> None:
        self.origins = list(range(self.features))

    def add(self, part: Part, origins: Sequence[int | None] | None = None) -> None:
        """Add a layer.

        Args:
            part: the layer.
            origins: which columns it leaves alone but for their place, and does not look at: for
                every column that comes out, the one that went in; None for all others.
        """
        places = [None] * self.features if origins is None else origins
        self.origins = [None if place is None else self.origins[place] for place in places]
        self.parts.append(part)


def flatten(info: Any, key: str, depth: int = 0) -> Iterator[Bijector]:
    """All bijectors in the order in which data go through them.

    Raises:
        ImportRefused: if it is no description of bijectors.
    """
    is_described = isinstance(info, list) and len(info) == 2 and isinstance(info[1], list)
    if not is_described or not isinstance(info[0], str) or depth > _MAX_DEPTH:
        raise ImportRefused(
            f"bijector_info: expected (name, arguments) of a bijector of pzflow, got {info!r:.80}"
        )
    name, arguments = info
    if name != "Chain":
        yield Bijector(name, tuple(arguments), key)
        return
    for index, part in enumerate(arguments):
        yield from flatten(part, f"{key}.{index}", depth + 1)


def convert(
    weights: Weights, bijectors: Sequence[Bijector], features: int, conditions: int
) -> Layers:
    """Turn bijectors into preprocessing and layers.

    Args:
        weights: of the source.
        bijectors: in order.
        features: D.
        conditions: length of the context, 0 for none.

    Raises:
        ImportRefused: names the first that cannot be expressed.
    """
    made = Layers(features)
    for bijector in bijectors:
        name, arguments = bijector.name, bijector.arguments
        if name == COUPLING:
            part = convert_spline(weights, bijector.coupling, features, conditions)
            made.is_circular |= bijector.coupling.periodic
            if part is not None:
                made.add(part)
        elif name in _SHIFTS:
            mean, std = _shift_and_scale(name, arguments, features)
            if made.parts:
                made.add(_actnorm(mean, std))
            else:
                made.inputs.append({"kind": "standardise", "mean": mean, "std": std})
        elif name in _PERMUTATIONS:
            places = _permutation(name, arguments, features)
            made.add(chain_layers.permute(places), places)
        elif name == "ColorTransform":
            made.add(*_colours(bijector, features))
        elif name == "InvSoftplus":
            _soften(made, bijector)
        elif name in _DEQUANTIZERS:
            _dequantise(made, bijector, features)
        else:
            raise ImportRefused(f"{bijector.key}: {_REFUSED.get(name, _UNKNOWN).format(name)}")
    return made


_SHIFTS = ("ShiftBounds", "StandardScaler", "Scale")
_PERMUTATIONS = ("Roll", "Reverse")
_DEQUANTIZERS = ("UniformDequantizer", "Beta13Dequantizer")
_UNKNOWN = "{} is not a bijector of pzflow 4.0, whose code would be needed to import it"
_REFUSED = {
    "Shuffle": (
        "Shuffle draws its permutation from the seed of the flow, which pzflow does not save: a "
        "flow that was not made with seed 0 is another one when it is loaded, there too. Put "
        "Reverse or Roll in its place, and train again"
    ),
}
# All bijectors of the library.
NAMES = frozenset(
    {
        *(COUPLING, "RollingSplineCoupling", "ColorTransform", "InvSoftplus"),
        *(*_SHIFTS, *_PERMUTATIONS, *_DEQUANTIZERS, *_REFUSED),
    }
)


def _shift_and_scale(
    name: str, arguments: Sequence[Any], features: int
) -> tuple[list[float], list[float]]:
    """Mean and deviation of (x - mean) / std, one a feature."""
    if name == "Scale":
        scale = _numbers(arguments[0], features)
        mean, std = torch.zeros_like(scale), 1 / scale
    elif name == "StandardScaler":
        mean, std = (_numbers(values, features) for values in arguments[:2])
    else:
        low, high, bound = (_numbers(values, features) for values in arguments[:3])
        mean, std = (high + low) / 2, (high - low) / 2 / bound
    if not (std > 0).all() or not std.isfinite().all():
        raise ImportRefused(
            f"{name}: expected a positive scale for every column, got one over {std.tolist()}"
        )
    return mean.tolist(), std.tolist()


def _numbers(value: Any, features: int) -> Tensor:
    """One number a feature, of one for all or as many."""
    numbers = torch.tensor(value, dtype=torch.float64).flatten()
    if len(numbers) not in (1, features):
        raise ImportRefused(
            f"bijector_info: expected 1 or {features} numbers, one a column, got {len(numbers)}"
        )
    return numbers.expand(features).clone()


def _actnorm(mean: Sequence[float], std: Sequence[float]) -> Part:
    """(x - mean) / std as a layer."""
    shift = torch.tensor(mean, dtype=torch.float64)
    scale = torch.tensor(std, dtype=torch.float64)
    layer = {"kind": "actnorm", "form": "unshift_then_unscale", "storage": "direct"}
    return Part(layer, {"shift": shift, "scale": scale})


def _permutation(name: str, arguments: Sequence[Any], features: int) -> list[int]:
    """Which column comes where."""
    if name == "Reverse":
        return list(range(features))[::-1]
    return [(index - int(arguments[0])) % features for index in range(features)]


def _colours(bijector: Bijector, features: int) -> tuple[Part, list[int | None]]:
    """The other columns, the reference magnitude, then differences of neighbours: a matrix.

    Raises:
        ImportRefused: if it names columns that are none.
    """
    reference, magnitudes = bijector.arguments
    others = [index for index in range(features) if index not in magnitudes]
    if reference not in magnitudes or len(others) + len(magnitudes) != features:
        raise ImportRefused(
            f"{bijector.key}: ColorTransform: expected different columns below {features}, the "
            f"reference among them, got {reference} and {magnitudes}"
        )
    weight = torch.zeros(features, features, dtype=torch.float64)
    unchanged = [*others, reference]
    for row, index in enumerate(unchanged):
        weight[row, index] = 1.0
    for row, (left, right) in enumerate(pairwise(magnitudes), len(unchanged)):
        weight[row, left], weight[row, right] = 1.0, -1.0
    if len(magnitudes) == 1:
        return chain_layers.linear(weight), unchanged
    # The reference is in the colours too.
    colours = [None] * (features - len(others))
    return chain_layers.linear(weight), [*others, *colours]


def _soften(made: Layers, bijector: Bijector) -> None:
    """The inverse softplus on positive columns, in front of the layers, which do not see them.

    Raises:
        ImportRefused: if a layer in front of it changes them, or looks at them.
    """
    columns, sharpness = (torch.tensor(value).flatten() for value in bijector.arguments)
    places = [made.origins[column] for column in columns.tolist()]
    if None in places or len(set(places)) != len(places):
        raise ImportRefused(
            f"{bijector.key}: InvSoftplus behind bijectors that change its columns or "
            "depend on them, or on one twice; expected it in front of them"
        )
    factors = sharpness.double().expand(len(places)).tolist()
    ordered = sorted(zip(places, factors, strict=True))
    made.inputs.append(
        {
            "kind": "inverse_softplus",
            "columns": [place for place, _ in ordered],
            "sharpness": [factor for _, factor in ordered],
        }
    )


def _dequantise(made: Layers, bijector: Bijector, features: int) -> None:
    """Noise on columns of whole numbers.

    Raises:
        ImportRefused: if other bijectors come before it.
    """
    if made.inputs or made.parts:
        raise ImportRefused(
            f"{bijector.key}: {bijector.name} behind other bijectors; expected it first, where the "
            "columns are whole numbers"
        )
    columns = torch.tensor(bijector.arguments[0]).flatten() % features
    chosen = sorted(set(columns.tolist()))
    made.inputs.append({"kind": "dequantise_columns", "columns": chosen})
    made.is_noisy = True
