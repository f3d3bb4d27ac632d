"""Rows without numbers: the others get what they get alone, and every form says which and why."""

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.codec.json_slices import SliceLimits, parse_large
from service.codec.missing import MISSING, is_missing
from service.errors import BadDtype
from service.operations.failures import CODES
from tests.service.fake_repository import FakeRepository, app_over, ask, post

NPY, NPZ = "application/x-npy", "application/x-npz"
INFER = "/v2/models/line/infer"
BAD = (float("nan"), float("inf"), -float("inf"), 1e39, None)
REASONS = ("nan", "infinite", "infinite", "too_large", "missing")


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return app_over(FakeRepository())


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 2), st.integers(0, 4)), max_size=30),
    st.sampled_from(("log_prob", "encode", "decode")),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_good_rows_get_what_they_get_alone(
    app: FastAPI, faults: list[tuple[int, int, int]], operation: str
) -> None:
    rows: list[list[Any]] = np.random.default_rng(0).normal(size=(20, 3)).tolist()
    tensor = "z" if operation == "decode" else "x"
    for row, column, kind in faults:
        rows[row][column] = BAD[kind]
    bad = sorted({row for row, _, _ in faults})
    good = [row for row in range(20) if row not in bad]
    body = text({"model": "line", tensor: rows, "invalid": "null"})
    answer = post(app, f"/{operation}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told.get("non_finite", []) == bad
    assert [each["row"] for each in told.get("failures", [])] == bad
    assert {each["status"] for each in told.get("failures", [])} <= {"invalid_input"}
    if good:
        alone = {"model": "line", tensor: [rows[row] for row in good]}
        expected = post(app, f"/{operation}", json=alone).json()
        for name in set(expected) - {"model", "version"}:
            assert [told[name][row] for row in good] == expected[name]
            assert all(told[name][row] is None for row in bad)


@pytest.mark.parametrize(("value", "reason"), list(zip(BAD, REASONS, strict=True)))
def test_one_of_569_rows_costs_itself_alone(app: FastAPI, value: Any, reason: str) -> None:
    rows: list[list[Any]] = np.random.default_rng(1).normal(size=(569, 3)).tolist()
    rows[17][1] = value
    body = text({"model": "line", "x": rows, "invalid": "null"})
    told = post(app, "/log_prob", content=body, headers={"Content-Type": "application/json"}).json()
    assert told["failures"] == [{"row": 17, "status": "invalid_input", "reason": reason}]
    assert sum(number is None for number in told["log_prob"]) == 1
    refused = post(app, "/log_prob", content=text({"model": "line", "x": rows}))
    assert refused.status_code == 422


def test_no_engine_sees_invalid_rows() -> None:
    repository = FakeRepository()
    app = app_over(repository)
    rows = [[1, 2, None], [1, 2, 3]]
    post(app, "/log_prob", json={"model": "line", "x": rows, "invalid": "null"})
    post(app, "/log_prob", json={"model": "line", "x": rows[:1], "invalid": "null"})
    assert [len(given) for given, _ in repository.queue("line", "encode").calls] == [1]


def test_at_most_64_rows_stand_in_the_header(app: FastAPI) -> None:
    headers = {"Content-Type": NPY, "Accept": NPY}
    body = npy(np.full((100, 3), np.nan, np.float32))
    answer = post(app, "/encode?model=line&invalid=null", content=body, headers=headers)
    assert answer.headers["x-failures"] == answer.headers["x-non-finite"] == "100"
    assert answer.headers["x-failed-rows"] == ",".join(map(str, range(64)))
    assert np.isnan(np.load(io.BytesIO(answer.content))).all()


def test_failed_rows_are_counted() -> None:
    app = app_over(FakeRepository())
    rows = [[1, 2, None], [1e30, 0, 0], [1, 2, 3]]
    post(app, "/log_prob", json={"model": "line", "x": rows, "invalid": "null"})
    inputs = [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1e30, 0, 0]}]
    post(app, INFER, json={"inputs": inputs})
    lines = ask(app, "GET", "/metrics").text.splitlines()
    counted = {line for line in lines if line.startswith("pushforward_failed_rows_total")}
    name = "pushforward_failed_rows_total"
    assert counted == {
        f'{name}{{model="line",op="log_prob",status="invalid_input",version="3"}} 1.0',
        f'{name}{{model="line",op="log_prob",status="outside_support",version="3"}} 1.0',
        f'{name}{{model="line",op="infer",status="outside_support",version="3"}} 1.0',
    }


def in_v2(data: Any, shape: list[int], **parameters: Any) -> dict[str, Any]:
    inputs = [{"name": "x", "shape": shape, "datatype": "FP32", "data": data}]
    return {"inputs": inputs, "parameters": parameters}


def outputs_of(answer: Any) -> dict[str, Any]:
    """The tensors of an answer in the protocol, JSON or bytes, by name."""
    body, end = answer.content, int(answer.headers.get("inference-header-content-length", 0))
    found = {}
    for output in json.loads(body[: end or None])["outputs"]:
        if "data" in output:
            found[output["name"]] = np.array(output["data"], float)
        else:
            size = output["parameters"]["binary_data_size"]
            dtype = {"INT32": "<i4", "FP32": "<f4"}[output["datatype"]]
            found[output["name"]] = np.frombuffer(body[end : end + size], dtype)
            end += size
    return found


@pytest.mark.parametrize("is_binary", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("data", ["nested", "flat"])
def test_v2_has_a_status_for_every_row(app: FastAPI, data: str, is_binary: bool) -> None:
    rows: list[Any] = [[1, 2, 3], [1, None, 3], [1e30, 0, 0]]
    given = rows if data == "nested" else [value for row in rows for value in row]
    request = in_v2(given, [3, 3], invalid="null", binary_data_output=is_binary)
    answer = post(app, INFER, json=request)
    found = outputs_of(answer)
    codes = found["status"].tolist()
    assert codes == [0, 8, 5]
    assert [CODES[int(code)][0] for code in codes[1:]] == ["invalid_input", "outside_support"]
    assert np.isnan(found["log_prob"][1])
    assert ("x-failed-rows" in answer.headers) == is_binary
    if is_binary:
        assert answer.headers["x-failures"] == "2"
        assert answer.headers["x-failed-rows"] == "1,2"
        assert np.isneginf(found["log_prob"][2])


@pytest.mark.parametrize("others", [[], ["log_prob"]], ids=["alone", "among others"])
def test_v2_gives_the_status_where_it_is_asked_for(app: FastAPI, others: list[str]) -> None:
    request = in_v2([1, 2, 3], [1, 3]) | {"outputs": [{"name": n} for n in [*others, "status"]]}
    answer = post(app, INFER, json=request)
    assert [each["name"] for each in answer.json()["outputs"]] == [*others, "status"]
    assert outputs_of(answer)["status"].tolist() == [0]


def test_v2_tells_of_a_row_that_is_null_as_a_whole(app: FastAPI) -> None:
    answer = post(app, INFER, json=in_v2([[1, 2, 3], None], [2, 3], invalid="null"))
    assert outputs_of(answer)["status"].tolist() == [0, 8]


def test_v2_takes_columns_with_nulls(app: FastAPI) -> None:
    inputs = [
        {"name": "speed", "shape": [2], "datatype": "FP64", "data": [2, None]},
        {"name": "mass", "shape": [2], "datatype": "INT32", "data": [None, 1]},
    ]
    request = {"inputs": inputs, "parameters": {"invalid": "null"}}
    answer = post(app, "/v2/models/wide/infer", json=request)
    assert outputs_of(answer)["status"].tolist() == [8, 8]


def test_samples_have_no_invalid_rows(app: FastAPI) -> None:
    request = {"inputs": [], "parameters": {"num_samples": 1, "invalid": "null"}}
    answer = post(app, INFER, json=request)
    assert answer.status_code == 422
    assert "only of calls that take x or z" in answer.json()["detail"]


def test_labels_that_are_missing(app: FastAPI) -> None:
    inputs = [
        {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "context", "shape": [2], "datatype": "INT64", "data": [2, None]},
    ]
    request = {"inputs": inputs, "parameters": {"invalid": "null"}}
    answer = post(app, "/v2/models/labelled/infer", json=request)
    assert outputs_of(answer)["status"].tolist() == [0, 8]


def test_what_r_calls_missing_is_missing() -> None:
    assert struct.pack("<d", MISSING)[:4] == struct.pack("<i", 1954)
    values = np.array([[MISSING, np.nan, 1954.0]])
    assert is_missing(values).tolist() == [[True, False, False]]


SLICES = SliceLimits(rest=200, long=40, array=40, slice=60, row=500)


@pytest.mark.parametrize("place", ["before", "behind"])
def test_long_bodies_hold_nulls_where_they_are_taken(place: str) -> None:
    rows: list[Any] = [[index + 0.5, index] for index in range(40)]
    rows[7], rows[23] = [None, 1], None
    fields = {"x": rows}
    fields = {"invalid": "null"} | fields if place == "before" else fields | {"invalid": "null"}
    x = parse_large(text(fields), 100, SLICES)["x"]
    assert np.flatnonzero(is_missing(x).any(1)).tolist() == [7, 23]
    assert x[8].tolist() == [8.5, 8]
    with pytest.raises(BadDtype, match="row 7 holds null"):
        parse_large(text(fields | {"invalid": "refuse"}), 100, SLICES)
    with pytest.raises(BadDtype, match="something else after row"):
        parse_large(text({"x": rows}), 100, SLICES)


def test_long_bodies_of_objects_hold_them_too() -> None:
    rows: list[Any] = [{"a": index, "b": index + 0.5} for index in range(40)]
    rows[0], rows[7], rows[30] = {"a": 0}, {"a": None, "b": 1}, None
    fields = {"x": rows, "invalid": "null"}
    table = parse_large(text(fields), 100, SLICES, table="x")["x"]
    assert table.columns == ("a", "b")
    assert np.flatnonzero(is_missing(table.values).any(1)).tolist() == [0, 7, 30]
    assert table.values[8].tolist() == [8, 8.5]
