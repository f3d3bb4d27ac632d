"""From a flow, or a model folder, to certified ONNX graphs."""

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch

from models.checkpoints import golden
from models.checkpoints.files import written
from models.checkpoints.folder import (
    DTYPES,
    Checkpoint,
    CheckpointError,
    digest,
    load_checkpoint,
    read_manifest,
)
from models.flow import Flow
from models.fold import fold
from models.fold.continuous import FoldedContinuous, fold_continuous
from models.ode.fields import UNetDynamics
from models.ode.transform import ContinuousTransform, is_continuous
from models.onnx.binding import Binding, bind
from models.onnx.certificate import RANDOM_ROWS, Certificate, CertificateError, certify
from models.onnx.fixed_steps import MAX_FIXED_STEPS, check_steps
from models.onnx.graphs import Graphs, build_graphs
from models.onnx.names import (
    ANSWERS_FILE,
    CERTIFICATE_FILE,
    DEFAULT_OPSET,
    DIGESTS,
    MODEL,
    architecture_digest,
)
from models.onnx.runtime import SessionError
from models.onnx.stages import OnStage, silent

# What one protobuf message can hold; weights in a second file are refused when loaded, so they
# are not written either.
MAX_GRAPH_BYTES = 2**31 - 1

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "fp64": torch.float64}

# Measured on the flows of this project. The promise is 1e-5 of log_prob.
_REFUSED = {
    "fp16": "networks in float16 change log_prob by up to 1e-3 of itself, splines by 2e-2, and "
    "onnxruntime has no float16 kernels on x86 CPUs",
    "int8": "networks in int8 change log_prob by up to 0.04 bits a dimension and were slower than "
    "float32 on CPUs",
}


class ExportError(ValueError):
    """A flow cannot be exported as asked."""


@dataclass(frozen=True, slots=True)
class Export:
    """The graphs and the proof that they are the flow.

    metadata: what is written into all graphs: family, digests of config and weights, shapes,
        units, the certificate.
    binding: to the model folder, where they were made of one.
    """

    graphs: Graphs
    certificate: Certificate
    binding: Binding | None = None

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write encode.onnx, decode.onnx and certificate.json: all, or none where one fails.

        certificate.json holds the SHA-256 of each graph beside what was measured. A continuous flow
        has a generate.onnx too. Of a model folder there is what serving without torch needs: the
        facts of the model in certificate.json, and answers.safetensors.

        Raises:
            ExportError: if a graph is too large for one file.
            OSError: if they cannot be written.
        """
        target = Path(folder)
        is_new = not target.exists()
        target.mkdir(parents=True, exist_ok=True)
        files = {f"{model.graph.name}.onnx": _serialised(model) for model in self.graphs.all}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        described = {**self.certificate.describe(), DIGESTS: digests}
        if self.binding is not None:
            described[MODEL] = self.binding.facts.model_dump(mode="json")
            files[ANSWERS_FILE] = self.binding.answers
        text = json.dumps(described, indent=2, allow_nan=False) + "\n"
        files[CERTIFICATE_FILE] = text.encode()
        try:
            with ExitStack() as all_written:
                for name, content in files.items():
                    all_written.enter_context(written(target / name)).write_bytes(content)
        except OSError:
            if is_new:
                target.rmdir()
            raise


def export(
    flow: Flow,
    *,
    precision: str = "fp32",
    opset: int = DEFAULT_OPSET,
    record: golden.Record | None = None,
    weights_digest: str = "",
    random_rows: int = RANDOM_ROWS,
    fixed_steps: int | None = None,
    on_stage: OnStage = silent,
) -> Export:
    """Fold a flow, trace both directions and certify the graphs.

    Args:
        flow: with its weights as they are stored.
        precision: "fp32" or "fp64", of inputs, networks and outputs.
        opset: version of the ONNX operators.
        record: golden rows; left out, rows are drawn from the flow.
        weights_digest: of the weights file, see `checkpoint.digest`; what binds the graphs to it.
        random_rows: rows drawn for the certificate beside golden and odd ones.
        fixed_steps: of a continuous flow: every row takes this many equal steps, and the graphs
            have no `Loop`. Rows for which they are not accurate enough are NaN, their status says
            so.
        on_stage: is told what begins: some of it takes minutes.

    Raises:
        ExportError: if the flow or the precision cannot be exported, or steps are fixed where there
            are none.
        UnsupportedOperator: if the flow does something that has no form in ONNX here.
        CertificateError: if the graphs are not the flow.
        SessionError: if onnxruntime cannot run them.
    """
    _check_choices(flow, precision, fixed_steps)
    exact = copy.deepcopy(flow).to("cpu", torch.float64)
    if fixed_steps is not None and record is not None:
        on_stage(f"solving golden rows in {fixed_steps} steps")
        fold_with = partial(_fold, exact, PRECISIONS[precision], is_exact=False)
        check_steps(fold_with, record, fixed_steps)

    def attempt(*, is_exact: bool) -> Export:
        on_stage("folding and tracing the flow")
        folded = _fold(exact, PRECISIONS[precision], fixed_steps, is_exact=is_exact)
        dtype, may_give_up = PRECISIONS[precision], fixed_steps is not None
        graphs = build_graphs(folded, dtype, opset)
        options: dict[str, Any] = {"dtype": dtype, "random_rows": random_rows}
        options |= {"may_give_up": may_give_up, "on_stage": on_stage}
        certificate = certify(exact, folded, graphs, record, **options)
        return Export(graphs, certificate)

    try:
        made = attempt(is_exact=False)
    except CertificateError as error:
        if fixed_steps is not None:
            raise CertificateError(f"{error}; or take more than {fixed_steps} steps") from None
        # Flows too steep for float32 inside may do with float64 there, where it can be had.
        try:
            made = attempt(is_exact=True)
        except (CertificateError, SessionError):
            raise error from None
    _describe(made, flow, weights_digest)
    return made


def _check_choices(flow: Flow, precision: str, fixed_steps: int | None) -> None:
    if precision in _REFUSED:
        raise ExportError(f"precision: {precision} is not offered: {_REFUSED[precision]}")
    if precision not in PRECISIONS:
        known = ", ".join((*PRECISIONS, *_REFUSED))
        raise ExportError(f"precision: expected one of {known}, got {precision!r}")
    if flow.needs_float64 and precision != "fp64":
        raise ExportError(
            f"precision: expected fp64, got {precision}: the mean of a column is so far from 0, in "
            "its standard deviations, that its values fall together in float32"
        )
    if fixed_steps is not None and not 1 <= fixed_steps <= MAX_FIXED_STEPS:
        raise ExportError(f"fixed_steps: expected 1 .. {MAX_FIXED_STEPS}, got {fixed_steps}")
    if fixed_steps is not None and not is_continuous(flow):
        raise ExportError("fixed_steps: only continuous flows take steps")
    for part in flow.modules():
        if isinstance(part, ContinuousTransform):
            _check_continuous(part, fixed_steps)


def _check_continuous(part: ContinuousTransform, fixed_steps: int | None) -> None:
    is_unet = isinstance(part.dynamics, UNetDynamics)
    if is_unet and part.probes is not None:
        raise ExportError(
            "log_prob of this U-Net is Hutchinson's estimate, whose standard error graphs do not "
            "give: serve it with torch, or build it with divergence.evaluation = 'exact'"
        )
    if is_unet and fixed_steps is not None:
        raise ExportError("fixed_steps: expected a dense field, got a U-Net; leave it out")
    if not is_unet and fold_continuous(part) is part:
        raise ExportError(
            "continuous flows are exported where their fields are dense or U-Nets, with an exact "
            "trace, and this one's are not: serve it with torch"
        )


def _fold(exact: Flow, dtype: torch.dtype, fixed_steps: int | None, *, is_exact: bool) -> Flow:
    folded = fold(exact, dtype=dtype, is_exact=is_exact)
    for part in folded.modules():
        if isinstance(part, FoldedContinuous):
            part.fixed_steps = fixed_steps
    return folded


def export_folder(
    folder: str | os.PathLike[str],
    *,
    precision: str | None = None,
    opset: int = DEFAULT_OPSET,
    fixed_steps: int | None = None,
    on_stage: OnStage = silent,
) -> Export:
    """Export a model folder; its golden rows are part of the proof.

    Args:
        folder: the model's.
        precision: as `export`; left out, that in which config.json says the model is served.
        opset: version of the ONNX operators.
        fixed_steps: of a continuous flow, see `export`.
        on_stage: as `export`.

    Raises:
        CheckpointError: if the folder is not a model.
        ExportError, UnsupportedOperator, CertificateError: as `export`.
    """
    on_stage("loading the model")
    checkpoint = _load(folder, precision)
    made = export(
        checkpoint.exact,
        precision=precision or _usual_precision(Path(folder), checkpoint.exact),
        opset=opset,
        record=checkpoint.record,
        weights_digest=digest(folder),
        fixed_steps=fixed_steps,
        on_stage=on_stage,
    )
    return replace(made, binding=bind(checkpoint, made.certificate.precision))


def _load(folder: str | os.PathLike[str], precision: str | None) -> Checkpoint:
    """Load a folder as it would be served in a precision, in float64 where it cannot be."""
    try:
        return load_checkpoint(folder, dtype=PRECISIONS.get(precision or ""))
    except CheckpointError:
        return load_checkpoint(folder, dtype=torch.float64)


def config_digest(flow: Flow) -> str:
    """SHA-256 of family and config in canonical JSON, in hex."""
    return architecture_digest(flow.family, flow.config)


def _usual_precision(folder: Path, flow: Flow) -> str:
    if flow.needs_float64:
        return "fp64"
    dtype = DTYPES[read_manifest(folder).dtype]
    return next(name for name, one in PRECISIONS.items() if one == dtype)


def _describe(made: Export, flow: Flow, weights_digest: str) -> None:
    """Write into all graphs what they are graphs of."""
    facts: Mapping[str, Any] = {
        "family": flow.family,
        "config_sha256": config_digest(flow),
        "weights_sha256": weights_digest,
        "event_shape": list(flow.event_shape),
        "context_shape": None if flow.context_shape is None else list(flow.context_shape),
        "units": "log_det and log_prob in nats; x as users have it; z standard normal",
        "certificate": made.certificate.describe(),
    }
    texts = {
        name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()
    }
    for model in made.graphs.all:
        onnx.helper.set_model_props(model, texts)


def _serialised(model: onnx.ModelProto) -> bytes:
    if model.ByteSize() > MAX_GRAPH_BYTES:
        raise ExportError(
            f"{model.graph.name}: the graph takes {model.ByteSize()} bytes, one file can hold "
            f"{MAX_GRAPH_BYTES}; serve this model with torch"
        )
    return bytes(model.SerializeToString())
