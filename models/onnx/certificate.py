"""The proof that ONNX graphs are the flow they were made from.

The graphs run in onnxruntime against the flow in float64: on its golden rows, on rows drawn from
it, on odd rows (zeros, edges of the value range, far outliers), in batches of several sizes. What
comes out is written beside the graphs; graphs that miss the tolerance are not written at all.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.checkpoints import golden
from models.checkpoints.reference import PROMISE, continuous_parts, reference
from models.flow import Flow
from models.fold import fold
from models.noise import base_log_prob_torch
from models.ode.call import SolveStatus
from models.onnx.comparison import (
    BATCH_SIZES,
    Answers,
    Rows,
    Trial,
    answers,
    data_rows,
    latent_rows,
    relative,
    run_in_batches,
)
from models.onnx.drift import first_drift
from models.onnx.graphs import Graphs
from models.onnx.runtime import open_session

RANDOM_ROWS = 64

_PACKAGES = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


class CertificateError(ValueError):
    """The graphs are not the flow, to the tolerance."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What |graph - float64| may be, in units of max(1, |float64|).

    log_prob: of data, by encode. sample_log_prob: of samples, by decode: x is rounded before the
    networks see it, which costs digits where the flow is steep. x: of decoded values.
    """

    log_prob: float
    sample_log_prob: float
    x: float


TOLERANCES = {
    torch.float32: Tolerance(log_prob=1e-5, sample_log_prob=1e-4, x=1e-3),
    torch.float64: Tolerance(log_prob=1e-8, sample_log_prob=1e-7, x=1e-6),
}

# Continuous flows, against their reference; the graphs solve as the model says.
CONTINUOUS = Tolerance(log_prob=PROMISE, sample_log_prob=1e-3, x=1e-3)


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute errors over all rows: quantiles and maximum."""

    median: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was found; all of it is shown to users.

    Attributes:
        precision: "float32" or "float64", of what the graphs take and give.
        networks: likewise, what the networks inside compute in.
        log_prob, sample_log_prob: errors in nats, of encode and of decode, on all but odd rows.
        bits_per_dim_max: the largest of log_prob's, a dimension.
        log_prob_relative_max: in units of max(1, |log_prob|), on all rows: what is held to the
            tolerance.
        z, x: errors of encoded and decoded values, in their units, on all but odd rows.
        generated: errors of x from the third graph of a continuous flow; None without one.
        round_trip: |decode(encode(x)) - x| with both graphs, for decoded x.
        rows: how many of each kind were run.
        beyond_precision: odd rows left out because the flow itself, run by torch in `precision`,
            misses the tolerance there, or because a graph of fixed steps says that it did not solve
            them.
        is_batch_invariant: whether every row had the same bits in batches of all `batch_sizes`.
    """

    precision: str
    networks: str
    tolerance: Tolerance
    log_prob: Errors
    log_prob_relative_max: float
    bits_per_dim_max: float
    sample_log_prob: Errors
    z: Errors
    x: Errors
    generated: Errors | None
    round_trip: Errors
    rows: dict[str, dict[str, int]]
    beyond_precision: int
    batch_sizes: tuple[int, ...]
    is_batch_invariant: bool
    opset: int
    provider: str
    versions: dict[str, str]

    def describe(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return asdict(self)


@torch.no_grad()
def certify(
    flow: Flow,
    folded: Flow,
    graphs: Graphs,
    record: golden.Record | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    random_rows: int = RANDOM_ROWS,
    may_give_up: bool = False,
) -> Certificate:
    """Hold graphs to the flow they were made from.

    Args:
        flow: not folded, with its weights as they are stored; it is evaluated in float64.
        folded: the folded flow that the graphs were traced from.
        graphs: all of them.
        record: golden rows of `flow`; left out, rows are drawn from it.
        dtype: of what the graphs take and give.
        random_rows: how many more rows are drawn.
        may_give_up: whether the graphs may say of an odd row that they did not solve it.

    Raises:
        CertificateError: says which graph is off, by how much and on what kind of row, and which
            layer drifts first.
    """
    exact = reference(flow)
    narrow = copy.deepcopy(flow).to("cpu", dtype).eval()
    tolerance = CONTINUOUS if continuous_parts(flow) else TOLERANCES[dtype]
    record = golden.record(exact) if record is None else record
    encode, decode = (open_session(m.SerializeToString()) for m in (graphs.encode, graphs.decode))

    def unsolved(found: dict[str, Tensor]) -> Tensor | None:
        return found["status"] != SolveStatus.SOLVED if may_give_up else None

    data = data_rows(exact, record, random_rows, dtype)
    found, encode_is_same = run_in_batches(encode, data, dtype)
    got = Answers(found["z"], found["log_prob"], unsolved(found))
    wanted, same = (answers(one, data, dtype, decoding=False) for one in (exact, narrow))
    there = Trial(False, data, got, wanted, same, tolerance.log_prob)

    latents = latent_rows(exact, record, random_rows, dtype)
    found, decode_is_same = run_in_batches(decode, latents, dtype)
    got_log_prob = base_log_prob_torch(latents.values) - found["log_det"]
    got = Answers(found["x"], got_log_prob, unsolved(found))
    wanted, same = (answers(one, latents, dtype, decoding=True) for one in (exact, narrow))
    back = Trial(True, latents, got, wanted, same, tolerance.sample_log_prob)

    generated, generate_is_same = None, True
    if graphs.generate is not None:
        generate = open_session(graphs.generate.SerializeToString())
        found, generate_is_same = run_in_batches(generate, latents, dtype)
        # It gives values alone: its log_probs are taken to be those of decode.
        generated = replace(back, got=Answers(found["x"], back.got.log_prob, unsolved(found)))

    def drift(trial: Trial, row: int) -> str:
        return _drift(exact, folded, graphs, (trial, row), dtype)

    _require(there, back, generated, tolerance, drift)
    (log_prob, z), (sample_log_prob, x) = _usual_errors(there), _usual_errors(back)
    return Certificate(
        precision=_name(dtype),
        networks=_name(folded.dtype),
        tolerance=tolerance,
        log_prob=log_prob,
        log_prob_relative_max=float(there.relative[~there.is_beyond].max()),
        bits_per_dim_max=log_prob.max / (flow.features * math.log(2)),
        sample_log_prob=sample_log_prob,
        z=z,
        x=x,
        generated=None if generated is None else _usual_errors(generated)[1],
        round_trip=_round_trip(encode, decode, back, dtype),
        rows={"data": data.count(), "latents": latents.count()},
        beyond_precision=int(there.is_beyond.sum() + back.is_beyond.sum()),
        batch_sizes=BATCH_SIZES,
        is_batch_invariant=encode_is_same and decode_is_same and generate_is_same,
        opset=graphs.encode.opset_import[0].version,
        provider=encode.get_providers()[0],
        versions=_versions(),
    )


def _round_trip(encode: Any, decode: Any, back: Trial, dtype: torch.dtype) -> Errors:
    """Encode and decode what was decoded once: bits that a flow drops do not count."""
    x = Rows(back.got.values, back.rows.context, back.rows.kinds)
    z = Rows(run_in_batches(encode, x, dtype)[0]["z"], x.context, x.kinds)
    again = run_in_batches(decode, z, dtype)[0]["x"]
    return _errors((again - x.values).abs()[~x.is_odd].flatten())


def _require(
    there: Trial,
    back: Trial,
    generated: Trial | None,
    tolerance: Tolerance,
    drift: Callable[[Trial, int], str],
) -> None:
    """Raise on the worst row that misses a tolerance.

    Raises:
        CertificateError: names graph, row and layer.
    """
    held = [
        ("encode: log_prob", there, there.relative, tolerance.log_prob),
        ("decode: log_prob of samples", back, back.relative, tolerance.sample_log_prob),
    ]
    for name, trial in (("decode", back), ("generate", generated)):
        if trial is not None:
            x = relative(trial.got.values, trial.exact.values).flatten(1).amax(1)
            held.append((f"{name}: x", trial, x, tolerance.x))
    for name, trial, errors, allowed in held:
        judged = errors.masked_fill(trial.is_beyond, 0)
        row = int(judged.argmax())
        if judged[row] > allowed:
            raise CertificateError(
                f"{name}: off by {float(judged[row]):.3g} on one of the {trial.rows.kinds[row]} "
                f"rows, at most {allowed:.3g} is allowed (in units of max(1, |value|)); the first "
                f"layer that drifts: {drift(trial, row)}; serve this model with torch"
            )


def _drift(
    exact: Flow, folded: Flow, graphs: Graphs, worst: tuple[Trial, int], dtype: torch.dtype
) -> str:
    trial, row = worst
    one = slice(row, row + 1)
    context = None if trial.rows.context is None else trial.rows.context[one]
    scale = max(1.0, float(trial.exact.log_prob[row].abs()))
    return first_drift(
        folded,
        fold(exact),
        trial.rows.values[one],
        context,
        decoding=trial.decoding,
        tolerance=trial.allowed * scale,
        dtype=dtype,
        opset=graphs.encode.opset_import[0].version,
    )


def _usual_errors(trial: Trial) -> tuple[Errors, Errors]:
    """Absolute errors of log_prob and of all values, on rows that are not odd."""
    usual = ~trial.rows.is_odd
    log_prob = (trial.got.log_prob - trial.exact.log_prob).abs()[usual]
    values = (trial.got.values - trial.exact.values).abs()[usual].flatten()
    return _errors(log_prob), _errors(values)


def _errors(values: Tensor) -> Errors:
    # Equal infinities, of data outside the support, have no difference.
    values = values[values.isfinite()]
    if not len(values):
        return Errors(0.0, 0.0, 0.0, 0.0)
    median, p90, p99 = np.quantile(values.numpy(), (0.5, 0.9, 0.99)).tolist()
    return Errors(median, p90, p99, float(values.max()))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
