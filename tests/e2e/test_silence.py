"""The real server under strace: it opens its own listener and nothing else, and writes nowhere.

Without a sandbox and without a network: what a process asks of the kernel is what it does.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.process import START_SECONDS, command, free_port, wait_until_ready

MOONS = Path(__file__).parents[2] / "models" / "zoo" / "moons"
# Of `socketpair` no line is kept: the event loop has pairs of its own.
SOCKET = re.compile(r"\bsocket\((\w+), (\w+)")
# The names of files that a call makes or opens for writing.
WRITES = re.compile(r"\b(?:openat?|creat)\(.*?\"([^\"]*)\"[^)]*O_(?:WRONLY|RDWR|CREAT)")
MAKES = re.compile(
    r"\b(?:mkdir|unlink|rename|link|symlink|mknod|truncate)(?:at2?)?\(.*?\"([^\"]*)\""
)
DEVICES = ("/dev/null", "/dev/shm/", "/dev/tty")


def may_trace() -> bool:
    """Whether strace is here, and the kernel lets it."""
    strace = shutil.which("strace")
    return strace is not None and subprocess.call([strace, "-qq", "-o", os.devnull, "true"]) == 0


pytestmark = pytest.mark.skipif(not may_trace(), reason="strace is missing, or may not trace here")


def trace(folder: Path) -> list[str]:
    """Serve, answer each kind of call, end; give the system calls of all threads, a line each."""
    log, calls, home = folder / "log", folder / "calls", folder / "home"
    home.mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    tracer = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(calls)]
    watched = "trace=socket,connect,sendto,open,openat,creat,mkdir,mkdirat,unlink,unlinkat,rename"
    tracer += ["-e", f"{watched},renameat,renameat2,link,linkat,symlink,symlinkat,mknod,mknodat"]
    tracer += ["-e", "signal=none", "-s", "4096"]
    unset = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [*tracer, *command("serve", str(MOONS), "--port", str(port))],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            text=True,
        )
        try:
            wait_until_ready(url, process, log)
            with httpx.Client(base_url=url, timeout=START_SECONDS, verify=False) as client:
                rows = client.post("/sample", json={"num_samples": 2}).json()["x"]
                assert client.post("/log_prob", json={"x": rows}).status_code == 200
                for path in ("/metrics", "/models", "/openapi.json", "/docs", "/health/ready"):
                    assert client.get(path).status_code == 200
            # What reports a start does so soon after it, in threads of its own.
            time.sleep(1)
            (server,) = children(process.pid)
            os.kill(server, signal.SIGTERM)
            assert process.wait(START_SECONDS) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    return calls.read_text().splitlines()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_no_socket_but_the_listener_and_no_file(tmp_path: Path) -> None:
    lines = trace(tmp_path)
    sockets = [match.groups() for line in lines if (match := SOCKET.search(line))]
    assert [kind[0] for kind in sockets] == ["AF_INET"], lines
    assert [line for line in lines if re.search(r"\bconnect\(", line)] == []
    written = {
        match[1]
        for line in lines
        if (match := WRITES.search(line) or MAKES.search(line)) is not None
    }
    assert {name for name in written if not name.startswith(DEVICES)} == set()
    assert list((tmp_path / "home").iterdir()) == []
