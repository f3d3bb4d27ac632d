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
# The weights of the first slope in all stages and in the error of the step: Dormand & Prince.
_A21, _A31, _A41, _A51, _A61, _B1 = (tl.constexpr(stage[0]) for stage in STAGES)
_E1 = tl.constexpr(STEP_ERROR[0])
STAGES_AFTER_FIRST = tl.constexpr(len(NODES))
# Of each other slope: its node, its weights in the error and in the result, and those in the
# stages behind it, the next one first.
WEIGHTS_A_STAGE = tl.constexpr(3 + len(NODES) - 1)
# The largest error after which a step is multiplied by four, by two and so on.
_LIMIT_4, _LIMIT_2, _, _LIMIT_HALF, _LIMIT_QUARTER, _LIMIT_EIGHTH = (
    tl.constexpr(limit) for limit in error_limits()
)


def stage_weights() -> list[list[float]]:
    """The table that the kernel reads: a row of WEIGHTS_A_STAGE numbers for each slope but one."""
    rows = []
    for slope, node in enumerate(NODES, start=1):
        behind = [stage[slope] if slope < len(stage) else 0.0 for stage in STAGES[slope:]]
        result = STAGES[-1][slope] if slope < len(STAGES[-1]) else 0.0
        rows.append([node, STEP_ERROR[slope], result, *behind])
        rows[-1] += [0.0] * (WEIGHTS_A_STAGE.value - len(rows[-1]))
    return rows


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


# Else a batch of one row, or of a multiple of 16, would be compiled anew, at whatever time.
@triton.jit(do_not_specialize=["rows"])
def solve_kernel(
    x, extra, weights, weights_of_stages, frequencies, y, log_det, position_out, step_out,
    error_out, evaluations_out, rows, start, span, rtol, atol, smallest_step, largest,
    max_evaluations,
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
        long = length[:, None]
        at = position * span + start
        # The weighted sums of slopes that the stages to come begin with, the next one in front: the
        # field is compiled once for all stages.
        a1, a2, a3 = _A21 * k1, _A31 * k1, _A41 * k1
        a4, a5, a6 = _A51 * k1, _A61 * k1, _B1 * k1
        miss, miss_of_sum, gain = _E1 * k1, _E1 * q1, _B1 * q1
        moved, k7, q7 = state, k1, q1
        for stage in range(STAGES_AFTER_FIRST):
            row_of_weights = weights_of_stages + stage * WEIGHTS_A_STAGE
            moved = state + long * a1
            k7, q7 = _field(
                moved, at + tl.load(row_of_weights) * length, beside, weights, frequencies, unit,
                is_unit, FEATURES, COLUMNS, HIDDEN, LAYERS, ACTIVATION, IS_GATED, FREQUENCIES,
                IS_RESIDUAL, TRACED, UNITS, ROWS, PRECISION,
            )  # fmt: skip
            a1 = a2 + tl.load(row_of_weights + 3) * k7
            a2 = a3 + tl.load(row_of_weights + 4) * k7
            a3 = a4 + tl.load(row_of_weights + 5) * k7
            a4 = a5 + tl.load(row_of_weights + 6) * k7
            a5 = a6 + tl.load(row_of_weights + 7) * k7
            error_weight = tl.load(row_of_weights + 1)
            miss += error_weight * k7
            miss_of_sum += error_weight * q7
            gain += tl.load(row_of_weights + 2) * q7
        miss = long * miss
        size = tl.maximum(tl.abs(state), tl.abs(moved))
        errors = tl.abs(miss) / (atol + rtol * size)
        found = tl.max(tl.where(errors <= largest, errors, float("inf")), axis=1)
        summed = total
        if TRACED:
            summed = total + length * gain
            miss_of_sum = length * miss_of_sum
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
