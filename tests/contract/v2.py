"""The contract's questions in the words of the Open Inference Protocol, and its answers back.

A question that has the same meaning there has the same status, error code and numbers.
"""

import io
import json
import math
from typing import Any

import numpy as np

from service.operations import OPERATIONS
from service.operations.failures import CODES
from tests.contract.case import JSON, NPY, Case, InV2, NotInV2

LENGTH = "inference-header-content-length"
DATATYPES = {
    "<f2": "FP16",
    "<f4": "FP32",
    "<f8": "FP64",
    "|u1": "UINT8",
    "<i4": "INT32",
    "<i8": "INT64",
    "|b1": "BOOL",
}
_TENSOR = {kind.name: kind.tensor and kind.tensor.name for kind in OPERATIONS}
# What is meant where no operation is named.
_DEFAULT = {"x": "encode", "z": "decode", None: "sample"}
_DRAW = ("num_samples", "seed", "temperature", "first_row")


def tensor_of(operation: str) -> str | None:
    """The tensor that an operation takes."""
    return _TENSOR[operation]


def why_not(case: Case) -> str | None:
    """Why a case cannot be asked; None where it can."""
    if isinstance(case.v2, NotInV2):
        return case.v2.reason
    if case.method != "POST":
        return "the protocol has no operation for another method"
    return None


def question(case: Case) -> tuple[str, dict[str, str], bytes]:
    """Write the request: path, headers and body."""
    headers = {name: value for name, value in case.sent_headers.items() if name != "Accept"}
    name, _, version = (case.model or "line").partition("@")
    path = f"/v2/models/{name}{f'/versions/{version}' if version else ''}/infer"
    if isinstance(case.v2, InV2):
        body = case.v2.body
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return path, headers | dict(case.v2.headers), content
    if case.header("Content-Type") == NPY:
        return _binary(case, path, headers)
    if (case.header("Content-Type") or JSON).startswith(JSON):
        is_draw = _TENSOR[case.operation] is None and not case.content
        try:
            fields = {} if is_draw else json.loads(case.content.decode())
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict):
            return path, headers, json.dumps(_request(case, case.fields | fields)).encode()
    return path, headers, case.content  # what is no JSON object is none there too


def answer(case: Case, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Make an answer's JSON what it would be at the operation's own route."""
    end = int(headers.get(LENGTH, len(body)))
    content = json.loads(body[:end])
    found: dict[str, Any] = {"model": content["model_name"], "version": content["model_version"]}
    found |= content.get("parameters", {})
    for output in content["outputs"]:
        if "data" in output:
            values = np.array(output["data"], object)
        else:
            size = output["parameters"]["binary_data_size"]
            codes = {name: code for code, name in DATATYPES.items()}
            values = np.frombuffer(body[end : end + size], codes[output["datatype"]])
            end += size
        found[output["name"]] = values.reshape(output["shape"]).tolist()
    codes = found.pop("status", [])
    failed = [(row, *CODES[code]) for row, code in enumerate(codes) if code]
    told = [(each["row"], each["status"], each["reason"]) for each in found.get("failures", [])]
    assert failed == told, "the output status says what parameters.failures say"
    if case.operation == "encode":  # whose answer there has more
        found = {name: found[name] for name in found if name not in ("log_prob", "bits_per_dim")}
    if "non_finite" in content:
        found["non_finite"] = content["non_finite"]
        # A row with a number that JSON cannot hold is null as a whole at the operation's route.
        for rows in (
            found[output["name"]] for output in content["outputs"] if output["name"] in found
        ):
            for row in content["non_finite"]:
                if None in np.array(rows[row], object).ravel():
                    rows[row] = None
    return found


def _request(case: Case, fields: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in fields.items() if name != "model"}
    tensor = _TENSOR[case.operation]
    request: dict[str, Any] = {"inputs": []}
    if tensor in fields:
        request["inputs"] += _inputs(tensor, fields.pop(tensor))
    if fields.get("context") is not None:
        context = fields.pop("context")
        is_label = isinstance(context, int) or type(context[0]) is int
        labels = [context] if isinstance(context, int) else context
        request["inputs"].append(_tensor("context", labels, "INT64" if is_label else "FP64"))
    fields.pop("context", None)
    if fields.pop("return_log_prob", True) is False:
        request["outputs"] = [{"name": "x"}]
    columns = fields.pop("columns", None)
    parameters = {name: _number(value) for name, value in fields.items() if value is not None}
    if columns is not None:  # parameters are no lists
        parameters["columns"] = columns if isinstance(columns, str) else json.dumps(columns)
    is_default = case.operation == _DEFAULT[tensor]
    if tensor is None or (request["inputs"] and not is_default):
        parameters["operation"] = case.operation
    return request | {"parameters": parameters}


def _inputs(name: str, rows: Any) -> list[dict[str, Any]]:
    """One tensor; of rows that are objects one a column."""
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        return [_tensor(key, values, "FP64") for key, values in columns.items()]
    return [_tensor(name, rows, "FP64")]


def _tensor(name: str, values: Any, datatype: str) -> dict[str, Any]:
    shape, inner = [], values
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = next((each for each in inner if each is not None), None)
    return {"name": name, "shape": shape, "datatype": datatype, "data": values}


def _number(value: Any) -> Any:
    """What a query string says, as JSON has it; a word is itself."""
    if value == "null":  # of the field `invalid`
        return value
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _binary(case: Case, path: str, headers: dict[str, str]) -> tuple[str, dict[str, str], bytes]:
    array = np.load(io.BytesIO(case.content))
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    data = array.tobytes()
    described = {
        "name": _TENSOR[case.operation],
        "shape": array.shape,
        "datatype": DATATYPES[array.dtype.str],
        "parameters": {"binary_data_size": len(data)},
    }
    is_binary = case.header("Accept") == NPY
    parameters: dict[str, Any] = {"binary_data_output": is_binary}
    shared = ("columns", "invalid")
    parameters |= {name: value for name, value in case.fields.items() if name in shared}
    request: dict[str, Any] = {"inputs": [described], "parameters": parameters}
    if case.operation != _DEFAULT[_TENSOR[case.operation]]:
        parameters["operation"] = case.operation
    text = json.dumps(request).encode()
    headers = headers | {"Content-Type": "application/octet-stream", LENGTH: str(len(text))}
    return path, headers, text + data


def is_same(mine: Any, theirs: Any) -> bool:
    """Whether two answers hold the same numbers; NaN is NaN."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(is_same(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, list) and isinstance(theirs, list):
        return len(mine) == len(theirs) and all(map(is_same, mine, theirs))
    if isinstance(mine, float) and isinstance(theirs, float) and math.isnan(mine):
        return math.isnan(theirs)
    return bool(mine == theirs)
