"""What the clients of the Open Inference Protocol send, byte for byte, and what they read.

KServe 0.21 (InferenceRESTClient), MLServer 1.7 (`mlserver infer` and its codecs) and NVIDIA's
tritonclient 2.73, each recorded at the socket.
"""

import json
import time
from typing import Any

import numpy as np
import pytest

from service.contracts import Array, InferenceResult
from tests.service.fake_repository import FakeRepository, app_over, post
from tests.service.transport.test_v2 import LENGTH, infer, outputs, tensor

ROWS = np.array([[0, 1], [1, -0.5]], np.float32)
BYTES = ROWS.tobytes()
_INPUT = b'{"name":"x","shape":[2,2],"datatype":"FP32"'
_DATA = _INPUT + b',"data":[0.0,1.0,1.0,-0.5]}'
_BINARY = _INPUT + b',"parameters":{"binary_data_size":16}}'

# JSON, and whether the tensor's bytes follow it.
SENT: dict[str, tuple[bytes, bool]] = {
    "kserve_json": (
        b'{"id":"1fed75a6-98f6-4748-9bd2-eaa685c55117","model_name":"wide","inputs":[%b]}' % _DATA,
        False,
    ),
    "kserve_binary": (
        b'{"id":"b9573fa9-ba75-4d26-aa56-82e982642022","model_name":"wide","inputs":[%b]}'
        % _BINARY,
        True,
    ),
    "mlserver_infer": (
        b'{"id":"29752516-bff9-48ff-ac2f-7317e2da9cb1","inputs":[%b],'
        b'"parameters":{"binary_data_output":true}}' % _DATA,
        False,
    ),
    "mlserver_infer_binary": (
        b'{"id":"42e7c572-1d07-42ba-bfb8-3558df8efd1f","inputs":[%b],'
        b'"parameters":{"binary_data_output":true}}' % _BINARY,
        True,
    ),
    "mlserver_codec": (
        b'{"id": null, "parameters": null, "inputs": [{"name": "x", "shape": [2, 2], '
        b'"datatype": "FP32", "parameters": {"content_type": "np", "headers": null}, '
        b'"data": [0.0, 1.0, 1.0, -0.5]}], "outputs": null}',
        False,
    ),
    "mlserver_request_codec": (
        b'{"parameters": {"content_type": "np"}, "inputs": [{"name": "x", "shape": [2, 2], '
        b'"datatype": "FP32", "parameters": {"content_type": "np"}, '
        b'"data": [0.0, 1.0, 1.0, -0.5]}]}',
        False,
    ),
    "mlserver_pandas": (
        b'{"parameters":{"content_type":"pd"},"inputs":['
        b'{"name":"speed","shape":[2,1],"datatype":"FP64","data":[1.0,-0.5]},'
        b'{"name":"mass","shape":[2,1],"datatype":"INT64","data":[0,1]}]}',
        False,
    ),
    "triton": (
        b'{"inputs":[%b],"parameters":{"binary_data_output":true}}' % _BINARY,
        True,
    ),
    "triton_scheduled": (
        b'{"id":"r","inputs":[%b],"parameters":{"sequence_id":1,"sequence_start":true,'
        b'"sequence_end":true,"priority":1,"timeout":5000000,"binary_data_output":true}}' % _BINARY,
        True,
    ),
    "triton_outputs": (
        b'{"inputs":[%b],"outputs":[{"name":"log_prob","parameters":{"binary_data":true}}]}'
        % _BINARY,
        True,
    ),
}


def send(text: bytes, *, has_bytes: bool = False, path: str = "/v2/models/wide/infer") -> Any:
    headers = {}
    if has_bytes:
        headers = {LENGTH: str(len(text)), "Content-Type": "application/octet-stream"}
    content = text + BYTES if has_bytes else text
    return post(app_over(FakeRepository()), path, content=content, headers=headers)


@pytest.mark.parametrize("case", SENT)
def test_what_clients_send_is_answered(case: str) -> None:
    text, has_bytes = SENT[case]
    plain = json.dumps({"inputs": [tensor(ROWS)]}).encode()
    answer = send(text, has_bytes=has_bytes)
    got, wanted = outputs(answer), outputs(send(plain))
    assert got.keys() <= wanted.keys()
    for name, values in got.items():
        np.testing.assert_array_equal(values, wanted[name])
    end = int(answer.headers.get(LENGTH, len(answer.content)))
    assert json.loads(answer.content[:end]).get("id") == json.loads(text).get("id")


@pytest.mark.parametrize(
    "change",
    [{"parameters": None}, {"parameters": {"timeout": None}}, {"model_name": None}, {"id": None}],
    ids=str,
)
def test_null_is_as_good_as_absent(change: dict[str, Any]) -> None:
    assert list(outputs(infer(app_over(FakeRepository()), **change))) == [
        "z",
        "log_det",
        "log_prob",
    ]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model_name": "line"}, 200),
        ({"model_name": "wide"}, 422),
        ({"model_name": 7}, 422),
        ({"model_version": "3"}, 200),
        ({"model_version": ""}, 200),
        ({"model_version": "2"}, 422),
    ],
    ids=str,
)
def test_names_in_the_body_are_those_of_the_path(change: dict[str, Any], status: int) -> None:
    answer = infer(app_over(FakeRepository()), **change)
    assert answer.status_code == status
    if status == 422:
        (field,) = change
        assert answer.json()["code"] == "invalid_parameter"
        assert answer.json()["detail"].lstrip("/").startswith(field)


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
@pytest.mark.parametrize("value", [2**63, 2**64 - 1, -(2**63) - 1])
def test_integers_that_float64_cannot_tell_apart_are_refused(datatype: str, value: int) -> None:
    given = {"name": "x", "shape": [1, 3], "datatype": datatype, "data": [[value, 2, 3]]}
    answer = infer(app_over(FakeRepository()), inputs=[given])
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_dtype")


@pytest.mark.parametrize(("microseconds", "seconds"), [(2_500_000, 2.5), (0, 30.0)])
def test_the_timeout_is_in_microseconds(microseconds: int, seconds: float) -> None:
    repository = FakeRepository()
    queue = repository.queue("line", "encode")
    left = []

    async def submit(rows: Array, context: Array | None, deadline: float) -> InferenceResult:
        left.append(deadline - time.monotonic())
        return await type(queue).submit(queue, rows, context, deadline)

    queue.submit = submit  # type: ignore[method-assign]
    answer = infer(app_over(repository), parameters={"timeout": microseconds})
    assert answer.status_code == 200
    assert left[0] == pytest.approx(seconds, abs=1.0)
    assert left[0] <= seconds
