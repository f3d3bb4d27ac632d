"""Mixtures of Gaussians as invertible maps to normal latents.

Given the features before it, every feature of a mixture is a mixture in one variable: its
distribution function F, followed by the inverse of the normal one, makes it a standard normal z.
What these maps say is exact: log_prob of the flow is that of the mixture.

Reference: Rosenblatt 1952, Remarks on a multivariate transformation.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from models.monotone.solver import solve_increasing
from models.ode.while_loop import Carry
from models.row_sum import row_sum
from models.transforms.elementwise import Elementwise
from models.transforms.normal import (
    log_normal_cdfs,
    log_normal_density,
    normal_quantile,
    sign_of,
)
from models.transforms.softplus import softplus
from models.transforms.transform import Transform, sum_event

Deviation = Literal["exp", "softplus", "inverse_softplus"]
Covariance = Literal["diagonal", "full"]
Factor = Literal["covariance", "precision"]

# Between components far apart F hardly rises: there a step of the solver is taken as if the slope
# of logit F were this, or rounding would throw it out of the gap.
_LEAST_LOG_SLOPE = -30.0


def log_deviation(raw: Tensor, deviation: Deviation, offset: float) -> Tensor:
    """log of a component's standard deviation, from what is learned."""
    if deviation == "exp":
        return raw if offset == 0 else torch.log(raw.exp() + offset)
    log_scale = torch.log(softplus(raw) + offset)
    return -log_scale if deviation == "inverse_softplus" else log_scale


class NormalMixture(Elementwise):
    """z = Phi^-1(F(x)), F the distribution function of a mixture of Gaussians in one variable.

    The parameters are K logits of the weights, K means, and K raw deviations. The inverse is solved
    for. Nothing is a probability on the way: z has its digits however far out x is.

    Args:
        components: K.
        deviation: what makes a standard deviation s of a raw a. exp: e^a + offset; softplus:
            log(1 + e^a) + offset; inverse_softplus: one over it.
        offset: see there.

    Raises:
        ValueError: if there is no such deviation.
    """

    def __init__(
        self, components: int, deviation: Deviation = "exp", *, offset: float = 0.0
    ) -> None:
        super().__init__()
        if deviation not in get_args(Deviation):
            raise ValueError(f"deviation: expected one of {get_args(Deviation)}, got {deviation!r}")
        self.components = components
        self.num_params = 3 * components
        self.deviation = deviation
        self.offset = offset

    def first_params(self) -> list[float]:
        # Components that begin alike would stay alike.
        means = torch.linspace(-1, 1, self.components).tolist()
        return [0.0] * self.components + means + [0.0] * self.components

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        at_x = _Distribution.of(x, *self._components(params))
        return at_x.normal, at_x.log_density - log_normal_density(at_x.normal)

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        def function(x: Tensor, given: Carry) -> tuple[Tensor, Tensor]:
            at_x = _Distribution.of(x, *given)
            return at_x.logit, at_x.log_slope.clamp(min=_LEAST_LOG_SLOPE).exp()

        wide = y.double()
        below, above = log_normal_cdfs(wide)
        given = self._components(params.double().expand(*y.shape, -1))
        x = solve_increasing(function, below - above, given)
        log_slope = _Distribution.of(x, *given).log_density - log_normal_density(wide)
        return x.to(y.dtype), -log_slope.to(y.dtype)

    def _components(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, means, raw = params.chunk(3, -1)
        log_weights = logits - _log_sum(logits)[..., None]
        return log_weights, means, log_deviation(raw, self.deviation, self.offset)


class _Distribution(NamedTuple):
    """Logarithms of F, 1 - F and the density at some places."""

    log_below: Tensor
    log_above: Tensor
    log_density: Tensor

    @classmethod
    def of(
        cls, x: Tensor, log_weights: Tensor, means: Tensor, log_deviations: Tensor
    ) -> "_Distribution":
        """x (...), components (..., K)."""
        u = (x[..., None] - means) * (-log_deviations).exp()
        below, above = log_normal_cdfs(u)
        return cls(
            _log_sum(log_weights + below),
            _log_sum(log_weights + above),
            _log_sum(log_weights + log_normal_density(u) - log_deviations),
        )

    @property
    def logit(self) -> Tensor:
        """Of F."""
        return self.log_below - self.log_above

    @property
    def log_slope(self) -> Tensor:
        """Of the logit."""
        return self.log_density - self.log_below - self.log_above

    @property
    def normal(self) -> Tensor:
        """Phi^-1(F), from the smaller tail."""
        sign = sign_of(self.logit)
        return sign * normal_quantile(torch.minimum(self.log_below, self.log_above))


def _log_sum(values: Tensor) -> Tensor:
    """log sum_k exp(a_k).   (..., K) -> (...)."""
    # Where all are -inf, so is the sum.
    largest = values.amax(-1, keepdim=True).detach().clamp(min=torch.finfo(values.dtype).min)
    return row_sum((values - largest).exp()).log() + largest[..., 0]


class _Components(NamedTuple):
    """K Gaussians of D features, for every row or for all.

    Attributes:
        logits: of the weights, (..., K).
        means: (..., K, D).
        raw: of the deviations, (..., K, D).
        below: entries below the diagonal of the factors, row by row, (..., K, D (D - 1) / 2); None
            where there are none.
    """

    logits: Tensor
    means: Tensor
    raw: Tensor
    below: Tensor | None


class GaussianMixture(Transform):
    """A mixture of K Gaussians of D features becomes N(0, I), feature by feature.

    Feature i given those before it is a mixture in one variable: its weights are those of the
    components times their densities of x_<i, its means and deviations those of their conditionals.

    Args:
        features: D.
        components: K.
        covariance: diagonal, or full, then every component has a lower triangular factor.
        factor: of what. covariance: C = L L^T, where the diagonal of L is the deviations;
            precision: C^-1 = A^T A, where the diagonal of A is one over the deviations.
        network: gives what else is learned, of the context; see `first_components`.
        deviation, offset: as in `NormalMixture`.
    """

    def __init__(
        self,
        features: int,
        components: int,
        covariance: Covariance = "full",
        *,
        factor: Factor = "covariance",
        deviation: Deviation = "exp",
        offset: float = 0.0,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.components = components
        self.factor = factor
        self.entries = entries_below(features) if covariance == "full" else 0
        self.elementwise = NormalMixture(components, deviation, offset=offset)
        self.network = network
        if network is None:
            self.learned = nn.Parameter(first_components(features, components, self.entries))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        walk = _Walk(self, self._components(x, context))
        params = []
        for known in x.split(1, 1):
            params.append(walk.params())
            walk.take(known)
        y, log_slope = self.elementwise.encode(x, torch.stack(params, 1))
        return y, sum_event(log_slope)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        walk = _Walk(self, self._components(y, context))
        found, log_slopes = [], []
        for now in y.split(1, 1):
            x, log_slope = self.elementwise.decode(now, walk.params()[:, None])
            walk.take(x)
            found.append(x)
            log_slopes.append(log_slope)
        return torch.cat(found, 1), sum_event(torch.cat(log_slopes, 1))

    def _components(self, like: Tensor, context: Tensor | None) -> _Components:
        """What is learned, one of each a row."""
        sizes = sizes_of(self.features, self.components, self.entries)
        learned = self.learned if self.network is None else self.network(context)
        flat = learned.to(like.dtype).expand(len(like), -1)
        logits, means, raw, *below = flat.split(sizes, 1)
        shape = (self.components, self.features)
        return _Components(
            logits,
            means.unflatten(1, shape),
            raw.unflatten(1, shape),
            below[0].unflatten(1, (self.components, self.entries)) if below else None,
        )


def entries_below(features: int) -> int:
    """How many entries a triangular factor has below its diagonal."""
    return features * (features - 1) // 2


def sizes_of(features: int, components: int, entries: int) -> list[int]:
    """How many numbers are logits, means, raw deviations, and entries below diagonals if any."""
    each = components * features
    return [components, each, each, *([components * entries] if entries else [])]


def first_components(features: int, components: int, entries: int) -> Tensor:
    """What mixtures begin with: standard deviations of 1 around means that differ."""
    parts = [torch.zeros(size) for size in sizes_of(features, components, entries)]
    # Components that begin alike would stay alike.
    parts[1] = torch.randn(components * features)
    return torch.cat(parts)


class _Walk:
    """The components' conditionals of one feature after the other."""

    def __init__(self, mixture: GaussianMixture, components: _Components) -> None:
        self.elementwise = mixture.elementwise
        self.is_precision = mixture.factor == "precision"
        self.components = components
        self.log_weights = components.logits
        # Of every known feature (B, K) each: how far it is from its mean, in deviations given the
        # features before it for a factor of the covariance, as it is for one of the precision.
        self.distances: list[Tensor] = []

    def params(self) -> Tensor:
        """Of the next feature's map.   (B, 3 K)."""
        index = len(self.distances)
        return torch.cat((self.log_weights, self._mean(), self.components.raw[..., index]), 1)

    def take(self, known: Tensor) -> None:
        """The next feature is known, (B, 1)."""
        index = len(self.distances)
        log_scale = self._log_deviation(index)
        u = (known - self._mean()) * (-log_scale).exp()
        distance = known - self.components.means[..., index] if self.is_precision else u
        self.distances.append(distance)
        # Of a value that no component explains all weights would be -inf, and their ratios NaN.
        distance = (0.5 * u.square()).clamp(max=torch.finfo(u.dtype).max ** 0.5)
        self.log_weights = self.log_weights - distance - log_scale

    def _log_deviation(self, index: int) -> Tensor:
        raw = self.components.raw[..., index]
        return log_deviation(raw, self.elementwise.deviation, self.elementwise.offset)

    def _mean(self) -> Tensor:
        """Of the next feature, given those before it.   (B, K)."""
        index = len(self.distances)
        mean, below = self.components.means[..., index], self.components.below
        if below is None or not index:
            return mean
        row = entries_below(index)
        of_row = below[..., row : row + index]
        moved = row_sum(of_row * torch.stack(self.distances, -1))
        if self.is_precision:
            return mean - moved * self._log_deviation(index).exp()
        return mean + moved
