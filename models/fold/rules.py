"""One rule a kind of transform: what it becomes, and what neighbours make of each other."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from functools import reduce, singledispatch
from typing import cast

import torch
from torch import Tensor, nn

from models.fold.affine import scale_and_shift
from models.fold.autoregressive import fold_autoregressive, relabelled
from models.fold.chain import FoldedChain, Part
from models.fold.constant import ConstantMap, Dense, Monomial, compose
from models.fold.continuous import fold_continuous
from models.fold.coupling import (
    ConstantMove,
    FoldedCheckerboard,
    FoldedPointwise,
    FoldedPrior,
    HalfCouplings,
    Move,
)
from models.fold.networks import fold_conditioner, lay_out, plain
from models.fold.planar import FoldedPlanar, FoldedRadial
from models.monotone.planar import PlanarMap
from models.ode.transform import ContinuousTransform
from models.transforms.actnorm import ActNorm
from models.transforms.affine import Scale
from models.transforms.autoregressive import MaskedAutoregressive, Swapped
from models.transforms.batchnorm import BatchNorm
from models.transforms.coupling import CheckerboardCoupling, Coupling
from models.transforms.linear import InvertibleLinear
from models.transforms.permute import Permute
from models.transforms.pointwise import Pointwise
from models.transforms.preprocess import Dequantise, ShiftScale, Standardise
from models.transforms.radial import RadialMap
from models.transforms.split import Chain, FactorOut, GaussianPrior
from models.transforms.squeeze import Flatten, Squeeze, Unsqueeze
from models.transforms.transform import Transform

Shape = tuple[int, ...]


@singledispatch
def pieces(transform: Transform, shape: Shape) -> list[Transform]:
    """What a transform of events of `shape` becomes, data side first; without a rule, itself."""
    return [transform]


@pieces.register(Standardise)
@pieces.register(Dequantise)
@pieces.register(ShiftScale)
@pieces.register(Scale)
@pieces.register(ActNorm)
@pieces.register(BatchNorm)
def _diagonal(transform: Transform, shape: Shape) -> list[Transform]:
    scale, shift = (_over_event(part, shape) for part in scale_and_shift(transform))
    return [Monomial(None, scale, shift, log_abs_det=_constant_log_det(transform, shape))]


@pieces.register
def _(transform: Permute, shape: Shape) -> list[Transform]:
    return [Monomial(transform.indices)]


@pieces.register
def _(transform: InvertibleLinear, shape: Shape) -> list[Transform]:
    matrix, inverse = transform.matrix(), transform.inverse_matrix()
    shift = matrix.new_zeros(len(matrix)) if transform.bias is None else transform.bias
    kernel = (*matrix.shape, *[1] * (len(shape) - 1))
    log_abs_det = _constant_log_det(transform, shape)
    return [Dense(matrix.view(kernel), inverse.view(kernel), shift, log_abs_det=log_abs_det)]


@pieces.register
def _(transform: Coupling, shape: Shape) -> list[Transform]:
    # The part with the first feature comes first, so that a mask and its complement agree.
    keeps_first = bool(transform.keep[0] == 0)
    parts = (transform.keep, transform.move) if keeps_first else (transform.move, transform.keep)
    moved = (len(transform.move), *shape[1:])
    network, scalar = fold_conditioner(transform.conditioner, transform.elementwise, moved)
    lay_out(network, scalar, len(transform.move))
    return _in_halves(parts, Move(network, scalar, keeps_first=keeps_first))


@pieces.register
def _(transform: Pointwise, shape: Shape) -> list[Transform]:
    chosen = set(transform.chosen.tolist())
    others = [feature for feature in range(shape[0]) if feature not in chosen]
    if not others:
        return [FoldedPointwise(transform.elementwise, transform.params.T)]
    moves_first = 0 in chosen
    parts = (transform.chosen, torch.tensor(others))
    move = ConstantMove(transform.elementwise, transform.params.T, keeps_first=not moves_first)
    return _in_halves(parts if moves_first else parts[::-1], move)


@pieces.register
def _(transform: CheckerboardCoupling, shape: Shape) -> list[Transform]:
    network, scalar = fold_conditioner(transform.conditioner, transform.elementwise, shape)
    _, height, width = shape
    size = (height, width)
    return [FoldedCheckerboard(network, scalar, parity=transform.parity, size=size)]


@pieces.register
def _(transform: MaskedAutoregressive, shape: Shape) -> list[Transform]:
    transform.conditioner = plain(transform.conditioner, ())
    return [transform]


@pieces.register
def _(transform: PlanarMap, shape: Shape) -> list[Transform]:
    return [FoldedPlanar(transform)]


@pieces.register
def _(transform: RadialMap, shape: Shape) -> list[Transform]:
    return [FoldedRadial(transform)]


@pieces.register
def _(transform: ContinuousTransform, shape: Shape) -> list[Transform]:
    return [fold_continuous(transform)]


@pieces.register
def _(transform: Swapped, shape: Shape) -> list[Transform]:
    return [_swapped(piece) for piece in reversed(pieces(transform.transform, shape))]


@pieces.register
def _(transform: Chain, shape: Shape) -> list[Transform]:
    return [fold_chain(_inner(transform), shape)]


@pieces.register
def _(transform: FactorOut, shape: Shape) -> list[Transform]:
    half = (shape[0] // 2, *shape[1:])
    rest = transform.rest
    transform.rest = fold_chain(_inner(rest) if isinstance(rest, Chain) else [rest], half)
    if transform.prior is not None:
        transform.prior = fold_chain([transform.prior], half)
    return [transform]


@pieces.register
def _(transform: GaussianPrior, shape: Shape) -> list[Transform]:
    if transform.context_features is None:
        return _diagonal(transform, shape)
    parts = (transform.mean, transform.log_std)
    tables = (transform.mean_context, transform.log_std_context)
    table = nn.Linear(transform.context_features, 2 * transform.mean.numel())
    table.weight = nn.Parameter(torch.cat([part.flatten(1) for part in tables], 1).T.contiguous())
    table.bias = nn.Parameter(torch.cat([part.flatten() for part in parts]))
    return [FoldedPrior(table, tuple(transform.mean.shape))]


def fold_chain(transforms: Sequence[Transform], shape: Shape) -> FoldedChain:
    """Fold transforms that follow each other, the first of events of `shape`."""
    parts: list[Part] = []
    for index, transform in enumerate(transforms):
        source = (f"{index} {type(transform).__name__}",)
        after = shape_after(transform, shape)
        parts += [Part(piece, source) for piece in pieces(transform, shape)]
        shape = after
    return FoldedChain(joined(parts))


def shape_after(transform: Transform, shape: Shape) -> Shape:
    """The shape of y where x has `shape`."""
    match transform:
        case Unsqueeze():
            return shape[0] // 4, 2 * shape[1], 2 * shape[2]
        case Squeeze():
            return 4 * shape[0], shape[1] // 2, shape[2] // 2
        case Flatten():
            return (math.prod(shape),)
        case FactorOut() if transform.order != "image":
            return (math.prod(shape),)
        case Chain():
            return reduce(lambda now, inner: shape_after(inner, now), _inner(transform), shape)
        case _:
            return shape


def joined(parts: Iterable[Part]) -> list[Part]:
    """Let neighbours merge until nothing merges."""
    done: list[Part] = []
    waiting = deque(parts)
    while waiting:
        second = waiting.popleft()
        first = done[-1] if done else None
        merged = None if first is None else _join(first.transform, second.transform)
        if first is not None and merged is not None:
            done.pop()
            sources = (*first.sources, *second.sources)
            waiting.extendleft(Part(transform, sources) for transform in reversed(merged))
        elif not (isinstance(second.transform, Monomial) and second.transform.is_identity):
            done.append(second)
    return [Part(_finished(transform), sources) for transform, sources in done]


def _join(first: Transform, second: Transform) -> list[Transform] | None:
    """What two neighbours become together; None if they stay as they are."""
    match first, second:
        case ConstantMap(), ConstantMap():
            both = compose(first, second)
            return None if both is None else [both]
        case HalfCouplings(), HalfCouplings() if first.cut == second.cut:
            return [HalfCouplings(first.cut, [*first.moves, *second.moves])]
        case Monomial(), Squeeze() if not isinstance(second, Unsqueeze) and first.is_channelwise:
            return [second, first.after_squeeze(second.order)]
        case Monomial(), _ if first.indices is not None and _passes(second, first.indices):
            return [first.diagonal_in_front(), second, Monomial(first.indices)]
        case _:
            return None


def _passes(transform: Transform, indices: Tensor) -> bool:
    """Change an autoregressive map so that a permutation in front of it goes behind it."""
    inner = transform.transform if isinstance(transform, Swapped) else transform
    return isinstance(inner, MaskedAutoregressive) and relabelled(inner, indices)


def _finished(transform: Transform) -> Transform:
    match transform:
        case MaskedAutoregressive():
            return fold_autoregressive(transform)
        case Swapped(transform=MaskedAutoregressive() as inner):
            return Swapped(fold_autoregressive(inner))
        case _:
            return transform


def _swapped(transform: Transform) -> Transform:
    return transform.swapped() if isinstance(transform, Monomial | Dense) else Swapped(transform)


def _in_halves(parts: Sequence[Tensor], move: Move | ConstantMove) -> list[Transform]:
    order = torch.cat(tuple(parts))
    return [
        Monomial(order),
        HalfCouplings(len(parts[0]), [move]),
        Monomial(order.argsort()),
    ]


def _inner(chain: Chain) -> list[Transform]:
    return cast(list[Transform], list(chain.transforms))


def _over_event(values: Tensor, shape: Shape) -> Tensor:
    """Line coefficients up with one event: one for all, one a channel, or one an element."""
    values = values.double()
    if values.dim() == 1:
        return values.expand(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return values


def _constant_log_det(transform: Transform, shape: Shape) -> float:
    _, log_det = transform.encode(torch.zeros(1, *shape, dtype=torch.float64))
    return float(log_det)
