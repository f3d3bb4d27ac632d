"""Writing an imported flow as a model folder, to be served in float32 where that will do."""

import copy
import os

import torch
from torch import Tensor

from models.checkpoints import golden
from models.checkpoints.folder import save
from models.checkpoints.reference import continuous_parts
from models.checkpoints.tolerance import ROWS, keep_promise, use_solver
from models.flow import Flow
from models.importers.likelihood import source_number
from models.importers.report import Report
from models.ode.solver import SolverSettings

# Golden rows are samples; the lower ones are for flows that overflow far from their mode, as those
# of models that were hardly trained do.
_TEMPERATURES = (1.0, 0.7, 0.3, 0.1)


def save_import(flow: Flow, folder: str | os.PathLike[str], report: Report | None = None) -> Flow:
    """Write an imported flow, with golden rows and, for these, the source's own number.

    Weights that float32 holds exactly, the copied ones, are stored in float32, and those that were
    computed in float64. The likelihood in its provenance gains the means over the golden rows of
    our log_prob and of the number that the source reports. A continuous flow is to be solved as
    exactly as the promise takes, in float64 where that is what it takes; the report says so.

    Args:
        flow: of `import_checkpoint`; it is not changed.
        folder: where the files go; an existing model folder is replaced.
        report: of the import; what is found here is noted there too.

    Returns:
        What was written, in the precision of the file.

    Raises:
        CheckpointError: if the flow is not finite, or is not inverted, on samples of its own.
    """
    flow, dtype = _keep_promise(copy.deepcopy(flow), report or Report())
    record = _stable_record(flow)
    written = _narrow(copy.deepcopy(flow))
    likelihood = dict(flow.provenance["likelihood"])
    log_prob = record["log_prob"]
    if log_prob.isfinite().all():
        likelihood["on_golden_rows"] = {
            "log_prob": float(log_prob.mean()),
            "bits_per_dim": float(flow.bits_per_dim(log_prob).mean()),
            "source_number": float(source_number(likelihood, log_prob).mean()),
        }
    written.provenance = {**flow.provenance, "likelihood": likelihood}
    save(written, folder, rows=record, dtype=dtype)
    return written


def _keep_promise(flow: Flow, report: Report) -> tuple[Flow, torch.dtype]:
    """Choose tolerance and precision of a continuous flow; note what was found.

    What sources ask for is below what float32 resolves, and would cost evaluations for nothing.
    """
    parts = continuous_parts(flow)
    if not parts:
        return flow, torch.float32
    usual = SolverSettings(max_evaluations=parts[0].solver.max_evaluations)
    use_solver(flow, usual)
    kept = keep_promise(flow, golden.draw(flow, rows=ROWS))
    use_solver(flow, kept.solver)
    if kept.describe():
        (report.mended if kept.is_kept else report.warning)("solver", kept.describe())
        flow.provenance = {**flow.provenance, "findings": report.items_as_json()}
    return flow, kept.dtype


def _stable_record(flow: Flow) -> golden.Record:
    """Golden rows: samples on which the flow is finite, inverted and stable in float32.

    They are drawn at the highest temperature that allows it.
    """
    short = copy.deepcopy(flow).float()
    for temperature in _TEMPERATURES:
        record = golden.record(flow, golden.draw(flow, temperature))
        if (
            golden.is_finite(record)
            and golden.inverse_error(flow, record) <= golden.INVERSE_TOLERANCE
            and golden.drift(short, record) <= golden.COMPUTE_TOLERANCE
        ):
            break
    return record


def _narrow(flow: Flow) -> Flow:
    """Keep in float32 what float32 holds exactly: nothing is lost, and the file is smaller."""
    for module in flow.modules():
        for parameter in module.parameters(recurse=False):
            parameter.data = _narrowest(parameter.data)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, _narrowest(buffer))
    return flow


def _narrowest(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float64:
        return tensor
    short = tensor.float()
    return short if torch.equal(short.double(), tensor) else tensor
