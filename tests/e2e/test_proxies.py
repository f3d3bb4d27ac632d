"""TLS, HTTP and gRPC by the proxies of deploy/proxy, in front of a real server.

Both releases of their files are one server here; what a split does is in docs/operations.md.
"""

import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from benchmarks.process import RunningServer, free_port, serving
from service.settings import Settings
from service.transport.grpc.messages import message_class

ROOT = Path(__file__).resolve().parents[2]
PROXIES = {"nginx": "nginx.conf", "envoy": "envoy.yaml"}
KEY = "0123456789abcdef"
METADATA = [("authorization", f"Bearer {KEY}")]

pytestmark = [
    pytest.mark.xdist_group("proxies"),
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="no openssl here, for a certificate"
    ),
]


@dataclass(frozen=True)
class Proxied:
    """A server, the port of the proxy in front of it, and what signs its certificate."""

    port: int
    certificate: Path

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://localhost:{self.port}",
            verify=ssl.create_default_context(cafile=self.certificate),
            headers={"Authorization": f"Bearer {KEY}"},
        )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    words = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    )
    command = ["openssl", *words.split(), "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", "tls.key", "-out", "tls.crt"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "tls.crt"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, int]]:
    grpc_port = free_port()
    log = tmp_path_factory.mktemp("proxied") / "server.log"
    model = str(ROOT / "models" / "zoo" / "moons")
    keys = {"PUSHFORWARD_API_KEYS": KEY}
    with serving(log, model, "--grpc-port", str(grpc_port), env=keys) as running:
        yield running, grpc_port


@pytest.fixture(scope="module", params=PROXIES)
def proxied(
    request: pytest.FixtureRequest,
    server: tuple[RunningServer, int],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxied]:
    name: str = request.param
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name} here")
    running, grpc_port = server
    folder, port = tmp_path_factory.mktemp(name), free_port()
    text = (ROOT / "deploy" / "proxy" / PROXIES[name]).read_text("utf-8")
    http_port = running.url.rpartition(":")[2]
    ports = {"8000": http_port, "8010": http_port, "8001": grpc_port, "8011": grpc_port}
    for old, new in (ports | {"8443": port}).items():
        text = re.sub(rf"\b{old}\b", str(new), text)
    config = folder / PROXIES[name]
    config.write_text(text.replace("/etc/pushforward", str(certificate.parent)), "utf-8")
    command = {
        "nginx": [program, "-c", config, "-g", f"daemon off; pid {folder}/pid;"],
        "envoy": [program, "-c", config, "--concurrency", "1", "--use-dynamic-base-id"],
    }[name]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as run,
    ):
        proxy = Proxied(port, certificate)
        try:
            _wait(proxy)
            yield proxy
        finally:
            run.terminate()


def _wait(proxy: Proxied) -> None:
    """Until the proxy listens, and takes the server for healthy."""
    deadline = time.monotonic() + 20
    with proxy.client() as http:
        while time.monotonic() < deadline:
            try:
                if http.get("/health/ready").status_code == 200:
                    return
            except httpx.ConnectError:
                pass
            time.sleep(0.1)
    raise TimeoutError("the proxy does not answer")


def test_proxies_wait_and_take_as_much_as_the_service() -> None:
    default = Settings.model_fields
    size = default["max_body_bytes"].default // 2**20
    seconds = default["request_timeout_seconds"].default
    for name in PROXIES.values():
        text = (ROOT / "deploy" / "proxy" / name).read_text("utf-8")
        waits = re.findall(r"(?:_read_timeout|\btimeout:) (\d\d)s", text)
        assert len(waits) == 2
        assert {int(wait) for wait in waits} == {seconds + 5}
        assert re.findall(r"client_max_body_size (\d+)m", text) in ([], [str(size)])


def test_https_reaches_the_server(proxied: Proxied) -> None:
    rows = {"x": [[0.0, 1.0]]}
    with proxied.client() as http:
        answer = http.post("/log_prob", json=rows, headers={"X-Request-Id": "by-proxy"})
        assert answer.status_code == 200
        assert answer.headers["X-Request-Id"] == "by-proxy"
        assert http.get("/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert http.get("/metrics").status_code == 404
        assert http.post("/log_prob", content=bytes(65 * 2**20)).status_code == 413


def test_grpc_is_passed_on(proxied: Proxied) -> None:
    rows = np.array([[0.0, 1.0]], np.float32)
    asked = message_class("ModelInferRequest")(
        model_name="moons", raw_input_contents=[rows.tobytes()]
    )
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    asked.parameters["operation"].string_param = "log_prob"
    credentials = grpc.ssl_channel_credentials(proxied.certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{proxied.port}", credentials) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            message_class("ModelInferRequest").SerializeToString,
            message_class("ModelInferResponse").FromString,
        )
        answer = infer(asked, metadata=METADATA, timeout=10)
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            infer(asked, timeout=10)
    with proxied.client() as http:
        told = http.post("/log_prob", json={"x": rows.tolist()}).json()["log_prob"]
    np.testing.assert_allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), told)
