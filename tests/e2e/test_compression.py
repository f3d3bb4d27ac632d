"""Compression on a real server: answers that clients can read, and bombs that cost no memory."""

import gzip
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import zstandard

from benchmarks.process import RunningServer

pytestmark = pytest.mark.xdist_group("zoo_server")

DRAW = {"model": "moons", "num_samples": 2000, "seed": 3}
READ: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
}


def post(server: RunningServer, path: str, **options: Any) -> httpx.Response:
    """Send a request without httpx' own Accept-Encoding, and leave the answer as it came."""
    options["headers"] = {"Accept-Encoding": "identity", **options.get("headers", {})}
    with httpx.stream("POST", f"{server.url}{path}", **options) as answer:
        answer.extensions["raw"] = b"".join(answer.iter_raw())
        return answer


@pytest.mark.parametrize("encoding", READ)
def test_a_long_answer_is_compressed(zoo_server: RunningServer, encoding: str) -> None:
    plain = post(zoo_server, "/sample", json=DRAW).extensions["raw"]
    headers = {"Accept-Encoding": f"{encoding}, br"}
    answer = post(zoo_server, "/sample", json=DRAW, headers=headers)
    raw = answer.extensions["raw"]
    assert answer.headers["content-encoding"] == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert int(answer.headers["content-length"]) == len(raw) < 0.6 * len(plain)
    assert READ[encoding](raw) == plain


@pytest.mark.parametrize(
    ("body", "accept"),
    [({**DRAW, "num_samples": 3}, "application/json"), (DRAW, "application/x-npy")],
)
def test_short_answers_and_tensors_are_not(
    zoo_server: RunningServer, body: dict[str, object], accept: str
) -> None:
    headers = {"Accept-Encoding": "gzip, zstd", "Accept": accept}
    answer = post(zoo_server, "/sample", json=body, headers=headers)
    assert "content-encoding" not in answer.headers


def test_descriptions_and_metrics_are(zoo_server: RunningServer) -> None:
    for path in ("/models", "/metrics", "/openapi.json", "/ui"):
        answer = httpx.get(f"{zoo_server.url}{path}", headers={"Accept-Encoding": "gzip"})
        is_long = len(answer.content) >= 4096
        assert (answer.headers.get("content-encoding") == "gzip") == is_long, path
    for refused in ("gzip;q=0", "identity, gzip;q=0.5", "zstd"):
        answer = httpx.get(f"{zoo_server.url}/models", headers={"Accept-Encoding": refused})
        assert "content-encoding" not in answer.headers, refused


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritonclient_compresses(zoo_server: RunningServer, algorithm: str) -> None:
    client = triton.InferenceServerClient(zoo_server.url.removeprefix("http://"))
    rows = np.tile(np.array([[0.0, 1.0]], np.float32), (500, 1))
    tensor = triton.InferInput("x", rows.shape, "FP32").set_data_from_numpy(rows)
    output = triton.InferRequestedOutput("log_prob", binary_data=False)
    options = {
        "request_compression_algorithm": algorithm,
        "response_compression_algorithm": algorithm,
    }
    found = client.infer("moons", [tensor], outputs=[output], **options)
    wanted = client.infer("moons", [tensor], outputs=[output])
    np.testing.assert_array_equal(found.as_numpy("log_prob"), wanted.as_numpy("log_prob"))


def _gzip_bomb() -> bytes:
    """A megabyte that becomes a gigabyte: more than that deflate cannot."""
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = stream.compress(b"") + stream.flush(zlib.Z_FULL_FLUSH)
    block = stream.compress(bytes(2**20)) + stream.flush(zlib.Z_FULL_FLUSH)
    return head + block * (2**20 // len(block))


def _zstd_bomb() -> bytes:
    """A third of a megabyte that becomes ten gigabytes (RFC 8878, section 3.1.1).

    Frame header: no flags, a window of 8 MiB. Each block of 4 bytes: not the last, type 1, which
    is 128 KiB of one byte.
    """
    block = (2**17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([13 << 3]) + block * (10 * 2**30 // 2**17)


def _peak_bytes(server: RunningServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    ("encoding", "bomb"), [("gzip", _gzip_bomb()), ("zstd", _zstd_bomb())], ids=["gzip", "zstd"]
)
def test_a_bomb_is_refused_and_costs_no_memory(
    zoo_server: RunningServer, encoding: str, bomb: bytes
) -> None:
    assert len(bomb) <= 2**20
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    httpx.post(f"{zoo_server.url}/log_prob", content=b"{}", headers=headers)
    # What was needed before is forgotten: the peak is that of this request.
    Path(f"/proc/{zoo_server.process.pid}/clear_refs").write_text("5", "utf-8")
    before = _peak_bytes(zoo_server)
    answer = httpx.post(f"{zoo_server.url}/log_prob", content=bomb, headers=headers, timeout=60)
    assert answer.status_code == 413
    assert "once it is decompressed" in json.loads(answer.content)["detail"]
    assert _peak_bytes(zoo_server) - before < 50 * 2**20
    assert httpx.post(f"{zoo_server.url}/sample", json=DRAW).status_code == 200
