"""What schemathesis makes of /openapi.json: every call, no 5xx, no answer beside its schema."""

import io

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.codec.media import JPEG, NPY, NPZ, PNG
from tests.service.fake_repository import FakeRepository, app_over

CASES_A_CALL = 25

_BYTES = "application/octet-stream"


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _npz(members: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **members)
    return stream.getvalue()


_ARRAYS = arrays_of.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.bool_, np.complex64]),
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
_MEMBERS = st.dictionaries(st.sampled_from(["x", "z", "context", "y"]), _ARRAYS, max_size=3)
_PICTURES = st.binary(max_size=64).map(b"\x89PNG\r\n\x1a\n".__add__) | st.binary(max_size=64)

for media, bodies in (
    (NPY, _ARRAYS.map(_npy) | st.binary(max_size=64)),
    (NPZ, _MEMBERS.map(_npz) | st.binary(max_size=64)),
    (PNG, _PICTURES),
    (JPEG, _PICTURES),
):
    schemathesis.openapi.media_type(media, bodies)
    schemathesis.serializer.alias(media, _BYTES)

_SCHEMA = schemathesis.openapi.from_asgi(
    "/openapi.json", app_over(FakeRepository(), enable_model_control=True)
)
# By name: the parametrisation of schemathesis itself gives all tests one id.
_CALLS = {result.ok().label: result.ok() for result in _SCHEMA.get_all_operations()}


def no_fault(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> bool | None:
    """No 5xx, but for 504 where the client gave no time: X-Timeout-Seconds of 0."""
    if response.status_code == 504 and "X-Timeout-Seconds" in (case.headers or {}):
        return None
    return not_a_server_error(context, response, case)


_CHECKS = [
    no_fault,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_all_calls_are_there() -> None:
    paths = app_over(FakeRepository(), enable_model_control=True).openapi()["paths"]
    documented = {f"{method.upper()} {path}" for path, calls in paths.items() for method in calls}
    assert set(_CALLS) == documented


@pytest.mark.parametrize("name", _CALLS)
def test_every_call_keeps_its_promise(name: str) -> None:
    @settings(
        max_examples=CASES_A_CALL,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=_CALLS[name].as_strategy())
    def play(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=_CHECKS)

    play()
