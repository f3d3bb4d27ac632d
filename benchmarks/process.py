"""A real `pushforward serve` in a process of its own, for what speaks HTTP to it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that has answered ready; `started` is what `time.monotonic` said before."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    seconds_to_ready: float
    cpu_seconds_to_ready: float
    started: float = 0.0

    def client(self, timeout: float = 60) -> httpx.Client:
        """Open a client of this server."""
        return httpx.Client(base_url=self.url, timeout=timeout, verify=False)

    def terminate(self) -> int:
        """Send SIGTERM and wait for the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def resident_bytes(self) -> int:
        """The memory the process holds now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(
    log: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    executable: Path | Sequence[str] | None = None,
) -> Iterator[RunningServer]:
    """Start `pushforward serve ARGUMENTS` on a free port and wait until it is ready.

    Args:
        log: where its output goes.
        arguments: beside the port.
        env: variables beside those of this process.
        executable: the command of another environment, or the words of one.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [*_words(executable), "serve", *arguments, "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            text=True,
        )
        try:
            wait_until_ready(url, process, log)
            seconds = time.monotonic() - started
            cpu = cpu_seconds(process.pid)
            yield RunningServer(url, process, log, seconds, cpu, started)
        finally:
            process.kill()
            process.wait()


def _words(executable: Path | Sequence[str] | None) -> Sequence[str]:
    if executable is None:
        return command()
    return [str(executable)] if isinstance(executable, Path) else executable


def wait_until_ready(url: str, process: subprocess.Popen[str], log: Path) -> None:
    """Poll /health/ready until it answers 200."""
    deadline = time.monotonic() + START_SECONDS
    # Plain HTTP: a client that reads the certificates of all authorities takes the processor from
    # the server that starts. A connection each time, since a server may be replaced meanwhile.
    headers = {"Connection": "close"}
    with httpx.Client(base_url=url, headers=headers, timeout=5, verify=False) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"server exited with {process.returncode}: {log.read_text()}")
            try:
                if client.get("/health/ready").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    raise TimeoutError(f"not ready within {START_SECONDS} s: {log.read_text()}")


def cpu_seconds(pid: int) -> float:
    """Processor time a process has taken, whoever else wanted the processor."""
    # Fields 14 and 15 of the whole line; the name before them may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree_bytes(pid: int) -> int:
    """The memory of a process and those it has started, pages that they share counted once."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (line,) = (line for line in rollup.splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(line.split()[1]) * 1024 + sum(map(tree_bytes, map(int, children)))


def command(*arguments: str) -> Sequence[str]:
    """The installed `pushforward` command of this environment."""
    return (str(Path(sys.executable).with_name("pushforward")), *arguments)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
