"""The Open Inference Protocol: what it takes, what it gives, what it refuses."""

import json
import math
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from models.noise import base_noise
from service.codec.v2_tensors import DATATYPES
from service.contracts import ServedModel, VersionPolicy
from service.errors import ModelNotFound, NotReady
from tests.service.fake_repository import (
    SCALE,
    FakeRepository,
    app_over,
    ask,
    card,
    log_normal,
    pieces,
    post,
)

X = np.array([[0.5, 1.0, -2.0], [3.0, 0.25, 8.0]], np.float32)
LOG_2 = math.log(SCALE)
LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/line/infer"


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return app_over(FakeRepository())


def tensor(values: Any = X, name: str = "x", datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    array = np.asarray(values)
    described = {"name": name, "shape": list(array.shape), "datatype": datatype}
    return described | {"data": array.tolist()} | more


def infer(app: FastAPI, model: str = "line", **request: Any) -> httpx.Response:
    return post(app, f"/v2/models/{model}/infer", json={"inputs": [tensor()]} | request)


def outputs(answer: httpx.Response) -> dict[str, Any]:
    """The tensors of an answer, from JSON or from the bytes behind it."""
    assert answer.status_code == 200, answer.text
    body = answer.content
    end = int(answer.headers.get(LENGTH, len(body)))
    content = json.loads(body[:end])
    found = {}
    for one in content["outputs"]:
        if "data" in one:
            flat = np.array(one["data"], np.float64)
        else:
            size = one["parameters"]["binary_data_size"]
            flat = np.frombuffer(body[end : end + size], DATATYPES[one["datatype"]])
            end += size
        found[one["name"]] = flat.reshape(one["shape"])
    assert end == len(body)
    return found


def binary(app: FastAPI, *tensors: tuple[dict[str, Any], bytes], **more: Any) -> httpx.Response:
    described = []
    for one, data in tensors:
        plain = {name: value for name, value in one.items() if name != "data"}
        described.append(plain | {"parameters": {"binary_data_size": len(data)}})
    text = json.dumps({"inputs": described} | more).encode()
    body = b"".join([text, *(data for _, data in tensors)])
    return post(app, INFER, content=body, headers={LENGTH: str(len(text))})


# What it gives.


def test_x_gives_latents_and_scores(app: FastAPI) -> None:
    answer = infer(app, id="seven")
    got = outputs(answer)
    assert list(got) == ["z", "log_det", "log_prob"]
    np.testing.assert_array_equal(got["z"], X / SCALE)
    np.testing.assert_allclose(got["log_det"], [-3 * LOG_2] * 2, rtol=1e-6)
    np.testing.assert_allclose(got["log_prob"], log_normal(X / SCALE) - 3 * LOG_2, rtol=1e-6)
    content = answer.json()
    assert (content["model_name"], content["model_version"]) == ("line", "3")
    assert content["id"] == "seven"
    assert "queue" in answer.headers["server-timing"]


@pytest.mark.parametrize("form", [{}, {"binary_data_output": True}], ids=["json", "bytes"])
def test_samples_come_by_parameters(app: FastAPI, form: dict[str, Any]) -> None:
    wanted = {"num_samples": 5, "seed": 7, "temperature": 0.5, "first_row": 2}
    answer = infer(app, inputs=[], parameters={"operation": "sample"} | wanted | form)
    got = outputs(answer)
    z = base_noise(7, 3, seed=7, temperature=0.5)[2:].astype(np.float32)
    np.testing.assert_array_equal(got["x"].astype(np.float32), z * np.float32(SCALE))
    np.testing.assert_allclose(got["log_prob"], log_normal(z) - 3 * LOG_2, rtol=1e-6)


def test_a_seed_is_made_and_returned(app: FastAPI) -> None:
    first = infer(app, inputs=[], parameters={"num_samples": 2})
    parameters = {"num_samples": 2, "seed": first.json()["parameters"]["seed"]}
    again = infer(app, inputs=[], parameters=parameters)
    assert again.json() == first.json()


@pytest.mark.parametrize("parameters", [{}, {"operation": "log_prob"}], ids=["", "log_prob"])
def test_the_status_alone_is_that_of_all_outputs(app: FastAPI, parameters: dict[str, Any]) -> None:
    far = tensor([[0, 0, 0], [3e38, 0, 0]])
    answer = infer(app, inputs=[far], outputs=[{"name": "status"}], parameters=parameters)
    assert [one["name"] for one in answer.json()["outputs"]] == ["status"]
    assert outputs(answer)["status"].tolist() == [0, 5]


@pytest.mark.parametrize("wanted", [["log_prob"], ["log_prob", "z"], ["log_det"]])
def test_only_what_is_asked_for_is_sent(app: FastAPI, wanted: list[str]) -> None:
    answer = infer(app, outputs=[{"name": name} for name in wanted])
    assert list(outputs(answer)) == wanted


def test_each_output_has_the_form_that_is_asked_for_it(app: FastAPI) -> None:
    wanted = [
        {"name": "z", "parameters": {"binary_data": True}},
        {"name": "log_prob", "parameters": {"binary_data": False}},
    ]
    answer = infer(app, outputs=wanted, parameters={"binary_data_output": True})
    assert answer.headers["content-type"] == "application/octet-stream"
    content = json.loads(answer.content[: int(answer.headers[LENGTH])])
    assert ["data" in one for one in content["outputs"]] == [False, True]
    np.testing.assert_array_equal(outputs(answer)["z"], X / SCALE)


def test_the_operation_log_prob_gives_scores_alone(app: FastAPI) -> None:
    assert list(outputs(infer(app, parameters={"operation": "log_prob"}))) == ["log_prob"]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_is_taken_as_bytes(app: FastAPI, datatype: str) -> None:
    values = np.array([[1, 2, 3]], DATATYPES[datatype])
    got = outputs(binary(app, (tensor(values, datatype=datatype), values.tobytes())))
    np.testing.assert_array_equal(got["z"], [[0.5, 1.0, 1.5]])


def test_data_may_be_flat(app: FastAPI) -> None:
    got = outputs(infer(app, inputs=[tensor(data=X.ravel().tolist())]))
    np.testing.assert_array_equal(got["z"], X / SCALE)


def test_a_number_that_json_cannot_hold_is_null_and_named(app: FastAPI) -> None:
    z = np.array([[0, 0, 0], [3e38, 0, 0]], np.float32)
    answer = infer(app, inputs=[tensor(z, "z")])
    content = answer.json()
    assert content["non_finite"] == [1]
    assert content["outputs"][0]["data"][3] is None
    raw = infer(app, inputs=[tensor(z, "z")], parameters={"binary_data_output": True})
    assert outputs(raw)["x"][1, 0] == math.inf


def test_requests_are_counted_by_model(app: FastAPI) -> None:
    infer(app)
    infer(app, model="scanner-1")
    text = ask(app, "GET", "/metrics").text
    assert 'pushforward_requests_total{code="200",model="line",op="infer",version="3"}' in text
    assert "scanner-1" not in text


def test_reserved_parameters_mean_nothing(app: FastAPI) -> None:
    reserved = {"priority": 1, "sequence_id": 4, "sequence_start": True, "triton_enable": True}
    assert list(outputs(infer(app, parameters=reserved))) == ["z", "log_det", "log_prob"]


# What it refuses.


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"inputs": [tensor(name="y")]}, "unknown_field"),
        ({"inputs": [tensor(name="")]}, "missing_field"),
        ({"inputs": [tensor(), tensor()]}, "invalid_parameter"),
        ({"inputs": [tensor(), tensor(name="z")]}, "invalid_parameter"),
        ({"inputs": []}, "missing_field"),
        ({"inputs": {}}, "invalid_parameter"),
        ({"inputs": [{"name": "x"}]}, "missing_field"),
        ({"input": []}, "unknown_field"),
        ({"id": 7}, "invalid_parameter"),
        ({"inputs": [tensor(X[:, :2])]}, "shape_mismatch"),
        ({"inputs": [tensor(shape=[2, 2])]}, "shape_mismatch"),
        ({"inputs": [tensor(shape=[-1, 3])]}, "shape_mismatch"),
        ({"inputs": [tensor(shape=[0, 3], data=[])]}, "shape_mismatch"),
        ({"inputs": [tensor(shape=[])]}, "shape_mismatch"),
        ({"inputs": [tensor(shape=[1] * 99)]}, "shape_mismatch"),
        ({"inputs": [tensor(shape=[2**62, 2**62])]}, "shape_mismatch"),
        ({"inputs": [tensor(shape=[2.0, 3])]}, "invalid_parameter"),
        ({"inputs": [tensor(data=[[1, 2, 3], [4, 5]])]}, "shape_mismatch"),
        ({"inputs": [tensor(data=[["1", 2, 3], [4, 5, 6]])]}, "bad_dtype"),
        ({"inputs": [tensor(data=[[True, 2, 3], [4, 5, 6]])]}, "bad_dtype"),
        ({"inputs": [tensor(data=[[None, 2, 3], [4, 5, 6]])]}, "bad_dtype"),
        ({"inputs": [tensor(data="123456")]}, "bad_dtype"),
        ({"inputs": [tensor(data=None)]}, "missing_field"),
        ({"inputs": [tensor(datatype="BYTES")]}, "bad_dtype"),
        ({"inputs": [tensor(datatype="FP16")]}, "bad_dtype"),
        ({"inputs": [tensor(datatype="INT8")]}, "bad_dtype"),
        ({"inputs": [tensor([[1, 2, 300]], datatype="INT8")]}, "bad_dtype"),
        ({"inputs": [tensor([[1e39, 2, 3]])]}, "non_finite"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "a"})]}, "invalid_parameter"),
        ({"outputs": [{"name": "x"}]}, "unknown_field"),
        ({"outputs": [{"name": "z"}, {"name": "z"}]}, "invalid_parameter"),
        ({"outputs": [{"name": "z", "parameters": {"classification": 2}}]}, "unknown_field"),
        ({"outputs": [{"name": "z", "parameters": {"binary_data": 1}}]}, "invalid_parameter"),
        ({"parameters": {"num_samples": 3}}, "invalid_parameter"),
        ({"parameters": {"operation": "decode"}}, "invalid_parameter"),
        ({"parameters": {"operation": 1}}, "invalid_parameter"),
        ({"parameters": {"tempo": 1}}, "unknown_field"),
        ({"parameters": {"timeout": -1}}, "out_of_range"),
        ({"parameters": {"timeout": 1.5}}, "invalid_parameter"),
        ({"parameters": {"timeout": [1]}}, "invalid_parameter"),
        ({"inputs": [], "parameters": {"num_samples": 0}}, "out_of_range"),
        ({"inputs": [], "parameters": {"num_samples": 10**6}}, "too_large"),
        ({"inputs": [], "parameters": {"num_samples": 1, "seed": -1}}, "out_of_range"),
        ({"inputs": [tensor(), tensor([1], "context")]}, "invalid_parameter"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:48],
)
def test_a_bad_request_is_refused_with_its_reason(
    app: FastAPI, change: dict[str, Any], code: str
) -> None:
    answer = infer(app, **change)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["status"]) == (code, answer.status_code)
    assert problem["error"] == problem["detail"]
    assert len(problem["detail"]) < 400


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (
            {"parameters": {"trajectory": 3}},
            "trajectory: only of calls that take z, and of samples",
        ),
        ({"parameters": {"seed": 3}}, "seed: only of samples, which take no x and no z"),
        (
            {"outputs": [{"name": "evaluations"}], "parameters": {"return_evaluations": False}},
            "evaluations: it is answered with the parameter return_evaluations; send that",
        ),
        ({"outputs": [{"name": "trajectory"}]}, "'trajectory': no such field, expected z, log_det"),
    ],
)
def test_what_a_parameter_asks_for_is_refused_where_it_cannot_be(
    app: FastAPI, change: dict[str, Any], detail: str
) -> None:
    assert infer(app, **change).json()["detail"].startswith(detail)


def test_of_two_faults_the_parameter_of_samples_is_named(app: FastAPI) -> None:
    answer = infer(app, parameters={"operation": "sample", "num_samples": 3})
    assert answer.json()["errors"][0]["pointer"] == "/parameters/num_samples"


@pytest.mark.parametrize(
    ("data", "status"),
    [(X.tobytes(), 200), (X.tobytes()[:-1], 422), (X.tobytes() + b"\0", 422), (b"", 422)],
    ids=["whole", "short", "long", "none"],
)
def test_bytes_must_be_as_many_as_the_shape_says(app: FastAPI, data: bytes, status: int) -> None:
    assert binary(app, (tensor(), data)).status_code == status


@pytest.mark.parametrize("length", ["0", "-1", "9" * 30, "7", "1000000", "x", "+5", ""])
def test_a_json_length_that_lies_is_refused(app: FastAPI, length: str) -> None:
    body = json.dumps({"inputs": [tensor()]}).encode() + X.tobytes()
    answer = post(app, INFER, content=body, headers={LENGTH: length})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("size", [23, 25, 2**62, 0])
def test_announced_bytes_must_be_there(app: FastAPI, size: int) -> None:
    described = {"name": "x", "shape": [2, 3], "datatype": "FP32"}
    text = json.dumps({"inputs": [described | {"parameters": {"binary_data_size": size}}]})
    body = text.encode() + X.tobytes()
    answer = post(app, INFER, content=body, headers={LENGTH: str(len(text))})
    assert answer.status_code == 400


def test_negative_sizes_cancel_nothing(app: FastAPI) -> None:
    described = {"shape": [2, 3], "datatype": "FP32"}
    sizes = {"x": 48, "context": -24}
    inputs = [
        described | {"name": name, "parameters": {"binary_data_size": size}}
        for name, size in sizes.items()
    ]
    text = json.dumps({"inputs": inputs})
    answer = post(app, INFER, content=text.encode() + X.tobytes(), headers={LENGTH: str(len(text))})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "text",
    [
        '{"inputs": [], "inputs": [%s]}',
        '{"inputs": [%s], "id": "a", "i\\u0064": "b"}',
        '{"inputs": [%s], "parameters": {"seed": 1, "seed": 2}}',
    ],
)
def test_a_key_twice_is_refused(app: FastAPI, text: str) -> None:
    answer = post(app, INFER, content=text % json.dumps(tensor()))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert "twice" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"1e999"],
    ids=["empty", "list", "cut", "no-utf8", "null", "deep", "deeper", "huge"],
)
def test_what_is_no_json_object_is_refused(app: FastAPI, body: bytes) -> None:
    answer = post(app, INFER, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")


def test_strings_that_look_like_more_are_still_read(app: FastAPI) -> None:
    assert infer(app, id='a "true" story of \\null').json()["id"] == 'a "true" story of \\null'


def test_a_large_answer_is_refused_before_it_is_computed() -> None:
    repository = FakeRepository()
    app = app_over(repository, max_response_bytes=1000)
    answer = infer(app, inputs=[], parameters={"num_samples": 500})
    assert answer.status_code == 413
    assert repository.queue("line", "decode").calls == []
    few = {"outputs": [{"name": "log_prob", "parameters": {"binary_data": True}}]}
    small = infer(app, inputs=[], parameters={"num_samples": 200}, **few)
    assert small.status_code == 200


def test_a_large_body_is_refused(app: FastAPI) -> None:
    small = app_over(FakeRepository(), max_body_bytes=100)
    assert infer(small, id="x" * 100).status_code == 413
    chunks = pieces(*[b" " * 60] * 3)
    assert post(small, INFER, content=chunks).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/nobody/infer",
        "/v2/models/line/versions/4/infer",
        "/v2/models/line/versions/infer",
        "/v2/models/line/revisions/3/infer",
        "/v2/models/line/versions/3/4/infer",
        "/v2/models/..%2Fline/infer",
        "/v2/models/%252e%252e/infer",
        "/v2/models/a;b/infer",
        "/v2/models/line%00/infer",
        "/v2/models//infer",
        "/v2/models/" + "x" * 10_000 + "/infer",
    ],
)
def test_a_model_that_is_not_there_is_not_found(app: FastAPI, path: str) -> None:
    answer = post(app, path, json={"inputs": [tensor()]})
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_a_version_can_be_named(app: FastAPI) -> None:
    answer = post(app, "/v2/models/line/versions/3/infer", json={"inputs": [tensor()]})
    assert answer.status_code == 200


def test_other_methods_are_refused(app: FastAPI) -> None:
    assert ask(app, "GET", INFER).status_code == 405


def test_a_body_of_another_type_is_refused(app: FastAPI) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert post(app, INFER, content=b"{}", headers=headers).status_code == 415


# Metadata, health, repository.


def test_the_server_says_what_it_has(app: FastAPI) -> None:
    content = ask(app, "GET", "/v2").json()
    assert content["name"] == "pushforward"
    assert content["extensions"] == ["binary_tensor_data", "parameters", "statistics"]
    controlled = ask(app_over(FakeRepository(), enable_model_control=True), "GET", "/v2").json()
    assert "model_repository" in controlled["extensions"]


@pytest.mark.parametrize("path", ["/v2/models/labelled", "/v2/models/labelled/versions/3"])
def test_a_model_says_what_its_tensors_are(app: FastAPI, path: str) -> None:
    content = ask(app, "GET", path).json()
    assert content["name"] == "labelled"
    assert content["versions"] == ["3"]
    shapes = {one["name"]: one["shape"] for one in content["inputs"]}
    assert shapes == {"x": [-1, 2], "z": [-1, 2], "context": [-1, 4]}
    shapes = {one["name"]: one["shape"] for one in content["outputs"]}
    names = ("log_det", "log_prob", "score", "is_anomaly", "status")
    scalars = {name: [-1] for name in names}
    assert shapes == {"z": [-1, 2], "x": [-1, 2]} | scalars


def test_a_model_says_what_its_columns_are_called(app: FastAPI) -> None:
    content = ask(app, "GET", "/v2/models/wide").json()
    assert content["parameters"] == {"feature_names": ["mass", "speed"]}
    assert "parameters" not in ask(app, "GET", "/v2/models/line/versions/3").json()


@pytest.mark.parametrize(("model", "datatype"), [("line", "FP32"), ("wide", "FP64")])
def test_a_model_says_what_it_computes_in(app: FastAPI, model: str, datatype: str) -> None:
    content = ask(app, "GET", f"/v2/models/{model}").json()
    tensors = content["inputs"] + content["outputs"]
    found = {one["name"]: one["datatype"] for one in tensors}
    assert found.pop("status") == "INT32"
    assert (found.pop("score"), found.pop("is_anomaly")) == ("FP64", "BOOL")
    assert set(found.values()) == {datatype}


@pytest.mark.parametrize("path", ["/v2/models/line/ready", "/v2/models/line/versions/3/ready"])
def test_a_model_is_ready(app: FastAPI, path: str) -> None:
    answer = ask(app, "GET", path)
    assert (answer.status_code, answer.json()) == (200, {"name": "line", "ready": True})


@pytest.mark.parametrize("path", ["/v2/models/line/versions/4", "/v2/models/nobody/ready"])
def test_what_is_not_served_has_no_metadata(app: FastAPI, path: str) -> None:
    assert ask(app, "GET", path).status_code == 404


def test_health() -> None:
    repository = FakeRepository()
    app = app_over(repository)
    assert ask(app, "GET", "/v2/health/live").json() == {"live": True}
    assert ask(app, "GET", "/v2/health/ready").json() == {"ready": True}
    repository.is_ready = repository.is_alive = False
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/line/ready"):
        assert ask(app, "GET", path).status_code == 503


@pytest.mark.parametrize(("body", "rows"), [(b"", 8), (b"{}", 8), (b'{"ready": true}', 7)])
def test_the_index_lists_models(app: FastAPI, body: bytes, rows: int) -> None:
    content = post(app, "/v2/repository/index", content=body).json()
    assert len(content) == rows
    assert {"name": "line", "version": "3", "state": "READY", "reason": ""} in content


@pytest.mark.parametrize("action", ["load", "unload"])
def test_control_is_off_unless_enabled(app: FastAPI, action: str) -> None:
    assert post(app, f"/v2/repository/models/line/{action}").status_code == 404


@pytest.mark.parametrize("action", ["load", "unload"])
def test_control_where_it_is_enabled(action: str) -> None:
    repository = FakeRepository()
    app = app_over(repository, enable_model_control=True)
    assert post(app, f"/v2/repository/models/line/{action}", json={}).status_code == 200
    assert repository.history == [f"{action} line"]
    assert post(app, f"/v2/repository/models/nobody/{action}").status_code == 404


def test_a_bad_version_is_refused_with_the_reason() -> None:
    app = app_over(FakeRepository(), enable_model_control=True)
    answer = post(app, "/v2/repository/models/broken/load")
    assert (answer.status_code, answer.json()["code"]) == (422, "model_refused")
    assert "config.json" in answer.json()["error"]


@pytest.mark.parametrize("name", ["config", "file:1/config.json", "file:../../x"])
def test_nothing_of_a_model_comes_from_a_client(name: str) -> None:
    repository = FakeRepository()
    app = app_over(repository, enable_model_control=True)
    body = {"parameters": {name: "e30="}}
    assert post(app, "/v2/repository/models/line/load", json=body).status_code == 422
    assert repository.history == []


def test_a_load_may_say_which_versions_are_live() -> None:
    repository = FakeRepository()
    app = app_over(repository, enable_model_control=True)
    path = "/v2/repository/models/line/load"
    assert post(app, path, json={"parameters": {"default_version": 2}}).status_code == 200
    assert repository.history == [f"load line {VersionPolicy(None, 2)}"]
    assert post(app, path, json={"parameters": {"default_version": "2"}}).status_code == 422
    unload = path.replace("load", "unload")
    assert post(app, unload, json={"parameters": {"default_version": 2}}).status_code == 422


@pytest.mark.parametrize("path", ["line/versions/3", "line@3", "line%403"])
def test_a_version_is_named_beside_the_model_or_behind_it(app: FastAPI, path: str) -> None:
    body = {"model_name": "line", "model_version": "3", "inputs": [tensor(X)]}
    answer = post(app, f"/v2/models/{path}/infer", json=body)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["model_name"], answer.json()["model_version"]) == ("line", "3")
    assert ask(app, "GET", f"/v2/models/{path}/ready").json() == {"name": "line", "ready": True}
    assert post(app, "/v2/models/line@4/infer", json=body).status_code == 404


@pytest.mark.parametrize(("said", "status"), [({"model_version": "3"}, 404), ({}, 200)])
def test_a_version_that_the_body_names_is_not_answered_for_by_its_successor(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], status: int
) -> None:
    repository = FakeRepository((card("line", (3,)),))
    repository.queue("line", "encode").failure = NotReady("it is retired")
    successor = FakeRepository((card("line", (3,), version="4"),))
    get = repository.get
    asked: list[str | None] = []

    def find(name: str | None) -> ServedModel:
        asked.append(name)
        if len(asked) == 1:
            return get(name)
        if name == "line@3":
            raise ModelNotFound("model: version '3' of line is not live; live: 4")
        return successor.get(name)

    monkeypatch.setattr(repository, "get", find)
    answer = infer(app_over(repository), inputs=[tensor(X)], **said)
    assert answer.status_code == status, answer.text
    assert answer.json().get("model_version", "4") == "4"


def test_the_protocol_is_documented(app: FastAPI) -> None:
    document = ask(app, "GET", "/openapi.json").json()
    for path in ("/v2", "/v2/models/{name}", "/v2/models/{name}/infer", "/v2/repository/index"):
        assert path in document["paths"]
    assert "/v2/repository/models/{name}/load" not in document["paths"]


@pytest.mark.parametrize("said", [None, "20"], ids=["no header", "wrong header"])
def test_bytes_behind_json_without_their_length_say_what_to_send(
    app: FastAPI, said: str | None
) -> None:
    data = X.tobytes()
    described = {"name": "x", "shape": [2, 3], "datatype": "FP32"}
    described["parameters"] = {"binary_data_size": len(data)}
    text = json.dumps({"inputs": [described]}).encode()
    headers = {"Content-Type": "application/octet-stream"}
    headers |= {} if said is None else {LENGTH: said}
    answer = post(app, INFER, content=text + data, headers=headers)
    assert answer.status_code == 400
    mend = f"tensors follow its JSON as bytes: say where it ends with the header {LENGTH}: "
    assert answer.json()["detail"].endswith(f"; {mend}{len(text)}")
    headers[LENGTH] = str(len(text))
    assert post(app, INFER, content=text + data, headers=headers).status_code == 200


def test_npy_is_told_where_it_is_taken(app: FastAPI) -> None:
    answer = post(app, INFER, content=b"\x93NUMPY\x01\x00", headers={})
    assert answer.status_code == 400
    assert answer.json()["detail"].endswith(
        "begins like application/x-npy, which this call does not take"
    )
