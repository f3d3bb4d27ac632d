"""A value of a table that cannot be taken is told by row, and by index and name of its column."""

import io
import json
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from service.codec.json_slices import LARGE_BYTES
from tests.service.fake_repository import FakeRepository, app_over, card, post

NAMES = ("mean radius", "mean 'area'", "label [kg]")
GOOD = "[1, 2, 3]"
HUGE = "1" + "0" * 400
# What stands in a row, how it is told, and in which column.
VALUES = {
    "NaN": ("[1, NaN, 3]", "holds nan", 1),
    "infinity": ("[-Infinity, NaN, 3]", "holds -inf", 0),
    "null": ("[1, 2, null]", "holds null", 2),
    "the first of two": ("[1, null, null]", "holds null", 1),
    "a string": ('["1", 2, 3]', "holds a string", 0),
    "true": ("[1, true, 3]", "holds true or false", 1),
    "too large for float32": ("[1, 2, 1e39]", "holds 1e\\+39", 2),
    "too large for any float": (f"[1, {HUGE}, 3]", "holds an integer no float can hold", 1),
}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    cards = (card("table", (3,), feature_names=NAMES), card("nameless", (3,)))
    return app_over(FakeRepository(cards))


def refused(app: FastAPI, path: str, **request: Any) -> dict[str, Any]:
    answer = post(app, path, **request)
    assert answer.status_code == 422, answer.text
    content: dict[str, Any] = answer.json()
    return content


@pytest.mark.parametrize(("row", "what", "column"), VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("flat", [None, False, True], ids=["log_prob", "V2 nested", "V2 flat"])
def test_the_column_is_named(
    app: FastAPI, row: str, what: str, column: int, flat: bool | None
) -> None:
    data = f"[{GOOD}, {row}]"
    if flat is None:
        found = refused(app, "/log_prob", content=f'{{"model": "table", "x": {data}}}')
    else:
        data = data.replace("[", "").replace("]", "") if flat else data[1:-1]
        tensor = f'{{"name": "x", "datatype": "FP64", "shape": [2, 3], "data": [{data}]}}'
        found = refused(app, "/v2/models/table/infer", content=f'{{"inputs": [{tensor}]}}')
    told = what.replace("\\", "")
    place = f" in column {column} {NAMES[column]!r}"
    assert found["detail"].endswith(f"row 1 {told}{place}")
    assert [fault["pointer"] for fault in found["errors"]] == ["/x/1"]
    assert found["errors"][0]["detail"].endswith(place)


def test_each_row_of_npy_names_its_own(app: FastAPI) -> None:
    rows = np.ones((4, 3))
    rows[1, 2] = rows[3, 0] = np.nan
    body = io.BytesIO()
    np.save(body, rows)
    headers = {"Content-Type": "application/x-npy"}
    found = refused(app, "/encode?model=table", content=body.getvalue(), headers=headers)
    assert found["detail"].endswith("row 1 holds nan in column 2 'label [kg]'")
    assert [(fault["pointer"], fault["detail"]) for fault in found["errors"]] == [
        ("/x/1", "not finite in column 2 'label [kg]'"),
        ("/x/3", "not finite in column 0 'mean radius'"),
    ]


def test_in_a_large_body_too(app: FastAPI) -> None:
    rows = ", ".join([f"[1, 2, 3.{'0' * 120}]"] * 9000)
    body = f'{{"model": "table", "x": [{rows}, [1, 2, 1e39]]}}'
    assert len(body) > LARGE_BYTES
    found = refused(app, "/log_prob", content=body)
    assert found["detail"].endswith("row 9000 holds 1e+39 in column 2 'label [kg]'")


@pytest.mark.parametrize(
    ("path", "request_body"),
    [
        ("/log_prob", {"model": "nameless", "x": [[1, None, 3]]}),
        ("/decode", {"model": "table", "z": [[1, None, 3]]}),
        ("/decode", {"model": "table", "z": [[1, 1e39, 3]]}),
        ("/log_prob", {"model": "nobody", "x": [[1, None, 3]]}),
        ("/log_prob", {"x": [[1, None, 3]]}),
    ],
)
def test_no_column_where_there_is_none(
    app: FastAPI, path: str, request_body: dict[str, Any]
) -> None:
    found = refused(app, path, content=json.dumps(request_body))
    assert "row 0 holds" in found["detail"]
    assert "column" not in json.dumps(found)


def test_a_model_that_is_no_name_is_told_before_its_rows(app: FastAPI) -> None:
    body = json.dumps({"model": 3, "x": [[1, None, 3]]})
    assert refused(app, "/log_prob", content=body)["detail"] == "model: expected a string, got 3"
