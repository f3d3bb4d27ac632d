"""Golden rows: a few inputs with the float64 answers a flow gave when it was saved."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.flow import Flow
from models.noise import base_log_prob_torch, base_noise
from models.ode.call import SolveCall

DEFAULT_ROWS = 8
# A float32 flow further than this from its float64 self is not worth serving (relative).
COMPUTE_TOLERANCE = 1e-2
# In float64 even badly conditioned flows invert far better; a wrong mask or order does not.
INVERSE_TOLERANCE = 1e-4

Record = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Rows to remember: x (n, *event_shape) and, for a conditional flow, context."""

    x: Tensor
    context: Tensor | None = None


def draw(flow: Flow, temperature: float = 1.0, *, rows: int = DEFAULT_ROWS) -> Inputs:
    """Draw rows from a flow in float64, always the same ones; every class in turn."""
    noise = base_noise(rows, flow.features, seed=0, temperature=temperature)
    context = None
    if flow.facts.num_classes is not None:
        labels = torch.arange(rows) % flow.facts.num_classes
        context = torch.nn.functional.one_hot(labels, flow.facts.num_classes).double()
    elif flow.context_shape is not None:
        size = torch.Size(flow.context_shape).numel()
        flat = torch.from_numpy(base_noise(rows, size, seed=1))
        context = flat.reshape(rows, *flow.context_shape)
    with torch.no_grad():
        x, _ = flow.decode(torch.from_numpy(noise), context, call=SolveCall(wants_log_det=False))
    return Inputs(x, context)


def record(flow: Flow, rows: Inputs | None = None) -> Record:
    """Compute z and log_prob of `rows` (drawn from the flow where none are given)."""
    rows = rows or draw(flow)
    x = rows.x.to("cpu", torch.float64)
    context = None if rows.context is None else rows.context.to("cpu", torch.float64)
    z, log_prob = _answers(flow, x, context)
    found = {"x": x, "z": z, "log_prob": log_prob}
    return found if context is None else {**found, "context": context}


def shapes(flow: Flow, rows: int) -> dict[str, tuple[int, ...]]:
    """The shapes a record of `rows` rows must have."""
    expected = {
        "x": (rows, *flow.event_shape),
        "z": (rows, flow.features),
        "log_prob": (rows,),
    }
    if flow.context_shape is not None:
        expected["context"] = (rows, *flow.context_shape)
    return expected


def shapes_of(rows: Record) -> dict[str, tuple[int, ...]]:
    """The shapes a record has."""
    return {key: tuple(tensor.shape) for key, tensor in rows.items()}


def is_finite(rows: Record) -> bool:
    """Whether every number of the record is finite."""
    return all(bool(tensor.isfinite().all()) for tensor in rows.values())


@dataclass(frozen=True, slots=True)
class Answers:
    """What a flow says of golden rows: z (n, D), log_prob (n,), in float64 on the CPU."""

    z: Tensor
    log_prob: Tensor

    def drift(self, rows: Record) -> float:
        """How far they are from the record, relative to max(1, |recorded value|)."""
        errors = _relative(self.z, rows["z"]), _relative(self.log_prob, rows["log_prob"])
        return largest(*errors)

    def errors(self, rows: Record) -> dict[str, float]:
        """How far they are from the record.

        Returns:
            log_prob_max_abs_error in nats; z_max_abs_error; golden_rows, their number.
        """
        return {
            "golden_rows": float(len(rows["x"])),
            "log_prob_max_abs_error": _absolute(self.log_prob, rows["log_prob"]),
            "z_max_abs_error": _absolute(self.z, rows["z"]),
        }


def replay(flow: Flow, rows: Record) -> Answers:
    """Let a flow answer golden rows, in its own precision."""
    z, log_prob = _answers(flow, *_inputs(flow, rows))
    return Answers(z.double().cpu(), log_prob.double().cpu())


def drift(flow: Flow, rows: Record) -> float:
    """How far the flow's answers are from the record, relative to max(1, |recorded value|)."""
    return replay(flow, rows).drift(rows)


def largest(*errors: float) -> float:
    """The largest of some errors; NaN where one is NaN, which `max` forgets."""
    return float(torch.tensor(errors, dtype=torch.float64).max())


def inverse_error(flow: Flow, rows: Record) -> float:
    """How far encode(decode(z)) is from the recorded z, relative to max(1, |z|)."""
    error = _inverse_error(flow, rows, SolveCall(wants_log_det=False))
    # Solves for the log-dets too take far longer, and are more exact in z where steps are long:
    # what is inverted well without them does not need them.
    return error if error <= INVERSE_TOLERANCE else _inverse_error(flow, rows)


def _inverse_error(flow: Flow, rows: Record, call: SolveCall | None = None) -> float:
    _, context = _inputs(flow, rows)
    z = rows["z"].to(flow.device, flow.dtype)
    with torch.no_grad():
        x, _ = flow.decode(z, context, call=call)
        again, _ = flow.encode(x, context, call=call)
    return _relative(again.double().cpu(), rows["z"])


def accuracy(flow: Flow, rows: Record, answers: Answers) -> dict[str, float]:
    """What the flow's own precision costs, measured on the golden rows.

    Args:
        answers: of this flow to these rows.

    Returns:
        What `Answers.errors` has, and round_trip_max_abs_error of decode(encode(x)) against x, in
        the data's units.
    """
    back = _decode(flow, rows, answers)
    return {**answers.errors(rows), "round_trip_max_abs_error": _absolute(back, rows["x"])}


def is_decoded(flow: Flow, rows: Record, answers: Answers) -> bool:
    """Whether decode(encode(x)) is finite; without the log-dets, which take most of a solve."""
    back = _decode(flow, rows, answers, SolveCall(wants_log_det=False))
    return bool(back.isfinite().all())


def _decode(flow: Flow, rows: Record, answers: Answers, call: SolveCall | None = None) -> Tensor:
    x, context = _inputs(flow, rows)
    with torch.no_grad():
        back, _ = flow.decode(answers.z.to(x), context, call=call)
    return back.double().cpu()


def _inputs(flow: Flow, rows: Record) -> tuple[Tensor, Tensor | None]:
    x = rows["x"].to(flow.device, flow.dtype)
    context = rows.get("context")
    return x, None if context is None else context.to(x)


def _answers(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        z, log_det = flow.encode(x, context)
    return z, base_log_prob_torch(z) + log_det


def relative_errors(got: Tensor, exact: Tensor) -> Tensor:
    """How far each value is from the exact one, relative to max(1, |exact value|)."""
    return (got - exact).abs() / exact.abs().clamp(min=1)


def _absolute(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max())


def _relative(got: Tensor, expected: Tensor) -> float:
    return float(relative_errors(got, expected).max())
