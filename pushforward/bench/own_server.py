"""A server for a model folder, for as long as it is measured."""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

_START_SECONDS = 300.0
_END_SECONDS = 40.0
# A shell's way to say that a signal ended a command.
_SIGNALLED = 128
_COMMAND = "from pushforward.cli.main import main; main()"
# How `pushforward serve` begins the line that says why it does not start.
_REASON = "pushforward: "
_ADDRESS = re.compile(r"serving on (http://\S+?),")


class StartFailedError(Exception):
    """The server did not start; says why."""


@contextmanager
def serving(model: str) -> Iterator[str]:
    """Serve a model on a free port of this machine; the settings of `PUSHFORWARD_*` hold.

    Args:
        model: what `pushforward serve` takes.

    Returns:
        The URL, once the server is ready.

    Raises:
        StartFailedError: it does not become ready.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        flags = ("--host", "127.0.0.1", "--port", "0", "--log-level", "info")
        with log.open("wb") as output:
            # In a session of its own: Ctrl-C ends the load, and then this ends the server.
            process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, "serve", model, *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            with _ending_by_signals():
                yield _wait_until_ready(process, log)
        finally:
            _end(process)


@contextmanager
def _ending_by_signals() -> Iterator[None]:
    """Let signals that would end this process at once end the block instead: it has a server."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(_SIGNALLED + number)

    former = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            reason = reason_of_end(log.read_text(errors="replace"))
            raise StartFailedError(f"the server ended with {process.returncode}: {reason}")
        found = _ADDRESS.search(log.read_text(errors="replace"))
        if found and _is_ready(found[1]):
            return found[1]
        time.sleep(0.05)
    raise StartFailedError(f"the server was not ready within {_START_SECONDS:g} s")


def reason_of_end(log: str) -> str:
    """Why a server ended, of its log: the line that says so, or else the last one."""
    lines = log.strip().splitlines() or ["no output"]
    said = [line for line in lines if line.startswith(_REASON)]
    return (said or lines)[-1].removeprefix(_REASON)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
