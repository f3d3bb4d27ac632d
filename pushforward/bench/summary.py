"""Figures of a load: rates, percentiles, errors, and who set its limit."""

from collections import Counter
from typing import Any

import numpy as np

from pushforward.bench.load import Load, Measurement
from pushforward.bench.recording import INTERRUPTED, OWN_LIMITS, Floats, Recording, cannot_connect

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
# Of its time, for which a generator is on a core or waits for one, above which it is the limit.
BUSY_SHARE = 0.9
# Of an open loop's requests, what must be answered in the window for the rate to be kept.
KEPT_SHARE = 0.97
# A generator that is late by less does not matter; nor does a small part of the latency.
_LATE_MS = 1.0
_LATE_SHARE = 0.25
# It is the limit where so many requests, and such a part of them, were later. One alone may be an
# accident, and of a hundred requests it is the p99.
_LEAST_LATE = 10
_MOST_LATE_SHARE = 0.01


def percentile(values: Floats, percent: float) -> float:
    """The smallest of the values that so many percent do not exceed: one that was measured."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


def milliseconds(seconds: Floats) -> dict[str, float] | None:
    """Mean, percentiles and maximum in milliseconds; None of nothing."""
    seconds = seconds[np.isfinite(seconds)]
    if not len(seconds):
        return None
    found = {f"p{percent:g}": 1e3 * percentile(seconds, percent) for percent in PERCENTILES}
    return {"mean": 1e3 * float(seconds.mean()), **found, "max": 1e3 * float(seconds.max())}


def summarize(load: Load, measured: Measurement, rows: int) -> dict[str, Any]:
    """All figures of a load, as JSON has them.

    Requests are those that were due in the window; a rate is what was answered in it.

    Args:
        load: that was sent.
        measured: what came of it.
        rows: a request.
    """
    recording = measured.recording.between(measured.start, measured.end)
    good = recording.is_ok
    rate = _rate(measured)
    figures: dict[str, Any] = {
        "seconds": measured.seconds,
        "requests": int(good.sum()),
        "requests_per_second": rate,
        "rows_per_second": rate * rows,
        "latency_ms": milliseconds((recording.done - recording.due)[good]),
        "errors": _errors(recording),
        "still_waiting": _still_waiting(recording),
        "server_timing_ms": {
            "queue": milliseconds(recording.queue[good] / 1e3),
            "compute": milliseconds(recording.compute[good] / 1e3),
        },
        "sent_bytes": measured.sent_bytes,
        "received_bytes": measured.received_bytes,
    }
    if load.rate is not None:
        offered = len(recording.due) / measured.seconds if measured.seconds > 0 else 0.0
        figures["offered_per_second"] = offered
        figures["latency_from_sent_ms"] = milliseconds((recording.done - recording.sent)[good])
    figures["generator"] = _generator(measured, recording, figures["latency_ms"])
    figures["limited_by"] = limited_by(load, figures)
    figures["is_interrupted"] = measured.is_stopped
    figures["given_up"] = measured.given_up or None
    return figures


def limited_by(load: Load, figures: dict[str, Any]) -> str | None:
    """Who kept the rate from being higher: "server" or "generator"; None: the rate was kept."""
    generator = figures["generator"]
    if busy_share(generator) >= BUSY_SHARE:
        return "generator"
    count = num_requests(figures)
    if num_unsendable(figures) > (1 - KEPT_SHARE) * count:
        return "generator"
    if load.rate is None:
        return "server"
    if figures["requests"] < KEPT_SHARE * count:
        return "server"
    if generator["late_requests"] >= max(_LEAST_LATE, _MOST_LATE_SHARE * count):
        return "generator"
    is_kept = figures["requests_per_second"] >= KEPT_SHARE * figures["offered_per_second"]
    return None if is_kept else "server"


def num_requests(figures: dict[str, Any]) -> int:
    """How many there were, with an answer or without."""
    return int(figures["requests"] + figures["errors"]["total"])


def num_unsendable(figures: dict[str, Any]) -> int:
    """How many had no connection because this machine gives no more of them."""
    reasons = figures["errors"]["by_reason"]
    return sum(reasons.get(cannot_connect(reason), 0) for reason in OWN_LIMITS)


def error_counts(figures: dict[str, Any]) -> str:
    """How many requests failed for which reason, the most frequent first."""
    return ", ".join(f"{what}: {count:,}" for what, count in figures["errors"]["by_reason"].items())


def busy_share(generator: dict[str, Any]) -> float:
    """The part of its time for which a generator was on a core or waited for one."""
    return float(generator["cpu_share"] + (generator["waiting_share"] or 0.0))


def _rate(measured: Measurement) -> float:
    """Answers with numbers a second of the window, whenever their requests were due."""
    recording = measured.recording
    if measured.seconds <= 0:
        return 0.0
    in_window = (recording.done >= measured.start) & (recording.done < measured.end)
    return float((in_window & recording.is_ok).sum()) / measured.seconds


def _errors(recording: Recording) -> dict[str, Any]:
    failed = ~recording.is_ok
    statuses = Counter(recording.status[failed].tolist())
    reasons = Counter(recording.reason[failed].tolist())
    return {
        "total": int(failed.sum()),
        "by_status": {str(status): count for status, count in sorted(statuses.items()) if status},
        "by_reason": {recording.reasons[index]: count for index, count in reasons.most_common()},
        # How soon those that were refused were told.
        "latency_ms": milliseconds((recording.done - recording.due)[failed]),
    }


def _still_waiting(recording: Recording) -> dict[str, Any] | None:
    """What had no answer when the load was ended early, and for how long the first had waited."""
    if INTERRUPTED not in recording.reasons:
        return None
    chosen = recording.reason == recording.reasons.index(INTERRUPTED)
    waited = (recording.done - recording.due)[chosen]
    if not len(waited):
        return None
    return {"requests": len(waited), "longest_ms": 1e3 * float(waited.max())}


def _generator(
    measured: Measurement, recording: Recording, latency: dict[str, float] | None
) -> dict[str, Any]:
    """How the generator itself fared: its processor time, and how late it came to its requests."""
    seconds = measured.seconds
    waited = measured.waited_seconds
    late = recording.taken - recording.due
    bound_ms = max(_LATE_MS, _LATE_SHARE * (latency["p99"] if latency else 0.0))
    return {
        "cpu_share": measured.cpu_seconds / seconds if seconds > 0 else 0.0,
        "waiting_share": waited / seconds if seconds > 0 and np.isfinite(waited) else None,
        "late_ms": milliseconds(late),
        "late_requests": int((1e3 * late > bound_ms).sum()),
        "late_bound_ms": bound_ms,
        "waited_for_connection_ms": milliseconds(recording.sent - recording.taken),
    }
