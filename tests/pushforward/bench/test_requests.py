"""Bodies: drawn from the model, different ones, in JSON and npy; and the counts of a server."""

import io
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest

from pushforward.bench.endpoint import Endpoint, UnreachableError, find_endpoint
from pushforward.bench.requests import Format, RequestKind, write_requests
from pushforward.bench.server_metrics import read_counts
from pushforward.bench.target import Target, find_model
from pushforward.client import Client

ENDPOINT = Endpoint("127.0.0.1", 8000, "flows.example", None, "/api")
CARD = {"name": "toy", "features": 2, "event_shape": [2], "dtype": "float32"}
LABELLED = {**CARD, "num_classes": 3}


def drawing(scale: float = 1.0) -> Client:
    """A client of a server that samples: row n of a draw is (n, n + 1/3), times a scale."""

    def answer(request: httpx.Request) -> httpx.Response:
        first = int(request.url.params["first_row"])
        rows = np.arange(first, first + int(request.url.params["num_samples"]))
        x = np.stack([rows, rows + 1 / 3], axis=1).astype(np.float32) * scale
        buffer = io.BytesIO()
        np.savez(buffer, x=x, log_prob=np.zeros(len(x)), seed=np.array(0))
        headers = {"content-type": "application/x-npz", "x-model": "toy", "x-seed": "0"}
        return httpx.Response(200, content=buffer.getvalue(), headers=headers)

    return Client("http://server", model="toy", transport=httpx.MockTransport(answer))


def write(operation: str, rows: int, form: Format, card: Any = CARD) -> list[tuple[Any, Any, Any]]:
    """Path, headers and body of each request."""
    kind = RequestKind(operation, rows, form)
    found = []
    with drawing() as client:
        target = Target("http://server", ENDPOINT, "toy@2", card, "secret")
        for message in write_requests(kind, target, client):
            head, _, body = message.partition(b"\r\n\r\n")
            line, *lines = head.decode().split("\r\n")
            headers = dict(entry.split(": ") for entry in lines)
            assert int(headers["Content-Length"]) == len(body)
            found.append((line.split()[1], headers, body))
    return found


def test_rows_are_the_models_own_and_no_two_bodies_alike() -> None:
    messages = write("log_prob", 3, "json")
    assert len({body for _, _, body in messages}) == len(messages) == 32
    path, headers, body = messages[1]
    assert path == "/api/log_prob"
    assert headers["Host"] == "flows.example"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Type"] == headers["Accept"] == "application/json"
    sent = json.loads(body)
    assert sent["model"] == "toy@2"
    x = np.array(sent["x"], np.float32)
    np.testing.assert_array_equal(x[:, 1], (x[:, 0] + np.float32(1 / 3)).astype(np.float32))
    assert all(len(repr(value)) <= 10 for row in sent["x"] for value in row)  # float32's digits


def test_npy_carries_the_rest_in_the_query() -> None:
    path, headers, body = write("encode", 5, "npy")[0]
    parts = urlsplit(path)
    assert (parts.path, parse_qs(parts.query)) == ("/api/encode", {"model": ["toy@2"]})
    assert headers["Content-Type"] == headers["Accept"] == "application/x-npy"
    assert np.load(io.BytesIO(body)).shape == (5, 2)


@pytest.mark.parametrize("form", ["json", "npy"])
def test_decode_takes_base_noise_and_labels(form: Format) -> None:
    _, headers, body = write("decode", 400, form, LABELLED)[3]
    if form == "json":
        sent = {name: np.array(value) for name, value in json.loads(body).items()}
    else:
        assert headers["Content-Type"] == "application/x-npz"
        sent = dict(np.load(io.BytesIO(body)))
    assert sent["z"].shape == (400, 2)
    assert abs(sent["z"].mean()) < 0.2
    assert sent["context"].shape == (400,)
    assert set(sent["context"].tolist()) == {0, 1, 2}


def test_a_model_whose_samples_are_not_finite_gives_no_rows() -> None:
    kind, target = RequestKind("log_prob", 1, "json"), Target("", ENDPOINT, "toy", CARD, None)
    with drawing(scale=np.nan) as client, pytest.raises(ValueError, match="none of 256 samples of"):
        write_requests(kind, target, client)


def test_samples_have_a_seed_of_their_own() -> None:
    sent = [json.loads(body) for _, _, body in write("sample", 7, "json")]
    assert {fields["num_samples"] for fields in sent} == {7}
    assert len({fields["seed"] for fields in sent}) == len(sent)


def test_scores_leave_the_drift_test_alone() -> None:
    assert json.loads(write("score", 1, "json")[0][2])["observe"] is False


def test_large_requests_are_few() -> None:
    assert len(write("decode", 500_000, "npy")) == 4


METRICS = """
pushforward_batch_rows_sum{model="toy",op="encode"} 100.0
pushforward_batch_rows_count{model="toy",op="encode"} 10.0
pushforward_batch_rows_sum{model="toy",op="decode"} 20.0
pushforward_batch_rows_count{model="toy",op="decode"} 2.0
pushforward_batch_rows_sum{model="other",op="encode"} 7.0
pushforward_batch_rows_count{model="other",op="encode"} 7.0
pushforward_compute_duration_seconds_sum{engine="onnx",model="toy",op="encode"} 0.5
pushforward_compute_duration_seconds_count{engine="onnx",model="toy",op="encode"} 10.0
"""


def test_the_servers_own_counts_are_differences_of_one_model() -> None:
    before, after = read_counts(METRICS, "toy"), read_counts(METRICS.replace("0 ", "5 "), "toy")
    assert after.since(before)["mean_batch_rows"] is None
    later = (
        METRICS.replace("100.0", "400.0")
        .replace("7.0", "70.0")
        .replace(" 10.0", " 20.0")
        .replace("0.5", "0.7")
    )
    counted = read_counts(later, "toy").since(before)
    assert (counted["batches"], counted["mean_batch_rows"]) == (10.0, 30.0)
    assert counted["mean_compute_ms"] == pytest.approx(20.0)
    assert counted["mean_queue_ms"] is None


@pytest.mark.parametrize("text", ["ftp://h", "http://", "http://u:p@h", "http://h/?a=1"])
def test_what_is_no_address_of_a_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        find_endpoint(text)


def test_nobody_answers_at_a_port_that_is_closed() -> None:
    with pytest.raises(UnreachableError, match="Connection refused"):
        find_endpoint("http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"nowhere\.invalid"):
        find_endpoint("http://nowhere.invalid")


def test_a_model_is_a_folder_or_one_of_the_zoo(tmp_path: Any) -> None:
    assert find_model(str(tmp_path)) == str(tmp_path)
    assert find_model("s3://bucket/models") == "s3://bucket/models"
    assert find_model("moons").endswith("zoo/moons")
    with pytest.raises(ValueError, match=r"a model folder, or one of .*moons"):
        find_model("mooons")
