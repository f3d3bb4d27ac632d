"""Continuous flows with small dense fields, solved by one kernel: `models.kernels.solve_kernel`."""

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from models.fold.continuous import FoldedContinuous
from models.fold.field import FoldedField
from models.kernels.refusal import NotFused
from models.kernels.solve_kernel import solve_kernel, stage_weights
from models.ode.call import SolveCall, SolveReport
from models.ode.fields.activations import Activation, Fixed, Swish
from models.ode.fixed_batch import ended_status
from models.ode.steps import StepRule
from models.ode.transform import ODETransform

# A tile holds each row as often as it has features, a whole layer at once: so many numbers, beyond
# which the compiler takes minutes.
MOST_WIDTH = 128
MOST_NUMBERS = 64 * 64
# The least sides of the products of matrices.
_LEAST_SIDE = 16
_SMALL_TILE = 1024


class FusedContinuous(ODETransform):
    """`FoldedContinuous`, every step of a row in one kernel, in float32.

    Args:
        continuous: is left as it is.
        precision: of the products: "ieee" for float32.

    Raises:
        NotFused: there is no kernel for its field.
    """

    weights: Tensor
    stage_weights: Tensor
    frequencies: Tensor

    def __init__(self, continuous: FoldedContinuous, *, precision: str = "ieee") -> None:
        super().__init__()
        field = continuous.field
        if continuous.fixed_steps is not None:
            raise NotFused("steps of one length for every row")
        tile = max(_LEAST_SIDE, _power_of_two(field.features)) * _side(max(field.widths))
        if max(field.widths) > MOST_WIDTH or tile > MOST_NUMBERS:
            raise NotFused(
                f"a field of {field.features} features, {max(field.widths)} wide: up to 64 "
                f"features at 64 units, or 32 at {MOST_WIDTH}, fuse"
            )
        self.field = field
        self.data_time = continuous.data_time
        self.solver = continuous.solver
        self.end_time = continuous.end_time
        self.precision = precision
        self.activation = _activation_name(field)
        self.columns = _side(field.features)
        self.hidden = _side(max(field.widths[:-1]))
        self.num_frequencies = 0 if field.frequencies is None else len(field.frequencies)
        self.register_buffer("weights", self._pack(field))
        self.register_buffer("stage_weights", torch.tensor(stage_weights()).to(self.weights))
        frequencies = torch.zeros(1) if field.frequencies is None else field.frequencies
        self.register_buffer("frequencies", frequencies.to(self.weights))

    def _integrate(
        self, x: Tensor, context: Tensor | None, call: SolveCall | None, *, towards_end: bool
    ) -> tuple[Tensor, Tensor]:
        traced = call is None or call.wants_log_det
        y, log_det, position, step, error, evaluations = self._launch(
            x.contiguous(), self.field.from_context(context), traced=traced, onwards=towards_end
        )
        solved = position == 1
        limits = StepRule.limits(self.solver.rtol, self.solver.atol, x.dtype)
        status = ended_status(solved[:, None], error[:, None], (step < limits.smallest)[:, None])
        y = torch.where(solved[:, None], y, torch.nan)
        log_det = torch.where(solved, log_det, torch.nan) if traced else log_det + torch.nan
        if call is not None:
            zero = torch.zeros_like(log_det)
            call.reports.append(SolveReport(status, evaluations.long(), zero))
        return y, log_det

    def _launch(
        self, x: Tensor, extra: Tensor | None, *, traced: bool, onwards: bool
    ) -> tuple[Tensor, ...]:
        rows = len(x)
        units = _power_of_two(self.field.features) if traced else 1
        tile = max(1, _LEAST_SIDE // units)
        limits = StepRule.limits(self.solver.rtol, self.solver.atol, x.dtype)
        y, columns = torch.empty_like(x), [x.new_zeros(rows) for _ in range(5)]
        beside = x
        if extra is not None:
            beside = x.new_zeros(rows, self.hidden)
            beside[:, : extra.shape[1]] = extra
        options: dict[str, Any] = {
            "FEATURES": self.field.features,
            "COLUMNS": self.columns,
            "HIDDEN": self.hidden,
            "LAYERS": len(self.field.weights),
            "ACTIVATION": self.activation,
            "IS_GATED": self.field.gate_weight is not None,
            "FREQUENCIES": self.num_frequencies,
            "IS_RESIDUAL": self.field.residual,
            "HAS_EXTRA": extra is not None,
            "TRACED": traced,
            "UNITS": units,
            "ROWS": tile,
            "PRECISION": self.precision,
            "num_warps": 4 if units * tile * self.hidden <= _SMALL_TILE else 8,
            "num_stages": 1,
        }
        if rows:
            with torch.cuda.device_of(x):  # Triton launches on the current device
                solve_kernel[(-(-rows // tile),)](
                    x, beside, self.weights, self.stage_weights, self.frequencies, y, *columns,
                    rows, 0.0 if onwards else self.end_time,
                    self.end_time if onwards else -self.end_time,
                    limits.rtol, limits.atol, limits.smallest, limits.largest,
                    float(self.solver.max_evaluations), **options,
                )  # fmt: skip
        return y, *columns

    def _pack(self, field: FoldedField) -> Tensor:
        """Weights (in, out) of each layer, padded with zeros, and its vectors behind them."""
        sides = [self.columns, *[self.hidden] * (len(field.weights) - 1), self.columns]
        parts = []
        offset = 0
        for index, (before, after) in enumerate(pairwise(sides)):
            weight = field.weights[index]
            outputs = slice(offset, offset + len(weight))
            offset += len(weight)
            matrix = weight.new_zeros(before, after)
            matrix[: weight.shape[1], : weight.shape[0]] = weight.T
            vectors = weight.new_zeros(6 + 2 * self.num_frequencies, after)
            for place, vector in enumerate(self._vectors(field, index, outputs)):
                if vector is not None:
                    vectors[place, : len(weight)] = vector
            parts += [matrix.flatten(), vectors.flatten()]
        return torch.cat(parts).detach()

    def _vectors(self, field: FoldedField, index: int, outputs: slice) -> list[Tensor | None]:
        """What `_modulation` of the kernel reads, in its order; None for zeros."""
        is_gated = field.gate_weight is not None
        found: list[Tensor | None] = [
            field.bias[outputs],
            cast(Tensor, field.gate_weight)[outputs, 0] if is_gated else None,
            cast(Tensor, field.gate_bias)[outputs] if is_gated else None,
            None if field.shift is None else field.shift[outputs],
        ]
        last = index == len(field.activations)
        beta = None if last else getattr(field.activations[index], "beta", None)
        found.append(None if beta is None else beta.expand(outputs.stop - outputs.start))
        if field.time_weight is not None:
            found += list(field.time_weight[outputs].T)
        return found


def _activation_name(field: FoldedField) -> str:
    names = {_name(cast(Activation, one)) for one in field.activations}
    if len(names) > 1:
        raise NotFused("a field with several nonlinearities")
    return names.pop()


def _name(one: Activation) -> str:
    if isinstance(one, Swish):
        return "swish"
    if isinstance(one, Fixed):
        return one.name
    raise NotFused(f"a nonlinearity that kernels do not know: {type(one).__name__}")


def _side(width: int) -> int:
    return max(_LEAST_SIDE, _power_of_two(width))


def _power_of_two(number: int) -> int:
    """The least that is not below."""
    return 1 << (number - 1).bit_length()
