"""Rows of an answer that have no numbers, and why: a status, a reason, and one code for both."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from service.codec.tensors import Array, is_finite
from service.codec.valid_rows import INFINITE, MISSING_VALUE, NAN, OUT_OF_BOUNDS, TOO_LARGE, Reasons
from service.contracts import InferenceResult

_SOLVER, _OUTSIDE = "solver_failed", "outside_support"
_NUMBER, _INPUT = "not_a_number", "invalid_input"

# Status and reason of each code; 1 to 3 are numbered by `models.ode.solver.SolveStatus`.
CODES = (
    ("answered", ""),
    (_SOLVER, "budget_spent"),
    (_SOLVER, "step_underflow"),
    (_SOLVER, "non_finite"),
    (_OUTSIDE, OUT_OF_BOUNDS),
    (_OUTSIDE, "density_underflow"),
    (_NUMBER, NAN),
    (_NUMBER, INFINITE),
    (_INPUT, MISSING_VALUE),
    (_INPUT, NAN),
    (_INPUT, INFINITE),
    (_INPUT, TOO_LARGE),
)
STATUSES = (_SOLVER, _OUTSIDE, _NUMBER, _INPUT)
# Of invalid rows; pixels that are none lie outside of the support.
_CODE_OF = {reason: code for code, (status, reason) in enumerate(CODES) if status == _INPUT} | {
    OUT_OF_BOUNDS: CODES.index((_OUTSIDE, OUT_OF_BOUNDS))
}
_AT_BOUNDS = CODES.index((_OUTSIDE, OUT_OF_BOUNDS))
_UNDERFLOW = CODES.index((_OUTSIDE, "density_underflow"))
_IS_NAN = CODES.index((_NUMBER, NAN))
_IS_INFINITE = CODES.index((_NUMBER, INFINITE))

# Of codes; archives hold them as 64 bits, as they always did.
CODE_TYPE = np.dtype(np.int32)
# The array of codes beside the outputs, where an answer holds one.
STATUS = "status"
# What outputs are where the density is zero.
_OF_NO_DENSITY = {"log_prob": -np.inf, "bits_per_dim": np.inf, "score": np.inf}
# Null where nothing is known of an error: the row that it belongs to has its numbers.
_NOT_OF_ROWS = ("log_prob_se",)

# Told how many rows failed, by status.
CountFailures = Callable[[Mapping[str, int]], None]


class RejectedRows(NamedTuple):
    """The invalid rows of a request: no engine sees them, and their answer is null.

    total: how many rows the request has.
    codes: of those that are invalid, by row.
    kept: the others, in order.
    context: of all rows, None for an unconditional model.
    """

    total: int
    codes: dict[int, int]
    kept: Array
    context: Array | None = None

    @property
    def outside(self) -> list[int]:
        """Those that lie outside of the support: what is known of them is that nothing is there."""
        return [row for row, code in self.codes.items() if code == _AT_BOUNDS]

    def spread(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Put the rows of an answer where they were in the request.

        Returns:
            NaN between them; the log-density outside of the support is -inf.
        """
        outside = self.outside
        spread = {name: self._spread(values) for name, values in outputs.items()}
        for name in spread.keys() & _OF_NO_DENSITY.keys():
            spread[name][outside] = _OF_NO_DENSITY[name]
        return spread

    def _spread(self, values: Array) -> Array:
        blank = np.nan if values.dtype.kind == "f" else 0
        spread = np.full((self.total, *values.shape[1:]), blank, values.dtype)
        spread[self.kept] = values
        return spread


def reject(reasons: Reasons, total: int) -> RejectedRows:
    """Take invalid rows out of a request of `total` rows."""
    codes = {row: _CODE_OF[reason] for row, reason in reasons.items()}
    return RejectedRows(total, codes, np.delete(np.arange(total), list(codes)))


class FailureFinder(NamedTuple):
    """Finds the rows of an answer that failed, and why: asked once an answer, where some may have.

    x: the data that were asked about, without rejected rows; None where there are none.
    support: outside of which the density is zero; None where it is everywhere.
    result: what the engine gave for the rows that were not rejected.
    rejected: the others.
    counter: is told how many failed.
    """

    x: Array | None
    support: tuple[float, float] | None
    result: InferenceResult
    rejected: RejectedRows | None
    counter: CountFailures

    @property
    def null_rows(self) -> Collection[int]:
        """Rows that are null whatever the answer holds there."""
        return () if self.rejected is None else self.rejected.codes

    def find(self, outputs: Mapping[str, Array]) -> Array:
        """Find the code of each row, 0 where it has its numbers.

        Returns:
            int32 (B,).
        """
        codes = _codes_of_numbers(outputs)
        kept = slice(None) if self.rejected is None else self.rejected.kept
        codes[kept] = self._computed(codes[kept])
        if self.rejected is not None:
            codes[list(self.rejected.codes)] = list(self.rejected.codes.values())
        failed = codes[codes != 0].tolist()
        if failed:
            self.counter(Counter(CODES[code][0] for code in failed))
        return codes

    def describe(self, codes: Array) -> list[dict[str, Any]]:
        """List the rows that failed, as JSON has them; of solves with what they cost."""
        kept = np.arange(len(codes)) if self.rejected is None else self.rejected.kept
        stats, evaluations = self.result.solver_stats, {}
        if stats is not None:
            evaluations = dict(zip(kept.tolist(), stats.evaluations.tolist(), strict=True))
        entries = []
        for row in np.flatnonzero(codes).tolist():
            status, reason = CODES[codes[row]]
            entry = {"row": row, STATUS: status, "reason": reason}
            if status == _SOLVER:
                entry["evaluations"] = evaluations[row]
            entries.append(entry)
        return entries

    def explain(self, outputs: Mapping[str, Array]) -> dict[str, Any]:
        """Make the member `failures` of an answer in JSON, where there is something to say."""
        codes = self.find(outputs)
        return {"failures": self.describe(codes)} if codes.any() else {}

    def _computed(self, codes: Array) -> Array:
        """Say of computed rows that failed what is known better than by their numbers."""
        result = self.result
        if self.x is not None and codes.any():
            is_known = np.isfinite(result.value.reshape(len(self.x), -1)).all(1)
            codes[np.isneginf(result.log_det) & is_known & (codes != 0)] = _UNDERFLOW
            if self.support is not None:
                low, high = self.support
                is_outside = ((self.x < low) | (self.x > high)).reshape(len(self.x), -1).any(1)
                codes[is_outside & (codes != 0)] = _AT_BOUNDS
        if result.solver_stats is not None:
            status = result.solver_stats.status
            codes = np.where(status != 0, status, codes).astype(CODE_TYPE)
        return codes


def _codes_of_numbers(outputs: Mapping[str, Array]) -> Array:
    """Say of each row what its numbers tell, 0 where all are finite."""
    shown = {name: values for name, values in outputs.items() if name not in _NOT_OF_ROWS}
    total = len(next(iter(shown.values())))
    codes = np.zeros(total, CODE_TYPE)
    if all(map(is_finite, shown.values())):
        return codes
    flat = [values.reshape(total, -1) for values in shown.values()]
    codes[np.any([np.isinf(values).any(1) for values in flat], axis=0)] = _IS_INFINITE
    codes[np.any([np.isnan(values).any(1) for values in flat], axis=0)] = _IS_NAN
    if "log_prob" in shown:
        codes[np.isneginf(shown["log_prob"])] = _UNDERFLOW
    return codes
