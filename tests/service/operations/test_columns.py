"""Rows by name: whatever the order of the columns, the same bytes as in the model's own."""

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codec import json_slices
from service.codec.json import is_plain, parse_object, read_object
from service.codec.json_slices import LARGE_BYTES, SliceLimits, parse_large
from service.errors import ServiceError
from tests.service.fake_repository import FakeRepository, app_over, card, post

# Names as tables have them, and some that look like what stands around them.
NAMES = (
    "mean radius",
    "mass [kg]",
    "a,b",
    'say "x": [{',
    "},{",
    "back\\\\slash\\",
    "null",
    "~0/1",
    "größe",
    "x",
)
LENGTH = "Inference-Header-Content-Length"
SHORT = SliceLimits(rest=400, long=100, array=100, slice=300, row=4000)
permutations = st.permutations(range(len(NAMES)))


@pytest.fixture(scope="module")
def app() -> FastAPI:
    cards = (
        card("table", (len(NAMES),), feature_names=NAMES),
        card("axes", (2,), feature_names=("x", "z")),
        card("pair", (2,), feature_names=("mass", "speed")),
        card("nameless", (3,)),
    )
    return app_over(FakeRepository(cards))


def draw(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, len(NAMES))).astype(np.float32)


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def good(answer: httpx.Response) -> bytes:
    assert answer.status_code == 200, answer.text
    return answer.content


def encode(app: FastAPI, **fields: Any) -> bytes:
    return good(post(app, "/encode", json={"model": "table", **fields}))


def as_objects(rows: np.ndarray, orders: list[list[int]]) -> list[dict[str, float]]:
    return [
        {NAMES[column]: row[column] for column in order}
        for row, order in zip(rows.tolist(), orders, strict=True)
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(permutations, min_size=1, max_size=4), st.booleans())
def test_objects_in_any_order_are_the_same_rows(orders: list[list[int]], is_ascii: bool) -> None:
    app = app_over(FakeRepository((card("table", (len(NAMES),), feature_names=NAMES),)))
    x = draw(len(orders))
    content = json.dumps({"model": "table", "x": as_objects(x, orders)}, ensure_ascii=is_ascii)
    assert good(post(app, "/encode", content=content.encode())) == encode(app, x=x.tolist())


@settings(max_examples=25, deadline=None)
@given(permutations)
def test_columns_in_any_order_are_the_same_rows(order: list[int]) -> None:
    app = app_over(FakeRepository((card("table", (len(NAMES),), feature_names=NAMES),)))
    x = draw(3)
    wanted = encode(app, x=x.tolist())
    columns, moved = [NAMES[column] for column in order], x[:, order]
    assert encode(app, x=moved.tolist(), columns=columns) == wanted
    query = {"model": "table", "columns": json.dumps(columns)}
    assert good(post(app, "/encode", params=query, json={"x": moved.tolist()})) == wanted
    headers = {"Content-Type": "application/x-npy"}
    for array in (moved, np.asfortranarray(moved), moved.astype(">f8")):
        answer = post(app, "/encode", params=query, content=npy(array), headers=headers)
        assert good(answer) == wanted


@settings(max_examples=25, deadline=None)
@given(permutations)
def test_answers_have_their_columns_as_asked(order: list[int]) -> None:
    app = app_over(FakeRepository((card("table", (len(NAMES),), feature_names=NAMES),)))
    columns, z = [NAMES[column] for column in order], draw(3).tolist()
    for call, fields in (("decode", {"z": z}), ("sample", {"seed": 7, "num_samples": 3})):
        plain = post(app, f"/{call}", json={"model": "table", **fields}).json()
        found = post(app, f"/{call}", json={"model": "table", "columns": columns, **fields}).json()
        assert found["x"] == np.array(plain["x"])[:, order].tolist()
        assert {**found, "x": 0} == {**plain, "x": 0}
        # What was decoded into an order is encoded from it.
        again = encode(app, x=found["x"], columns=columns)
        assert again == encode(app, x=plain["x"])


def table_inputs(x: np.ndarray, order: list[int], **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": NAMES[column],
            "shape": [len(x), 1][: 1 + column % 2],
            "datatype": "FP32",
            **more,
        }
        for column in order
    ]


def test_v2_takes_a_tensor_a_column(app: FastAPI) -> None:
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    x, path = draw(5), "/v2/models/table/infer"
    whole = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}
    wanted = good(post(app, path, json={"inputs": [whole]}))
    inputs = table_inputs(x, order)
    for each, column in zip(inputs, order, strict=True):
        each["data"] = x[:, column].tolist()
    assert good(post(app, path, json={"inputs": inputs})) == wanted
    text = json.dumps({"inputs": table_inputs(x, order, parameters={"binary_data_size": 20})})
    body = text.encode() + b"".join(x[:, column].tobytes() for column in order)
    headers = {LENGTH: str(len(text.encode())), "Content-Type": "application/octet-stream"}
    assert good(post(app, path, content=body, headers=headers)) == wanted
    moved = whole | {"data": x[:, order].tolist()}
    columns = json.dumps([NAMES[column] for column in order])
    asked = {"inputs": [moved], "parameters": {"columns": columns}}
    assert good(post(app, path, json=asked)) == wanted


@pytest.mark.parametrize("names", [("x", "z"), ("z", "x")])
def test_v2_columns_may_be_called_as_tensors_are(app: FastAPI, names: tuple[str, str]) -> None:
    path, values = "/v2/models/axes/infer", {"x": [1.0, 2.0], "z": [3.0, 4.0]}
    inputs = [
        {"name": name, "shape": [2], "datatype": "FP64", "data": values[name]} for name in names
    ]
    whole = {"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [1, 3, 2, 4]}
    wanted = good(post(app, path, json={"inputs": [whole]}))
    assert good(post(app, path, json={"inputs": inputs})) == wanted


def column(name: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data), 1], "datatype": "FP64", "data": data, **more}


@pytest.mark.parametrize(
    ("inputs", "code", "said"),
    [
        ([column("x", [1, 2]), column("y", [1, 2])], "unknown_field", "'y'"),
        ([column("mass [kg]", [1, 2])], "missing_field", "'mean radius' is missing"),
        ([column("mass", [1, 2])], "unknown_field", "did you mean 'mass [kg]'?"),
        ([column("a,b", [1]), column("null", [1, 2])], "shape_mismatch", "'null'"),
        ([column("a,b", [1, 2]), column("a,b", [1, 2])], "invalid_parameter", "'a,b' twice"),
        ([column("a,b", ["u", "v"], datatype="BYTES")], "bad_dtype", "a,b"),
        ([column("a,b", [True, False], datatype="BOOL")], "bad_dtype", "a,b"),
        ([column("a,b", [1, None])], "bad_dtype", "a,b"),
    ],
)
def test_v2_refuses_other_columns_by_name(
    app: FastAPI, inputs: list[dict[str, Any]], code: str, said: str
) -> None:
    answer = post(app, "/v2/models/table/infer", json={"inputs": inputs})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert said in answer.json()["detail"]


def test_v2_takes_a_matrix_or_columns_not_both(app: FastAPI) -> None:
    whole = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}
    found = post(app, "/v2/models/pair/infer", json={"inputs": [whole, column("mass", [1])]}).json()
    assert found["code"] == "unknown_field"
    assert found["detail"].startswith("'mass': no such field, expected x, z, context")


def test_v2_names_the_column_of_a_number_that_is_none(app: FastAPI) -> None:
    x = draw(2).tolist()
    x[1][2] = 1e39
    inputs = [column(name, [row[index] for row in x]) for index, name in enumerate(NAMES)]
    found = post(app, "/v2/models/table/infer", json={"inputs": inputs}).json()
    assert found["detail"].endswith("row 1 holds 1e+39 in column 'a,b'")
    assert [fault["pointer"] for fault in found["errors"]] == ["/x/1/a,b"]


def test_v2_names_the_columns_that_the_client_has(app: FastAPI) -> None:
    x = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, None]}
    asked = {"inputs": [x], "parameters": {"columns": "z,x"}}
    found = post(app, "/v2/models/axes/infer", json=asked).json()
    assert found["detail"].endswith("row 0 holds null in column 1 'x'")


# Large bodies


@settings(max_examples=60, deadline=None)
@given(
    st.lists(permutations, min_size=1, max_size=40),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.booleans(),
)
def test_objects_are_read_in_slices(
    orders: list[list[int]], indent: int | None, is_ascii: bool, is_last: bool
) -> None:
    rows = as_objects(draw(len(orders)), orders)
    content: dict[str, Any] = {"model": "m", "columns": None, "context": [[1, 2]] * 60}
    content = content | {"x": rows} if is_last else {"x": rows} | content
    body = json.dumps(content, indent=indent, ensure_ascii=is_ascii).encode()
    found = parse_large(body, 1000, SHORT, known=("model", "x", "columns", "context"), table="x")
    table = found.pop("x")
    assert list(table.columns) == list(rows[0])
    assert table.values.tolist() == [[row[name] for name in rows[0]] for row in rows]
    np.testing.assert_array_equal(found.pop("context"), content.pop("context"))
    assert found == {"model": "m", "columns": None}


ROW = '{"b": 2, "a": 1}'
LONG = ", ".join([ROW] * 60)
WRONG = {
    "comma_at_the_end": "LONG,",
    "two_commas": "LONG,, ROW",
    "no_comma": "LONG ROW",
    "no_end": "LONG, {",
    "another_end": "LONG, {1]",
    "a_key_twice": 'LONG, {"a": 1, "a": 2, "b": 3}',
    "a_key_without_a_value": 'LONG, {"a": 1, "b"}, ROW',
    "a_key_that_is_a_number": "LONG, {1: 2}, ROW",
    "a_string": 'LONG, {"a": 1, "b": "2"}, LONG',
    "true": 'LONG, {"a": 1, "b": true}, LONG',
    "null": 'LONG, {"a": 1, "b": null}, LONG',
    "a_list": 'LONG, {"a": 1, "b": [2]}, LONG',
    "an_object": 'LONG, {"a": 1, "b": {"c": 2}}, LONG',
    "a_row_that_is_a_list": "LONG, [1, 2], LONG",
    "a_row_that_is_a_number": "LONG, 7, LONG",
    "an_object_among_lists": "[1, 2], " * 60 + "LONG",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_as_a_whole_is_wrong_in_slices(case: str) -> None:
    body = f'{{"x": [{WRONG[case]}]}}'.replace("LONG", LONG).replace("ROW", ROW).encode()
    with pytest.raises((ServiceError, ValueError, TypeError)) as one:
        np.array(read_object(body)["x"], np.float64)
    with pytest.raises(ServiceError) as sliced:
        parse_large(body, 1000, SHORT, table="x")
    # Lists and objects in one are refused later there.
    assert sliced.value.status == getattr(one.value, "status", 422)


@pytest.mark.parametrize(
    ("row", "code", "said", "pointer"),
    [
        ('{"a": 1}', "missing_field", "row 60: column 'b' is missing", "/x/60"),
        ('{"a": 1, "bb": 1, "b": 2}', "unknown_field", "row 60: 'bb'", "/x/60/bb"),
        ('{"a": 1, "b": "2"}', "bad_dtype", "row 60 holds a string in column 'b'", "/x/60/b"),
        ("{}", "missing_field", "row 60: column 'b' is missing", "/x/60"),
        ("[1, 2]", "bad_dtype", "row 60", "/x/60"),
    ],
)
def test_the_row_is_named_in_slices(row: str, code: str, said: str, pointer: str) -> None:
    body = f'{{"x": [{LONG}, {row}]}}'.encode()
    with pytest.raises(ServiceError) as caught:
        parse_large(body, 1000, SHORT, table="x")
    assert caught.value.code == code
    assert said in caught.value.detail
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_objects_in_slices_are_bounded() -> None:
    many, wide = ", ".join([ROW] * 1001), ", ".join(f'"{i}": 1' for i in range(1000))
    name = "a" * 5000
    for rows in (many, f"{{{wide}}}", f'{{"{name}": 1}}', f'{{"a":{" " * 5000}1}}'):
        with pytest.raises(ServiceError) as caught:
            parse_large(f'{{"x": [{rows}]}}'.encode(), 1000, SHORT, table="x")
        assert caught.value.status == 413


def test_no_call_of_the_parser_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def record(text: bytes | bytearray) -> dict[str, Any]:
        sizes.append(len(text))
        return parse_object(text)

    monkeypatch.setattr(json_slices, "parse_object", record)
    body = f'{{"x": [{", ".join([ROW] * 60_000)}]}}'.encode()
    assert parse_large(body, 10**6, table="x")["x"].values.shape == (60_000, 2)
    assert max(sizes) < 300_000, "more holds up the event loop for tens of milliseconds"


def test_large_bodies_are_the_same_rows(app: FastAPI) -> None:
    x = 1e-6 * draw(6000).astype(np.float64)
    generator = np.random.default_rng(1)
    orders = [generator.permutation(len(NAMES)).tolist() for _ in x]
    plain = json.dumps({"model": "table", "x": x.tolist()})
    body = json.dumps({"model": "table", "x": as_objects(x, orders)})
    assert min(len(plain), len(body)) > LARGE_BYTES
    wanted = good(post(app, "/log_prob", content=plain))
    assert good(post(app, "/log_prob", content=body)) == wanted
    columns = list(reversed(NAMES))
    moved = {"model": "table", "columns": columns, "x": x[:, ::-1].tolist()}
    assert good(post(app, "/log_prob", json=moved)) == wanted
    found = post(app, "/log_prob", content=body[:-3] + ', "more": 1}]}').json()
    assert found["detail"].startswith("x: row 5999: 'more' is no column of the model")


def test_a_column_without_a_name_is_unknown(app: FastAPI) -> None:
    rows = as_objects(draw(1), [list(range(len(NAMES)))])
    body = json.dumps({"model": "table", "x": rows})
    found = post(app, "/log_prob", content=body[:-3] + ', "": 1}]}').json()
    assert found["code"] == "unknown_field"
    assert found["detail"].startswith("x: row 0: '' is no column of the model")
    assert found["errors"][0]["pointer"] == "/x/0/"


@pytest.mark.parametrize("size", [3, 300_000])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_unknown_field_of_strings_is_unknown(app: FastAPI, size: int, is_first: bool) -> None:
    field, rows = {"labels": ["a"] * size}, {"model": "nameless", "x": [[1, 2, 3]]}
    for path, body in (
        ("/log_prob", rows),
        ("/v2/models/nameless/infer", {"inputs": [column("x", [1])]}),
    ):
        answer = post(app, path, json=field | body if is_first else body | field)
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field"), path
        assert "labels" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"x": [{"a": 1, "b": 2}, {"b": 1, "a": 2}]}', True),
        (b'{"model": "m", "x": [{"a": 1, "b": 2}], "columns": ["a", "b"]}', True),
        (b'{"x": [{"a": 1, "a": 2}]}', False),
        (b'{"x": [{"a": "1"}]}', False),
        (b'{"x": [{"a": true}]}', False),
        (b'{"x": [{"a": {"b": 1}}]}', False),
        (b'{"x": [["a"]], "columns": ["a"]}', False),
        (b'{"x": ["a"]}', False),
        (b'{"columns": ["a", null]}', False),
    ],
)
def test_plain_objects_need_no_second_look(body: bytes, expected: bool) -> None:
    assert is_plain(body, parse_object(body)) is expected
