"""What is asked of a drawn flow, at perturbed weights: autograd, the way back, float32, folding."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.flow import Flow
from models.fold import fold
from models.registry import build
from tests.cases import perturb
from tests.random_flows.draw import CONTINUOUS, Drawn

# Largest error that is right, relative to max(1, |value|); continuous flows by their solver.
ALLOWED = {
    "log_det": {False: 1e-8, True: 1e-4},
    "round_trip": {False: 1e-6, True: 1e-4},
    "float32": {False: 1e-2, True: 1e-2},
    "folded": {False: 1e-8, True: 1e-4},
}
_ROWS = 3
# Standard deviation of what is added to every weight: deep image flows explode at more.
_SCALE = dict.fromkeys(("glow", "realnvp_image", "ffjord_image", "tarflow"), 0.1)
_USUAL_SCALE = 0.2
# Pixels that every `reduce_bits` leaves inside the support: the widest bin is 128.
_LOW, _RANGE = 2.0, 120.0
# Where a decoded value or its log-det is larger, the drawn weights are too steep for float64.
_BEYOND = 1e6
# Nearer than this to an end of the support, relative, 1 - sigmoid has lost half of its digits.
_EDGE = 1e-7


@dataclass(frozen=True)
class Errors:
    """Of one flow. Where a check has no meaning it is 0.

    log_det: against slogdet of autograd's Jacobian, in nats over max(1, |log_det|).
    round_trip: of z, and of the two log-dets.
    float32: of log_prob, against float64.
    folded: of the inference form, both directions; discrete flows.
    is_beyond: decoded values are too large, or too near the end of the support, for a way back.
    """

    log_det: float
    round_trip: float
    float32: float
    folded: float
    is_beyond: bool

    def wrong(self, *, continuous: bool) -> list[str]:
        """Which checks fail."""
        return [
            name
            for name, allowed in ALLOWED.items()
            if not getattr(self, name) <= allowed[continuous]
        ]


def make(drawn: Drawn, seed: int) -> Flow:
    """Build what was drawn, in float64, with perturbed weights.

    Raises:
        ValueError: the options do not go together, and the build says so.
    """
    torch.manual_seed(seed)
    flow = build(drawn.family, drawn.config).double().eval()
    return perturb(flow, _SCALE.get(drawn.family, _USUAL_SCALE), seed=seed + 1).requires_grad_(
        False
    )


def measure(flow: Flow, drawn: Drawn, seed: int) -> Errors:
    """Measure the errors of one flow."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = normal(_ROWS, *flow.event_shape)
    if drawn.pixels:
        x = _LOW + _RANGE * torch.sigmoid(x)
    z = normal(_ROWS, flow.features)
    context = None
    if flow.context_shape is not None:
        context = normal(_ROWS, *flow.context_shape)
    encoded, log_det = flow.encode(x, context)
    decoded, back = flow.decode(z, context)
    again, there = flow.encode(decoded, context)
    steepest = max(float(decoded.abs().max()), float(back.abs().max()))
    # The solver gives up on fields that explode, and says so by NaN; so does a clip of latents
    # beyond its bound.
    may_give_up = drawn.family in CONTINUOUS or _clips(drawn.config)
    given_up = may_give_up and math.isnan(steepest)
    # A positive column whose value was rounded to the end of its support.
    is_finite = bool(again.isfinite().all() and there.isfinite().all())
    given_up |= "inverse_softplus" in repr(drawn.config) and not is_finite
    is_beyond = given_up or steepest > _BEYOND or _touches_support(flow, decoded)
    # Its values are integrals by quadrature, its log-dets are not.
    has_quadrature = "monotone_integral" in repr(drawn.config)
    one = None if context is None else context[:1]
    return Errors(
        log_det=0.0 if has_quadrature else _against_autograd(flow, x[:1], one),
        round_trip=0.0 if is_beyond else max_of(relative(again, z), relative(there, -back)),
        float32=_in_float32(flow, x, context),
        folded=0.0
        if drawn.family in CONTINUOUS or is_beyond
        else _folded(flow, (x, encoded, log_det), (z, decoded, back), context),
        is_beyond=is_beyond,
    )


def _clips(config: Any) -> bool:
    layers = config.get("layers", [])
    clipped = any(layer["kind"] == "soft_clip" for layer in layers)
    return clipped or config.get("soft_clip") is not None


def _touches_support(flow: Flow, x: Tensor) -> bool:
    """Whether a value is so far out that rounding it moves its latent."""
    support = flow.facts.support
    if support is None:
        return False
    margin = _EDGE * (support.high - support.low)
    return bool(((x < support.low + margin) | (x > support.high - margin)).any())


def _against_autograd(flow: Flow, x: Tensor, context: Tensor | None) -> float:
    _, log_det = flow.encode(x, context)
    jacobian = torch.autograd.functional.jacobian(
        lambda value: flow.encode(value, context)[0].flatten(), x
    ).reshape(flow.features, flow.features)
    return relative(log_det, torch.linalg.slogdet(jacobian)[1][None])


def _in_float32(flow: Flow, x: Tensor, context: Tensor | None) -> float:
    # The same numbers in both, so that only what is computed differs.
    x, context = x.float(), None if context is None else context.float()
    narrow = copy.deepcopy(flow).float()
    wide_x, wide_context = x.double(), None if context is None else context.double()
    return relative(narrow.log_prob(x, context).double(), flow.log_prob(wide_x, wide_context))


def _folded(
    flow: Flow,
    there: tuple[Tensor, Tensor, Tensor],
    back: tuple[Tensor, Tensor, Tensor],
    context: Tensor | None,
) -> float:
    folded = fold(flow)
    errors = []
    for call, (given, value, log_det) in ((folded.encode, there), (folded.decode, back)):
        got, got_log_det = call(given, context)
        errors += [relative(got, value), relative(got_log_det, log_det)]
    return max_of(*errors)


def relative(got: Tensor, expected: Tensor) -> float:
    """The largest |got - expected| / max(1, |expected|); NaN if there is one."""
    return float(((got - expected).abs() / expected.abs().clamp(min=1)).max())


def max_of(*errors: float) -> float:
    """The largest; NaN if one is."""
    return math.nan if any(math.isnan(error) for error in errors) else max(errors)
