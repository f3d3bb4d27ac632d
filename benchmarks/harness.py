"""Side-by-side timing: the candidates take turns, so that drift of the machine meets them all.

Absolute times on a shared machine move by a factor of two within minutes. So only ratios inside
one round count, the baseline runs twice a round, and how much it differs from itself is the noise
that every ratio is printed with.
"""

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any

_PACKAGES = ("numpy", "torch", "onnxruntime", "onnxruntime-gpu", "fastapi", "uvicorn")


@dataclass(frozen=True, slots=True)
class Ratios:
    """What the rounds gave, and the speed-ups over the baseline that follow from them.

    baseline: name of the candidate that the others are compared with.
    seconds: candidate -> seconds a call, one number a round.
    baseline_again: the baseline's second turn in each round.
    rows: rows of work a call, for the rates of the table.
    """

    baseline: str
    seconds: Mapping[str, tuple[float, ...]]
    baseline_again: tuple[float, ...]
    rows: int = 1

    def speedup(self, name: str) -> float:
        """Median over rounds of baseline seconds / candidate seconds: 2.0 = twice as fast."""
        return median(self._paired(name))

    def spread(self, name: str) -> tuple[float, float]:
        """First and third quartile of the speed-up over the rounds."""
        pairs = self._paired(name)
        low, _, high = quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else pairs * 3
        return low, high

    @property
    def noise(self) -> float:
        """Median over rounds of |baseline / its second turn - 1|: a speed-up this small is none."""
        turns = zip(self.seconds[self.baseline], self.baseline_again, strict=True)
        return median(abs(first / second - 1) for first, second in turns)

    def table(self) -> str:
        """The result as a Markdown table, with the noise below it."""
        lines = ["| candidate | ms a call | rows/s | speed-up (quartiles) |", "|---|---|---|---|"]
        for name, turns in self.seconds.items():
            low, high = self.spread(name)
            milliseconds, rate = 1e3 * median(turns), self.rows / median(turns)
            shown = "1 (baseline)" if name == self.baseline else ""
            shown = shown or f"{self.speedup(name):.2f} ({low:.2f} to {high:.2f})"
            lines.append(f"| {name} | {milliseconds:.4g} | {rate:,.0f} | {shown} |")
        rounds = len(self.baseline_again)
        lines.append(f"\n{rounds} rounds; the baseline against itself: ±{100 * self.noise:.1f} %")
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """Write every number, and what it was measured on, as JSON."""
        candidates = {
            name: {
                "seconds": list(turns),
                "median_seconds": median(turns),
                "speedup": self.speedup(name),
                "speedup_quartiles": list(self.spread(name)),
            }
            for name, turns in self.seconds.items()
        }
        result = {
            "baseline": self.baseline,
            "rows": self.rows,
            "noise": self.noise,
            "baseline_again_seconds": list(self.baseline_again),
            "candidates": candidates,
            "machine": machine(),
        }
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    def _paired(self, name: str) -> list[float]:
        # Against the mean of both turns of the baseline: half its noise.
        turns = zip(
            self.seconds[name], self.seconds[self.baseline], self.baseline_again, strict=True
        )
        return [(first + second) / (2 * own) for own, first, second in turns]


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 9,
    turn_seconds: float = 0.2,
    rows: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratios:
    """Time callables against the first of them, in turns.

    Each is called for a while first (warm-up, which also finds how many calls fill a turn). What
    a callable starts it must also finish: synchronise a GPU inside it.

    Args:
        rounds: how often each candidate has its turn.
        turn_seconds: how long a turn lasts at least.
        rows: rows of work a call, for the rates of the table.
    """
    measures = {name: _turn(call, turn_seconds, clock) for name, call in candidates.items()}
    return take_turns(measures, rounds=rounds, rows=rows)


def take_turns(
    measures: Mapping[str, Callable[[], float]], *, rounds: int = 9, rows: int = 1
) -> Ratios:
    """Compare measurements that return seconds a call by themselves, as a load generator does.

    The order moves on by one each round: nobody always runs after the same neighbour.

    Raises:
        ValueError: if there is nothing to measure.
    """
    if not measures or rounds < 1:
        raise ValueError(f"expected candidates and rounds, got {len(measures)} and {rounds}")
    names = list(measures)
    turns = [*names, None]  # None: the baseline's second turn
    taken: dict[str | None, list[float]] = {turn: [] for turn in turns}
    for round_index in range(rounds):
        start = round_index % len(turns)
        for turn in turns[start:] + turns[:start]:
            taken[turn].append(measures[names[0] if turn is None else turn]())
    seconds = {name: tuple(taken[name]) for name in names}
    return Ratios(names[0], seconds, tuple(taken[None]), rows)


def machine() -> dict[str, Any]:
    """What the numbers were taken on: processor, cores, Python, versions of what computes."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": versions,
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _turn(
    call: Callable[[], object], turn_seconds: float, clock: Callable[[], float]
) -> Callable[[], float]:
    """Warm `call` up and make the measurement of one turn: seconds a call."""
    calls = 1
    while (elapsed := _time(call, calls, clock)) < turn_seconds / 2:
        calls *= 2
    calls = max(1, round(calls * turn_seconds / elapsed))
    return lambda: _time(call, calls, clock) / calls


def _time(call: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    # As timeit does: a collection that falls into one turn is not this candidate's cost.
    collecting = gc.isenabled()
    gc.disable()
    try:
        started = clock()
        for _ in range(calls):
            call()
        return clock() - started
    finally:
        if collecting:
            gc.enable()
