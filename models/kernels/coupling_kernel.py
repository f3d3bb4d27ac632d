"""One kernel for couplings in a row: networks, moves and log-dets of a tile of rows.

A tile has a fixed number of rows, and every product is summed in a fixed order: the bits of a row
depend neither on the batch nor on its place in it. What a tile computes on the way lies in memory
of its own, which stays in the processor's cache.
"""

import triton
import triton.language as tl

from models.kernels.pointwise import activation, log_scale


@triton.jit
def _linear(
    source, target, weight, bias, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, WIDTH: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Target <- activation(source W + b): (TILE, INPUTS) -> (TILE, OUTPUTS), rows WIDTH apart."""
    rows = tl.arange(0, TILE)[:, None] * WIDTH
    block = tl.arange(0, BLOCK)
    for start in range(0, OUTPUTS, BLOCK):
        columns = start + block
        total = tl.zeros((TILE, BLOCK), tl.float32) + tl.load(bias + columns)[None, :]
        for first in range(0, INPUTS, BLOCK):
            inner = first + block
            left = tl.load(source + rows + inner[None, :])
            right = tl.load(weight + inner[:, None] * OUTPUTS + columns[None, :])
            total = tl.dot(left, right, total, input_precision=PRECISION)
        tl.store(target + rows + columns[None, :], activation(total, ACTIVATION, SLOPE))
    tl.debug_barrier()


@triton.jit
def _network(
    scratch, target, weights, LAYERS: tl.constexpr, INPUTS: tl.constexpr, HIDDEN: tl.constexpr,
    OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All layers: inputs from the first part of scratch, outputs to target."""
    SIZE: tl.constexpr = TILE * WIDTH
    at = weights
    _linear(scratch, scratch + SIZE, at, at + INPUTS * HIDDEN, INPUTS, HIDDEN, WIDTH, ACTIVATION,
            SLOPE, TILE, BLOCK, PRECISION)  # fmt: skip
    at += (INPUTS + 1) * HIDDEN
    for layer in tl.static_range(LAYERS - 2):
        _linear(scratch + (1 + layer % 2) * SIZE, scratch + (2 - layer % 2) * SIZE, at,
                at + HIDDEN * HIDDEN, HIDDEN, HIDDEN, WIDTH, ACTIVATION, SLOPE, TILE, BLOCK,
                PRECISION)  # fmt: skip
        at += (HIDDEN + 1) * HIDDEN
    _linear(scratch + (1 + (LAYERS - 2) % 2) * SIZE, target, at, at + HIDDEN * OUTPUTS, HIDDEN,
            OUTPUTS, WIDTH, "identity", SLOPE, TILE, BLOCK, PRECISION)  # fmt: skip


@triton.jit
def _gather(
    y, context, scratch, row, valid, start, kept, features, context_features,
    INPUTS: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The inputs of a network: the half that is kept, the context behind it, zeros behind that."""
    rows = tl.arange(0, TILE)[:, None] * WIDTH
    for first in range(0, INPUTS, BLOCK):
        column = first + tl.arange(0, BLOCK)[None, :]
        is_kept = valid[:, None] & (column < kept)
        value = tl.load(y + row[:, None] * features + start + column, mask=is_kept, other=0.0)
        behind = column - kept
        is_context = valid[:, None] & (behind >= 0) & (behind < context_features)
        value += tl.load(
            context + row[:, None] * context_features + behind, mask=is_context, other=0.0
        )
        tl.store(scratch + rows + column, value)
    tl.debug_barrier()


@triton.jit
def _move(
    y, raw, gains, row, valid, start, moved, features, offset, total,
    OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, SCALE: tl.constexpr, FORM: tl.constexpr,
    IS_GAINED: tl.constexpr, DECODING: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Move the other half in place, and add its log-slopes to the log-det, in float64."""
    rows = tl.arange(0, TILE)[:, None] * WIDTH
    for first in range(0, OUTPUTS, BLOCK):
        column = first + tl.arange(0, BLOCK)[None, :]
        is_moved = valid[:, None] & (column < moved)
        at = y + row[:, None] * features + start + column
        value = tl.load(at, mask=is_moved, other=0.0)
        shift = tl.load(raw + rows + column)
        if SCALE == "":
            value = value - shift if DECODING else value + shift
        else:
            slope = log_scale(tl.load(raw + rows + OUTPUTS + column) + offset, SCALE)
            if IS_GAINED:
                slope = slope * tl.load(gains + column)
            if FORM == "unshift_then_unscale":
                slope = -slope
            if FORM == "scale_then_shift":
                if DECODING:
                    value = (value - shift) * tl.exp(-slope)
                else:
                    value = value * tl.exp(slope) + shift
            elif FORM == "shift_then_scale":
                if DECODING:
                    value = value * tl.exp(-slope) - shift
                else:
                    value = (value + shift) * tl.exp(slope)
            elif DECODING:
                value = value * tl.exp(-slope) + shift
            else:
                value = (value - shift) * tl.exp(slope)
            if DECODING:
                slope = -slope
            total += tl.sum(tl.where(is_moved, slope, 0.0).to(tl.float64), axis=1)
        tl.store(at, value, mask=is_moved)
    tl.debug_barrier()
    return total


# Else a batch of one row, or of a multiple of 16, would be compiled anew, at whatever time.
@triton.jit(do_not_specialize=["rows"])
def couplings_kernel(
    x, y, log_det, context, weights, gains, keeps_first, scratch,
    rows, moves, cut, features, context_features, offset,
    NETS: tl.constexpr, LAYERS: tl.constexpr, INPUTS: tl.constexpr, HIDDEN: tl.constexpr,
    OUTPUTS: tl.constexpr, BLOCKS: tl.constexpr, WIDTH: tl.constexpr, ACTIVATION: tl.constexpr,
    SLOPE: tl.constexpr, SCALE: tl.constexpr, FORM: tl.constexpr, IS_GAINED: tl.constexpr,
    DECODING: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All moves of `HalfCouplings`, for one tile of rows after the other.

    x, y (rows, features), log_det (rows,) float64, context (rows, context_features); gains
    (moves, OUTPUTS); scratch 4 x (TILE, WIDTH) for each program.
    """
    PER_NET: tl.constexpr = BLOCKS * OUTPUTS // NETS
    NET_SIZE: tl.constexpr = (
        (INPUTS + 1) * HIDDEN + (LAYERS - 2) * (HIDDEN + 1) * HIDDEN + (HIDDEN + 1) * PER_NET
    )
    own = scratch + tl.program_id(0) * 4 * TILE * WIDTH
    raw = own + 3 * TILE * WIDTH
    block = tl.arange(0, BLOCK)[None, :]
    for tile in range(tl.program_id(0), tl.cdiv(rows, TILE), tl.num_programs(0)):
        row = (tile * TILE + tl.arange(0, TILE)).to(tl.int64)
        valid = row < rows
        for first in range(0, features, BLOCK):
            column = first + block
            is_here = valid[:, None] & (column < features)
            at = row[:, None] * features + column
            tl.store(y + at, tl.load(x + at, mask=is_here, other=0.0), mask=is_here)
        tl.debug_barrier()
        total = tl.zeros((TILE,), tl.float64)
        for turn in range(moves):
            move = moves - 1 - turn if DECODING else turn
            is_first = tl.load(keeps_first + move)
            kept = tl.where(is_first != 0, cut, features - cut)
            kept_start = tl.where(is_first != 0, 0, cut)
            moved_start = cut - kept_start
            _gather(y, context, own, row, valid, kept_start, kept, features, context_features,
                    INPUTS, WIDTH, TILE, BLOCK)  # fmt: skip
            for net in tl.static_range(NETS):
                _network(own, raw + net * PER_NET, weights + (move * NETS + net) * NET_SIZE,
                         LAYERS, INPUTS, HIDDEN, PER_NET, WIDTH, ACTIVATION, SLOPE, TILE, BLOCK,
                         PRECISION)  # fmt: skip
            total = _move(y, raw, gains + move * OUTPUTS, row, valid, moved_start,
                          features - kept, features, offset, total, OUTPUTS, WIDTH, SCALE, FORM,
                          IS_GAINED, DECODING, TILE, BLOCK)  # fmt: skip
        tl.store(log_det + row, total, mask=valid)
