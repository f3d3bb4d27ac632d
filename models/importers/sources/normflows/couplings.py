"""The affine couplings of normflows over vectors: MaskedAffineFlow and AffineCouplingBlock."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import Linear, Net, parameter_rows
from models.importers.layouts.nsf_parts import Spline, dense
from models.importers.report import ImportRefused
from models.importers.weights import Weights

T = TypeVar("T")

ScaleMap = Literal["exp", "sigmoid", "sigmoid_inv"]
PlanarAct = Literal["tanh", "leaky_relu"]
SplitMode = Literal["channel", "channel_inv", "checkerboard", "checkerboard_inv"]

# Bins and derivatives of splines are at least this, whatever the constructor is given.
_LEAST = 1e-3
_UNSHIFT = {"kind": "affine", "scale": "exp", "form": "unshift_then_unscale"}


class Arguments(Protocol):
    """Arguments of the constructors, read where they are used."""

    @property
    def activation(self) -> str:
        """Of residual networks and MADEs."""

    @property
    def tail_bound(self) -> float | tuple[float, ...]:
        """Where splines end; in tensors where it is one a feature."""

    @property
    def ind_circ(self) -> tuple[int, ...] | None:
        """The circular features."""

    @property
    def bound(self) -> float | None:
        """Of PeriodicShifts, where it is no tensor."""

    @property
    def shift(self) -> float | None:
        """Of PeriodicShifts, where it is no tensor."""

    @property
    def num_flows(self) -> int | None:
        """The length of flows, where PeriodicShifts of plain numbers stand at its end."""

    @property
    def leaky(self) -> float:
        """Slope of nets.MLP."""

    @property
    def scale_map(self) -> ScaleMap | tuple[ScaleMap, ...]:
        """Of every AffineCouplingBlock, or of each."""

    @property
    def split_mode(self) -> SplitMode | tuple[SplitMode, ...]:
        """Of every AffineCouplingBlock, or of each."""

    @property
    def act(self) -> PlanarAct | tuple[PlanarAct, ...]:
        """Of every Planar, or of each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the flows need to know beside their tensors.

    Attributes:
        features: D.
        given: arguments of the constructors.
        blocks: names of the AffineCouplingBlocks, in the order of the library.
        planars: names of the Planar flows, likewise.
        unused_context: length of a context that only the base takes.
        turns: whether flows without tensors are PeriodicShifts.
    """

    features: int
    given: Arguments
    blocks: Sequence[str]
    planars: Sequence[str]
    unused_context: int
    turns: bool = False

    @property
    def activation(self) -> str:
        """Of residual networks and MADEs."""
        return self.given.activation

    @property
    def spline(self) -> Spline:
        """The arguments of splines; a list of bounds stands in tensors."""
        bound = self.given.tail_bound
        return Spline(bound if isinstance(bound, float) else bound[0], _LEAST, _LEAST)

    @property
    def circular(self) -> tuple[int, ...]:
        """The circular features."""
        return self.given.ind_circ or ()

    def scale_map(self, name: str) -> ScaleMap:
        """Of one block."""
        value = self.given.scale_map
        return value if isinstance(value, str) else _own("scale_map", value, self.blocks, name)

    def split_mode(self, name: str) -> SplitMode:
        """Of one block."""
        value = self.given.split_mode
        return value if isinstance(value, str) else _own("split_mode", value, self.blocks, name)

    def act(self, name: str) -> PlanarAct:
        """Of one Planar."""
        value = self.given.act
        return value if isinstance(value, str) else _own("act", value, self.planars, name)


def _own(argument: str, values: Sequence[T], names: Sequence[str], name: str) -> T:
    """The value of one of the flows that are given one each."""
    if len(values) != len(names):
        raise ImportRefused(
            f"{argument}: expected one value for all, or {len(names)}, one for each of "
            f"{', '.join(names)}; got {len(values)}"
        )
    return values[names.index(name)]


def read_blocks(weights: Weights, names: Sequence[str]) -> Mapping[str, tuple[int, int]]:
    """Inputs and outputs of the networks of AffineCouplingBlocks, by name."""
    return {name: (block_inputs(weights, name), block_outputs(weights, name)) for name in names}


def block_inputs(weights: Weights, name: str) -> int:
    """How many features the network of an AffineCouplingBlock sees."""
    return weights.shape(f"{_param_map(weights, name)[0]}.weight")[1]


def block_outputs(weights: Weights, name: str) -> int:
    """How many outputs the network of an AffineCouplingBlock has."""
    return weights.shape(f"{_param_map(weights, name)[-1]}.weight")[0]


def _mlp_layers(weights: Weights, name: str) -> list[str]:
    """The linear layers of a `nets.MLP`."""
    if weights.has(rf"{re.escape(name)}\.net\.\d+\.scale"):
        raise ImportRefused(
            f"{name}: a network with an output function and scales around it (output_fn) cannot "
            "be imported"
        )
    places = weights.indices(rf"{re.escape(name)}\.net\.(\d+)\.weight")
    if not places:
        raise ImportRefused(
            f"{name}: expected a nets.MLP of normflows ({name}.net.0.weight, ...); networks of "
            "users' own cannot be imported, their code is not in the checkpoint"
        )
    return [f"{name}.net.{place}" for place in places]


def _param_map(weights: Weights, name: str) -> list[str]:
    return _mlp_layers(weights, f"{name}.flows.1.param_map")


def _mlp(linears: list[Linear], settings: Settings) -> Net:
    linears[0] = linears[0].with_unused_context(settings.unused_context)
    leaky = settings.given.leaky
    if not leaky:
        return networks.mlp(linears, "relu")
    return networks.mlp(linears, "leaky_relu", negative_slope=leaky)


def masked(weights: Weights, name: str, settings: Settings) -> list[Part]:
    """A MaskedAffineFlow, with networks for shift, scale or both."""
    mask = weights.peek(f"{name}.b").flatten()
    weights.skip(re.escape(f"{name}.b"), "a mask: the features a coupling keeps")
    if not ((mask == 0) | (mask == 1)).all():
        raise ImportRefused(f"{name}.b: expected a mask of zeros and ones, got {mask.tolist()}")
    kept, moved = (mask == 1).nonzero().flatten().tolist(), (mask == 0).nonzero().flatten().tolist()

    def net(part: str) -> list[Linear]:
        linears = [dense(weights, layer) for layer in _mlp_layers(weights, f"{name}.{part}")]
        linears[0] = linears[0].columns(kept)
        linears[-1] = linears[-1].rows(moved)
        return linears

    if not weights.has(rf"{re.escape(name)}\.s\..*"):
        shift = net("t")
        shift[-1] = shift[-1].negated()
        additive = {"kind": "additive"}
        return [chain_layers.coupling(kept, settings.features, additive, _mlp(shift, settings))]
    scale = net("s")
    has_shift = weights.has(rf"{re.escape(name)}\.t\..*")
    shift = net("t") if has_shift else [_silent(linear) for linear in scale]
    both = networks.pair(_mlp(shift, settings), _mlp(scale, settings))
    return [chain_layers.coupling(kept, settings.features, _UNSHIFT, both)]


def _silent(linear: Linear) -> Linear:
    return Linear(linear.weight * 0, linear.bias * 0)


def block(weights: Weights, name: str, settings: Settings) -> list[Part]:
    """An AffineCouplingBlock; without a scale it is additive."""
    linears = [dense(weights, layer) for layer in _param_map(weights, name)]
    split_mode = settings.split_mode(name)
    kept = _kept(split_mode, settings.features)
    moved = settings.features - len(kept)
    found = len(linears[-1].bias)
    if found == moved:
        linears[-1] = linears[-1].negated()
        elementwise: dict[str, Any] = {"kind": "additive"}
    elif found == 2 * moved:
        elementwise, linears[-1] = _scaled(settings.scale_map(name), linears[-1], moved)
    else:
        raise ImportRefused(
            f"{name}: the network has {found} outputs for {moved} features that move; expected "
            f"{moved} or {2 * moved}: is split_mode {split_mode!r} right?"
        )
    return [chain_layers.coupling(kept, settings.features, elementwise, _mlp(linears, settings))]


def _kept(split_mode: SplitMode, size: int) -> list[int]:
    half = (size + 1) // 2
    match split_mode:
        case "channel":
            return list(range(half))
        case "channel_inv":
            return list(range(half, size))
        case "checkerboard":
            return list(range(1, size, 2))
        case "checkerboard_inv":
            return list(range(0, size, 2))


def _scaled(scale_map: ScaleMap, last: Linear, moved: int) -> tuple[dict[str, Any], Linear]:
    """The scalar map, and the last layer in our order: shifts, then scales."""
    last = last.rows(parameter_rows(moved, [0, 1]))
    if scale_map != "sigmoid":
        scale = "exp" if scale_map == "exp" else "sigmoid"
        return {"kind": "affine", "scale": scale, "form": "unshift_then_unscale"}, last
    signs = last.bias.new_ones(2 * moved)
    signs[:moved] = -1
    turned = Linear(last.weight * signs[:, None], last.bias * signs)
    return {"kind": "affine", "scale": "sigmoid", "form": "shift_then_scale"}, turned
