"""gRPC beside HTTP on one server: log_prob of one row and of 1,000, in four forms.

The server is `pushforward serve` with the zoo's moons and no other setting than `--grpc-port`. One
client makes all loads: h2load (nghttp2), one thread, a closed loop over N connections with one
request at a time on each, over HTTP/1.1 for the three forms of HTTP and over HTTP/2 for gRPC. It
shares the cores with the server. All forms have given the same numbers first; they take turns, and
only ratios of one run mean anything. The server's processor time a request is read beside the
rates: it does not depend on what the client takes.

    python -m benchmarks.bench_grpc [--connections 16] [--rounds 4] [--seconds 2]
"""

import argparse
import io
import json
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc
import httpx
import numpy as np

from benchmarks.harness import machine
from benchmarks.process import RunningServer, cpu_seconds, free_port, serving
from service.transport.grpc.messages import SERVICE, message_class

OUT = Path("runs/benchmarks/grpc.json")
MODEL = "models/zoo/moons"
ROWS = (1, 1000)
_INFER = f"/{SERVICE}/ModelInfer"
_DONE = re.compile(r"finished in ([\d.]+)(m?s), .*?(\d+) succeeded, (\d+) failed", re.S)
_LENGTH = "Inference-Header-Content-Length"
_JSON, _NPY, _OCTETS = "application/json", "application/x-npy", "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Transport:
    """How a request is put: path, headers and body, and how its answer is read."""

    path: str
    headers: dict[str, str]
    body: bytes
    read: Callable[[httpx.Response], np.ndarray]
    is_grpc: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """What one window gave: requests a second, and the server's processor seconds a request."""

    rate: float
    cpu: float


def transports(rows: int) -> dict[str, Transport]:
    """The same question in every form."""
    x = np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)
    npy = io.BytesIO()
    np.save(npy, x)
    text = json.dumps({"model": "moons", "x": x.tolist()}).encode()
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32"}
    described = {**tensor, "parameters": {"binary_data_size": x.nbytes}}
    wanted = {"name": "log_prob", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [described], "outputs": [wanted]}).encode()
    message = message_class("ModelInferRequest")(model_name="moons", inputs=[tensor])
    message.outputs.add(name="log_prob")
    message.raw_input_contents.append(x.tobytes())
    sent = message.SerializeToString()
    return {
        "JSON": Transport(
            "/log_prob",
            {"Content-Type": _JSON},
            text,
            lambda answer: np.array(answer.json()["log_prob"], np.float32),
        ),
        "npy": Transport(
            "/log_prob?model=moons",
            {"Content-Type": _NPY, "Accept": _NPY},
            npy.getvalue(),
            lambda answer: np.load(io.BytesIO(answer.content)),
        ),
        "V2, binary": Transport(
            "/v2/models/moons/infer",
            {"Content-Type": _OCTETS, _LENGTH: str(len(head))},
            head + x.tobytes(),
            lambda answer: np.frombuffer(answer.content[int(answer.headers[_LENGTH]) :], "<f4"),
        ),
        "gRPC": Transport(
            _INFER,
            {"Content-Type": "application/grpc", "TE": "trailers"},
            struct.pack(">BI", 0, len(sent)) + sent,
            lambda answer: answer.json(),
            is_grpc=True,
        ),
    }


def check(server: RunningServer, port: int, rows: int) -> None:
    """See that all forms give the same numbers.

    Raises:
        SystemExit: one does not.
    """
    found: dict[str, np.ndarray] = {}
    with server.client() as http, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for name, form in transports(rows).items():
            if form.is_grpc:
                answer = message_class("ModelInferResponse").FromString(
                    channel.unary_unary(_INFER)(form.body[5:])
                )
                found[name] = np.frombuffer(answer.raw_output_contents[0], "<f4")
            else:
                asked = http.post(form.path, content=form.body, headers=form.headers)
                found[name] = form.read(asked.raise_for_status())
    for name, values in found.items():
        if not np.array_equal(values, found["JSON"]):
            raise SystemExit(f"{name} gives other numbers than JSON")


def measure(
    server: RunningServer, port: int, form: Transport, body: Path, connections: int, seconds: int
) -> Window:
    """One window of a closed loop."""
    url = f"http://127.0.0.1:{port}{form.path}" if form.is_grpc else server.url + form.path
    command = ["h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}", "-d", str(body)]
    command += [] if form.is_grpc else ["--h1"]
    for name, value in form.headers.items():
        command += ["-H", f"{name}: {value}"]
    before = cpu_seconds(server.process.pid)
    printed = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    spent = cpu_seconds(server.process.pid) - before
    done = _DONE.search(printed)
    if done is None or done[4] != "0":
        raise SystemExit(f"h2load: {printed}")
    return Window(int(done[3]) / seconds, spent / int(done[3]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2, help="of each window")
    asked = parser.parse_args()
    if shutil.which("h2load") is None:
        raise SystemExit("this benchmark needs h2load (apt-get install nghttp2-client)")
    port, taken = free_port(), {}
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        flags = ("--grpc-port", str(port), "--log-level", "error")
        with serving(log, MODEL, *flags) as server:
            for rows in ROWS:
                check(server, port, rows)
            taken = _take_turns(server, port, Path(scratch), asked)
    print(table(taken))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    windows = {
        f"{name}, {rows} rows": [(one.rate, one.cpu) for one in each]
        for (name, rows), each in taken.items()
    }
    result = {"connections": asked.connections, "windows": windows, "machine": machine()}
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _take_turns(
    server: RunningServer, port: int, scratch: Path, asked: argparse.Namespace
) -> dict[tuple[str, int], list[Window]]:
    turns = [(name, rows, form) for rows in ROWS for name, form in transports(rows).items()]
    taken: dict[tuple[str, int], list[Window]] = {(name, rows): [] for name, rows, _ in turns}
    for turn in range(-1, asked.rounds):  # the first warms up
        start = turn % len(turns)
        for name, rows, form in turns[start:] + turns[:start]:
            body = scratch / "body"
            body.write_bytes(form.body)
            seconds = asked.seconds if turn >= 0 else 1
            found = measure(server, port, form, body, asked.connections, seconds)
            if turn >= 0:
                taken[name, rows].append(found)
    return taken


def table(taken: dict[tuple[str, int], list[Window]]) -> str:
    """Rows a second and processor time of each form, as medians, beside those of JSON."""
    heads = [f"{rows:,} row{'s' * (rows > 1)}" for rows in ROWS]
    lines = [
        f"| transport | {' | '.join(f'{each}: rows/s | over JSON | CPU ms' for each in heads)} |",
        f"|---{'|---' * 3 * len(ROWS)}|",
    ]
    for name in dict.fromkeys(name for name, _ in taken):
        cells = []
        for rows in ROWS:
            windows, base = taken[name, rows], taken["JSON", rows]
            paired = [own.rate / other.rate for own, other in zip(windows, base, strict=True)]
            rate, cpu = median(w.rate for w in windows), median(w.cpu for w in windows)
            cells += [f"{rows * rate:,.0f}", f"{median(paired):.2f}", f"{1e3 * cpu:.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
