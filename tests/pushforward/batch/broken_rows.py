"""Files of text in which some rows are broken, and what is to be said of each."""

from pathlib import Path

import numpy as np

# What stands in the place of a row, and its status.
KINDS = (
    ("1", "malformed_row"),
    ("1,2,3", "malformed_row"),
    ('"1,2', "malformed_row"),
    ('12","7', "malformed_row"),
    ('1,"2""', "malformed_row"),
    ('"', "malformed_row"),
    ("1;2", "malformed_row"),
    (",2", "missing"),
    ("1,NA", "missing"),
    ("nan,2", "missing"),
    ("1,inf", "infinite"),
    ("1e300,2", "too_large"),
    ("many,1", "text"),
    ("1,0x10", "text"),
    ("1,2e", "text"),
    ('1,"2,5"', "text"),
    ('12" pipe,2', "text"),
    ('1,"2"""', "text"),
)


def write_broken_csv(path: Path, rows: int, every: int = 100) -> dict[int, str]:
    """Write rows of x1 and x2, of which one in so many is broken in one of the ways in turn.

    Returns:
        The status of each row that is broken.
    """
    x = np.random.default_rng(0).normal(size=(rows, 2))
    lines = [f"{first!r},{second!r}" for first, second in x.tolist()]
    broken = {}
    for turn, row in enumerate(range(every // 2, rows, every)):
        lines[row], reason = KINDS[turn % len(KINDS)]
        broken[row] = f"invalid_input: {reason}"
    path.write_text("\n".join(["x1,x2", *lines]) + "\n")
    return broken
