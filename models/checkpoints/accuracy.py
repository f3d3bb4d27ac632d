"""What `accuracy` says of a model: how far its log_prob is from exact, on which rows, on how many.

What is promised is relative: |log_prob - exact| <= 1e-5 max(1, |log_prob|) for flows of discrete
transforms and 1e-4 of it for continuous ones, in float32, on rows like the data. What was measured
is stated in the same unit and in nats: on held-out rows, samples and golden rows together, and on
odd rows by themselves, where |log_prob| is large and nats are lost with it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.checkpoints import golden
from models.checkpoints.golden import Inputs
from models.checkpoints.promise import PROMISE
from models.checkpoints.reference import reference
from models.flow import Flow
from models.noise import base_log_prob_torch, base_noise
from models.ode.call import SolveCall
from models.ode.transform import is_continuous

SAMPLE_ROWS = 64
PROMISED = 1e-5

_ROWS_AT_A_TIME = 256
_FAR = 10.0  # standard deviations of the samples


@dataclass(frozen=True, slots=True)
class Errors:
    """Of the rows of one kind: how many, and the largest errors of those with a finite answer."""

    rows: int
    nats: float
    relative: float
    non_finite: int


@torch.no_grad()
def measure_accuracy(
    flow: Flow,
    record: golden.Record,
    *,
    held_out: Inputs | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, float]:
    """Compare a flow with `reference`, on everything that is at hand.

    Args:
        flow: with the weights as they are stored.
        record: its golden rows.
        held_out: rows of the data that it was not trained on, all of them, where there are.
        dtype: what it computes in when served; left out, that of its weights.

    Returns:
        golden_rows, held_out_rows, sample_rows: rows like the data; odd_rows: zeros and rows ten
            standard deviations out, of pixels black, white, chequered and random ones.
        log_prob_max_abs_error: nats, on rows like the data;
        log_prob_max_relative_error: the same, relative to max(1, |log_prob|);
        log_prob_promised_relative_error: what that should be at most.
        odd_log_prob_max_abs_error, odd_log_prob_max_relative_error: on odd rows.
        non_finite_rows: rows with a finite exact log_prob that have none here; they are answered
            null, and no error counts them.
        z_max_abs_error, round_trip_max_abs_error: on golden rows, see `golden.accuracy`.
    """
    exact = reference(flow)
    served = copy.deepcopy(flow).to("cpu", dtype or flow.dtype).eval()
    samples = _samples(exact, record)
    rows = {"golden": Inputs(record["x"], record.get("context")), "sample": samples}
    rows["odd"] = _odd_rows(exact, samples)
    if held_out is not None:
        rows["held_out"] = held_out
    wanted = _answers(exact, rows)
    got = _answers(served, rows)
    found = {
        name: _errors(answers.log_prob, wanted[name].log_prob) for name, answers in got.items()
    }
    odd = found.pop("odd")
    return {
        **golden.accuracy(served, record, got["golden"]),
        **{f"{name}_rows": float(errors.rows) for name, errors in found.items()},
        "log_prob_max_abs_error": max(errors.nats for errors in found.values()),
        "log_prob_max_relative_error": max(errors.relative for errors in found.values()),
        "log_prob_promised_relative_error": PROMISE if is_continuous(exact) else PROMISED,
        "odd_rows": float(odd.rows),
        "odd_log_prob_max_abs_error": odd.nats,
        "odd_log_prob_max_relative_error": odd.relative,
        "non_finite_rows": float(sum(part.non_finite for part in (*found.values(), odd))),
    }


def _errors(got: Tensor, wanted: Tensor) -> Errors:
    counted = wanted.isfinite() & got.isfinite()
    nats = (got - wanted).abs()[counted]
    relative = golden.relative_errors(got[counted], wanted[counted])
    lost = wanted.isfinite() & ~got.isfinite()
    return Errors(len(wanted), _largest(nats), _largest(relative), int(lost.sum()))


def _largest(errors: Tensor) -> float:
    return float(errors.max()) if len(errors) else 0.0


def _answers(flow: Flow, rows: Mapping[str, Inputs]) -> dict[str, golden.Answers]:
    """Answer rows of all kinds together: a solve of many rows takes little longer than of few.

    All flows see the same float64 rows: rounding them is part of the error.
    """
    x = torch.cat([part.x for part in rows.values()])
    contexts = [part.context for part in rows.values() if part.context is not None]
    context = torch.cat(contexts) if contexts else None
    z, log_prob = [], []
    for start in range(0, len(x), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        given = None if context is None else context[part].to("cpu", flow.dtype)
        latent, log_det = flow.encode(x[part].to("cpu", flow.dtype), given)
        z.append(latent.double())
        log_prob.append((base_log_prob_torch(latent) + log_det).double())
    sizes = [len(part.x) for part in rows.values()]
    parts = zip(torch.cat(z).split(sizes), torch.cat(log_prob).split(sizes), strict=True)
    return {name: golden.Answers(*both) for name, both in zip(rows, parts, strict=True)}


def _samples(exact: Flow, record: golden.Record) -> Inputs:
    """Always the same ones; contexts are those of the golden rows, again and again."""
    context = record.get("context")
    if context is not None:
        context = context[torch.arange(SAMPLE_ROWS) % len(context)]
    noise = torch.from_numpy(base_noise(SAMPLE_ROWS, exact.features, seed=1))
    x, _ = exact.decode(noise, context, call=SolveCall(wants_log_det=False))
    return Inputs(x, context)


def _odd_rows(exact: Flow, samples: Inputs) -> Inputs:
    shape = exact.event_shape
    signs = (1 - 2 * (torch.arange(exact.features) % 2)).double().reshape(shape)
    levels = exact.facts.num_levels
    if levels is not None:
        white = torch.full(shape, levels - 1.0, dtype=torch.float64)
        pixels = np.random.default_rng(0).integers(levels, size=(4, *shape))
        odd = [0 * white, white, white * (signs > 0), *torch.from_numpy(pixels).double()]
    else:
        centre, spread = samples.x.mean(0), _FAR * samples.x.std(0)
        odd = [0 * centre, *(centre + sign * spread for sign in (1, -1, signs, -signs))]
    context = None if samples.context is None else samples.context[: len(odd)]
    return Inputs(torch.stack(odd), context)
