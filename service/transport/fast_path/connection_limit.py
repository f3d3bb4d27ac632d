"""A limit on open connections, and how those beyond it are told."""

import logging

# Connections beyond the limit that are kept for a while, so that they can be told why they are not
# served.
SURPLUS = 12
# How long one of them may take to ask.
SURPLUS_SECONDS = 1
# What tells whether the service lives is answered to them too: a full one need not be restarted.
_HEALTH = (b"GET /health/", b"GET /v2/health/")

_log = logging.getLogger(__name__)


class ConnectionLimit:
    """The connections that may be open at a time.

    most: None where nothing limits them.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        self._is_logged = False

    def admits(self, count: int) -> bool:
        """Whether the last of this many connections is served. The first that is not is logged."""
        if self.most is None or count <= self.most:
            return True
        if not self._is_logged:
            self._is_logged = True
            _log.warning(
                "%d connections are open, as many as the limit on descriptors leaves room for "
                "(ulimit -n): newcomers are told 503",
                self.most,
            )
        return False

    def admits_surplus(self, count: int) -> bool:
        """Whether the last of this many is kept until it has asked."""
        return self.most is None or count <= self.most + SURPLUS

    def release(self, count: int) -> None:
        """One was closed, this many are open: at half of the limit, reaching it is news again."""
        if self.most is not None and count <= self.most // 2:
            self._is_logged = False


def asks_for_health(data: bytes) -> bool:
    """Whether what a client sends first asks how the service is."""
    return data.startswith(_HEALTH)
