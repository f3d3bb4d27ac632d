"""`pushforward bench` beside wrk: do both find the same rate of one server?

A closed loop of the same bodies over as many connections, models of the zoo, `pushforward serve`
with no other setting (but for a delay, where it is named). wrk (one thread) and the load tester
(one process) take turns, wrk has two a round: how much it differs from itself is the noise. Both
share the cores with the server. Up to 2,000 requests a second the load tester is to be within 5 %;
above, it is to say where it is the limit itself. Ratios are medians over the rounds: the rates
beside them are too, and the machine has its phases.

    python -m benchmarks.bench_load_tester [--only "1,000 rows+score"] [--rounds 5] [--seconds 2]
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Ratios, machine, take_turns
from benchmarks.peers import load
from benchmarks.process import serving
from pushforward.bench.measure import Trial, open_trial
from pushforward.bench.requests import Format, RequestKind

OUT = Path(__file__).with_name("load_tester.json")
TABLE = OUT.with_suffix(".md")
ZOO = Path("models/zoo")
# Of wrk's rate, up to `AGREED` requests a second.
WITHIN = 0.05
AGREED = 2000
WRK, OURS = "wrk", "pushforward bench"
HEADINGS = (
    "work",
    "connections",
    "wrk, requests/s",
    "pushforward bench",
    "ratio (quartiles)",
    "noise of wrk",
    "p99 of both, ms",
    "generator on a core",
    "limited by",
)


@dataclass(frozen=True, slots=True)
class Work:
    """A closed loop on a model of the zoo."""

    model: str
    operation: str
    rows: int
    form: Format
    connections: int
    delay_seconds: float = 0.0

    @property
    def name(self) -> str:
        """As the table has it."""
        rows = f"{self.rows:,} row{'s' if self.rows > 1 else ''}"
        delay = f", batches delayed by {1e3 * self.delay_seconds:g} ms" * bool(self.delay_seconds)
        return f"{self.operation} of {self.model}, {rows}, {self.form}{delay}"


WORK = (
    # Cores that are nearly idle: what the two of them count, and not what the machine does.
    Work("moons", "log_prob", 1, "json", 4, 0.02),
    Work("moons", "log_prob", 1, "json", 16, 0.01),
    Work("magic", "log_prob", 1000, "json", 8),
    Work("magic", "log_prob", 1000, "npy", 8),
    Work("moons", "encode", 1000, "json", 8),
    Work("magic", "score", 100, "json", 4),
    Work("digits-nice", "log_prob", 8, "npy", 4),
    Work("digits-glow", "log_prob", 1, "npy", 16),
    Work("moons", "sample", 2000, "npy", 4),
    Work("moons", "log_prob", 1, "json", 1),
    Work("moons", "log_prob", 1, "json", 16),
    Work("moons", "log_prob", 1, "json", 256),
)


def compare(work: Work, rounds: int, seconds: float) -> dict[str, Any]:
    """Let both take turns on one server."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = ["--log-level", "warning", "--max-batch-delay-seconds", str(work.delay_seconds)]
        server = stack.enter_context(serving(scratch / "log", str(ZOO / work.model), *flags))
        kind = RequestKind(work.operation, work.rows, work.form)
        trial = stack.enter_context(open_trial(server.url, None, None, kind))
        windows: list[load.Window] = []
        reports: list[dict[str, Any]] = []
        wrk = _wrk(work, server.url, trial, scratch, seconds, windows)
        ours = _ours(work, trial, seconds, reports)
        take_turns({WRK: wrk, OURS: ours}, rounds=1)
        windows.clear()
        reports.clear()
        ratios = take_turns({WRK: wrk, OURS: ours}, rounds=rounds)
    return _found(work, ratios, windows, reports)


def _wrk(
    work: Work,
    url: str,
    trial: Trial,
    scratch: Path,
    seconds: float,
    windows: list[load.Window],
) -> Callable[[], float]:
    """A turn of wrk with the load tester's own bodies."""
    bodies, headers, path = [], {}, ""
    for index, message in enumerate(trial.messages):
        head, _, body = message.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers, path = dict(text.split(": ", 1) for text in lines), line.split()[1]
        bodies.append(scratch / f"body{index}")
        bodies[-1].write_bytes(body)

    def turn() -> float:
        kinds = (headers["Content-Type"], headers["Accept"])
        window = load.closed_loop_of(f"{url}{path}", bodies, *kinds, work.connections, seconds)
        if window.errors:
            raise RuntimeError(f"{work.name}: wrk saw {window.errors} errors")
        windows.append(window)
        return 1 / window.rate

    return turn


def _ours(
    work: Work, trial: Trial, seconds: float, reports: list[dict[str, Any]]
) -> Callable[[], float]:
    given = trial.load(
        seconds=seconds,
        warmup_seconds=0.2,
        connections=work.connections,
        rate=None,
        arrivals="poisson",
        timeout_seconds=30.0,
        processes=1,
    )

    def turn() -> float:
        report = trial.measure(given)
        if report["errors"]["total"]:
            raise RuntimeError(f"{work.name}: {report['errors']}")
        del report["recording"]
        reports.append(report)
        return 1 / float(report["requests_per_second"])

    return turn


def _found(
    work: Work, ratios: Ratios, windows: list[load.Window], reports: list[dict[str, Any]]
) -> dict[str, Any]:
    limits = [report["limited_by"] for report in reports]
    return {
        "seconds": {name: list(turns) for name, turns in ratios.seconds.items()},
        "connections": work.connections,
        "wrk_per_second": 1 / median(ratios.seconds[WRK]),
        "ours_per_second": 1 / median(ratios.seconds[OURS]),
        "ratio": ratios.speedup(OURS),
        "quartiles": ratios.spread(OURS),
        "noise": ratios.noise,
        "wrk_p99_ms": median(window.p99 for window in windows),
        "ours_p99_ms": median(report["latency_ms"]["p99"] for report in reports),
        "cpu_share": median(report["generator"]["cpu_share"] for report in reports),
        "limited_by": max(set(limits), key=limits.count),
    }


def table(found: dict[str, Any]) -> str:
    """All that was compared, in Markdown."""
    lines = [_line(*HEADINGS), _line(*("---" for _ in HEADINGS))]
    for name, one in found.items():
        low, high = one["quartiles"]
        agrees = abs(one["ratio"] - 1) <= WITHIN
        missed = ": not told, within the noise" if one["noise"] > WITHIN else ": MISSED"
        wanted = "" if one["wrk_per_second"] > AGREED else ": met" if agrees else missed
        lines.append(
            _line(
                name,
                str(one["connections"]),
                f"{one['wrk_per_second']:,.0f}",
                f"{one['ours_per_second']:,.0f}",
                f"{one['ratio']:.3f} ({low:.3f} to {high:.3f}){wanted}",
                f"{100 * one['noise']:.1f} %",
                f"{one['wrk_p99_ms']:.3g}, {one['ours_p99_ms']:.3g}",
                f"{100 * one['cpu_share']:.0f} %",
                one["limited_by"],
            )
        )
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def write(results: dict[str, Any]) -> None:
    """Write all numbers, and the table with what it is."""
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    versions = results["machine"]
    where = f"{versions['processor']}, {versions['cores']} cores, Python {versions['python']}"
    text = (__doc__ or "").partition("    python -m")[0].strip()
    TABLE.write_text(
        f"# The load tester beside wrk\n\n{text}\n\n{results['date']}, {where}.\n\n"
        f"{table(results['work'])}\n",
        encoding="utf-8",
    )


def main() -> None:
    """Measure and print."""
    load.require_wrk()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", help="work whose name holds one of these, joined by '+'"
    )
    parser.add_argument("--connections", type=int, help="of these alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    asked = parser.parse_args()
    results: dict[str, Any] = {"work": {}}
    if OUT.exists() and (asked.only or asked.connections):
        results = json.loads(OUT.read_text(encoding="utf-8"))
    results |= {"machine": machine(), "date": f"{datetime.now(UTC):%d %B %Y}"}
    for work in WORK:
        is_named = any(part in work.name for part in asked.only.split("+"))
        if is_named and asked.connections in (None, work.connections):
            key = f"{work.name}, {work.connections}"
            results["work"][key] = compare(work, asked.rounds, asked.seconds)
            print(table({key: results["work"][key]}).splitlines()[-1], flush=True)
            write(results)


if __name__ == "__main__":
    main()
