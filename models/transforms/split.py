"""Multi-scale architecture: channels factored out on the way, and priors that are learned.

There are no lists of latents: `FactorOut` holds the rest of the flow, so the whole stays one
bijection; a learned prior N(m, s^2) is the affine map z = (x - m) / s over a standard normal.
"""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from models.ode.call import SolveCall
from models.transforms.transform import (
    SolvingTransform,
    Transform,
    apply,
    constant_log_det,
    sum_event,
)

LatentOrder = Literal["fine_first", "coarse_first", "image"]


class Chain(SolvingTransform):
    """y = f_n(... f_1(x)): several transforms as one; its log_det is summed in float64."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    @property
    def chain(self) -> list[Transform]:
        """The transforms in order, data side first."""
        return cast(list[Transform], list(self.transforms))

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._run(x, context, call, decoding=False)

    def decode(
        self, y: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._run(y, context, call, decoding=True)

    def _run(
        self, value: Tensor, context: Tensor | None, call: SolveCall | None, *, decoding: bool
    ) -> tuple[Tensor, Tensor]:
        total = constant_log_det(0, value).double()
        chain = self.chain
        for transform in reversed(chain) if decoding else chain:
            value, log_det = apply(transform, value, context, call, decoding=decoding)
            total = total + log_det
        return value, total


class FactorOut(SolvingTransform):
    """Half of the channels goes on through `rest`, the other half is latent from here.

    With (h, z2) the halves of x: y = [z2, rest(h)] or [rest(h), z2], after z2 went through `prior`.

    - order="fine_first": both flat, z2 (the finer scale) in front: (B, D) (Glow's code);
    - order="coarse_first": both flat, z2 behind: (B, D);
    - order="image": y keeps the shape of x, rest(h) in the place of h; `rest` must keep the shape.

    Args:
        rest: maps h (B, C/2, H, W) to (B, D/2), or to its own shape for order="image".
        event_shape: (C, H, W) of x, C even.
        keep_first: whether h is the first half of the channels.
        prior: maps z2 (B, C/2, H, W) to its own shape, standardising it. (A prior that depends
            on h is a `Coupling` in front of this.)

    Reference: Dinh et al. 2017, section 3.6 (arXiv 1605.08803).
    """

    def __init__(
        self,
        rest: Transform,
        event_shape: Sequence[int],
        *,
        order: LatentOrder = "fine_first",
        keep_first: bool = True,
        prior: Transform | None = None,
    ) -> None:
        super().__init__()
        if order not in get_args(LatentOrder):
            raise ValueError(f"order: expected one of {get_args(LatentOrder)}, got {order!r}")
        if len(event_shape) != 3 or event_shape[0] % 2:
            raise ValueError(
                f"event_shape: expected (C, H, W) with C even, got {tuple(event_shape)}"
            )
        self.rest = rest
        self.prior = prior
        self.order = order
        self.keep_first = keep_first
        self.half_shape = (event_shape[0] // 2, *event_shape[1:])

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, 1)
        kept, fine = (first, second) if self.keep_first else (second, first)
        log_det = constant_log_det(0, x)
        if self.prior is not None:
            fine, log_det = apply(self.prior, fine, context, call, decoding=False)
        kept, rest_log_det = apply(self.rest, kept, context, call, decoding=False)
        return self._join(kept, fine), log_det + rest_log_det

    def decode(
        self, y: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        kept, fine = self.part(y)
        log_det = constant_log_det(0, y)
        if self.prior is not None:
            fine, log_det = apply(self.prior, fine, context, call, decoding=True)
        kept, rest_log_det = apply(self.rest, kept, context, call, decoding=True)
        return self.whole(kept, fine), log_det + rest_log_det

    def part(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Split y into what `rest` and `prior` decode."""
        first, second = y.chunk(2, 1)
        kept_is_first = self.keep_first if self.order == "image" else self.order == "coarse_first"
        kept, fine = (first, second) if kept_is_first else (second, first)
        if self.order != "image":
            fine = fine.unflatten(1, self.half_shape)
        return kept, fine

    def whole(self, kept: Tensor, fine: Tensor) -> Tensor:
        """Put the halves of x together again."""
        return torch.cat((kept, fine) if self.keep_first else (fine, kept), 1)

    def _join(self, kept: Tensor, fine: Tensor) -> Tensor:
        if self.order == "image":
            return torch.cat((kept, fine) if self.keep_first else (fine, kept), 1)
        fine = fine.flatten(1)
        return torch.cat((fine, kept) if self.order == "fine_first" else (kept, fine), 1)


class GaussianPrior(Transform):
    """z = (x - m(c)) exp(-a(c)), so that z ~ N(0, I) makes x ~ N(m(c), exp(a(c))^2).

    m(c) = mean + sum_k c_k mean_context[k], and a(c) alike: for a one-hot context a table with one
    row a class, for a multi-hot one a sum of rows.

    Args:
        shape: of the parameters, broadcast against x: (C, H, W) for one Gaussian an element,
            (C, 1, 1) for one a channel.
        context_features: K, the length of the context vector; None for an unconditional prior.

    Raises:
        ValueError: if the prior is conditional and no context comes.

    Reference: Kingma & Dhariwal 2018, appendix B (arXiv 1807.03039).
    """

    def __init__(self, shape: Sequence[int], *, context_features: int | None = None) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(*shape))
        self.log_std = nn.Parameter(torch.zeros(*shape))
        self.context_features = context_features
        if context_features is not None:
            self.mean_context = nn.Parameter(torch.zeros(context_features, *shape))
            self.log_std_context = nn.Parameter(torch.zeros(context_features, *shape))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_std = self._mean_and_log_std(context)
        log_std = log_std.expand_as(x)
        return (x - mean) * (-log_std).exp(), -sum_event(log_std)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_std = self._mean_and_log_std(context)
        log_std = log_std.expand_as(y)
        return y * log_std.exp() + mean, sum_event(log_std)

    def _mean_and_log_std(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.context_features is None:
            return self.mean, self.log_std
        if context is None:
            raise ValueError(f"context: expected shape (*, {self.context_features}), got none")
        return (
            self.mean + torch.tensordot(context, self.mean_context, 1),
            self.log_std + torch.tensordot(context, self.log_std_context, 1),
        )
