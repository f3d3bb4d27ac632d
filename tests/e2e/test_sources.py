"""A server of models from S3: what fails on the way leaves what is served, and is told of."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.process import RunningServer, command, serving
from service.repository import zoo_folder
from tests.service.remote.s3_server import BUCKET, FAULTS, Bucket, s3_server, stalls

# A look takes a fraction of a second; the rest is for a machine that is busy.
SEEN_SECONDS = 40.0
WATCH = ("--watch-seconds", "0.3", "--fetch-timeout-seconds", "0.5")


def put(bucket: Bucket, version: int, note: str = "") -> None:
    """Put a version of a model into the bucket; each has files of its own."""
    for path in (zoo_folder() / "moons").glob("*.*"):
        content = path.read_bytes() + note.encode() * (path.suffix == ".md")
        bucket.objects[f"models/moons/{version}/{path.name}"] = content


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with s3_server() as found:
        put(found, 1)
        yield found


@pytest.fixture
def server(bucket: Bucket, tmp_path: Path) -> Iterator[RunningServer]:
    """Two processes, of which one fetches at a time."""
    variables = {**bucket.variables, "PUSHFORWARD_CACHE": str(tmp_path / "cache")}
    uri = f"s3://{BUCKET}/models"
    with serving(tmp_path / "log", uri, *WATCH, "--workers", "2", env=variables) as running:
        yield running


def test_a_signal_ends_a_start_that_waits_for_a_store(bucket: Bucket, tmp_path: Path) -> None:
    put(bucket, 2)
    bucket.fault = stalls
    variables = {**os.environ, **bucket.variables, "PUSHFORWARD_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        command("serve", "--port", "0", f"s3://{BUCKET}/models"),
        env=variables,
        stdout=subprocess.PIPE,
    ) as process:
        while not any(key.endswith("2/model.safetensors") for _, key in bucket.requests):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=10) == 0


def until(client: httpx.Client, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask whether it is ready until the answer is as it should be; it is 200 each time."""
    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        # Any of the processes answers: a connection each time.
        response = client.get("/health/ready", headers={"Connection": "close"})
        assert response.status_code == httpx.codes.OK
        (source,) = response.json()["sources"]
        if holds(source):
            return dict(source)
        assert time.monotonic() < deadline, source
        time.sleep(0.1)


def versions(client: httpx.Client) -> set[str]:
    """The versions that the processes answer with."""
    asked = {"model": "moons", "x": [[0.5, 0.5]]}
    headers = {"Connection": "close"}
    answers = [client.post("/log_prob", json=asked, headers=headers) for _ in range(12)]
    return {answer.json()["version"] for answer in answers}


def test_the_version_before_stays_until_the_next_can_be_had(
    server: RunningServer, bucket: Bucket
) -> None:
    with server.client() as client:
        assert versions(client) == {"1"}
        for fault, said in FAULTS:
            bucket.fault = fault
            # Another each time: what the fault before has left is not gone on with.
            put(bucket, 2)
            bucket.objects["models/moons/2/model.safetensors"] += b"x" * FAULTS.index((fault, said))
            told = until(client, lambda source, said=said: said in source.get("reason", ""))
            assert (told["ok"], told["uri"]) == (False, f"s3://{BUCKET}/models")
            assert said in server.log.read_text()
            assert versions(client) == {"1"}
        assert 'pushforward_source_failures_total{source="s3://' in client.get("/metrics").text
        bucket.released.set()
        bucket.fault = lambda *_: False
        put(bucket, 2)
        until(client, lambda source: source["ok"])
        deadline = time.monotonic() + SEEN_SECONDS
        while versions(client) != {"2"}:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert "secret" not in server.log.read_text()
    assert server.terminate() == 0
