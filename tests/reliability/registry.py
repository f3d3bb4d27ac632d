"""What a line of the list is: a number, what is tried, and a function that says what came."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from benchmarks.process import RunningServer, serving

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "models" / "zoo"
MODELS = ("moons", "pinwheel", "magic", "digits-nice", "digits-glow")
CONTROL = {"model": "moons", "x": [[0.0, 1.0]]}
# The list allows a hostile body 50 MB; what the allocator keeps for itself is in it.
MAX_GROWTH_BYTES = 50 * 2**20


class Wrong(AssertionError):
    """What came is not what the list asks for."""


def expect(claim: bool, came: object) -> None:
    """Raise `Wrong` with what came, unless the claim holds."""
    if not claim:
        raise Wrong(str(came))


@dataclass
class Ground:
    """What the trials of one run share: a folder, a server of the zoo, and how long to try."""

    folder: Path
    key: str
    is_quick: bool
    share: float = 1.0
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @cached_property
    def server(self) -> RunningServer:
        """The server that every hostile input is sent to."""
        models = [str(ZOO / name) for name in MODELS]
        flags = ["--enable-model-control", "true", "--watch-models", "false"]
        environment = {"PUSHFORWARD_API_KEYS": self.key}
        server = self._stack.enter_context(
            serving(self.folder / "server.log", *models, *flags, env=environment)
        )
        self.control(server)
        return server

    @contextlib.contextmanager
    def client(self, server: RunningServer | None = None) -> Iterator[httpx.Client]:
        """A client with the key."""
        url = (server or self.server).url
        headers = {"X-API-Key": self.key}
        with httpx.Client(base_url=url, headers=headers, timeout=120) as http:
            yield http

    def control(self, server: RunningServer | None = None) -> list[float]:
        """Ask what can be answered. -> log_prob of the control row."""
        with self.client(server) as http:
            expect(http.get("/health/live").status_code == 200, "/health/live is not 200")
            answer = http.post("/log_prob", json=CONTROL)
        expect(answer.status_code == 200, f"control request: {answer.text}")
        values: list[float] = answer.json()["log_prob"]
        return values

    def seconds(self, full: float, quick: float) -> float:
        """How long to try."""
        return quick if self.is_quick else self.share * full

    def count(self, full: int, quick: int) -> int:
        """How often to try."""
        return quick if self.is_quick else full

    def metric(self, pattern: str, server: RunningServer | None = None) -> float:
        """The sum of all series of /metrics whose line starts with a pattern."""
        with self.client(server) as http:
            text = http.get("/metrics").text
        found = re.findall(rf"^pushforward_{pattern}.*? (\S+)$", text, re.M)
        return sum(float(value) for value in found)

    def close(self) -> None:
        """End the shared server."""
        self._stack.close()


Run = Callable[[Ground], str]


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of the list, or a part of one."""

    line: int
    what: str
    run: Run
    is_hostile: bool  # sent to the shared server, which must answer as before and stay small


TRIALS: list[Trial] = []


def trial(line: int, what: str, *, hostile: bool = False) -> Callable[[Run], Run]:
    """Register a function as what is tried for a line."""

    def register(run: Run) -> Run:
        TRIALS.append(Trial(line, what, run, hostile))
        return run

    return register


def suite(line: int, what: str, *nodes: str) -> None:
    """Let tests of the suite stand for a line: faults that only they can inject."""

    def run(ground: Ground) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *nodes]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        summary = result.stdout.strip().splitlines()[-1] if result.stdout.strip() else "nothing"
        expect(result.returncode == 0, summary)
        return re.sub(r" in \S+s.*|=+", "", summary).strip() + " (tests of the suite)"

    TRIALS.append(Trial(line, what, run, False))


@dataclass(frozen=True, slots=True)
class Finding:
    """What a trial gave."""

    trial: Trial
    came: str
    is_right: bool
    seconds: float


def try_one(trial: Trial, ground: Ground) -> Finding:
    """Run a trial; whatever it sent, the shared server must answer as before."""
    if trial.is_hostile:
        before, resident = ground.control(), ground.server.resident_bytes()
    began = time.monotonic()
    try:
        came, is_right = trial.run(ground), True
        if trial.is_hostile:
            expect(ground.control() == before, "the control row has another answer")
            growth = ground.server.resident_bytes() - resident
            expect(growth < MAX_GROWTH_BYTES, f"resident memory grew by {growth / 2**20:.0f} MiB")
    except Exception as error:
        came, is_right = f"{type(error).__name__}: {error}"[:400], False
    return Finding(trial, came, is_right, time.monotonic() - began)


def table(findings: Sequence[Finding]) -> str:
    """Findings as Markdown."""
    rows = ["| line | tried | came | s | |", "|---|---|---|---|---|"]
    for found in findings:
        verdict = "right" if found.is_right else "**wrong**"
        cells: list[Any] = [found.trial.line, found.trial.what, found.came]
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
        rows.append(f"| {' | '.join(cells)} | {found.seconds:.1f} | {verdict} |")
    return "\n".join(rows) + "\n"
