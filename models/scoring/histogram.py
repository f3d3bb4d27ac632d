"""The scores of a calibration in short: counts in bins, and quantiles."""

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

# More than a plot of a page's width can show.
MOST_BINS = 60
# The scores in the tails are counted, and shown in no bin: a few of them may lie far away.
TAIL = 0.002
# Shares of the scores that lie at or below a quantile.
SHARES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


def histogram(scores: Array) -> dict[str, Any]:
    """Count scores in bins of one width, as many as their number supports.

    Args:
        scores: (n,), of which one at least is finite; without NaN.

    Returns:
        edges: one more than there are bins, from about the `TAIL` quantile to that from above.
        counts: of each bin; its upper edge belongs to the next one, but for the last.
        below, above: how many lie outside of all bins, infinities among them.
    """
    finite = scores[np.isfinite(scores)]
    low, high = np.quantile(finite, (TAIL, 1 - TAIL))
    inside = finite[(low <= finite) & (finite <= high)]
    # Freedman and Diaconis, or Sturges where there are few.
    bins = min(len(np.histogram_bin_edges(inside, "auto")) - 1, MOST_BINS)
    counts, edges = np.histogram(inside, bins)
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "below": int(np.count_nonzero(scores < low)),
        "above": int(np.count_nonzero(scores > high)),
    }


def quantiles(scores: Array) -> list[dict[str, float | None]]:
    """Give scores that so large shares of all of them do not exceed; None for an infinite one.

    Args:
        scores: (n,), without NaN.
    """
    found = np.quantile(scores, SHARES, method="inverted_cdf").tolist()
    return [
        {"share": share, "score": score if math.isfinite(score) else None}
        for share, score in zip(SHARES, found, strict=True)
    ]
