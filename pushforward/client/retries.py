"""Whether to try again, and when: a function of what happened, without a clock or a socket.

Every call of this client is pure, so trying again is always safe.
"""

import random
import time
from email.utils import parsedate_to_datetime

import httpx

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
# A server that asks for more patience than this is not waited for.
MAX_RETRY_AFTER_SECONDS = 60.0

_RETRIED_STATUSES = frozenset((408, 429))
# The connection failed, not the answer: those that only took too long have used up their time.
_RETRIED_FAILURES = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.RemoteProtocolError,
)

AttemptResult = httpx.Response | httpx.RequestError


def pause_before_retry(outcome: AttemptResult, attempt: int, max_retries: int) -> float | None:
    """Seconds to wait before the next attempt; None where the outcome stands.

    0.5 s, doubled with each attempt up to 8 s, less a random quarter so that clients that failed
    together do not come back together; or what Retry-After says.

    Args:
        outcome: of the attempt just made.
        attempt: its number, from 0.
        max_retries: attempts after the first.
    """
    if attempt >= max_retries or not _is_worth_it(outcome):
        return None
    if isinstance(outcome, httpx.Response):
        asked = read_retry_after(outcome.headers.get("retry-after"))
        if asked is not None:
            return asked if asked <= MAX_RETRY_AFTER_SECONDS else None
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 16), LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.75, 1.0)


def read_retry_after(value: str | None) -> float | None:
    """Read Retry-After, in seconds or as a date; None where it says nothing (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _is_worth_it(outcome: AttemptResult) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in _RETRIED_STATUSES or outcome.status_code >= 500
    return isinstance(outcome, _RETRIED_FAILURES)
