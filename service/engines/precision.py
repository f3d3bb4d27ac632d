"""The precision of networks as a choice that is certified: refused where it costs too many nats.

A model's networks may compute in less than float32, if what is answered is still right: the error
of log_prob is measured against float64 when the model is loaded, on its golden rows and on odd
ones, and a precision whose error is above the bound is not served.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.flow import Flow
from models.fold import fold
from models.fold.precision import set_precision
from models.noise import base_log_prob_torch
from models.ode.transform import is_continuous
from service.engines.registry import FLOAT32
from service.engines.selection import EngineConfig, EngineUnavailable

_log = logging.getLogger(__name__)

# What a row may be off by, in nats: so much, and so much of |log_prob|. Odd rows are told from
# others by hundreds of nats: there a larger share changes nothing.
BOUND_NATS = 0.01
BOUND_SHARE = 1e-4
ODD_BOUND_SHARE = 0.01
# Where float32 itself is off by more, as in far tails: so many times what it is off by.
_TIMES_FLOAT32 = 2.0
# Latents of odd rows: the mode, and far out along all axes or one.
_FAR = 4.0
_FARTHEST = 8.0
# Data that are so many times as large as golden rows.
_LARGE = 10.0


class PrecisionRefused(EngineUnavailable):
    """A precision is not good enough for a model; the message has the measured error."""


@dataclass(frozen=True, slots=True)
class PrecisionCertificate:
    """What was measured of a precision, in the worst row.

    name: of the precision. max_error_nats: of log_prob there. bound_nats: what it may be there.
    rows: that were measured.
    """

    name: str
    max_error_nats: float
    bound_nats: float
    rows: int

    def describe(self) -> dict[str, Any]:
        """For the card of the model."""
        return asdict(self)


def fold_in_precision(config: EngineConfig) -> tuple[Flow, dict[str, Any]]:
    """Fold a flow, its networks in the precision that the config names.

    Returns:
        The flow, and the certificate for its card; empty for float32.

    Raises:
        PrecisionRefused: that precision is not good enough for this model, or cannot be had.
    """
    folded = fold(config.flow)
    if config.precision == FLOAT32:
        return folded, {}
    if is_continuous(config.flow):
        raise PrecisionRefused(
            f"precision {config.precision}: the steps of continuous flows need float32"
        )
    try:
        set_precision(folded, config.precision)
    except ValueError as error:
        raise PrecisionRefused(f"precision {config.precision}: {error}") from None
    certificate = certify(folded, config)
    _log.info(
        "%s: networks in %s: log_prob is off by %.3g nats at most, where %.3g is allowed (%d rows)",
        config.checkpoint.folder.name,
        *astuple(certificate),
    )
    return folded, certificate.describe()


def certify(flow: Flow, config: EngineConfig) -> PrecisionCertificate:
    """Measure a form of the model's flow against float64, in both directions.

    Args:
        flow: in the precision that the config names, where it computes.
        config: has the model, its golden rows and its exact flow.

    Raises:
        PrecisionRefused: the error of a row is above its bound.
    """
    exact, plain = config.checkpoint.exact, fold(config.flow)
    worst, count = (0.0, BOUND_NATS), 0
    for rows in _trials(exact, config.checkpoint.record):
        wanted = _exact_log_prob(exact, rows, flow)
        allowed = torch.maximum(
            BOUND_NATS + rows.bound_share * wanted.abs(),
            _TIMES_FLOAT32 * _error(plain, rows, exact),
        )
        error = _error(flow, rows, exact)
        counts = wanted.isfinite() & allowed.isfinite()
        count += int(counts.sum())
        for pair in zip(error[counts].tolist(), allowed[counts].tolist(), strict=True):
            worst = max(worst, pair, key=_severity)
    certificate = PrecisionCertificate(config.precision, *worst, count)
    if not worst[0] <= worst[1]:
        raise PrecisionRefused(
            f"precision {config.precision}: log_prob of a row is off by {worst[0]:.3g} nats, at "
            f"most {worst[1]:.3g} is allowed: choose float32, or another precision"
        )
    return certificate


class _Rows(NamedTuple):
    """Rows in float32's values: data, or latents where `are_latents`."""

    values: Tensor
    context: Tensor | None
    are_latents: bool
    bound_share: float


def _trials(exact: Flow, record: dict[str, Tensor]) -> Iterator[_Rows]:
    """Golden rows and odd ones: zeros, large values, far tails; then latents, as they are."""
    x, z, context = record["x"], record["z"], record.get("context")
    far = torch.zeros(4, exact.features, dtype=torch.float64)
    far[1], far[2], far[3, 0] = _FAR, -_FAR, _FARTHEST
    tails, _ = exact.decode(far, _as_many(context, len(far)))
    for values, are_latents, share in (
        (x, False, BOUND_SHARE),
        (z, True, BOUND_SHARE),
        (torch.zeros_like(x[:1]), False, ODD_BOUND_SHARE),
        (_LARGE * x, False, ODD_BOUND_SHARE),
        (tails, False, ODD_BOUND_SHARE),
        (far, True, ODD_BOUND_SHARE),
    ):
        rounded = values.float().double()
        yield _Rows(rounded, _as_many(context, len(values)), are_latents, share)


def _as_many(context: Tensor | None, rows: int) -> Tensor | None:
    """Contexts of golden rows, as often as needed, in float32's values."""
    if context is None:
        return None
    return context[torch.arange(rows) % len(context)].float().double()


@torch.inference_mode()
def _exact_log_prob(exact: Flow, rows: _Rows, flow: Flow) -> Tensor:
    """What float64 says of the rows, or of the samples that `flow` makes of the latents."""
    values = _decoded(flow, rows)[0] if rows.are_latents else rows.values
    return exact.log_prob(values, rows.context)


@torch.inference_mode()
def _error(flow: Flow, rows: _Rows, exact: Flow) -> Tensor:
    """How far log_prob is off, in nats (B,): of data, or of samples where they came to lie."""
    if rows.are_latents:
        values, log_det = _decoded(flow, rows)
        got = base_log_prob_torch(rows.values) - log_det
        wanted = exact.log_prob(values, rows.context)
    else:
        got = flow.log_prob(*_given(flow, rows)).double().cpu()
        wanted = exact.log_prob(rows.values, rows.context)
    error = (got - wanted).abs()
    # No number where there is one: as wrong as can be.
    return torch.where(wanted.isfinite() & ~error.isfinite(), torch.inf, error)


def _decoded(flow: Flow, rows: _Rows) -> tuple[Tensor, Tensor]:
    values, log_det = flow.decode(*_given(flow, rows))
    return values.double().cpu(), log_det.double().cpu()


def _given(flow: Flow, rows: _Rows) -> tuple[Tensor, Tensor | None]:
    context = rows.context
    condition = None if context is None else context.to(flow.device, torch.float32)
    return rows.values.to(flow.device, torch.float32), condition


def _severity(pair: tuple[float, float]) -> float:
    error, allowed = pair
    return error / allowed
