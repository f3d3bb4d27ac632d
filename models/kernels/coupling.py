"""Couplings whose networks are plain MLPs, as one kernel: see `models.kernels.coupling_kernel`."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.conditioners.activations import pointwise
from models.conditioners.dense import MLP
from models.fold.coupling import HalfCouplings, Move
from models.fold.scalar import FoldedAdditive, FoldedAffine
from models.kernels.coupling_kernel import couplings_kernel
from models.kernels.refusal import NotFused
from models.transforms.transform import Transform

# Rows of a tile, and the side of the blocks that products are computed in: the least that the
# units of matrix products take, since the tile of a lone row is computed whole.
TILE = 16
BLOCK = 32
# Tiles that are computed at a time: beyond, each program takes several, one after the other.
MOST_PROGRAMS = 1024
# Beyond this width a library's products are faster than a tile's.
MOST_WIDTH = 512

_NAMES = {
    pointwise(name): name
    for name in ("relu", "elu", "selu", "gelu", "silu", "softplus", "sigmoid", "tanh", "identity")
}
# What `log_scale` of `models.kernels.pointwise` knows.
_SCALES = {"exp", "sigmoid", "floored_sigmoid", "floored_softplus", "soft_clamp", "tanh"}


class _Layout(NamedTuple):
    """What all networks of a kernel have in common, padded to whole blocks.

    nets: a move. layers: of a network. inputs, hidden: its widths. outputs: of one block of
    parameters. blocks: 2 for shift and scale, 1 for a shift alone.
    """

    nets: int
    layers: int
    inputs: int
    hidden: int
    outputs: int
    blocks: int
    activation: str
    slope: float

    @property
    def width(self) -> int:
        """Numbers a row takes at most."""
        return max(self.inputs, self.hidden, self.blocks * self.outputs)


class FusedCouplings(Transform):
    """`HalfCouplings` of affine or additive moves by MLPs, in float32.

    Args:
        couplings: is left as it is.
        precision: of the products: "ieee" for float32, "tf32" or "tf32x3".

    Attributes:
        most_programs: how many tiles are computed at a time.

    Raises:
        NotFused: there is no kernel for these.
    """

    weights: Tensor
    gains: Tensor
    keeps_first: Tensor

    def __init__(self, couplings: HalfCouplings, *, precision: str = "ieee") -> None:
        super().__init__()
        moves = _moves(couplings)
        first = moves[0]
        scalar = cast(FoldedAffine | FoldedAdditive, first.scalar)
        self.cut = couplings.cut
        self.precision = precision
        self.most_programs = MOST_PROGRAMS
        self.scale, self.form, self.offset, self.is_gained = _kind(scalar)
        nets = [_mlps(move) for move in moves]
        self.layout = _layout(nets, blocks=scalar.num_params)
        packed = [_pack(net, self.layout) for move in nets for net in move]
        self.register_buffer("weights", torch.cat(packed))
        gains = [_gain(cast(FoldedAffine, move.scalar), self.layout.outputs) for move in moves]
        self.register_buffer("gains", torch.stack(gains).to(self.weights))
        flags = [int(move.keeps_first) for move in moves]
        self.register_buffer("keeps_first", torch.tensor(flags, dtype=torch.int32))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._launch(x, context, decoding=False)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._launch(y, context, decoding=True)

    def _launch(
        self, value: Tensor, context: Tensor | None, *, decoding: bool
    ) -> tuple[Tensor, Tensor]:
        rows, features = value.shape
        layout = self.layout
        programs = max(1, min(-(-rows // TILE), self.most_programs))
        value = value.contiguous()
        given = value if context is None else context.contiguous()
        found, log_det = torch.empty_like(value), value.new_empty(rows, dtype=torch.float64)
        scratch = value.new_empty(programs, 4, TILE, layout.width)
        options: dict[str, Any] = {
            **{name.upper(): part for name, part in layout._asdict().items()},
            "WIDTH": layout.width,
            "SCALE": self.scale,
            "FORM": self.form,
            "IS_GAINED": self.is_gained,
            "DECODING": decoding,
            "TILE": TILE,
            "BLOCK": BLOCK,
            "PRECISION": self.precision,
            "num_stages": 1,
        }
        with torch.cuda.device_of(value):  # Triton launches on the current device
            couplings_kernel[(programs,)](
                value, found, log_det, given, self.weights, self.gains, self.keeps_first, scratch,
                rows, len(self.keeps_first), self.cut, features,
                0 if context is None else context.shape[1], self.offset, **options,
            )  # fmt: skip
        return found, log_det


def _moves(couplings: HalfCouplings) -> list[Move]:
    moves = list(couplings.moves)
    if not all(isinstance(move, Move) for move in moves):
        raise NotFused("a coupling with parameters that are the same for every row")
    found = cast(list[Move], moves)
    if len({_kind(move.scalar) for move in found}) > 1:
        raise NotFused("couplings of several kinds in a row")
    return found


def _kind(scalar: nn.Module) -> tuple[str, str, float, bool]:
    """The names of scale and form, the offset of the raw scale, whether it has a gain."""
    match scalar:
        case FoldedAdditive():
            return "", "", 0.0, False
        case FoldedAffine(centred=True):
            raise NotFused("couplings whose log-scales are centred")
        case FoldedAffine() if scalar.scale not in _SCALES:
            raise NotFused(f"a scale by {scalar.scale}: {', '.join(sorted(_SCALES))} fuse")
        case FoldedAffine():
            offset = scalar.offsets[1] if scalar.offsets else 0.0
            return scalar.scale, scalar.form, offset, scalar.weight is not None
        case _:
            raise NotFused(f"a coupling by {type(scalar).__name__}: affine and additive ones fuse")


def _mlps(move: Move) -> list[MLP]:
    nets = list(move.network.nets)
    for net in nets:
        if not isinstance(net, MLP):
            raise NotFused(f"a network of the type {type(net).__name__}: MLPs fuse")
        if net.normalise or net.context_layer is not None:
            raise NotFused("a network that normalises its rows, or adds its context")
        if not all(type(layer) is nn.Linear for layer in net.layers):
            raise NotFused("a network with layers that are not linear")
    return cast(list[MLP], nets)


def _activation(nets: Sequence[MLP]) -> tuple[str, float]:
    """The one nonlinearity of all hidden layers: its name, and the slope of leaky_relu."""
    found = {_name(one) for net in nets for one in net.activations[:-1]}
    if len(found) > 1 or any(_name(net.activations[-1]) != ("identity", 0.0) for net in nets):
        raise NotFused("networks with several nonlinearities, or one behind the last layer")
    return found.pop()


def _name(function: Callable[[Tensor], Tensor]) -> tuple[str, float]:
    if isinstance(function, partial) and function.func is F.leaky_relu:
        return "leaky_relu", float(function.keywords["negative_slope"])
    if function not in _NAMES:
        raise NotFused("a nonlinearity that kernels do not know")
    return _NAMES[function], 0.0


def _layout(moves: Sequence[Sequence[MLP]], *, blocks: int) -> _Layout:
    nets = [net for move in moves for net in move]
    depths = {len(net.layers) for net in nets}
    if len(depths) > 1 or len({len(move) for move in moves}) > 1:
        raise NotFused("networks of several depths")
    linears = [[cast(nn.Linear, layer) for layer in net.layers] for net in nets]
    each = blocks // len(moves[0])
    name, slope = _activation(nets)
    layout = _Layout(
        nets=len(moves[0]),
        layers=depths.pop(),
        inputs=_padded(max(layers[0].in_features for layers in linears)),
        hidden=_padded(max(layer.out_features for layers in linears for layer in layers[:-1])),
        outputs=_padded(max(layers[-1].out_features // each for layers in linears)),
        blocks=blocks,
        activation=name,
        slope=slope,
    )
    if layout.width > MOST_WIDTH:
        raise NotFused(f"a network {layout.width} wide: up to {MOST_WIDTH} fuse")
    return layout


def _pack(net: MLP, layout: _Layout) -> Tensor:
    """Weights (in, out) and biases of all layers, padded with zeros, one behind the other."""
    linears = [cast(nn.Linear, layer) for layer in net.layers]
    widths = [layout.inputs, *[layout.hidden] * (layout.layers - 1)]
    parts: list[Tensor] = []
    for layer, (before, after) in zip(linears, pairwise([*widths, 0]), strict=True):
        weight, bias = layer.weight.T, layer.bias
        if after:
            parts += [_pad(weight, before, after).flatten(), _pad(bias, after)]
            continue
        blocks = layout.blocks // layout.nets
        rows = [_pad(part, before, layout.outputs) for part in weight.chunk(blocks, 1)]
        parts.append(torch.cat(rows, 1).flatten())
        parts += [_pad(part, layout.outputs) for part in bias.chunk(blocks)]
    return torch.cat(parts).detach()


def _gain(scalar: FoldedAffine | FoldedAdditive, outputs: int) -> Tensor:
    weight = scalar.weight if isinstance(scalar, FoldedAffine) else None
    return torch.zeros(outputs) if weight is None else _pad(weight, outputs)


def _pad(values: Tensor, *shape: int) -> Tensor:
    padded = values.new_zeros(shape)
    padded[tuple(slice(size) for size in values.shape)] = values
    return padded


def _padded(width: int) -> int:
    return -(-width // BLOCK) * BLOCK
