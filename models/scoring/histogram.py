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
# So many times what lies between the quartiles is shown on either side of them at most.
_SPREAD = 10
# Shares of the scores that lie at or below a quantile.
SHARES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


def histogram(scores: Array) -> dict[str, Any]:
    """Count scores in bins of one width, as many as their number supports.

    Args:
        scores: (n,), of which one at least is finite; without NaN.

    Returns:
        edges: one more than there are bins, from about the `TAIL` quantile to that from above, or
            from less far away where a tail is that long.
        counts: of each bin; its upper edge belongs to the next one, but for the last.
        below, above: how many lie outside of all bins, infinities among them.
    """
    finite = scores[np.isfinite(scores)]
    first, third = np.quantile(finite, (0.25, 0.75))
    # Scores themselves, so that some lie between them.
    low = np.quantile(finite, TAIL, method="lower")
    high = np.quantile(finite, 1 - TAIL, method="higher")
    if third > first:
        reach = _SPREAD * (third - first)
        low, high = max(low, first - reach), min(high, third + reach)
    inside = finite[(low <= finite) & (finite <= high)]
    counts, edges = np.histogram(inside, _bins(inside))
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "below": int(np.count_nonzero(scores < low)),
        "above": int(np.count_nonzero(scores > high)),
    }


def _bins(scores: Array) -> int:
    least, most = scores.min(), scores.max()
    # So close to each other no more edges fit between them than there are numbers.
    if most - least <= MOST_BINS * np.spacing(max(abs(least), abs(most))):
        return 1
    # Freedman and Diaconis, or Sturges where there are few.
    return min(len(np.histogram_bin_edges(scores, "auto")) - 1, MOST_BINS)


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
