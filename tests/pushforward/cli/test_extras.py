"""The command where extras are not installed: it starts, and says which one is needed."""

import io
import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
import pytest

from pushforward.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FROM_CLONE = f"pip install --editable '.[{{}}]' in {ROOT}"
MODULES = {
    **{"opentelemetry-api": "opentelemetry", "pillow": "PIL", "scikit-learn": "sklearn"},
    **{"grpcio": "grpc", "grpcio-health-checking": "grpc_health"},
    **{"grpcio-reflection": "grpc_reflection", "protobuf": "google"},
}

# Runs the command where distributions are not installed: their modules are not found.
SCRIPT = """
import sys
from importlib.abc import MetaPathFinder

absent = sys.argv[1].split(",")

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
from pushforward.cli.main import main
main()
"""


def brought(*extras: str) -> set[str]:
    """Distributions that these extras bring, and those that they bring along."""
    names = set()
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            if inner := re.fullmatch(r"pushforward\[(.+)\]", line):
                names |= brought(*inner[1].split(","))
            else:
                names |= closure(re.split(r"[\[<>=;]", line)[0])
    return names


@cache
def closure(name: str) -> frozenset[str]:
    try:
        required = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        required = []
    always = [re.match(r"[\w.-]+", line) for line in required if "extra ==" not in line]
    inner = [closure(found[0].lower().replace("_", "-")) for found in always if found]
    return frozenset({name}).union(*inner)


def command(extras: tuple[str, ...], *arguments: str | Path) -> list[str]:
    """The command where `extras` are all that is installed."""
    missing = (
        brought("cpu", "train", "otel", "grpc")
        - brought(*extras)
        - closure("httpx")
        - closure("numpy")
    )
    absent = ",".join(MODULES.get(name, name.replace("-", "_")) for name in missing)
    return [sys.executable, "-c", SCRIPT, absent, *map(str, arguments)]


def run(extras: tuple[str, ...], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(extras, *arguments),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=20,
    )


@contextmanager
def answering(answers: dict[str, tuple[str, bytes]]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that has one answer a method: its address, and the bodies that it is sent."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
            media, content = answers[self.command]
            self.send_response(200)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


def test_the_version_needs_no_extra() -> None:
    done = run((), "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pushforward ")


@pytest.mark.parametrize(
    ("extras", "arguments", "line"),
    [
        ((), ("--help",), f"pushforward: needs the extra 'cli': {FROM_CLONE.format('cli')}"),
        (
            (),
            ("client", "--help"),
            f"pushforward client: needs the extra 'cli': {FROM_CLONE.format('cli')}",
        ),
        (
            (),
            ("serve",),
            f"pushforward serve: needs the extra 'cpu' (or 'gpu', 'onnx'): "
            f"{FROM_CLONE.format('cpu')}",
        ),
        (
            ("cli",),
            ("serve", "models/zoo"),
            f"pushforward serve: needs the extra 'cpu' (or 'gpu', 'onnx'): "
            f"{FROM_CLONE.format('cpu')}",
        ),
        (
            ("cli",),
            ("inspect", "models/zoo/moons"),
            f"pushforward inspect: needs the extra 'cpu' (or 'gpu', 'onnx'): "
            f"{FROM_CLONE.format('cpu')}",
        ),
        (
            ("onnx",),
            ("export", "models/zoo/moons", "--out", "unwritten"),
            f"pushforward export: needs the extra 'cpu' (or 'gpu'): {FROM_CLONE.format('cpu')}",
        ),
        (
            ("cli",),
            ("train", "--data", "two_moons", "--family", "nice", "--out", "unwritten"),
            f"pushforward train: needs the extra 'train': {FROM_CLONE.format('train')}",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_missing_is_one_line(
    extras: tuple[str, ...], arguments: tuple[str, ...], line: str
) -> None:
    done = run(extras, *arguments)
    assert (done.returncode, done.stderr) == (2, f"{line}\n")
    assert not done.stdout


def test_the_help_needs_cli_alone() -> None:
    done = run(("cli",), "--help")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_the_client_needs_cli_alone(tmp_path: Path) -> None:
    """A table whose columns are matched by name, and what is written."""
    (tmp_path / "x.csv").write_text("mass,speed\n1,2\n")
    served = {"models": [{"name": "toy", "feature_names": ["speed", "mass"]}]}
    answers = {"GET": ("application/json", json.dumps(served).encode())}
    buffer = io.BytesIO()
    np.save(buffer, np.array([-1.5]))
    answers["POST"] = ("application/x-npy", buffer.getvalue())
    with answering(answers) as (url, bodies):
        flags = ("--base-url", url, "--max-retries", "0")
        asked = run(("cli",), "client", *flags, "log-prob", tmp_path / "x.csv")
    assert (asked.returncode, asked.stdout) == (0, "-1.5\n"), asked.stderr
    np.testing.assert_array_equal(np.load(io.BytesIO(bodies[-1])), [[2.0, 1.0]])


@pytest.mark.parametrize(
    ("extra", "flags", "code", "text"),
    [
        ("bench", ("--plot", "a.png"), 1, "Connection refused"),
        ("onnx", (), 1, "Connection refused"),
        ("onnx", ("--plot", "a.png"), 2, f"needs matplotlib: {FROM_CLONE.format('bench')}"),
    ],
)
def test_the_load_tester_needs_no_server(
    extra: str, flags: tuple[str, ...], code: int, text: str
) -> None:
    done = run((extra,), "bench", "http://127.0.0.1:9", *flags)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert text in done.stderr
    assert not Path("a.png").exists()


def test_grpc_needs_its_extra() -> None:
    done = run(("onnx",), "serve", "models/zoo/moons", "--port", "0", "--grpc-port", "0")
    line = f"pushforward: --grpc-port: it needs the extra 'grpc': {FROM_CLONE.format('grpc')}"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, line)


def test_the_extra_onnx_serves_models_with_graphs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as output:
        serve = command(("onnx",), "serve", "models/zoo", "--port", "0")
        process = subprocess.Popen(serve, cwd=ROOT, stdout=output, stderr=output)
    try:
        url = wait_for_url(process, log)
        for name in ("pinwheel", "digits-glow"):
            answer = httpx.post(f"{url}/sample", json={"model": name, "num_samples": 2, "seed": 1})
            assert answer.status_code == 200, answer.text
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def wait_for_url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"serving on (http://[0-9.]+:\d+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_a_fault_of_ours_is_no_missing_extra() -> None:
    script = SCRIPT.replace("main()", "sys.modules['pushforward.cli.app'] = None\nmain()")
    done = subprocess.run(
        [sys.executable, "-c", script, "", "serve"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
