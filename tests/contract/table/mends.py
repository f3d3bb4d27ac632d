"""Requests with one slip, and what their errors say to do."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

import numpy as np

from tests.contract.case import JPEG, NPY, NPZ, PNG, Case, InV2, NotInV2, npy, npz, picture, problem

_NO_BYTES = NotInV2("its own media types are told there")
_OFFERS = "application/json or application/x-npy or application/x-npz or image/png or image/jpeg"
_ROW = npy([[2, 4, 6]])
_NOT_JSON = (
    "body: not valid JSON: str is not valid UTF-8: surrogates not allowed: line 1 column 1 (char 0)"
)


def _bytes(name: str, body: bytes, found: str, **more: object) -> Case:
    headers = {"Content-Type": more.pop("media", None)}
    said = f"{more.pop('said', _NOT_JSON)}; it begins like {found}: send it with the header Content-Type: {found}"
    answer = problem("malformed_body", said, more.pop("at", None))
    return Case(name, more.pop("op", "encode"), body, answer, "model=line", headers, v2=_NO_BYTES)


def _scalar(name: str, operation: str, fields: dict[str, object], detail: str) -> Case:
    body = {"model": "line"} | ({} if operation == "sample" else {"x": [[2, 4, 6]]}) | fields
    answer = problem("invalid_parameter", detail, f"/{next(iter(fields))}")
    if operation != "sample":
        return Case(name, operation, body, answer, v2=NotInV2("its parameters have no such field"))
    # Where it is derived, numbers as text become numbers.
    asked = {"inputs": [], "parameters": {"operation": "sample"} | fields}
    return Case(name, operation, body, answer, v2=InV2(asked))


CASES = [
    # Media types
    _bytes("npy without a type", _ROW, NPY),
    _bytes("npy as JSON", _ROW, NPY, media="application/json"),
    _bytes("npz without a type", npz(x=[[2, 4, 6]]), NPZ),
    _bytes("png without a type", picture([[0, 1], [2, 3]]), PNG),
    _bytes(
        "npz as npy",
        npz(x=[[2, 4, 6]]),
        NPZ,
        media=NPY,
        said="x: expected npy, format 1.0 to 3.0",
        at="/x",
    ),
    _bytes(
        "npy as npz", _ROW, NPY, media=NPZ, said="body: expected an npz archive of x and context"
    ),
    _bytes(
        "JSON as npy",
        b'{"x": [[2, 4, 6]]}',
        "application/json",
        media=NPY,
        said="x: expected npy, format 1.0 to 3.0",
        at="/x",
    ),
    Case(
        "npy for samples",
        "sample",
        _ROW,
        problem(
            "malformed_body", f"{_NOT_JSON}; it begins like {NPY}, which this call does not take"
        ),
        headers={"Content-Type": None},
        v2=_NO_BYTES,
    ),
    Case(
        "jpeg as png",
        "log_prob",
        picture([[0, 1], [2, 3]], kind="JPEG"),
        problem(
            "malformed_body",
            f"body: expected a PNG picture; it begins like {JPEG}: send it with the header Content-Type: {JPEG}",
        ),
        "model=colour",
        {"Content-Type": PNG},
        v2=_NO_BYTES,
    ),
    Case(
        "a type that is nearly npy",
        "encode",
        _ROW,
        problem(
            "unsupported_media_type",
            f"Content-Type: expected {_OFFERS}, got 'application/npy'; did you mean {NPY}?",
        ),
        "model=line",
        {"Content-Type": "application/npy"},
        v2=_NO_BYTES,
    ),
    Case(
        "a seed in npz",
        "sample",
        npz(context=np.array([2]), seed=np.array([7])),
        problem(
            "unknown_field",
            "body: expected npz members context once each, got 'seed'; other fields go in the query string, as ?seed=...",
        ),
        "model=labelled",
        {"Content-Type": NPZ},
        v2=_NO_BYTES,
    ),
    # Scalars in a list, or as text
    Case(
        "boxed labels",
        "sample",
        {"model": "labelled", "num_samples": 2, "context": [[2], [0]]},
        problem(
            "shape_mismatch",
            "context: expected (*, 4), got (2, 1); a label is a whole number without an axis of its own: send [2, 0], not [[2], [0]]",
            "/context",
        ),
    ),
    _scalar(
        "boxed number of samples",
        "sample",
        {"num_samples": [4]},
        "num_samples: expected a whole number 1 .. 1000, got a list; send 4",
    ),
    _scalar(
        "boxed twice",
        "sample",
        {"seed": [[7]]},
        "seed: expected a whole number 0 .. 18446744073709551615, got a list; send 7",
    ),
    _scalar(
        "seed as text",
        "sample",
        {"seed": "7"},
        "seed: expected a whole number 0 .. 18446744073709551615, got '7'; send 7",
    ),
    _scalar(
        "samples with a point",
        "sample",
        {"num_samples": 4.0},
        "num_samples: expected a whole number 1 .. 1000, got 4.0; send 4",
    ),
    _scalar(
        "temperature as text",
        "sample",
        {"temperature": "0.7"},
        "temperature: expected a number 0 .. 1000, got '0.7'; send 0.7",
    ),
    _scalar(
        "two numbers of samples",
        "sample",
        {"num_samples": [4, 5]},
        "num_samples: expected a whole number 1 .. 1000, got a list",
    ),
    _scalar(
        "flag as text",
        "encode",
        {"return_evaluations": "true"},
        "return_evaluations: expected true or false, got 'true'; send true",
    ),
]
