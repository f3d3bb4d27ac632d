"""The proof that ONNX graphs are the flow they were made from.

The graphs run in onnxruntime against the flow in float64: on its golden rows, on rows drawn from
it, on odd rows (zeros, edges of the value range, far outliers), in batches of several sizes. What
comes out is written beside the graphs; graphs that miss the tolerance are not written at all.
"""

import copy
import math
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.checkpoints import golden
from models.checkpoints.reference import continuous_parts, reference
from models.flow import Flow
from models.fold import fold
from models.noise import base_log_prob_torch
from models.ode.call import SolveStatus
from models.onnx.comparison import (
    BATCH_SIZES,
    Answers,
    Comparison,
    Errors,
    Rows,
    answers,
    data_rows,
    latent_rows,
    relative,
    run_in_batches,
)
from models.onnx.drift import first_drift
from models.onnx.graphs import Graphs
from models.onnx.runtime import open_session
from models.onnx.stages import OnStage, silent
from models.onnx.tolerance import CONTINUOUS, TOLERANCES, Tolerance

RANDOM_ROWS = 64

_PACKAGES = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


class CertificateError(ValueError):
    """The graphs are not the flow, to the tolerance."""


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


class _Subject(NamedTuple):
    """What is certified, and against what.

    exact: the flow in float64, its equations solved tighter; narrow: in the graphs' precision.
    folded: what these were traced from. encode, decode: sessions of the first two graphs.
    """

    exact: Flow
    narrow: Flow
    folded: Flow
    graphs: Graphs
    encode: Any
    decode: Any
    dtype: torch.dtype
    tolerance: Tolerance
    may_give_up: bool


class _Comparisons(NamedTuple):
    """Every graph beside the flow; generate's log_probs are those of decode."""

    encode: Comparison
    decode: Comparison
    generate: Comparison | None


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
    on_stage: OnStage = silent,
) -> Certificate:
    """Hold graphs to the flow they were made from.

    Args:
        flow: not folded, with its own weights; it is evaluated in float64.
        folded: the folded flow that the graphs were traced from.
        graphs: all of them.
        record: golden rows of `flow`; left out, rows are drawn from it.
        dtype: of what the graphs take and give.
        random_rows: how many more rows are drawn.
        may_give_up: whether the graphs may say of an odd row that they did not solve it.
        on_stage: is told what begins.

    Raises:
        CertificateError: says which graph is off, by how much and on what kind of row, and which
            layer drifts first.
    """
    exact = reference(flow)
    narrow = copy.deepcopy(flow).to("cpu", dtype).eval()
    tolerance = CONTINUOUS if continuous_parts(flow) else TOLERANCES[_name(dtype)]
    record = golden.record(exact) if record is None else record
    on_stage("opening encode.onnx in onnxruntime")
    encode = open_session(graphs.encode.SerializeToString())
    on_stage("opening decode.onnx in onnxruntime")
    decode = open_session(graphs.decode.SerializeToString())
    on_stage("drawing rows to compare")
    subject = _Subject(exact, narrow, folded, graphs, encode, decode, dtype, tolerance, may_give_up)
    data = data_rows(exact, record, random_rows, dtype)
    latents = latent_rows(exact, record, random_rows, dtype)
    on_stage("comparing encode.onnx with the flow")
    encoded = _compare(subject, encode, data, decoding=False)
    on_stage("comparing decode.onnx with the flow")
    decoded = _compare(subject, decode, latents, decoding=True)
    if graphs.generate is not None:
        on_stage("comparing generate.onnx with decode.onnx")
    compared = _Comparisons(encoded, decoded, _compare_generate(subject, decoded))
    _require(subject, compared)
    return _certificate(subject, compared)


def _compare(subject: _Subject, session: Any, rows: Rows, *, decoding: bool) -> Comparison:
    """Run the graph of encode or decode on all rows, and the flow in both precisions."""
    found, is_invariant = run_in_batches(session, rows, subject.dtype)
    if decoding:
        value, allowed = found["x"], subject.tolerance.sample_log_prob
        log_prob = base_log_prob_torch(rows.values) - found["log_det"]
    else:
        value, allowed = found["z"], subject.tolerance.log_prob
        log_prob = found["log_prob"]
    exact, narrow = (
        answers(flow, rows, subject.dtype, decoding=decoding)
        for flow in (subject.exact, subject.narrow)
    )
    got = Answers(value, log_prob, _unsolved(subject, found))
    return Comparison(decoding, rows, got, exact, narrow, allowed, is_invariant)


def _compare_generate(subject: _Subject, decode: Comparison) -> Comparison | None:
    """The third graph of a continuous flow, which gives values alone; None without one."""
    if subject.graphs.generate is None:
        return None
    session = open_session(subject.graphs.generate.SerializeToString())
    found, is_invariant = run_in_batches(session, decode.rows, subject.dtype)
    got = Answers(found["x"], decode.got.log_prob, _unsolved(subject, found))
    return replace(decode, got=got, is_batch_invariant=is_invariant)


def _unsolved(subject: _Subject, found: dict[str, Tensor]) -> Tensor | None:
    """Which rows a graph says it could not solve, where it may.

    Returns:
        (n,).
    """
    return found["status"] != SolveStatus.SOLVED if subject.may_give_up else None


def _certificate(subject: _Subject, compared: _Comparisons) -> Certificate:
    encode, decode, generate = compared
    (log_prob, z), (sample_log_prob, x) = encode.usual_errors, decode.usual_errors
    return Certificate(
        precision=_name(subject.dtype),
        networks=_name(subject.folded.dtype),
        tolerance=subject.tolerance,
        log_prob=log_prob,
        log_prob_relative_max=float(encode.relative[~encode.is_beyond].max()),
        bits_per_dim_max=log_prob.max / (subject.exact.features * math.log(2)),
        sample_log_prob=sample_log_prob,
        z=z,
        x=x,
        generated=None if generate is None else generate.usual_errors[1],
        round_trip=_round_trip(subject, decode),
        rows={"data": encode.rows.count(), "latents": decode.rows.count()},
        beyond_precision=int(encode.is_beyond.sum() + decode.is_beyond.sum()),
        batch_sizes=BATCH_SIZES,
        is_batch_invariant=all(one.is_batch_invariant for one in compared if one is not None),
        opset=subject.graphs.encode.opset_import[0].version,
        provider=subject.encode.get_providers()[0],
        versions=_versions(),
    )


def _round_trip(subject: _Subject, decoded: Comparison) -> Errors:
    """Encode and decode what was decoded once: bits that a flow drops do not count."""
    x = Rows(decoded.got.values, decoded.rows.context, decoded.rows.kinds)
    z = Rows(run_in_batches(subject.encode, x, subject.dtype)[0]["z"], x.context, x.kinds)
    again = run_in_batches(subject.decode, z, subject.dtype)[0]["x"]
    return Errors.of((again - x.values).abs()[~x.is_odd].flatten())


def _require(subject: _Subject, compared: _Comparisons) -> None:
    """Raise on the worst row that misses a tolerance.

    Raises:
        CertificateError: names graph, row and layer.
    """
    encode, decode, generate = compared
    _require_within("encode: log_prob", encode, encode.relative, encode.allowed, subject)
    _require_within("decode: log_prob of samples", decode, decode.relative, decode.allowed, subject)
    for name, one in (("decode: x", decode), ("generate: x", generate)):
        if one is not None:
            x = relative(one.got.values, one.exact.values).flatten(1).amax(1)
            _require_within(name, one, x, subject.tolerance.x, subject)


def _require_within(
    name: str, compared: Comparison, errors: Tensor, allowed: float, subject: _Subject
) -> None:
    counted = errors.masked_fill(compared.is_beyond, 0)
    row = int(counted.argmax())
    if counted[row] > allowed:
        raise CertificateError(
            f"{name}: off by {float(counted[row]):.3g} on one of the {compared.rows.kinds[row]} "
            f"rows, at most {allowed:.3g} is allowed (in units of max(1, |value|)); the first "
            f"layer that drifts: {_drift(subject, compared, row)}; serve this model with torch"
        )


def _drift(subject: _Subject, compared: Comparison, row: int) -> str:
    one = slice(row, row + 1)
    context = None if compared.rows.context is None else compared.rows.context[one]
    scale = max(1.0, float(compared.exact.log_prob[row].abs()))
    return first_drift(
        subject.folded,
        fold(subject.exact),
        compared.rows.values[one],
        context,
        decoding=compared.decoding,
        tolerance=compared.allowed * scale,
        dtype=subject.dtype,
        opset=subject.graphs.encode.opset_import[0].version,
    )


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
