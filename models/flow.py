"""A normalizing flow: a chain of invertible maps over a standard normal base."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.noise import base_log_prob_torch, base_noise
from models.ode.call import SolveCall
from models.transforms.transform import Transform, apply


@dataclass(frozen=True, slots=True)
class Support:
    """Where the density lives: values outside [low, high] have log_prob = -inf."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a flow says about itself beyond its shapes; all of it is shown to users.

    num_levels: how many values a pixel can take (256 for 8-bit images), None where the data are
        not pixels. With it, bits per dimension have a meaning and PNG bodies are accepted.
    discrete: indices of the features or channels that are whole numbers: uniform noise was added to
        them in training, and the density is that at the middle of their bins of one unit.
    support: the closed box outside which the density is zero, None where it is everywhere.
    num_classes: for a class-conditional flow the number of labels; its context is one-hot and
        clients may send integer labels.
    """

    num_levels: int | None = None
    support: Support | None = None
    num_classes: int | None = None
    discrete: tuple[int, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


class Flow(nn.Module):
    """p(x) = N(f(x); 0, I) |det df/dx|, with f the composition of `transforms` in order.

    x has shape (B, *event_shape). The last transform leaves a flat tensor, so z has shape (B, D),
    D = prod(event_shape), and encode and decode are exact inverses on the whole of it.

    Args:
        transforms: the maps, data side first (preprocessing, then the flow, then `Flatten`).
        event_shape: shape of one x.
        context_shape: shape of one context, None for an unconditional flow.
        context_embedding: a network whose output the transforms see in place of the context.
        facts: what users are told about the data the flow expects.

    `family` and `config` are set by `models.build` and say how to build the same flow again;
    `provenance` and `accuracy` come from a checkpoint. `takes`, where it is set, is the dtype of
    inputs though some weights have a narrower one.

    Reference: Rezende & Mohamed 2015, eq. 5 (arXiv 1505.05770); Papamakarios et al. 2021,
    eq. 6 (arXiv 1912.02762).
    """

    _like: Tensor

    def __init__(
        self,
        transforms: Iterable[Transform],
        event_shape: Sequence[int],
        *,
        context_shape: Sequence[int] | None = None,
        context_embedding: nn.Module | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.event_shape = tuple(event_shape)
        self.context_shape = None if context_shape is None else tuple(context_shape)
        self.context_embedding = context_embedding
        self.facts = facts or Facts()
        self.takes: torch.dtype | None = None
        self.family = ""
        self.config: dict[str, Any] = {}
        self.provenance: dict[str, Any] = {}
        self.accuracy: dict[str, float] = {}
        # Follows `.to` and `.double`, also where there are no weights that could.
        self.register_buffer("_like", torch.zeros(0), persistent=False)

    @property
    def chain(self) -> list[Transform]:
        """The transforms in order, data side first."""
        return cast(list[Transform], list(self.transforms))

    @property
    def features(self) -> int:
        """D, the number of values in one event."""
        return math.prod(self.event_shape)

    @property
    def reproduces_to(self) -> float:
        """Relative error within which two float64 evaluations of this flow agree."""
        return max((t.reproduces_to for t in self.modules() if isinstance(t, Transform)), default=0)

    @property
    def needs_float64(self) -> bool:
        """Whether data in float32 have lost what this flow tells apart, see `Standardise`."""
        return any(t.needs_float64 for t in self.modules() if isinstance(t, Transform))

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype of the weights; inputs are expected in it."""
        if self.takes is not None:
            return self.takes
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point() and tensor is not self._like:
                return tensor.dtype
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self._like.device

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map data to latents, z = f(x).   x (B, *event_shape) -> z (B, D), log_det (B,) in nats.

        Args:
            call: of a continuous flow: how to solve its equations, and what the solves say.

        Raises:
            ValueError: if x or context has the wrong shape.
        """
        self._check("x", x, self.event_shape)
        self._check_context(context, x.shape[0])
        return self._run(x, context, call, decoding=False)

    def decode(
        self, z: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map latents to data, x = f^-1(z).   z (B, D) -> x (B, *event_shape), log_det (B,).

        Args:
            call: as `encode`.

        Raises:
            ValueError: if z or context has the wrong shape.
        """
        self._check("z", z, (self.features,))
        self._check_context(context, z.shape[0])
        return self._run(z, context, call, decoding=True)

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> Tensor:
        """Log-density of the data as given, in nats: log N(z; 0, I) + log_det.

        Returns:
            (B,).
        """
        z, log_det = self.encode(x, context, call=call)
        return base_log_prob_torch(z) + log_det

    def sample(
        self,
        num_samples: int,
        context: Tensor | None = None,
        *,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw x = f^-1(z), z ~ N(0, T^2 I).

        Args:
            context: (num_samples, *context_shape) for a conditional flow.
            temperature: T; the returned log_prob is the model's own (T = 1) whatever T is.
            seed: makes the draw reproducible; see `base_noise`.

        Returns:
            x (num_samples, *event_shape), log_prob (B,).
        """
        noise = base_noise(num_samples, self.features, seed=seed, temperature=temperature)
        z = torch.from_numpy(noise).to(device=self.device, dtype=self.dtype)
        x, log_det = self.decode(z, context)
        return x, base_log_prob_torch(z) - log_det

    def bits_per_dim(self, log_prob: Tensor) -> Tensor:
        """-log_prob / (D ln 2), in bits: comparable between image flows on the same pixels."""
        return -log_prob / (self.features * math.log(2))

    def _run(
        self, value: Tensor, context: Tensor | None, call: SolveCall | None, *, decoding: bool
    ) -> tuple[Tensor, Tensor]:
        # Log-dets of deep image flows add up thousands of nats with opposite signs: float64 here
        # costs one (B,) addition a transform and keeps float32 models right to their own rounding.
        total = value.new_zeros(value.shape[0], dtype=torch.float64)
        if self.context_embedding is not None:
            context = self.context_embedding(context)
        chain = self.chain
        for transform in reversed(chain) if decoding else chain:
            value, log_det = apply(transform, value, context, call, decoding=decoding)
            total = total + log_det
        return value, total.to(value.dtype)

    def _check(self, name: str, value: Tensor, event: tuple[int, ...]) -> None:
        if tuple(value.shape[1:]) != event or value.dim() == 0:
            expected = ", ".join(("*", *map(str, event)))
            raise ValueError(f"{name}: expected shape ({expected}), got {tuple(value.shape)}")

    def _check_context(self, context: Tensor | None, rows: int) -> None:
        if self.context_shape is None:
            if context is not None:
                raise ValueError("context: this flow is unconditional and takes none")
            return
        expected = (rows, *self.context_shape)
        if context is None:
            raise ValueError(f"context: expected shape {expected}, got none")
        if tuple(context.shape) != expected:
            raise ValueError(f"context: expected shape {expected}, got {tuple(context.shape)}")
