"""The document that `pushforward bench --json` prints: what was asked, and what was measured."""

from typing import Any

from pushforward.bench.knee import KneeSearch
from pushforward.bench.load import Load
from pushforward.bench.requests import RequestKind
from pushforward.bench.summary import (
    BUSY_SHARE,
    busy_share,
    error_counts,
    num_requests,
    num_unsendable,
)
from pushforward.bench.target import Target
from pushforward.bench.text import number

# A percentile needs some requests beyond it, to be more than their maximum.
_BEYOND = 10
# Of its time, above which a generator's own work shows in the rate of a closed loop.
_SHOWS = 0.1


def describe_request(target: Target, kind: RequestKind, messages: tuple[bytes, ...]) -> Any:
    """What is sent, and to whom."""
    return {
        "url": target.url,
        "model": target.card["name"],
        "version": target.card["version"],
        "engine": target.card.get("engine"),
        "operation": kind.operation,
        "rows": kind.rows,
        "format": kind.form,
        "is_compressed": kind.is_compressed,
        "bodies": len(messages),
        "request_bytes": sum(map(len, messages)) / len(messages),
        "shares_cores": target.endpoint.is_local,
    }


def describe_load(load: Load) -> dict[str, Any]:
    """How it is sent."""
    described: dict[str, Any] = {"mode": "closed" if load.rate is None else "open"}
    described |= {"connections": load.connections, "processes": load.num_processes}
    described |= {"warmup_seconds": load.warmup_seconds}
    if load.rate is not None:
        described |= {"rate": load.rate, "arrivals": load.arrivals, "seed": load.seed}
    return described


def describe_knee(search: KneeSearch, load: Load, p99_ms: float) -> dict[str, Any]:
    """What a search has found, with all that it tried."""
    knee = search.knee
    limit = "generator" if search.is_limited_by_generator else "server"
    return {
        "mode": "knee",
        "p99_ms": p99_ms,
        "connections": load.connections,
        "processes": load.num_processes,
        "warmup_seconds": load.warmup_seconds,
        "arrivals": load.arrivals,
        "seed": load.seed,
        "knee_per_second": None if knee is None else knee.figures["requests_per_second"],
        "knee": None if knee is None else knee.figures,
        "problem": search.problem or None,
        "limited_by": limit,
        "is_interrupted": search.is_interrupted,
        "given_up": search.given_up or None,
        "steps": [
            {
                "rate": step.rate,
                "is_reached": step.is_reached,
                "problem": step.problem or None,
                "is_confirmation": step.is_confirmation,
                **step.figures,
            }
            for step in search.steps
        ],
    }


def warnings(figures: dict[str, Any]) -> list[str]:
    """What a reader of the figures of one load has to know."""
    found = []
    generator, errors, count = figures["generator"], figures["errors"], figures["requests"]
    if figures["given_up"]:
        found.append(figures["given_up"])
    if figures["is_interrupted"]:
        found.append(f"ended early: {number(figures['seconds'])} s were measured")
    waiting = figures["still_waiting"]
    if waiting:
        found.append(
            f"{waiting['requests']:,} requests had no answer when it ended, the first of them for "
            f"{number(waiting['longest_ms'] / 1e3)} s"
        )
    if figures["limited_by"] == "generator":
        found.append(_generator_limit(figures))
    elif "offered_per_second" not in figures and busy_share(generator) > _SHOWS:
        found.append(
            f"a closed loop sends when it has its answer: the generator's own work, "
            f"{100 * busy_share(generator):.0f} % of the time, is a part of each turn, and a "
            "lighter client may find a higher rate (--rate sends whatever the answers do)"
        )
    if errors["total"]:
        counts = error_counts(figures)
        found.append(f"{errors['total']:,} requests without numbers ({counts}): not in the rates")
    for name, least in (("p99", 100 * _BEYOND), ("p99.9", 1000 * _BEYOND)):
        if 0 < count < least:
            found.append(f"{count:,} requests are few for a {name}: measure for longer")
            break
    return found


def _generator_limit(figures: dict[str, Any]) -> str:
    generator = figures["generator"]
    cpu, waiting = generator["cpu_share"], generator["waiting_share"] or 0.0
    count, unsendable = num_requests(figures), num_unsendable(figures)
    if busy_share(generator) >= BUSY_SHARE:
        return (
            f"the generator is the limit: it ran for {100 * cpu:.0f} % of the time and waited "
            f"{100 * waiting:.0f} % for a core; the server may do more: take --processes, or "
            "another machine"
        )
    if unsendable > generator["late_requests"]:
        return (
            f"the generator is the limit: for {unsendable:,} of {count:,} requests this machine "
            "gave no connection; take fewer --connections, or a higher `ulimit -n`"
        )
    return (
        f"the generator is the limit: it came to {generator['late_requests']:,} of {count:,} "
        f"requests more than {number(generator['late_bound_ms'])} ms late; the latencies hold that"
    )
