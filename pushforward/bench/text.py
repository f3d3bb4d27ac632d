"""Numbers as people read them."""

_LEAST = 0.001


def number(value: float) -> str:
    """Three digits, or all before the point; never a power of ten.  3141.6 -> "3,142"."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value == 0 or value >= _LEAST else f"< {_LEAST}"


def rows(count: int) -> str:
    """How many rows a request has.  1 -> "1 row"."""
    return f"{count:,} row{'' if count == 1 else 's'}"
