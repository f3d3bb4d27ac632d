"""The way from noise to data: what a flow gives where a part of it is applied."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial

import torch
from torch import Tensor

from models.flow import Flow
from models.ode.call import SolveCall
from models.ode.transform import ContinuousTransform
from models.transforms.autoregressive import MaskedAutoregressive, Swapped
from models.transforms.circular import CircularShift
from models.transforms.histogram import Histogram
from models.transforms.inverse_softplus import InverseSoftplus
from models.transforms.logistic import LogisticToNormal
from models.transforms.permute import Permute
from models.transforms.preprocess import Dequantise, Logit, ReduceBits, ShiftScale, Standardise
from models.transforms.split import Chain, FactorOut
from models.transforms.squeeze import Flatten, Squeeze
from models.transforms.transform import Transform, apply
from models.transforms.uniform import UniformToNormal

# What always applies, so that every state is a point of data space: preprocessing, what moves
# numbers about, and the base.
_ALWAYS = (
    *(Dequantise, ReduceBits, Standardise, ShiftScale, Logit, InverseSoftplus),
    *(Flatten, Squeeze, Permute, CircularShift),
    *(LogisticToNormal, UniformToNormal),
)
# Makes a state of what a part of the flow gave.
Finish = Callable[[Tensor], Tensor]


class Trajectory:
    """The states between the noise z and the data x that a flow decodes it to.

    A state is what the flow gives where only the layers nearest to the noise are applied, and the
    others leave everything as it is. Of a continuous flow the layers are its equations, of which
    any part of the time can be followed, and all else always applies.

    Args:
        flow: in evaluation mode.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        parts = [part for each in reversed(flow.chain) for part in _parts(each)]
        solved = [part for part in parts if isinstance(part, ContinuousTransform)]
        self._is_continuous = bool(solved)
        self._layers: list[Transform] = [*solved] or [
            part for part in parts if not isinstance(part, _ALWAYS)
        ]
        self._times = [each.time_span for each in solved]
        self._begins_at_end = any(each.data_time == "start" for each in solved)

    def label(self, progress: float) -> str | float:
        """Say what a state is.

        Args:
            progress: 0 is the noise, 1 the data.

        Returns:
            The time of a continuous flow; else how many layers are applied, with the last one's
            name.
        """
        if self._is_continuous:
            total = sum(self._times)
            time = total * (1 - progress if self._begins_at_end else progress)
            return float(f"{time:.6g}")
        count = self._count(progress)
        return f"{count} {_name(self._layers[count - 1])}" if count else "0 noise"

    def decode(self, z: Tensor, context: Tensor | None, progress: float) -> Tensor:
        """Give the state of each row.   z (B, D) -> (B, *event_shape).

        Args:
            context: of a conditional flow.
            progress: 0 is the noise, 1 the data.
        """
        flow, call = self._flow, SolveCall(wants_log_det=False)
        if flow.context_embedding is not None:
            context = flow.context_embedding(context)
        shares = self._shares(progress)
        for transform in reversed(flow.chain):
            z = _decode(transform, z, context, call, shares)
        return z

    def states(self, z: Tensor, context: Tensor | None, progress: Sequence[float]) -> Tensor:
        """Give a state of each row, as `decode` does; rows of the same noise share their layers.

        Args:
            z: (B, D).
            context: of a conditional flow, one a row.
            progress: of each row.

        Returns:
            (B, *event_shape).
        """
        found = z.new_empty(len(z), *self._flow.event_shape)
        if self._is_continuous:
            for now in set(progress):
                rows = [row for row, its in enumerate(progress) if its == now]
                part = None if context is None else context[rows]
                found[rows] = self.decode(z[rows], part, now)
            return found
        seen = z if context is None else torch.cat([z, context.flatten(1)], 1)
        different, which = seen.unique(dim=0, return_inverse=True)
        first = torch.stack([(which == each).nonzero()[0, 0] for each in range(len(different))])
        counts = [self._count(now) for now in progress]
        walk = _Walk(self._flow, None if context is None else context[first], self._shares(0.0))
        states = walk.states(z[first], set(counts))
        for count in set(counts):
            rows = [row for row, its in enumerate(counts) if its == count]
            found[rows] = states[count][which[rows]]
        return found

    def _count(self, progress: float) -> int:
        return round(progress * len(self._layers))

    def _shares(self, progress: float) -> dict[int, float]:
        """How much of each layer is applied, by its id."""
        if not self._is_continuous:
            count = self._count(progress)
            shares = [float(index < count) for index in range(len(self._layers))]
        elif progress == 1:
            shares = [1.0] * len(self._layers)
        else:
            left, shares = progress * sum(self._times), []
            for time in self._times:
                shares.append(min(max(left / time, 0.0), 1.0))
                left -= time
        return {id(layer): share for layer, share in zip(self._layers, shares, strict=True)}


class _Walk:
    """One way through the layers of a discrete flow, and the states that are wanted on it.

    Args:
        flow: that decodes.
        context: of its rows.
        nothing: no share of every layer, see `_decode`.
    """

    def __init__(self, flow: Flow, context: Tensor | None, nothing: Mapping[int, float]) -> None:
        self._parts = [*reversed(flow.chain)]
        if flow.context_embedding is not None:
            context = flow.context_embedding(context)
        self._context = context
        self._nothing = nothing
        self._call = SolveCall(wants_log_det=False)
        self._count = 0
        self._found: dict[int, Tensor] = {}

    def states(self, z: Tensor, counts: Set[int]) -> dict[int, Tensor]:
        """The states after so many layers, by their number."""
        if 0 in counts:
            self._found[0] = self._without(self._parts, z)
        if max(counts):
            self._go_on(self._parts, z, counts, lambda state: state)
        return self._found

    def _go_on(
        self, parts: Sequence[Transform], y: Tensor, counts: Set[int], finish: Finish
    ) -> Tensor:
        """Decode with parts in turn; `finish` makes a state of what comes out of the last."""
        for index, part in enumerate(parts):
            behind = parts[index + 1 :]
            y = self._step(part, y, counts, partial(self._finish, behind, finish))
        return y

    def _step(self, part: Transform, y: Tensor, counts: Set[int], finish: Finish) -> Tensor:
        match part:
            case Chain():
                return self._go_on([*reversed(part.chain)], y, counts, finish)
            case FactorOut():
                kept, fine = part.part(y)
                if part.prior is not None:
                    rest = part.rest
                    fine = self._step(
                        part.prior,
                        fine,
                        counts,
                        lambda v: finish(part.whole(self._without([rest], kept), v)),
                    )
                kept = self._step(part.rest, kept, counts, lambda v: finish(part.whole(v, fine)))
                return part.whole(kept, fine)
        y, _ = apply(part, y, self._context, self._call, decoding=True)
        if id(part) in self._nothing:
            self._count += 1
            if self._count in counts:
                self._found[self._count] = finish(y)
        return y

    def _finish(self, behind: Sequence[Transform], finish: Finish, y: Tensor) -> Tensor:
        return finish(self._without(behind, y))

    def _without(self, parts: Sequence[Transform], y: Tensor) -> Tensor:
        """Decode without the layers."""
        for part in parts:
            y = _decode(part, y, self._context, self._call, self._nothing)
        return y


def _parts(transform: Transform) -> Iterator[Transform]:
    """The transforms that it consists of, in the order of `_decode`."""
    match transform:
        case Chain():
            for each in reversed(transform.chain):
                yield from _parts(each)
        case FactorOut():
            if transform.prior is not None:
                yield from _parts(transform.prior)
            yield from _parts(transform.rest)
        case _:
            yield transform


def _decode(
    transform: Transform,
    y: Tensor,
    context: Tensor | None,
    call: SolveCall,
    shares: Mapping[int, float],
) -> Tensor:
    match transform:
        case Chain():
            for each in reversed(transform.chain):
                y = _decode(each, y, context, call, shares)
            return y
        case FactorOut():
            kept, fine = transform.part(y)
            if transform.prior is not None:
                fine = _decode(transform.prior, fine, context, call, shares)
            return transform.whole(_decode(transform.rest, kept, context, call, shares), fine)
    share = shares.get(id(transform), 1.0)
    if share == 0:
        return _unmoved(transform, y)
    if share < 1 and isinstance(transform, ContinuousTransform):
        return transform.decode_part(y, context, share=share, call=call)
    return apply(transform, y, context, call, decoding=True)[0]


def _unmoved(transform: Transform, y: Tensor) -> Tensor:
    """What stands for a layer that is not applied: the identity, or the least that fits."""
    if isinstance(transform, MaskedAutoregressive) and isinstance(transform.elementwise, Histogram):
        # Behind it is [0, 1]: all values are as likely.
        features = y.shape[1]
        even = UniformToNormal(features, range(features), [0.0], [1.0]).to(y.device)
        return even.decode(y)[0]
    return y


def _name(layer: Transform) -> str:
    return _name(layer.transform) if isinstance(layer, Swapped) else type(layer).__name__
