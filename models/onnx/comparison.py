"""Rows on which graphs are compared, what graphs and flows answer, and how far they are apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoints import golden
from models.flow import Flow
from models.noise import base_log_prob_torch, base_noise

BATCH_SIZES = (1, 2, 7, 64)

# Rows that are run in the batches smaller than the largest: these cost a call for every few rows.
_ROWS_IN_SMALL_BATCHES = 24
# Rows that torch evaluates at once: float64 images are large.
_ROWS_AT_A_TIME = 16
# Odd latents, in standard deviations; odd data, in the largest value of the golden rows.
_FAR_LATENTS = (3.0, 6.0)
_FAR_DATA = (3.0, 30.0)


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs of one graph in float64, every value one that the graph's precision holds.

    values: (n, ...); context: (n, ...) or None; kinds: "golden", "random" or "odd", one a row.
    """

    values: Tensor
    context: Tensor | None
    kinds: tuple[str, ...]

    @property
    def is_odd(self) -> Tensor:
        """Which rows are odd ones.

        Returns:
            (n,).
        """
        return torch.tensor([kind == "odd" for kind in self.kinds])

    def count(self) -> dict[str, int]:
        """How many rows there are of each kind."""
        return {kind: self.kinds.count(kind) for kind in ("golden", "random", "odd")}


@dataclass(frozen=True, slots=True)
class Answers:
    """Of a graph or a flow, in float64: values (n, ...) and log_prob (n,).

    unsolved: which rows a graph says it could not solve, where it may, (n,).
    """

    values: Tensor
    log_prob: Tensor
    unsolved: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute errors over all rows: quantiles and maximum."""

    median: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Summarise errors (n,)."""
        # Equal infinities, of data outside the support, have no difference.
        values = values[values.isfinite()]
        if not len(values):
            return cls(0.0, 0.0, 0.0, 0.0)
        median, p90, p99 = np.quantile(values.numpy(), (0.5, 0.9, 0.99)).tolist()
        return cls(median, p90, p99, float(values.max()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One graph beside the flow in float64 and in the graph's own precision.

    allowed: what the error of log_prob may be, in units of max(1, |log_prob|).
    is_batch_invariant: whether every row had the same bits in batches of all sizes.
    """

    decoding: bool
    rows: Rows
    got: Answers
    exact: Answers
    narrow: Answers
    allowed: float
    is_batch_invariant: bool

    @property
    def relative(self) -> Tensor:
        """Errors of log_prob in units of max(1, |log_prob|).

        Returns:
            (n,).
        """
        return relative(self.got.log_prob, self.exact.log_prob)

    @property
    def is_beyond(self) -> Tensor:
        """Odd rows on which nobody can be right, or the graph says that it is not.

        The first are those on which the flow itself, in this precision, misses the tolerance.

        Returns:
            (n,).
        """
        hopeless = relative(self.narrow.log_prob, self.exact.log_prob) > self.allowed
        if self.got.unsolved is not None:
            hopeless = hopeless | self.got.unsolved
        return self.rows.is_odd & hopeless

    @property
    def usual_errors(self) -> tuple[Errors, Errors]:
        """Absolute errors of log_prob and of all values, on rows that are not odd."""
        usual = ~self.rows.is_odd
        log_prob = (self.got.log_prob - self.exact.log_prob).abs()[usual]
        values = (self.got.values - self.exact.values).abs()[usual].flatten()
        return Errors.of(log_prob), Errors.of(values)


def data_rows(flow: Flow, record: golden.Record, random_rows: int, dtype: torch.dtype) -> Rows:
    """Data to encode: the golden rows, samples (or pixels drawn at random), odd rows.

    Args:
        flow: in float64.
        record: its golden rows.
        random_rows: how many are drawn.
        dtype: of the graph.
    """
    record_x = record["x"]
    samples = flow.sample(random_rows, _contexts(flow, record, random_rows), seed=1)[0]
    if flow.facts.num_levels is not None:
        pixels = np.random.default_rng(0).integers(256, size=(random_rows // 2, *flow.event_shape))
        samples[: len(pixels)] = torch.from_numpy(pixels).double()
        checks = torch.arange(flow.features).reshape(flow.event_shape) % 2
        odd = [torch.zeros_like(record_x[0]), torch.full_like(record_x[0], 255), 255 * checks]
    else:
        far = float(record_x.abs().max())
        steps = (0.0, *(sign * far * step for step in _FAR_DATA for sign in (1, -1)))
        odd = [torch.full_like(record_x[0], step) for step in steps]
    if flow.facts.support is not None:
        edges = (flow.facts.support.low, flow.facts.support.high)
        odd += [torch.full_like(record_x[0], edge) for edge in edges]
    return _joined(flow, record, record_x, samples, odd, dtype)


def latent_rows(flow: Flow, record: golden.Record, random_rows: int, dtype: torch.dtype) -> Rows:
    """Latents to decode: those of the golden rows, base noise, odd rows; as `data_rows`."""
    noise = torch.from_numpy(base_noise(random_rows, flow.features, seed=2))
    steps = (0.0, *(sign * step for step in _FAR_LATENTS for sign in (1, -1)))
    odd = [torch.full((flow.features,), step, dtype=torch.float64) for step in steps]
    return _joined(flow, record, record["z"], noise, odd, dtype)


def run_in_batches(session: Any, rows: Rows, dtype: torch.dtype) -> tuple[dict[str, Tensor], bool]:
    """Run a graph on all rows.

    Returns:
        Its outputs in float64, from the largest batches, and whether every row that was run in
        smaller ones too had the same bits there.
    """
    names = [output.name for output in session.get_outputs()]
    first, *others = [given.name for given in session.get_inputs()]
    feed = {first: rows.values.to(dtype).numpy()}
    if others and rows.context is not None:
        feed[others[0]] = rows.context.to(dtype).numpy()
    largest = _run(session, feed, len(rows.kinds), max(BATCH_SIZES))
    is_same = True
    for size in sorted(BATCH_SIZES)[:-1]:
        few = min(_ROWS_IN_SMALL_BATCHES, len(rows.kinds))
        outputs = _run(session, feed, few, size)
        is_same &= all(
            np.array_equal(part, whole[:few], equal_nan=True)
            for part, whole in zip(outputs, largest, strict=True)
        )
    return {
        name: torch.from_numpy(array).double() for name, array in zip(names, largest, strict=True)
    }, is_same


def answers(flow: Flow, rows: Rows, dtype: torch.dtype, *, decoding: bool) -> Answers:
    """What torch says, a few rows at a time; what `dtype` cannot hold is infinite."""
    values, log_probs = [], []
    for start in range(0, len(rows.kinds), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        value = rows.values[part].to(flow.dtype)
        context = None if rows.context is None else rows.context[part].to(flow.dtype)
        if decoding:
            x, log_det = flow.decode(value, context)
            log_probs.append(base_log_prob_torch(value.double()) - log_det.double())
            values.append(x.double())
        else:
            z, log_det = flow.encode(value, context)
            log_probs.append(base_log_prob_torch(z.double()) + log_det.double())
            values.append(z.double())
    return Answers(*(_within(torch.cat(parts), dtype) for parts in (values, log_probs)))


def _within(values: Tensor, dtype: torch.dtype) -> Tensor:
    is_too_large = values.abs() > torch.finfo(dtype).max
    return torch.where(is_too_large, values.sign() * math.inf, values)


def relative(got: Tensor, wanted: Tensor) -> Tensor:
    """|got - wanted| in units of max(1, |wanted|); equal infinities agree, NaN never does."""
    error = (got - wanted).abs() / wanted.abs().clamp(min=1)
    return torch.where(got == wanted, 0.0, error.nan_to_num(math.inf, posinf=math.inf))


def _run(session: Any, feed: dict[str, NDArray[Any]], rows: int, size: int) -> list[NDArray[Any]]:
    """Run the first rows in batches of `size`, the last one filled up with rows from the front."""
    starts = range(0, rows, size)
    found = []
    for start in starts:
        taken = np.arange(start, start + size) % rows
        found.append(session.run(None, {name: array[taken] for name, array in feed.items()}))
    return [np.concatenate(parts)[:rows] for parts in zip(*found, strict=True)]


def _contexts(flow: Flow, record: golden.Record, rows: int) -> Tensor | None:
    """As many contexts as rows: those of the golden rows, again and again."""
    if flow.context_shape is None:
        return None
    return record["context"][torch.arange(rows) % len(record["x"])]


def _joined(
    flow: Flow,
    record: golden.Record,
    known: Tensor,
    drawn: Tensor,
    odd: Sequence[Tensor],
    dtype: torch.dtype,
) -> Rows:
    values = torch.cat((known, torch.stack(list(odd)).double(), drawn)).to(dtype).double()
    context = _contexts(flow, record, len(values))
    if context is not None:
        context = context.to(dtype).double()
    kinds = ("golden",) * len(known) + ("odd",) * len(odd) + ("random",) * len(drawn)
    return Rows(values, context, kinds)
