"""Why a part of a flow has no kernel."""


class NotFused(ValueError):
    """There is no kernel for a part of a flow; the message says why."""
