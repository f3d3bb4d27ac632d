"""The drift test: does a stream of scores still look like the calibration rows, row after row?

Against a fixed calibration set p-values share that set's error, and over thousands of rows the
error looks like drift. So the test has p-values of its own, online ones: row t is compared with the
calibration rows and the rows 1 ... t-1 of its window. As long as all of them are exchangeable these
p-values are independent and uniform, however few calibration rows there are (Vovk, Gammerman,
Shafer: Algorithmic Learning in a Random World, 2nd ed., 2022, theorem 11.1), and the martingale
exceeds 1/delta in at most a share delta of the windows (Ville's inequality).

Numpy alone, and cheap: rows are ranked together, some hundred at a time.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WINDOW_ROWS = 10_000
JUMP_RATE = 0.01
# A window that exceeds its inverse is counted as a crossing.
DELTA = 0.01
# Rows ranked together: their positions among each other fit in a byte.
_CHUNK_ROWS = 256
# Rows of which the martingale is worked out together: it halves in each at most.
_SOLVED_ROWS = 512
# Up to so many calibration rows are kept in one list with the rows that come: to search one list
# and copy it costs less than to search two.
_JOINED_ROWS = 20_000


class OnlinePValues:
    """Smoothed conformal p-values of rows against calibration rows and the rows before.

    p_t = (#{s_i > s_t} + u_t #{s_i = s_t}) / (n + t) over the n calibration rows and the rows
    1 ... t, u_t uniform in [0, 1).

    Args:
        calibration_scores: sorted, (n,); kept, and never written to.
        generator: breaks the ties; one number a row, in the order of rows.

    Cost: some 0.3 µs a row in calls of hundreds of rows, 30 µs a call. Memory: the rows since
    `restart`, and a copy of up to `_JOINED_ROWS` calibration rows.

    rows: how many came since `restart`.
    """

    def __init__(self, calibration_scores: Array, generator: np.random.Generator) -> None:
        self._calibration = calibration_scores
        self._generator = generator
        self.restart()

    def restart(self) -> None:
        """Forget the rows that came: what follows is compared with the calibration rows alone."""
        self.rows = 0
        # Sorted lists, of which the first grows.
        nothing: Array = np.empty(0)
        is_joined = len(self._calibration) <= _JOINED_ROWS
        self._growing, self._fixed = (
            (self._calibration, nothing) if is_joined else (nothing, self._calibration)
        )

    def draw(self, scores: Array) -> Array:
        """Give the p-values of rows in their order, as if each had come alone.   (B,) -> (B,)."""
        chunks = [
            self._draw_chunk(scores[start : start + _CHUNK_ROWS])
            for start in range(0, len(scores), _CHUNK_ROWS)
        ]
        return np.concatenate(chunks) if chunks else np.empty(0)

    def _draw_chunk(self, scores: Array) -> Array:
        size = len(scores)
        # Stable: of equal scores the earlier is first.
        order = scores.argsort(kind="stable")
        ascending = scores[order]
        place = np.arange(size)
        below, equal = _count(self._growing, ascending)
        below_fixed, equal_fixed = _count(self._fixed, ascending)
        if (ascending[1:] == ascending[:-1]).any():
            equal = equal + place - ascending.searchsorted(ascending)
        ranks = np.empty(size, np.uint8)
        ranks[order] = place
        bag = len(self._calibration) + self.rows
        greater = (bag - below - below_fixed) + _count_greater_before(ranks)[order]
        numbers = self._generator.random(size)[order]
        p_values = np.empty(size)
        # A row is equal to itself, and its place among the rows is `order`.
        p_values[order] = (greater + numbers * (equal + equal_fixed + 1)) / (bag + 1 + order)
        self._growing = _merge(self._growing, ascending, below + place)
        self.rows += size
        return p_values


class SimpleJumper:
    """The simple jumper martingale, in log space.

    S_t = sum over e in {-1, 0, 1} of the capital C_e, which grows by 1 + e (p_t - 1/2); after each
    row a share `JUMP_RATE` of all capital is spread evenly over the three.

    Reference: Vovk et al., Retrain or not retrain: conformal test martingales for change-point
    detection, 2021, algorithm 1.

    log_value: ln S_t, 0 at the start.
    """

    def __init__(self) -> None:
        # Here, since a server without calibrations needs no scipy.
        from scipy.linalg.blas import dtbsv

        self._solve = dtbsv
        self.log_value = 0.0
        # The shares of e = 1 and e = -1 in the capital, after it was spread.
        self._shares = (1 / 3, 1 / 3)

    def advance(self, p_values: Array) -> Array:
        """Take the next p-values and give ln S after each of them.   (B,) -> (B,)."""
        chunks = [
            self._advance_chunk(p_values[start : start + _SOLVED_ROWS])
            for start in range(0, len(p_values), _SOLVED_ROWS)
        ]
        return np.concatenate(chunks) if chunks else np.empty(0)

    def _advance_chunk(self, p_values: Array) -> Array:
        """Solve the recursion of at most `_SOLVED_ROWS` rows.

        With q = p - 1/2, and J the jump rate, a row takes (S, C_1, C_-1) to
            S   + q (1-J) (C_1 - C_-1)
            (1 + q) ((1-J) C_1  + J/3 S)
            (1 - q) ((1-J) C_-1 + J/3 S)
        each C before it is spread. All rows together are one triangular system of five diagonals
        below the first, which BLAS solves ten times as fast as Python does the loop.
        """
        q = p_values - 0.5
        up, down = self._shares
        start = np.zeros(3 * len(q))
        start[:3] = 1 + q[0] * (up - down), (1 + q[0]) * up, (1 - q[0]) * down
        values = self._solve(5, _band(q[1:]), start, lower=1, diag=1, overwrite_x=1).reshape(-1, 3)
        capital, *last = values[-1]
        self._shares = tuple((1 - JUMP_RATE) * one / capital + JUMP_RATE / 3 for one in last)
        log_values: Array = self.log_value + np.log(values[:, 0])
        self.log_value = float(log_values[-1])
        return log_values


class OnlineMartingale:
    """The conformal test martingale of a stream of scores, window by window.

    Each window starts anew at ln 1 = 0 with the calibration rows alone to compare with; within it,
    as long as rows are exchangeable with the calibration rows, exp(`log_value`) exceeds 1/delta
    with probability at most delta. Rows in one call or in many: the values are the same.

    Args:
        calibration_scores: sorted, (n,); kept, not copied.
        window_rows: after how many rows a window ends.
        seed: of the random numbers that break ties.

    log_value: ln of the martingale after the last row.
    windows: how many windows have ended.
    crossings: in how many windows, the present one among them, it has exceeded 1/`DELTA`.
    """

    def __init__(
        self, calibration_scores: Array, window_rows: int = WINDOW_ROWS, seed: int = 0
    ) -> None:
        if window_rows < 1:
            raise ValueError(f"expected a window of at least 1 row, got {window_rows}")
        self._p_values = OnlinePValues(calibration_scores, np.random.default_rng(seed))
        self._jumper = SimpleJumper()
        self._window_rows = window_rows
        self._largest = 0.0
        self._largest_before = 0.0
        self.windows = 0
        self.crossings = 0

    @property
    def log_value(self) -> float:
        """Ln of the martingale after the last row."""
        return self._jumper.log_value

    @property
    def log_max(self) -> float:
        """Its largest value in this window and the one before: what a reader between missed."""
        return max(self._largest, self._largest_before)

    def update(self, scores: Array) -> None:
        """Take the scores of the next rows, in their order; none of them NaN.   (B,)."""
        start = 0
        while start < len(scores):
            if self._p_values.rows == self._window_rows:
                self._begin_window()
            stop = start + self._window_rows - self._p_values.rows
            self._advance(scores[start:stop])
            start = stop

    def _begin_window(self) -> None:
        self._p_values.restart()
        self._jumper = SimpleJumper()
        self._largest, self._largest_before = 0.0, self._largest

    def _advance(self, scores: Array) -> None:
        log_values = self._jumper.advance(self._p_values.draw(scores))
        largest = max(self._largest, float(log_values.max()))
        limit = -math.log(DELTA)
        self.crossings += self._largest <= limit < largest
        self._largest = largest
        self.windows += self._p_values.rows == self._window_rows


def _band(q: Array) -> Array:
    """Give the band matrix of `SimpleJumper`'s recursion, (6, 3 (B + 1)): diagonals in rows."""
    kept, spread = 1 - JUMP_RATE, JUMP_RATE / 3
    band = np.zeros((6, 3 * (len(q) + 1)), order="F")
    capital, up, down = (band[:, first:-3:3] for first in range(3))
    capital[3] = -1
    up[2] = -kept * q
    down[1] = kept * q
    capital[4] = -spread * (1 + q)
    up[3] = -kept * (1 + q)
    capital[5] = -spread * (1 - q)
    down[3] = -kept * (1 - q)
    return band


def _count(bag: Array, ascending: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Count the values of a sorted bag that are at most each score, and those equal to it."""
    first = bag.searchsorted(ascending)
    if not len(bag) or not (bag.take(first, mode="clip") == ascending).any():
        return first, np.zeros_like(first)
    after = bag.searchsorted(ascending, side="right")
    return after, after - first


def _count_greater_before(ranks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Count, for each of at most 256 ranks, the greater ones before it."""
    size = len(ranks)
    found = ranks[:, None] > ranks
    found &= _BEFORE[:size, :size]
    counts: NDArray[np.uint8] = np.add.reduce(found.view(np.uint8), axis=0, dtype=np.uint8)
    return counts


def _merge(values: Array, more: Array, places: NDArray[np.intp]) -> Array:
    """Merge sorted values into sorted values, to stand at these places."""
    merged = np.empty(len(values) + len(more))
    is_old = np.ones(len(merged), bool)
    is_old[places] = False
    merged[places] = more
    merged[is_old] = values
    return merged


# _BEFORE[i, j]: row i of a chunk came before row j.
_BEFORE = np.triu(np.ones((_CHUNK_ROWS, _CHUNK_ROWS), bool), 1)
