"""The peers' own environment under runs/, and one of them in a process group of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.peers import load
from benchmarks.process import free_port

HERE = Path(__file__).parent
HOME = Path("runs/peers/env")
PACKAGES = ("torch", "mosec", "litserve", "bentoml", "torchdiffeq", "safetensors", "orjson")
MORE = ("fastapi", "httptools", "pydantic", "pydantic-settings", "uvloop", "numpy", "onnx")
START_SECONDS = 90.0
# Server -> the path of its call.
PATHS = {
    "naive": "/predict",
    "echo": "/predict",
    "mosec": "/inference",
    "LitServe": "/predict",
    "BentoML": "/predict",
}
MODULES = {"mosec": "mosec_server", "LitServe": "litserve_server"}


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that has answered."""

    url: str
    pid: int
    answer: bytes


def python() -> Path:
    """The interpreter of the peers, made when it is not there (once, some minutes)."""
    marker = HOME / ".installed"
    interpreter = HOME.absolute() / "bin" / "python"
    if not marker.exists():
        subprocess.run((sys.executable, "-m", "venv", "--clear", str(HOME)), check=True)
        pins = str(HERE / "constraints.txt")
        install = (str(interpreter), "-m", "pip", "install", "-q", "-c", pins)
        subprocess.run((*install, *PACKAGES, *MORE), check=True)
        marker.touch()
    return interpreter


@contextmanager
def running(
    name: str, env: dict[str, str], probe: tuple[bytes, dict[str, str]], log: Path
) -> Iterator[Peer]:
    """Start a peer, wait until it answers the probe, and end it with all its processes."""
    port = free_port()
    module = f"benchmarks.peers.{MODULES.get(name, name)}"
    command = [str(python()), "-m", module, "--port", str(port)]
    if name == "BentoML":
        bento = str(python().with_name("bentoml"))
        command = [bento, "serve", "benchmarks.peers.bentoml_server:Flow", "--port", str(port)]
        command += ["--host", "127.0.0.1"]
    # mosec's own 3 s would count as errors what others are waited for.
    settings = {
        "MOSEC_TIMEOUT": "60000",
        "PORT": str(port),
        "PYTHONPATH": str(Path.cwd()),
        "OMP_NUM_THREADS": "1",
        **env,
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", **settings},
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}{PATHS[name]}"
            answer = _wait(name, url, process, probe, log)
            yield Peer(url, process.pid, answer)
        finally:
            # Who is stopped, as all are that have not their turn, ends nobody below it.
            load.signal_all(process.pid, signal.SIGCONT)
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(timeout=8)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


def _wait(
    name: str,
    url: str,
    process: subprocess.Popen[bytes],
    probe: tuple[bytes, dict[str, str]],
    log: Path,
) -> bytes:
    deadline = time.monotonic() + START_SECONDS
    answer = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            response = httpx.post(url, content=probe[0], headers=probe[1], timeout=20)
            if response.status_code == httpx.codes.OK:
                return response.content
            answer = f"{response.status_code} {response.text[:300]}"
        except httpx.TransportError as error:
            answer = repr(error)
        time.sleep(0.1)
    raise RuntimeError(f"{name} did not start ({answer}): {log.read_text()[-2000:]}")
