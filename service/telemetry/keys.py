"""Metrics of API keys, by their names: never more series than a bound."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Gauge

from service.telemetry.collectors import Counter

# So many keys have series of their own, in the order of the file; all others are one.
MOST_NAMED = 100
OTHER = "other"
KEY_FILE_OK = "pushforward_key_file_ok"


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
        self._file_ok = Gauge(
            KEY_FILE_OK,
            "0 while the file of API keys cannot be used, and the keys before it stay",
            registry=registry,
        )
        self._file_ok.set(1)
        self._named: frozenset[str] = frozenset()

    def watch_file(self, is_ok: Callable[[], bool]) -> None:
        """Read whether the file of API keys can be used when it is asked for."""
        self._file_ok.set_function(is_ok)

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
