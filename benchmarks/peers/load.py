"""wrk, one thread: a closed loop of one body; and the memory of a server's processes."""

import json
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class Window:
    """What one window gave; times are in milliseconds."""

    rate: float
    p50: float
    p99: float
    errors: int


def require_wrk() -> None:
    """Say what is missing.

    Raises:
        SystemExit: wrk is not installed.
    """
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs the load generator wrk (apt-get install wrk)")


def closed_loop(
    url: str, body: Path, content_type: str, accept: str, concurrency: int, seconds: float
) -> Window:
    """Send one body again and again over `concurrency` connections."""
    return closed_loop_of(url, [body], content_type, accept, concurrency, seconds)


def closed_loop_of(
    url: str, bodies: list[Path], content_type: str, accept: str, concurrency: int, seconds: float
) -> Window:
    """Send several bodies in turn over `concurrency` connections."""
    paths = "\n".join(map(str, bodies))
    length = f"{max(1, round(seconds))}s"
    command = ("wrk", "-t1", f"-c{concurrency}", f"-d{length}", "--timeout", "30s")
    result = subprocess.run(
        (*command, "-s", str(SCRIPT), url),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "WRK_BODY": paths, "WRK_TYPE": content_type, "WRK_ACCEPT": accept},
    )
    figures = json.loads(result.stdout.strip().splitlines()[-1])
    good = figures["requests"] - figures["errors"]
    return Window(good / figures["seconds"], figures["p50"], figures["p99"], figures["errors"])


def signal_all(pid: int, number: int) -> None:
    """Send a signal to a process and all below it."""
    for one in _family(pid):
        with suppress(ProcessLookupError):
            os.kill(one, number)


def peak_bytes(pid: int) -> int:
    """Sum of the peak resident memory of a process and all below it."""
    total = 0
    for one in _family(pid):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += parents.get(one, [])
    return found
