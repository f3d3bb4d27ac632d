"""How good a flow is on data: likelihood, numerical accuracy, anomaly detection."""

import copy
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.checkpoints import golden
from models.checkpoints.accuracy import measure_accuracy
from models.checkpoints.facts import facts_of
from models.checkpoints.reference import reference
from models.datasets import Dataset, DatasetError
from models.datasets.fit import check_classes_fit, check_rows_fit
from models.flow import Flow
from models.transforms.autoregressive import MaskedAutoregressive
from models.transforms.preprocess import Dequantise

Floats = NDArray[np.float64]
DEFAULT_BATCH_ROWS = 512
# Rows are decoded again until they have so many values, by flows of more passes than that: an
# autoregressive flow of pixels takes long to.
ROUND_TRIP_VALUES, MANY_PASSES = 2**15, 64
# Of the uniform noise on discrete columns, a row.
BOUND_DRAWS = 16


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one flow on one data set.

    Attributes:
        rows: normal rows scored.
        nats: mean of -log_prob over them, in nats a row, without the non-finite rows. For pixels
            and discrete columns: with uniform dequantization noise, which bounds the code length of
            the whole numbers from above.
        nats_standard_error: of that mean.
        bits_per_dim: nats / (D ln 2); None where the data are not pixels.
        bits_per_dim_midpoint: the same for the midpoint of each pixel's bin, which is what a
            server answers.
        float32_max_error, float32_median_error: |log_prob in float32 - exact|, in nats, on the
            first `accuracy_rows` of them; exact is what `models.checkpoints.reference` says.
        accuracy_rows: how many these were; None in older reports.
        log_density_midpoint: mean of log_prob in nats a row with each discrete column at the middle
            of its bin, which is what a server answers; None without discrete columns.
        log_likelihood_bound: lower bound of the mean log-likelihood of the whole numbers (with
            the density of the other columns), log 1/K sum_k p(x + u_k) with K draws of uniform
            noise a row: importance-weighted, so tighter than `-nats`. Burda et al. 2016, eq. 8
            (arXiv 1509.00519).
        bound_draws: K.
        trace: of a continuous flow, "exact" or which estimate of it makes every log_prob; None of
            others.
        round_trip_max_error: |decode(encode(x)) - x| in float32, in units of the data, for x that
            were decoded once (so the pixel levels that `ReduceBits` drops do not count), on the
            first `round_trip_rows` of them.
        round_trip_rows: how many these were: fewer than `accuracy_rows` only where decode takes
            many passes; None in older reports.
        non_finite_rows: rows whose log_prob is infinite or NaN.
        auroc: probability that an anomaly has a lower log_prob than a normal row; None where the
            data mark no anomalies.
        anomalies: anomalous rows scored.
    """

    rows: int
    nats: float
    nats_standard_error: float
    bits_per_dim: float | None
    bits_per_dim_midpoint: float | None
    float32_max_error: float
    float32_median_error: float
    round_trip_max_error: float
    non_finite_rows: int
    auroc: float | None = None
    anomalies: int = 0
    accuracy_rows: int | None = None
    log_density_midpoint: float | None = None
    log_likelihood_bound: float | None = None
    bound_draws: int | None = None
    trace: str | None = None
    round_trip_rows: int | None = None


def evaluate(
    flow: Flow,
    data: Dataset,
    *,
    batch_rows: int = DEFAULT_BATCH_ROWS,
    accuracy_rows: int = 256,
    seed: int = 0,
) -> Evaluation:
    """Score `data` with a flow in evaluation mode.

    Args:
        flow: left as it is, but for its mode, which becomes evaluation.
        data: normal rows and, where `data.anomaly` marks them, anomalies.
        batch_rows: rows a call.
        accuracy_rows: how many rows float32 is compared with exact numbers on.
        seed: of the dequantization noise.

    Raises:
        DatasetError: if the rows do not fit the flow, or all of them are anomalies.
    """
    check_fits(flow, data)
    is_anomaly = np.zeros(len(data), bool) if data.anomaly is None else data.anomaly
    normal, anomalous = data.take(~is_anomaly), data.take(is_anomaly)
    if not len(normal):
        raise DatasetError(f"{data.name}: no normal row to evaluate on; all are anomalies")
    is_pixels = flow.facts.num_levels is not None
    served = log_probs(flow, normal, batch_rows=batch_rows)
    bound = served
    integers: dict[str, Any] = {}
    if is_pixels:
        bound = log_probs(flow, normal, batch_rows=batch_rows, noise_seed=seed)
    elif flow.facts.discrete:
        draws = noisy_log_probs(flow, normal, batch_rows=batch_rows, seed=seed)
        bound, integers = draws.mean(0), _integers(served, draws)
    auroc = None
    if len(anomalous):
        auroc = area_under_roc(-served, -log_probs(flow, anomalous, batch_rows=batch_rows))
    nats, standard_error = _mean(-bound)
    return Evaluation(
        rows=len(normal),
        nats=nats,
        nats_standard_error=standard_error,
        bits_per_dim=_bits(flow, nats) if is_pixels else None,
        bits_per_dim_midpoint=_bits(flow, _mean(-served)[0]) if is_pixels else None,
        **_accuracy(flow, normal.take(np.arange(min(accuracy_rows, len(normal))))),
        non_finite_rows=int((~np.isfinite(served)).sum()),
        trace=flow.facts.notes.get("trace"),
        auroc=auroc,
        anomalies=len(anomalous),
        accuracy_rows=min(accuracy_rows, len(normal)),
        **integers,
    )


def is_dequantised(flow: Flow) -> bool:
    """Whether a flow adds uniform noise while it is trained: on pixels or on discrete columns."""
    return flow.facts.num_levels is not None or bool(flow.facts.discrete)


def check_fits(flow: Flow, data: Dataset) -> None:
    """Compare the data's shape, pixel levels, discrete columns and classes with the flow's.

    Raises:
        DatasetError: naming the first difference.
    """
    facts = facts_of(flow)
    check_rows_fit(facts, data)
    check_classes_fit(facts, data)


def batches(flow: Flow, data: Dataset, batch_rows: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Cut data into tensors the flow takes: x (b, *event_shape) and one-hot context (b, K)."""
    for start in range(0, len(data), batch_rows):
        yield as_tensors(flow, data, np.arange(start, min(start + batch_rows, len(data))))


def as_tensors(
    flow: Flow, data: Dataset, rows: NDArray[Any], *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """The rows given by index as x and, for a class-conditional flow, one-hot context.

    Args:
        dtype: of both; left out, that of the flow.
    """
    dtype = dtype or flow.dtype
    x = torch.from_numpy(np.ascontiguousarray(data.x[rows])).to(flow.device, dtype)
    if flow.facts.num_classes is None or data.labels is None:
        return x, None
    labels = torch.from_numpy(data.labels[rows])
    return x, functional.one_hot(labels, flow.facts.num_classes).to(flow.device, dtype)


@torch.no_grad()
def log_probs(
    flow: Flow,
    data: Dataset,
    *,
    batch_rows: int = DEFAULT_BATCH_ROWS,
    noise_seed: int | None = None,
) -> Floats:
    """log_prob of every row, in nats.

    Args:
        noise_seed: draws dequantization noise with this seed; left out, midpoints are scored.

    Returns:
        (N,).
    """
    flow.eval()
    with _dequantising(flow, noise_seed):
        parts = [flow.log_prob(x, context) for x, context in batches(flow, data, batch_rows)]
    return torch.cat(parts).double().cpu().numpy()


def noisy_log_probs(
    flow: Flow,
    data: Dataset,
    *,
    draws: int = BOUND_DRAWS,
    batch_rows: int = DEFAULT_BATCH_ROWS,
    seed: int = 0,
) -> Floats:
    """log p(x + u) of every row with `draws` independent draws of u, in nats.

    Their mean over the draws and `importance_weighted` are lower bounds of the log-likelihood of
    whole numbers in expectation; the latter is the tighter one.

    Returns:
        (draws, N).
    """
    seeds = np.random.SeedSequence(seed).generate_state(draws)
    each = [
        log_probs(flow, data, batch_rows=batch_rows, noise_seed=int(noise_seed))
        for noise_seed in seeds
    ]
    return np.stack(each)


def importance_weighted(draws: Floats) -> Floats:
    """log 1/K sum_k p(x + u_k).   (K, N) -> (N,)."""
    summed: Floats = np.logaddexp.reduce(draws, axis=0)
    return summed - math.log(len(draws))


def _integers(served: Floats, draws: Floats) -> dict[str, Any]:
    return {
        "log_density_midpoint": _mean(served)[0],
        "log_likelihood_bound": _mean(importance_weighted(draws))[0],
        "bound_draws": len(draws),
    }


def measure_on(flow: Flow, held_out: Dataset, rows: golden.Inputs) -> dict[str, float]:
    """Measure accuracy on all normal rows of held-out data and these golden rows."""
    exact = copy.deepcopy(flow).to("cpu", torch.float64).eval()
    normal = held_out if held_out.anomaly is None else held_out.take(~held_out.anomaly)
    inputs = golden.Inputs(*as_tensors(exact, normal, np.arange(len(normal))))
    return measure_accuracy(flow, golden.record(exact, rows), held_out=inputs)


def area_under_roc(normal: Floats, anomalous: Floats) -> float:
    """P(anomalous > normal) + P(anomalous = normal) / 2, from mid-ranks.

    Args:
        normal: scores of normal rows, higher = more anomalous.
        anomalous: scores of anomalous rows.

    Reference: Hanley & McNeil 1982, "The meaning and use of the area under a ROC curve".
    """
    together = np.concatenate([normal, anomalous])
    _, inverse, counts = np.unique(together, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mid_ranks[inverse][len(normal) :].sum()
    pairs = len(normal) * len(anomalous)
    return float((rank_sum - len(anomalous) * (len(anomalous) + 1) / 2) / pairs)


@contextmanager
def _dequantising(flow: Flow, seed: int | None) -> Iterator[None]:
    # Only the dequantization is put in training mode: batch norm must keep its statistics.
    if seed is None:
        yield
        return
    layers = [module for module in flow.modules() if isinstance(module, Dequantise)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()


def _mean(values: Floats) -> tuple[float, float]:
    """Mean and its standard error over the finite values; infinite where there is none."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return math.inf, math.inf
    return float(finite.mean()), float(finite.std() / math.sqrt(finite.size))


@torch.no_grad()
def _accuracy(flow: Flow, data: Dataset) -> dict[str, Any]:
    # A flow that needs float64 is never served in float32.
    served = torch.float64 if flow.needs_float64 else torch.float32
    narrow, wide = copy.deepcopy(flow).to(served).eval(), reference(flow).to(flow.device)
    with np.errstate(invalid="ignore"):  # inf - inf: rows outside the support agree
        got, exact = log_probs(narrow, data), log_probs(wide, data)
        errors = np.where(got == exact, 0.0, np.abs(got - exact))
    worst = 0.0
    few = data.take(np.arange(min(len(data), _most_round_trips(flow))))
    for x, context in batches(narrow, few, DEFAULT_BATCH_ROWS):
        once = _round_trip(narrow, x, context)
        again = _round_trip(narrow, once, context)
        worst = golden.largest(worst, float((again - once).abs().max()))
    return {
        "float32_max_error": float(errors.max()),
        "float32_median_error": float(np.median(errors)),
        "round_trip_max_error": worst,
        "round_trip_rows": len(few),
    }


def _most_round_trips(flow: Flow) -> int:
    maps = (part for part in flow.modules() if isinstance(part, MaskedAutoregressive))
    if max((part.passes for part in maps), default=1) <= MANY_PASSES:
        return sys.maxsize
    return max(1, ROUND_TRIP_VALUES // flow.features)


def _round_trip(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    z, _ = flow.encode(x, context)
    return flow.decode(z, context)[0]


def _bits(flow: Flow, nats: float) -> float:
    return nats / (flow.features * math.log(2))
