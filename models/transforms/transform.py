"""The one interface every invertible map implements."""

import math
from abc import ABC, abstractmethod

from torch import Tensor, nn

from models.ode.call import SolveCall
from models.row_sum import row_sum


class Transform(nn.Module, ABC):
    """An invertible map y = f(x) between tensors with a batch axis in front.

    Both directions return the mapped value and `log_det`, shape (B,), in nats: the log of
    |det J| of the call just made, summed over the event. So for the same pair (x, y) the two
    log-dets cancel. `context` (B, *context_shape) conditions the map; most maps ignore it.

    Attributes:
        reproduces_to: relative error within which two float64 evaluations agree on any machine.
            Closed forms are good to rounding; numerical solvers say what they promise.
    """

    reproduces_to: float = 1e-9

    @property
    def needs_float64(self) -> bool:
        """Whether x in float32 has lost what this map makes of it, say of a timestamp."""
        return False

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map towards the latents, y = f(x).   x (B, ...) -> y (B, ...), log_det (B,)."""

    @abstractmethod
    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map towards the data, x = f^-1(y).   y (B, ...) -> x (B, ...), log_det (B,)."""


class SolvingTransform(Transform):
    """A map that solves equations, or that holds maps which may.

    Its `encode` and `decode` also take the `call` that they are part of: see `SolveCall`.
    """

    @property
    def counts_evaluations(self) -> bool:
        """Whether each of its calls reports what its rows took."""
        return False

    @abstractmethod
    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map towards the latents; equations are solved as `call` says, and report to it."""

    @abstractmethod
    def decode(
        self, y: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map towards the data, likewise."""


def apply(
    transform: Transform,
    value: Tensor,
    context: Tensor | None,
    call: SolveCall | None,
    *,
    decoding: bool,
) -> tuple[Tensor, Tensor]:
    """Encode or decode with one transform of several; `call` goes to those that take it."""
    if isinstance(transform, SolvingTransform):
        solve = transform.decode if decoding else transform.encode
        return solve(value, context, call=call)
    step = transform.decode if decoding else transform.encode
    return step(value, context)


def counts_evaluations(module: nn.Module) -> bool:
    """Whether any part of it reports how many evaluations of a network each row took."""
    parts = module.modules()
    return any(isinstance(part, SolvingTransform) and part.counts_evaluations for part in parts)


def sum_event(values: Tensor) -> Tensor:
    """Sum everything but the batch axis.   (B, ...) -> (B,)."""
    return row_sum(values.flatten(1), 1)


def constant_log_det(value: Tensor | float, like: Tensor) -> Tensor:
    """Give every row of `like` (B, ...) the same log-det.

    Returns:
        (B,).
    """
    return like.new_zeros(like.shape[0]) + value


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Line values (C,) up with axis 1 of `like` (B, C, ...).

    Returns:
        (C, 1, ...).
    """
    return values.view(-1, *[1] * (like.dim() - 2))


def channel_log_det(log_scale: Tensor, like: Tensor) -> Tensor:
    """The log-det of scaling every channel of `like` (B, C, ...) by exp(log_scale) (C,).

    A single log_scale (1,) holds for all channels.

    Returns:
        (B,).
    """
    repeats = math.prod(like.shape[1:]) // len(log_scale)
    return constant_log_det(log_scale.sum() * repeats, like)
