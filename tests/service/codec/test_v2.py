"""Tensors of the Open Inference Protocol, as arrays."""

import json

import numpy as np
import pytest

from service.codec.v2 import read_inference
from service.errors import BadDtype


def body(datatype: str, value: int) -> bytes:
    tensor = {"name": "x", "shape": [1], "datatype": datatype, "data": [value]}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT64", 2**63),
        ("INT64", -(2**63)),
        ("UINT64", 2**63),
        ("UINT64", 2**64 - 1),
        ("UINT8", 256),
        ("UINT8", -1),
        ("INT32", 2**31),
    ],
)
def test_whole_numbers_that_would_wrap_are_refused(datatype: str, value: int) -> None:
    with pytest.raises(BadDtype, match=f"expected whole numbers that fit {datatype}"):
        read_inference(body(datatype, value), None, 10)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT64", 2**62), ("UINT64", 2**62), ("UINT8", 255), ("INT32", -(2**31))],
)
def test_whole_numbers_that_fit_are_taken(datatype: str, value: int) -> None:
    values = read_inference(body(datatype, value), None, 10).tensors["x"]
    assert values.dtype == np.dtype(datatype.lower())
    assert values.tolist() == [value]
