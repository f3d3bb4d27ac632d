"""How many connections there is room for, and whether a newcomer still finds some."""

import logging

# Newcomers beyond the room that are waited for, so that they can be told why they are not served.
GUESTS = 12
# How long a guest may take to ask.
GUEST_SECONDS = 1
# What tells whether the service lives is answered to guests too: a full one need not be restarted.
_HEALTH = (b"GET /health/", b"GET /v2/health/")

_log = logging.getLogger(__name__)


class Room:
    """The connections that may be open at a time.

    most: None where nothing limits them.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        self._is_told = False

    def holds(self, count: int) -> bool:
        """Whether the last of this many connections is served. The first that is not is logged."""
        if self.most is None or count <= self.most:
            return True
        if not self._is_told:
            self._is_told = True
            _log.warning(
                "%d connections are open, as many as the limit on descriptors leaves room for "
                "(ulimit -n): newcomers are told 503",
                self.most,
            )
        return False

    def holds_guest(self, count: int) -> bool:
        """Whether the last of this many is waited for until it has asked."""
        return self.most is None or count <= self.most + GUESTS

    def leave(self, count: int) -> None:
        """One has left, this many are open: with half of the room free, what comes next is news."""
        if self.most is not None and count <= self.most // 2:
            self._is_told = False


def asks_for_health(data: bytes) -> bool:
    """Whether what a client sends first asks how the service is."""
    return data.startswith(_HEALTH)
