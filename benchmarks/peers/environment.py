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
PACKAGES = ("torch", "mosec", "litserve", "bentoml", "miraserver", "torchdiffeq", "safetensors")
MORE = ("fastapi", "httptools", "pydantic", "pydantic-settings", "uvloop", "numpy", "onnx")
GRAPHS = ("onnxruntime", "orjson")
START_SECONDS = 90.0
FLOOR, GRAPH, MIRA = "floor", "mosec, our graph", "miraserver, our graph"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a peer is started: its module, the path of its call, and what computes in it."""

    module: str
    path: str = "/predict"
    engine: str = "torch"


KINDS = {
    "naive": Kind("naive"),
    "echo": Kind("echo"),
    FLOOR: Kind("floor"),
    "mosec": Kind("mosec_server", "/inference"),
    GRAPH: Kind("mosec_server", "/inference", "graph"),
    MIRA: Kind("miraserver_server", "/v2/models/flow/infer", "graph"),
    "LitServe": Kind("litserve_server"),
    "BentoML": Kind("bentoml_server"),
}


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that has answered.

    listening_seconds: from the command until its port took a connection. answer_seconds: until the
    first answer was there.
    """

    url: str
    pid: int
    answer: bytes
    listening_seconds: float
    answer_seconds: float


def python() -> Path:
    """The interpreter of the peers, made when it is not there (once, some minutes)."""
    marker = HOME / ".installed"
    interpreter = HOME.absolute() / "bin" / "python"
    if not marker.exists():
        subprocess.run((sys.executable, "-m", "venv", "--clear", str(HOME)), check=True)
        pins = str(HERE / "constraints.txt")
        install = (str(interpreter), "-m", "pip", "install", "-q", "-c", pins)
        subprocess.run((*install, *PACKAGES, *MORE, *GRAPHS), check=True)
        marker.touch()
    return interpreter


@contextmanager
def running(
    name: str, env: dict[str, str], probe: tuple[bytes, dict[str, str]], log: Path
) -> Iterator[Peer]:
    """Start a peer, wait until it answers the probe, and end it with all its processes."""
    port, kind, interpreter = free_port(), KINDS[name], python()
    command = [str(interpreter), "-m", f"benchmarks.peers.{kind.module}", "--port", str(port)]
    if name == "BentoML":
        bento = str(interpreter.with_name("bentoml"))
        command = [bento, "serve", "benchmarks.peers.bentoml_server:Flow", "--port", str(port)]
        command += ["--host", "127.0.0.1"]
    # mosec's own 3 s would count as errors what others are waited for.
    settings = {
        "MOSEC_TIMEOUT": "60000",
        "PORT": str(port),
        "PATH": f"{interpreter.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path.cwd()),
        "OMP_NUM_THREADS": "1",
        "FLOW_ENGINE": kind.engine,
        "PEER_HOME": str(log.with_suffix("")),
        **env,
    }
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", **settings},
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}{kind.path}"
            listening, answer = _wait(name, url, process, probe, log)
            seconds = time.monotonic() - started
            yield Peer(url, process.pid, answer, listening - started, seconds)
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
) -> tuple[float, bytes]:
    """When the port took a connection, and the first answer."""
    deadline, listening = time.monotonic() + START_SECONDS, 0.0
    answer = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            response = httpx.post(url, content=probe[0], headers=probe[1], timeout=20)
            if response.status_code == httpx.codes.OK:
                return listening or time.monotonic(), response.content
            answer = f"{response.status_code} {response.text[:300]}"
        except httpx.ConnectError as error:
            answer = repr(error)
        except httpx.TransportError as error:
            answer, listening = repr(error), listening or time.monotonic()
        else:
            listening = listening or time.monotonic()
        time.sleep(0.05)
    raise RuntimeError(f"{name} did not start ({answer}): {log.read_text()[-2000:]}")
