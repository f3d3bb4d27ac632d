"""The results of a run: checks, measurements and what was not run, written as they come."""

import json
import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# How much of a traceback is kept: its end says most.
_TRACEBACK_CHARACTERS = 1500


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold. seconds: from the start of the run."""

    part: str
    subject: str
    what: str
    is_passed: bool
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number, or what stands in its place: a reason. goal: what it should be, where it is known.

    is_reached: None where there is no goal, or it is one of another machine.
    """

    table: str
    subject: str
    candidate: str
    values: dict[str, float | str]
    goal: str = ""
    is_reached: bool | None = None


@dataclass(frozen=True, slots=True)
class NotRun:
    """What was left out, and why."""

    part: str
    subject: str
    reason: str


class Results:
    """All results, each flushed to a file of JSON lines when it is there.

    Args:
        lines: the file.
        seconds: how long the run may take.
        clock: monotonic seconds.
    """

    def __init__(
        self, lines: Path, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.checks: list[Check] = []
        self.measurements: list[Measurement] = []
        self.not_run: list[NotRun] = []
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        lines.parent.mkdir(parents=True, exist_ok=True)
        self._file = lines.open("w", encoding="utf-8")

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began

    @property
    def failed(self) -> list[Check]:
        """The checks that do not hold."""
        return [check for check in self.checks if not check.is_passed]

    @property
    def is_passed(self) -> bool:
        """Whether there were checks, and all hold."""
        return bool(self.checks) and not self.failed

    def check(self, part: str, subject: str, what: str, passed: bool, detail: str = "") -> None:
        """Note whether something holds."""
        check = Check(part, subject, what, passed, detail, round(self.elapsed, 2))
        self.checks.append(check)
        self._write("check", check)
        if not passed:
            print(f"FAILED {part}: {subject}: {what}: {detail}", flush=True)

    def check_error(self, part: str, subject: str, what: str, error: float, allowed: float) -> None:
        """Note whether an error is one that is allowed; a NaN is not."""
        self.check(part, subject, what, error <= allowed, f"{error:.3g} of {allowed:.3g}")

    def measure(self, measurement: Measurement) -> None:
        """Note a measurement."""
        self.measurements.append(measurement)
        self._write("measurement", measurement)

    def skip(self, part: str, subject: str, reason: str) -> None:
        """Note what was not run."""
        left_out = NotRun(part, subject, reason)
        self.not_run.append(left_out)
        self._write("not run", left_out)

    def note(self, kind: str, facts: dict[str, Any]) -> None:
        """Write facts that are neither of these."""
        self._write(kind, facts)

    def has_time(self, part: str, subject: str, seconds: float = 0.0) -> bool:
        """Whether something that takes so long still fits; what does not is listed as not run."""
        if self.elapsed + seconds <= self._seconds:
            return True
        self.skip(part, subject, f"no time left of {self._seconds:g} s")
        return False

    @contextmanager
    def guard(self, part: str, subject: str) -> Iterator[None]:
        """Count what is raised inside the block as a check that failed."""
        try:
            yield
        except Exception as error:
            trace = traceback.format_exc()[-_TRACEBACK_CHARACTERS:]
            self.check(part, subject, type(error).__name__, passed=False, detail=trace)

    def close(self) -> None:
        """Close the file of lines."""
        self._file.close()

    def _write(self, kind: str, what: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **as_json(what)}) + "\n")
        self._file.flush()


def as_json(value: Any) -> Any:
    """Results as JSON holds them: numbers that are not finite become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Check | Measurement | NotRun):
        return as_json(asdict(value))
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value
