"""Metrics of API keys, by their names: never more series than a bound."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from service.telemetry.collectors import Counter

# So many keys have series of their own, in the order of the file; all others are one.
MOST_NAMED = 100
OTHER = "other"


class KeyMetrics:
    """What each API key asked for and was refused.

    Args:
        registry: where the metrics are found.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "pushforward_key_requests",
            "Requests answered to an API key",
            ("key", "code"),
            registry=registry,
        )
        self._rows = Counter(
            "pushforward_key_rows", "Rows answered to an API key", ("key",), registry=registry
        )
        self._limited = Counter(
            "pushforward_key_limited",
            "Requests refused for a limit of their API key",
            ("key", "limit"),
            registry=registry,
        )
        self._named: frozenset[str] = frozenset()

    def name(self, limits_of: dict[str, Sequence[str]]) -> None:
        """Note which keys there are; series of others are removed.

        Args:
            limits_of: the limits of each key, by its name.
        """
        former, self._named = self._named, frozenset(list(limits_of)[:MOST_NAMED])
        for gone in former - self._named:
            for family in (self._requests, self._rows, self._limited):
                family.remove(gone)
        for key in self._named:
            self._rows.labels(key)
            for limit in limits_of[key]:
                self._limited.labels(key, limit)  # an increase is seen from 0 on

    def answered(self, key: str, code: int, rows: int) -> None:
        """Count an answer to a key, and the rows in it."""
        shown = self._shown(key)
        self._requests.labels(shown, str(code)).inc()
        if rows:
            self._rows.labels(shown).inc(rows)

    def limited(self, key: str, limit: str) -> None:
        """Count a request that a limit refused."""
        self._limited.labels(self._shown(key), limit).inc()

    def _shown(self, key: str) -> str:
        return key if key in self._named else OTHER
