"""Answers of gRPC and their statuses, as they are written."""

import numpy as np
import orjson
import pytest
from grpc import StatusCode

from service.contracts import InferenceResult
from service.errors import Fault, InvalidRequest, TooLarge
from service.operations.response import Response, error_response
from service.transport.grpc.status import answer_metadata, error_status
from service.transport.grpc.tensors import write_answer
from service.transport.v2 import InferOutputs
from tests.service.fake_repository import card


def test_a_long_problem_leaves_out_its_parts() -> None:
    """Clients take 8 KiB of metadata."""
    for count, is_whole in ((5, True), (500, False)):
        faults = [Fault(f"/x/{row}", "expected a number") for row in range(count)]
        response = error_response(InvalidRequest("x: rows are no numbers", faults=faults), "mine")
        code, detail, metadata = error_status(response)
        written = dict(metadata)["problem-bin"]
        assert len(written) <= 3072
        problem = orjson.loads(written)
        assert ("errors" in problem) == is_whole
        assert (code, detail) == (StatusCode.INVALID_ARGUMENT, problem["detail"])
        assert problem["request_id"] == "mine"


def test_metadata_say_nothing_of_the_body_that_http_would_have() -> None:
    response = error_response(InvalidRequest("x: no rows"), "mine")
    names = {name for name, _ in response.headers}
    assert {b"content-type", b"content-length"} <= names
    told = {name for name, _ in error_status(response)[2]}
    assert told == {"x-request-id", "problem-code", "problem-bin"}
    headers = [(b"content-type", b"a"), (b"content-length", b"1"), (b"x-failures", b"2")]
    assert answer_metadata(Response(200, headers, b"")) == (("x-failures", "2"),)


def test_an_answer_longer_than_messages_can_be_is_refused() -> None:
    half = np.broadcast_to(np.float32(0), (2**28,))  # 1 GiB that is not there
    tensors = {"z": (half, True), "x": (half, True)}
    result = InferenceResult(half, half, 0.0, 0.0)
    answered = InferOutputs(card("line", (3,)), None, {}, tensors, half[:0], result)
    with pytest.raises(TooLarge, match="answer: expected at most 2147483647 bytes"):
        write_answer(answered)
