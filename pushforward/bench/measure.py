"""A measurement from its arguments to its report."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from pushforward.bench.arrivals import Arrivals
from pushforward.bench.knee import Step, begin_search, find_knee
from pushforward.bench.load import Load
from pushforward.bench.processes import send_load
from pushforward.bench.recording import INTERRUPTED
from pushforward.bench.report import describe_knee, describe_load, describe_request, warnings
from pushforward.bench.requests import RequestKind, write_requests
from pushforward.bench.server_metrics import ServerCounts, ask_counts
from pushforward.bench.summary import summarize
from pushforward.bench.target import Target, open_target

# A search begins at this part of what a short closed loop gives.
_FIRST_SHARE = 1 / 8
_PROBE_CONNECTIONS = 16
_PROBE_SECONDS = 2.0
# Of one rate: a p99 of fewer requests is none; but nobody waits for them for ever.
_LEAST_REQUESTS = 500
_LONGEST_SECONDS = 60.0
# A rate is tried for so much longer to confirm it.
_CONFIRMED = 3.0


class LoadOptions(TypedDict):
    """Of a load, see `Load`."""

    seconds: float
    warmup_seconds: float
    connections: int
    rate: float | None
    arrivals: Arrivals
    timeout_seconds: float
    processes: int


@dataclass(frozen=True, slots=True)
class Trial:
    """A server, and the requests that it is measured with."""

    target: Target
    kind: RequestKind
    messages: tuple[bytes, ...]

    def load(self, **options: Unpack[LoadOptions]) -> Load:
        """A load of these requests."""
        return Load(self.target.endpoint, self.messages, seed=self.kind.seed, **options)

    def measure(self, load: Load) -> dict[str, Any]:
        """Send a load.

        Returns:
            The report; `recording` in it is what it was made of, and no JSON.
        """
        before = self._counts()
        measured = send_load(load)
        figures = summarize(load, measured, self.kind.rows)
        try:
            counted = _since(before, self._counts())
        except KeyboardInterrupt:  # what was measured is told all the same
            counted = {"unavailable": f"/metrics: {INTERRUPTED}"}
            figures["is_interrupted"] = True
        window = measured.recording.between(measured.start, measured.end)
        return {
            **describe_request(self.target, self.kind, self.messages),
            **describe_load(load),
            **figures,
            "server_metrics": counted,
            "warnings": warnings(figures),
            "recording": window,
        }

    def find_knee(
        self, load: Load, p99_ms: float, report: Callable[[Step], None]
    ) -> dict[str, Any]:
        """Search the highest rate with p99 below a bound; `report` is told each step."""

        def measure(rate: float, is_confirmation: bool) -> dict[str, Any]:
            seconds = load.seconds * (_CONFIRMED if is_confirmation else 1.0)
            seconds = max(seconds, min(_LEAST_REQUESTS / rate, _LONGEST_SECONDS))
            one = replace(load, rate=rate, seconds=seconds)
            before = self._counts()
            figures = summarize(one, send_load(one), self.kind.rows)
            return {**figures, "server_metrics": _since(before, self._counts())}

        probe = replace(
            load,
            connections=min(load.connections, _PROBE_CONNECTIONS),
            seconds=min(load.seconds, _PROBE_SECONDS),
        )
        first = summarize(probe, send_load(probe), self.kind.rows)
        search = begin_search(first)
        if not search.problem:
            start = max(1.0, _FIRST_SHARE * first["requests_per_second"])
            search = find_knee(measure, start, p99_ms, report)
        found = describe_knee(search, load, p99_ms)
        knee = found["knee"]
        return {
            **describe_request(self.target, self.kind, self.messages),
            **found,
            "server_metrics": knee["server_metrics"] if knee else {"unavailable": "no rate"},
            "warnings": warnings(knee) if knee else [f"no rate was reached: {search.problem}"],
        }

    def _counts(self) -> ServerCounts | str:
        target = self.target
        return ask_counts(target.url, str(target.card["name"]), target.api_key)


@contextmanager
def open_trial(
    text: str, model: str | None, api_key: str | None, kind: RequestKind
) -> Iterator[Trial]:
    """Find what is measured, serve it where it is a model, and write the requests.

    Raises:
        ValueError: the model is not there, or has to be named.
        ClientError, UnreachableError, StartFailedError: there is no server to measure.
    """
    with open_target(text, model, api_key) as target, target.client() as client:
        yield Trial(target, kind, write_requests(kind, target, client))


def _since(before: ServerCounts | str, after: ServerCounts | str) -> dict[str, Any]:
    if isinstance(before, str) or isinstance(after, str):
        return {"unavailable": before if isinstance(before, str) else after}
    return after.since(before)
