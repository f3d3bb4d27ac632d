"""One kernel for the solve of a continuous flow: all steps of a tile of rows, each row its own.

With the trace, a row of x stands in a tile as many times as x has features, once beside each unit
vector that is pushed along with it: value and tangent then go through the same products. What
belongs to the row is computed in all of these places alike. A tile has a fixed shape, so the bits
of a row depend neither on the batch nor on its neighbours, which may take more steps than it does.

The steps are those of `models.ode.solver`, in the form of `models.fold.continuous`.
"""

import triton
import triton.language as tl

from models.kernels.pointwise import activation, sigmoid, slope_of
from models.ode.steps import (
    FIRST_STEP,
    NODES,
    STAGES,
    STEP_ERROR,
    error_limits,
)

_FIRST_STEP = tl.constexpr(FIRST_STEP)
# Nodes, weights of the stages, and the difference of the two results: Dormand & Prince.
_C2, _C3, _C4, _C5, _, _ = (tl.constexpr(node) for node in NODES)
_A21 = tl.constexpr(STAGES[0][0])
_A31, _A32 = (tl.constexpr(weight) for weight in STAGES[1])
_A41, _A42, _A43 = (tl.constexpr(weight) for weight in STAGES[2])
_A51, _A52, _A53, _A54 = (tl.constexpr(weight) for weight in STAGES[3])
_A61, _A62, _A63, _A64, _A65 = (tl.constexpr(weight) for weight in STAGES[4])
_B1, _, _B3, _B4, _B5, _B6 = (tl.constexpr(weight) for weight in STAGES[5])
_E1, _, _E3, _E4, _E5, _E6, _E7 = (tl.constexpr(weight) for weight in STEP_ERROR)
# The largest error after which a step is multiplied by four, by two and so on.
_LIMIT_4, _LIMIT_2, _, _LIMIT_HALF, _LIMIT_QUARTER, _LIMIT_EIGHTH = (
    tl.constexpr(limit) for limit in error_limits()
)


@triton.jit
def _modulation(
    vectors, t, columns, frequencies,
    STRIDE: tl.constexpr, IS_GATED: tl.constexpr, FREQUENCIES: tl.constexpr,
):  # fmt: skip
    """Gate and shift of some outputs of a layer: see `FoldedField.modulation`.

    t and columns broadcast against each other. The vectors of a layer lie STRIDE apart: bias, gate
    and its bias, drift, beta of swish, and the weights of t and of its cosines and sines.
    """
    shift = t * tl.load(vectors + 5 * STRIDE + columns)
    for index in tl.static_range(FREQUENCIES):
        angle = t * tl.load(frequencies + index)
        shift += tl.cos(angle) * tl.load(vectors + (6 + index) * STRIDE + columns)
        shift += tl.sin(angle) * tl.load(vectors + (6 + FREQUENCIES + index) * STRIDE + columns)
    gate = shift * 0.0 + 1.0
    if IS_GATED:
        gate = sigmoid(t * tl.load(vectors + STRIDE + columns)
                       + tl.load(vectors + 2 * STRIDE + columns))  # fmt: skip
        shift = gate * shift
    return gate, shift + t * tl.load(vectors + 3 * STRIDE + columns)


@triton.jit
def _matrix(at, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr):
    """W transposed, (INPUTS, OUTPUTS)."""
    return tl.load(at + tl.arange(0, INPUTS)[:, None] * OUTPUTS + tl.arange(0, OUTPUTS)[None, :])


@triton.jit
def _field(
    x, t, extra, weights, frequencies, unit, is_unit,
    FEATURES: tl.constexpr, COLUMNS: tl.constexpr, HIDDEN: tl.constexpr, LAYERS: tl.constexpr,
    ACTIVATION: tl.constexpr, IS_GATED: tl.constexpr, FREQUENCIES: tl.constexpr,
    IS_RESIDUAL: tl.constexpr, TRACED: tl.constexpr, UNITS: tl.constexpr, ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dx/dt (T, COLUMNS) and the trace (T,) at x (T, COLUMNS) and t (T,).

    T = ROWS x UNITS places: each row UNITS times, beside the unit vectors `unit` (T,).
    """
    VECTORS: tl.constexpr = 6 + 2 * FREQUENCIES
    hidden = tl.arange(0, HIDDEN)[None, :]
    times = t[:, None]
    tangent = tl.zeros((ROWS * UNITS, HIDDEN), tl.float32)
    value = tl.dot(x, _matrix(weights, COLUMNS, HIDDEN), input_precision=PRECISION) + extra
    if TRACED:
        # The first layer's column of each unit vector.
        tangent = tl.load(weights + unit[:, None] * HIDDEN + hidden)
    at = weights + COLUMNS * HIDDEN
    for layer in tl.static_range(LAYERS - 1):
        gate, shift = _modulation(at, times, hidden, frequencies, HIDDEN, IS_GATED, FREQUENCIES)
        value = gate * (value + tl.load(at + hidden)) + shift
        beta = tl.load(at + 4 * HIDDEN + hidden)
        before = value
        value = activation(before, ACTIVATION, beta)
        if TRACED:
            tangent = tangent * (slope_of(before, value, ACTIVATION, beta) * gate)
        at += VECTORS * HIDDEN
        if layer < LAYERS - 2:
            matrix = _matrix(at, HIDDEN, HIDDEN)
            value = tl.dot(value, matrix, input_precision=PRECISION)
            if TRACED:
                tangent = tl.dot(tangent, matrix, input_precision=PRECISION)
            at += HIDDEN * HIDDEN
    columns = tl.arange(0, COLUMNS)[None, :]
    vectors = at + HIDDEN * COLUMNS
    value = tl.dot(value, _matrix(at, HIDDEN, COLUMNS), input_precision=PRECISION)
    gate, shift = _modulation(vectors, times, columns, frequencies, COLUMNS, IS_GATED, FREQUENCIES)
    value = gate * (value + tl.load(vectors + columns)) + shift
    if IS_RESIDUAL:
        value = value - x
    trace = t * 0.0
    if TRACED:
        # Of the last product only the diagonal: the output of each unit vector's own feature.
        last = tl.load(at + tl.arange(0, HIDDEN)[None, :] * COLUMNS + unit[:, None])
        diagonal = tl.sum(tangent * last, axis=1)
        if IS_GATED:
            gate, shift = _modulation(vectors, t, unit, frequencies, COLUMNS, IS_GATED, FREQUENCIES)
            diagonal = diagonal * gate
        diagonal = tl.where(is_unit, diagonal, 0.0)
        sums = tl.sum(tl.reshape(diagonal, (ROWS, UNITS)), axis=1)
        trace = tl.reshape(tl.broadcast_to(sums[:, None], (ROWS, UNITS)), (ROWS * UNITS,))
        if IS_RESIDUAL:
            trace = trace - FEATURES
    return value, trace


@triton.jit
def _next_step(position, step, error):
    """`StepRule.next_step`: a power of two more or less, more only at a multiple of itself."""
    factor = tl.where(error > _LIMIT_4, 2.0, 4.0)
    factor = tl.where(error > _LIMIT_2, 1.0, factor)
    factor = tl.where(error > 1.0, 0.5, factor)
    factor = tl.where(error > _LIMIT_HALF, 0.25, factor)
    factor = tl.where(error > _LIMIT_QUARTER, 0.125, factor)
    factor = tl.where(error > _LIMIT_EIGHTH, 0.0625, factor)
    # A plain division may be off by a rounding error; here all are powers of two, and exact.
    multiples = tl.div_rn(position, step)
    twice = multiples * 0.5
    four = multiples * 0.25
    most = tl.where(tl.floor(twice) == twice, 2.0, 1.0)
    most = tl.where(tl.floor(four) == four, 4.0, most)
    return step * tl.minimum(factor, most)


@triton.jit
def solve_kernel(
    x, extra, weights, frequencies, y, log_det, position_out, step_out, error_out,
    evaluations_out, rows, start, span, rtol, atol, smallest_step, largest, max_evaluations,
    FEATURES: tl.constexpr, COLUMNS: tl.constexpr, HIDDEN: tl.constexpr, LAYERS: tl.constexpr,
    ACTIVATION: tl.constexpr, IS_GATED: tl.constexpr, FREQUENCIES: tl.constexpr,
    IS_RESIDUAL: tl.constexpr, HAS_EXTRA: tl.constexpr, TRACED: tl.constexpr,
    UNITS: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Solve ROWS rows of x (rows, FEATURES): y and, where TRACED, log_det.

    position, step, error and evaluations of a row say how its solve ended.
    """
    place = tl.arange(0, ROWS * UNITS)
    row = (tl.program_id(0) * ROWS + place // UNITS).to(tl.int64)
    unit = tl.minimum(place % UNITS, FEATURES - 1)
    is_unit = place % UNITS < FEATURES
    column = tl.arange(0, COLUMNS)[None, :]
    is_row = row < rows
    is_here = is_row[:, None] & (column < FEATURES)
    state = tl.load(x + row[:, None] * FEATURES + column, mask=is_here, other=0.0)
    beside = tl.zeros((ROWS * UNITS, HIDDEN), tl.float32)
    if HAS_EXTRA:
        beside = tl.load(
            extra + row[:, None] * HIDDEN + tl.arange(0, HIDDEN)[None, :],
            mask=is_row[:, None], other=0.0,
        )  # fmt: skip
    position = tl.zeros((ROWS * UNITS,), tl.float32)
    total = tl.zeros((ROWS * UNITS,), tl.float32)
    k1, q1 = _field(
        state, position + start, beside, weights, frequencies, unit, is_unit, FEATURES, COLUMNS,
        HIDDEN, LAYERS, ACTIVATION, IS_GATED, FREQUENCIES, IS_RESIDUAL, TRACED, UNITS, ROWS,
        PRECISION,
    )  # fmt: skip
    # NaN compares as false.
    sound = (tl.abs(state) <= largest) & (tl.abs(k1) <= largest)
    finite = (tl.min(sound.to(tl.int32), axis=1) > 0) & (tl.abs(q1) <= largest)
    evaluations = position + 1.0
    active = finite & is_row & (evaluations + 6.0 <= max_evaluations)
    step = tl.where(finite, _FIRST_STEP, 0.0)
    error = tl.where(finite, 0.0, float("inf"))
    while tl.sum(active.to(tl.int32)) > 0:
        length = step * span
        at = position * span + start
        long = length[:, None]
        moved = state + long * (_A21 * k1)
        k2, _ = _field(
            moved, at + _C2 * length, beside, weights, frequencies, unit, is_unit, FEATURES,
            COLUMNS, HIDDEN, LAYERS, ACTIVATION, IS_GATED, FREQUENCIES, IS_RESIDUAL, False, UNITS,
            ROWS, PRECISION,
        )  # fmt: skip
        moved = state + long * (_A31 * k1 + _A32 * k2)
        k3, q3 = _field(
            moved, at + _C3 * length, beside, weights, frequencies, unit, is_unit, FEATURES,
            COLUMNS, HIDDEN, LAYERS, ACTIVATION, IS_GATED, FREQUENCIES, IS_RESIDUAL, TRACED, UNITS,
            ROWS, PRECISION,
        )  # fmt: skip
        moved = state + long * (_A41 * k1 + _A42 * k2 + _A43 * k3)
        k4, q4 = _field(
            moved, at + _C4 * length, beside, weights, frequencies, unit, is_unit, FEATURES,
            COLUMNS, HIDDEN, LAYERS, ACTIVATION, IS_GATED, FREQUENCIES, IS_RESIDUAL, TRACED, UNITS,
            ROWS, PRECISION,
        )  # fmt: skip
        moved = state + long * (_A51 * k1 + _A52 * k2 + _A53 * k3 + _A54 * k4)
        k5, q5 = _field(
            moved, at + _C5 * length, beside, weights, frequencies, unit, is_unit, FEATURES,
            COLUMNS, HIDDEN, LAYERS, ACTIVATION, IS_GATED, FREQUENCIES, IS_RESIDUAL, TRACED, UNITS,
            ROWS, PRECISION,
        )  # fmt: skip
        moved = state + long * (_A61 * k1 + _A62 * k2 + _A63 * k3 + _A64 * k4 + _A65 * k5)
        k6, q6 = _field(
            moved, at + length, beside, weights, frequencies, unit, is_unit, FEATURES, COLUMNS,
            HIDDEN, LAYERS, ACTIVATION, IS_GATED, FREQUENCIES, IS_RESIDUAL, TRACED, UNITS, ROWS,
            PRECISION,
        )  # fmt: skip
        moved = state + long * (_B1 * k1 + _B3 * k3 + _B4 * k4 + _B5 * k5 + _B6 * k6)
        k7, q7 = _field(
            moved, at + length, beside, weights, frequencies, unit, is_unit, FEATURES, COLUMNS,
            HIDDEN, LAYERS, ACTIVATION, IS_GATED, FREQUENCIES, IS_RESIDUAL, TRACED, UNITS, ROWS,
            PRECISION,
        )  # fmt: skip
        miss = long * (_E1 * k1 + _E3 * k3 + _E4 * k4 + _E5 * k5 + _E6 * k6 + _E7 * k7)
        size = tl.maximum(tl.abs(state), tl.abs(moved))
        errors = tl.abs(miss) / (atol + rtol * size)
        found = tl.max(tl.where(errors <= largest, errors, float("inf")), axis=1)
        summed = total
        if TRACED:
            summed = total + length * (_B1 * q1 + _B3 * q3 + _B4 * q4 + _B5 * q5 + _B6 * q6)
            miss_of_sum = length * (_E1 * q1 + _E3 * q3 + _E4 * q4 + _E5 * q5 + _E6 * q6 + _E7 * q7)
            size_of_sum = tl.maximum(tl.abs(total), tl.abs(summed))
            other = tl.abs(miss_of_sum) / (atol + rtol * size_of_sum)
            found = tl.maximum(found, tl.where(other <= largest, other, float("inf")))
        accepted = (found <= 1.0) & active
        state = tl.where(accepted[:, None], moved, state)
        k1 = tl.where(accepted[:, None], k7, k1)
        total = tl.where(accepted, summed, total)
        q1 = tl.where(accepted, q7, q1)
        position = tl.where(accepted, position + step, position)
        step = tl.where(active, _next_step(position, step, found), step)
        error = tl.where(active, found, error)
        evaluations = tl.where(active, evaluations + 6.0, evaluations)
        has_budget = evaluations + 6.0 <= max_evaluations
        active = active & (position < 1.0) & (step >= smallest_step) & has_budget
    is_first = is_row & (place % UNITS == 0)
    at_row = row[:, None] * FEATURES + column
    tl.store(y + at_row, state, mask=is_first[:, None] & (column < FEATURES))
    tl.store(log_det + row, total, mask=is_first)
    tl.store(position_out + row, position, mask=is_first)
    tl.store(step_out + row, step, mask=is_first)
    tl.store(error_out + row, error, mask=is_first)
    tl.store(evaluations_out + row, evaluations, mask=is_first)
