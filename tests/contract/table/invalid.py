"""Rows without numbers: which they are, and why; invalid rows answered null where that is asked."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

import math

import numpy as np

from tests.contract.case import (
    NPY,
    NPZ,
    PNG,
    Case,
    ExpectedResponse,
    InV2,
    NotInV2,
    npy,
    npz,
    ok,
    problem,
)

_NO_ARCHIVES = NotInV2("the protocol has no archives")
_NO_OBJECTS = NotInV2("the protocol has no objects")
_NO_NAMES = NotInV2("a tensor alone has no names")
_NAN = math.nan


def _null(name: str, operation: str, body: str, answer: str, **options: object) -> Case:
    """A question in JSON that asks for nulls, and its answer."""
    text = f'{{{body},"invalid":"null"}}'.encode()
    return Case(name, operation, text, ok(answer.encode()), **options)  # type: ignore[arg-type]


def _failed(*rows: tuple[int, str, str]) -> str:
    told = ",".join(
        f'{{"row":{row},"status":"{status}","reason":"{reason}"}}' for row, status, reason in rows
    )
    return f'"failures":[{told}],'


def _binary(
    body: bytes,
    answer: ExpectedResponse,
    query: str,
    accept: str,
    name: str,
    operation: str,
    **options: object,
) -> Case:
    headers = {"Content-Type": NPY, "Accept": accept}
    return Case(name, operation, body, answer, query, headers, **options)  # type: ignore[arg-type]


CASES = [
    _null(
        "nothing is wrong",
        "log_prob",
        '"model":"line","x":[[2,4,6]]',
        '{"model":"line","version":"3","log_prob":[-10.006816]}',
    ),
    _null(
        "one of each",
        "log_prob",
        '"model":"line","x":[[0,1,2],[NaN,1,2],[-4,0.5,0.25],[1,-Infinity,2],[1,2,null],[1e39,0,0],null,[8,0,0],[3e38,0,0]]',
        '{"model":"line","version":"3",'
        + _failed(
            (1, "invalid_input", "nan"),
            (3, "invalid_input", "infinite"),
            (4, "invalid_input", "missing"),
            (5, "invalid_input", "too_large"),
            (6, "invalid_input", "missing"),
            (8, "outside_support", "density_underflow"),
        )
        + '"log_prob":[-3.3818157,null,-4.295878,null,null,null,null,-11.756816,null],"non_finite":[1,3,4,5,6,8]}',
    ),
    _null(
        "one row, missing",
        "log_prob",
        '"model":"line","x":[[1,2,null]]',
        '{"model":"line","version":"3",'
        + _failed((0, "invalid_input", "missing"))
        + '"log_prob":[null],"non_finite":[0]}',
    ),
    _null(
        "an integer that no float holds",
        "log_prob",
        f'"model":"wide","x":[[0.1,0.3],[1{"0" * 400},0]]',
        '{"model":"wide","version":"3",'
        + _failed((1, "invalid_input", "infinite"))
        + '"log_prob":[-1.8628770664093453,null],"non_finite":[1]}',
    ),
    _null(
        "latents",
        "encode",
        '"model":"line","x":[[2,4,6],[1,null,3]]',
        '{"model":"line","version":"3",'
        + _failed((1, "invalid_input", "missing"))
        + '"z":[[1.0,2.0,3.0],null],"log_det":[-0.25,null],"non_finite":[1]}',
    ),
    _null(
        "data",
        "decode",
        '"model":"line","z":[null,[1,2,3]]',
        '{"model":"line","version":"3",'
        + _failed((0, "invalid_input", "missing"))
        + '"x":[null,[2.0,4.0,6.0]],"log_det":[null,0.25],"non_finite":[0]}',
    ),
    _null(
        "no data",
        "decode",
        '"model":"grey","z":[[NaN,0,0,0]]',
        '{"model":"grey","version":"3",'
        + _failed((0, "invalid_input", "nan"))
        + '"x":[null],"log_det":[null],"non_finite":[0]}',
    ),
    _null(
        "outside and invalid",
        "log_prob",
        '"model":"bounded","x":[[0.5,1.5],[0.5,0.25],[null,0.25]]',
        '{"model":"bounded","version":"3",'
        + _failed((0, "outside_support", "out_of_bounds"), (2, "invalid_input", "missing"))
        + '"log_prob":[null,-1.9394395,null],"non_finite":[0,2]}',
    ),
    _null(
        "solved, not solved, not asked",
        "log_prob",
        '"model":"flow","x":[[1,0,0],[null,0,0],[3,0,0],[2,0,0]]',
        '{"model":"flow","version":"3","failures":[{"row":1,"status":"invalid_input","reason":"missing"},{"row":2,"status":"solver_failed","reason":"budget_spent","evaluations":30}],"log_prob":[-3.0068157,null,null,-3.5068157],"non_finite":[1,2]}',
    ),
    _null(
        "evaluations",
        "log_prob",
        '"model":"flow","x":[[1,0,0],[null,0,0]],"return_evaluations":true',
        '{"model":"flow","version":"3",'
        + _failed((1, "invalid_input", "missing"))
        + '"log_prob":[-3.0068157,null],"evaluations":[10,null],"non_finite":[1]}',
        v2=NotInV2("a whole number is never null there: 0 evaluations"),
    ),
    _null(
        "a context of its own",
        "log_prob",
        '"model":"steered","x":[[1,2],[1,2],[1,null]],"context":[[3,4],[3,NaN],[0,0]]',
        '{"model":"steered","version":"3",'
        + _failed((1, "invalid_input", "nan"), (2, "invalid_input", "missing"))
        + '"log_prob":[-23.212877,null,null],"non_finite":[1,2]}',
    ),
    _null(
        "no label",
        "log_prob",
        '"model":"labelled","x":[[1,2],[3,4]],"context":[2,null]',
        '{"model":"labelled","version":"3",'
        + _failed((1, "invalid_input", "missing"))
        + '"log_prob":[-2.212877,null],"non_finite":[1]}',
    ),
    _null(
        "by name",
        "log_prob",
        '"model":"wide","x":[{"speed":0.3,"mass":0.1},{"mass":1},null,{"mass":null,"speed":2}]',
        '{"model":"wide","version":"3",'
        + _failed(*((row, "invalid_input", "missing") for row in (1, 2, 3)))
        + '"log_prob":[-1.8628770664093453,null,null,null],"non_finite":[1,2,3]}',
        v2=_NO_OBJECTS,
    ),
    _null(
        "by name, the first row null",
        "log_prob",
        '"model":"wide","x":[null,{"speed":0.3,"mass":0.1}]',
        '{"model":"wide","version":"3",'
        + _failed((0, "invalid_input", "missing"))
        + '"log_prob":[null,-1.8628770664093453],"non_finite":[0]}',
        v2=_NO_OBJECTS,
    ),
    _null(
        "columns in another order",
        "log_prob",
        '"model":"wide","x":[[0.3,0.1],[null,1]],"columns":["speed","mass"]',
        '{"model":"wide","version":"3",'
        + _failed((1, "invalid_input", "missing"))
        + '"log_prob":[-1.8628770664093453,null],"non_finite":[1]}',
    ),
    Case(
        "a name that no row has",
        "log_prob",
        {"model": "wide", "x": [{"mass": 1}, {"mass": 2}], "invalid": "null"},
        problem(
            "missing_field",
            "x: row 0: column 'speed' is missing, expected mass, speed",
            "/x/0",
        ),
        v2=_NO_OBJECTS,
    ),
    Case(
        "a name that the model has not",
        "log_prob",
        {
            "model": "wide",
            "x": [{"mass": 1, "speed": 2}, {"mas": 2, "speed": 1}],
            "invalid": "null",
        },
        problem(
            "unknown_field",
            "x: row 1: 'mas' is no column of the model, expected mass, speed; did you mean 'mass'?",
            "/x/1/mas",
        ),
        v2=_NO_OBJECTS,
    ),
    Case(
        "a context for all",
        "log_prob",
        b'{"model":"steered","x":[[1,2],[3,4]],"context":[[3,NaN]],"invalid":"null"}',
        problem(
            "non_finite",
            "context: expected finite float32 numbers, row 0 holds nan",
            errors=[("/context/0", "not finite")],
        ),
    ),
    Case(
        "null in the query",
        "log_prob",
        b'{"x":[[2,4,6],[1,2,null]]}',
        ok(
            b'{"model":"line","version":"3","failures":[{"row":1,"status":"invalid_input","reason":"missing"}],"log_prob":[-10.006816,null],"non_finite":[1]}'
        ),
        "model=line&invalid=null",
    ),
    _binary(
        npy([[2, 4, 6], [1, _NAN, 3], [1e30, 0, 0]]),
        ok(
            npy([-10.006815910339355, _NAN, -math.inf], "<f4"),
            NPY,
            x_model="line",
            x_model_version="3",
            x_non_finite="2",
            x_failures="2",
            x_failed_rows="1,2",
        ),
        "model=line&invalid=null",
        NPY,
        "npy in and out",
        "log_prob",
    ),
    _binary(
        npy([[2, 4, 6], [1, _NAN, 3], [1e30, 0, 0]]),
        ok(
            {
                "log_prob": np.array([-10.006815910339355, _NAN, -math.inf], "<f4"),
                "status": np.array([0, 9, 5], "<i8"),
            },
            NPZ,
            x_model="line",
            x_model_version="3",
            x_non_finite="2",
            x_failures="2",
            x_failed_rows="1,2",
        ),
        "model=line&invalid=null",
        NPZ,
        "npy in, npz out",
        "log_prob",
        v2=_NO_ARCHIVES,
    ),
    Case(
        "npz in",
        "log_prob",
        npz(x=np.array([[1, 2], [1, 2]], "<f4"), context=np.array([[3, 4], [3, _NAN]], "<f4")),
        ok(
            b'{"model":"steered","version":"3","failures":[{"row":1,"status":"invalid_input","reason":"nan"}],"log_prob":[-23.212877,null],"non_finite":[1]}'
        ),
        "model=steered&invalid=null",
        {"Content-Type": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "pixels beyond the levels",
        "log_prob",
        npy([[[[0, 1], [2, 3]]], [[[0, 1], [2, 17]]]], "u1"),
        ok(
            b'{"model":"digits","version":"3","failures":[{"row":1,"status":"outside_support","reason":"out_of_bounds"}],"log_prob":[-5.425754,null],"bits_per_dim":[1.9569271,null],"non_finite":[1]}'
        ),
        "model=digits&invalid=null",
        {"Content-Type": NPY},
    ),
    Case(
        "whole pixels beyond the levels",
        "log_prob",
        {"model": "digits", "x": [[[[0, 1], [2, 3]]], [[[0, 1], [2, 17]]]]},
        ok(
            b'{"model":"digits","version":"3","failures":[{"row":1,"status":"outside_support","reason":"out_of_bounds"}],"log_prob":[-5.425754,null],"bits_per_dim":[1.9569271,null],"non_finite":[1]}'
        ),
    ),
    Case(
        "one row of whole pixels below",
        "encode",
        {"model": "digits", "x": [[[[0, 1], [2, -1.0]]]]},
        ok(
            b'{"model":"digits","version":"3","failures":[{"row":0,"status":"outside_support","reason":"out_of_bounds"}],"z":[null],"log_det":[null],"non_finite":[0]}'
        ),
    ),
    Case(
        "whole pixels beyond the levels as bytes",
        "log_prob",
        npy([[[[0, 1], [2, 3]]], [[[0, 1], [2, 17]]]], "<f4"),
        ok(
            npy([-5.425754, -np.inf], "<f4"),
            NPY,
            x_model="digits",
            x_model_version="3",
            x_non_finite="1",
            x_failures="1",
            x_failed_rows="1",
        ),
        "model=digits",
        {"Content-Type": NPY, "Accept": NPY},
    ),
    _null(
        "nothing but rows that are null",
        "log_prob",
        '"model":"line","x":[null,null]',
        '{"model":"line","version":"3",'
        + _failed((0, "invalid_input", "missing"), (1, "invalid_input", "missing"))
        + '"log_prob":[null,null],"non_finite":[0,1]}',
        v2=_NO_OBJECTS,
    ),
    Case(
        "neither word, beside a null",
        "log_prob",
        b'{"model":"line","x":[[1,2,null]],"invalid":"nul"}',
        problem(
            "invalid_parameter", 'invalid: expected "refuse" or "null", got \'nul\'', "/invalid"
        ),
    ),
    Case(
        "a list of a name",
        "log_prob",
        b'{"model":["line"],"x":[[1,2,3]]}',
        problem("invalid_parameter", 'model: expected a string, got a list; send "line"', "/model"),
        v2=NotInV2("the path names the model"),
    ),
    Case(
        "a tile without numbers",
        "decode",
        b'{"model":"grey","z":[[0,0,0,0],[null,0,0,0]],"invalid":"null"}',
        ok(
            [[0, 0, 0, 255], [0, 0, 255, 0]],
            PNG,
            x_model="grey",
            x_model_version="3",
            x_non_finite="1",
            x_failures="1",
            x_failed_rows="1",
        ),
        headers={"Accept": PNG},
        v2=NotInV2("the protocol has no pictures"),
    ),
    Case(
        "1e30, npy out",
        "log_prob",
        {"model": "line", "x": [[1e30, 0, 0]]},
        ok(
            npy([-math.inf], "<f4"),
            NPY,
            x_model="line",
            x_model_version="3",
            x_non_finite="1",
            x_failures="1",
            x_failed_rows="0",
        ),
        headers={"Accept": NPY},
        v2=_NO_NAMES,
    ),
    Case(
        "one row outside",
        "log_prob",
        {"model": "bounded", "x": [[0.5, 1.5]]},
        ok(
            b'{"model":"bounded","version":"3","failures":[{"row":0,"status":"outside_support","reason":"out_of_bounds"}],"log_prob":[null],"non_finite":[0]}'
        ),
    ),
    # Refusals
    Case(
        "refused",
        "log_prob",
        b'{"model":"line","x":[[2,4,6],[1,NaN,3]],"invalid":"refuse"}',
        problem(
            "non_finite",
            "x: expected finite float32 numbers, row 1 holds nan",
            errors=[("/x/1", "not finite")],
        ),
    ),
    Case(
        "null, refused",
        "log_prob",
        b'{"model":"line","x":[[2,4,6],[1,null,3]],"invalid":"refuse"}',
        problem("bad_dtype", "x: expected numbers, row 1 holds null", "/x/1"),
    ),
    Case(
        "another word",
        "log_prob",
        {"model": "line", "x": [[2, 4, 6]], "invalid": "drop"},
        problem(
            "invalid_parameter", 'invalid: expected "refuse" or "null", got \'drop\'', "/invalid"
        ),
    ),
    Case(
        "no word",
        "log_prob",
        {"model": "line", "x": [[2, 4, 6]], "invalid": None},
        problem("invalid_parameter", 'invalid: expected "refuse" or "null", got null', "/invalid"),
        v2=NotInV2("null is as good as absent there"),
    ),
    Case(
        "a string",
        "log_prob",
        {"model": "line", "x": [[2, 4, 6], [1, "2", None]], "invalid": "null"},
        problem("bad_dtype", "x: expected numbers, row 1 holds a string", "/x/1"),
    ),
    Case(
        "too short",
        "log_prob",
        {"model": "line", "x": [[2, 4, 6], [1, None]], "invalid": "null"},
        problem("shape_mismatch", "x: expected (*, 3), row 1 has shape (2,)", "/x/1"),
        v2=InV2(
            {
                "inputs": [
                    {
                        "name": "x",
                        "shape": [2, 3],
                        "datatype": "FP32",
                        "data": [[2, 4, 6], [1, None]],
                    }
                ],
                "parameters": {"invalid": "null", "operation": "log_prob"},
            }
        ),
    ),
    Case(
        "of samples",
        "sample",
        {"model": "line", "num_samples": 1, "invalid": "null"},
        problem(
            "unknown_field",
            "'invalid': no such field, expected model, num_samples, seed, temperature, first_row, columns, context, scale, return_log_prob, return_evaluations, trajectory",
            "/invalid",
        ),
        v2=NotInV2("it is a parameter there, of other calls: tests/service/transport/test_v2.py"),
    ),
    Case(
        "unknown model",
        "log_prob",
        {"model": "lune", "x": [[1, 2, None]], "invalid": "null"},
        problem("model_not_found", "model: expected one of line, wide, got 'lune'"),
    ),
    Case(
        "a model that is gone",
        "log_prob",
        {"model": "drained", "x": [[1, 2, None]], "invalid": "null"},
        problem("not_ready", "drained.encode: not taking requests now", retry_after="1"),
    ),
]
