"""POST /decode: x = f^-1(z) and log |det dx/dz|, as pictures too."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

import math

import numpy as np

from tests.contract.case import NPY, NPZ, PNG, Case, InV2, NotInV2, npy, npz, ok, problem

_ONE = {"model": "line", "z": [[1, 2, 3]]}
_GREY = {"model": "grey", "z": [[0, 0.5, 1, 127.5]]}
_STATES_IN_V2 = {
    "inputs": [{"name": "z", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}],
    "parameters": {"trajectory": 2},
}
_NO_PICTURES = NotInV2("the protocol has no pictures")
_NO_ARCHIVES = NotInV2("the protocol has no archives")

CASES = [
    # Answers
    Case(
        "one row",
        "decode",
        _ONE,
        ok(b'{"model":"line","version":"3","x":[[2.0,4.0,6.0]],"log_det":[0.25]}'),
    ),
    Case(
        "rows",
        "decode",
        {"model": "line", "z": [[1, 2, 3], [0.5, 0, -0.5], [0, 0, 0]]},
        ok(
            b'{"model":"line","version":"3","x":[[2.0,4.0,6.0],[1.0,0.0,-1.0],[0.0,0.0,0.0]],"log_det":[0.25,0.125,0.0]}'
        ),
    ),
    Case(
        "float64",
        "decode",
        {"model": "wide", "z": [[0.1, 0.3]]},
        ok(b'{"model":"wide","version":"3","x":[[0.2,0.6]],"log_det":[0.025]}'),
    ),
    Case(
        "pixels",
        "decode",
        _GREY,
        ok(b'{"model":"grey","version":"3","x":[[[[0.0,1.0],[2.0,255.0]]]],"log_det":[0.0]}'),
    ),
    Case(
        "context",
        "decode",
        {"model": "steered", "z": [[1, 2]], "context": [[3, 4]]},
        ok(b'{"model":"steered","version":"3","x":[[13.0,15.0]],"log_det":[0.25]}'),
    ),
    Case(
        "label",
        "decode",
        {"model": "labelled", "z": [[1, 2], [0, 0]], "context": [1, 2]},
        ok(b'{"model":"labelled","version":"3","x":[[4.0,6.0],[3.0,3.0]],"log_det":[0.25,0.0]}'),
    ),
    Case(
        "non-finite",
        "decode",
        {"model": "line", "z": [[1, 2, 3], [3e38, 0, 0]]},
        ok(
            b'{"model":"line","version":"3","failures":[{"row":1,"status":"not_a_number","reason":"infinite"}],"x":[[2.0,4.0,6.0],null],"log_det":[0.25,7.5e+37],"non_finite":[1]}'
        ),
    ),
    Case(
        "one row non-finite",
        "decode",
        {"model": "line", "z": [[3e38, 0, 0]]},
        ok(
            b'{"model":"line","version":"3","failures":[{"row":0,"status":"not_a_number","reason":"infinite"}],"x":[null],"log_det":[7.5e+37],"non_finite":[0]}'
        ),
    ),
    Case(
        "pixels non-finite",
        "decode",
        {"model": "grey", "z": [[0, 3e38, 0, 0], [0, 0.5, 1, 2]]},
        ok(
            b'{"model":"grey","version":"3","failures":[{"row":0,"status":"not_a_number","reason":"infinite"}],"x":[null,[[[0.0,1.0],[2.0,4.0]]]],"log_det":[0.0,0.0],"non_finite":[0]}'
        ),
    ),
    Case(
        "not solved",
        "decode",
        {"model": "flow", "z": [[3, 0, 0], [1, 0, 0]]},
        ok(
            b'{"model":"flow","version":"3","failures":[{"row":0,"status":"solver_failed","reason":"budget_spent","evaluations":30}],"x":[null,[2.0,0.0,0.0]],"log_det":[null,0.25],"non_finite":[0]}'
        ),
    ),
    Case(
        "evaluations",
        "decode",
        {"model": "flow", "z": [[1, 0, 0]], "return_evaluations": True},
        ok(
            b'{"model":"flow","version":"3","x":[[2.0,0.0,0.0]],"log_det":[0.25],"evaluations":[10]}'
        ),
    ),
    # Other forms
    Case(
        "npy in",
        "decode",
        npy([[1, 2, 3]]),
        ok(b'{"model":"line","version":"3","x":[[2.0,4.0,6.0]],"log_det":[0.25]}'),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "npy in and out",
        "decode",
        npy([[1, 2, 3], [0, 0, 1]]),
        ok(
            npy([[2.0, 4.0, 6.0], [0.0, 0.0, 2.0]], "<f4"), NPY, x_model="line", x_model_version="3"
        ),
        "model=line",
        {"Content-Type": NPY, "Accept": NPY},
    ),
    Case(
        "npy out of non-finite",
        "decode",
        {"model": "line", "z": [[3e38, 0, 0], [0, 0, 0]]},
        ok(
            npy([[math.inf, 0.0, 0.0], [0.0, 0.0, 0.0]], "<f4"),
            NPY,
            x_model="line",
            x_model_version="3",
            x_non_finite="1",
            x_failures="1",
            x_failed_rows="0",
        ),
        headers={"Accept": NPY},
        v2=NotInV2("a tensor alone has no names"),
    ),
    Case(
        "npz out",
        "decode",
        _GREY,
        ok(
            {
                "x": np.array([[[[0.0, 1.0], [2.0, 255.0]]]], "<f4"),
                "log_det": np.array([0.0], "<f4"),
            },
            NPZ,
            x_model="grey",
            x_model_version="3",
        ),
        headers={"Accept": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "npz in",
        "decode",
        npz(z=[[1.0, 2.0]], context=[[3.0, 4.0]]),
        ok(b'{"model":"steered","version":"3","x":[[13.0,15.0]],"log_det":[0.25]}'),
        "model=steered",
        {"Content-Type": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "picture out",
        "decode",
        _GREY,
        ok([[0, 1], [2, 255]], PNG, x_model="grey", x_model_version="3"),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "pictures out",
        "decode",
        {"model": "colour", "z": [[0] * 12, [10] * 12, [20] * 12]},
        ok(
            [
                [[0, 0, 0], [0, 0, 0], [20, 20, 20], [20, 20, 20]],
                [[0, 0, 0], [0, 0, 0], [20, 20, 20], [20, 20, 20]],
                [[40, 40, 40], [40, 40, 40], [0, 0, 0], [0, 0, 0]],
                [[40, 40, 40], [40, 40, 40], [0, 0, 0], [0, 0, 0]],
            ],
            PNG,
            x_model="colour",
            x_model_version="3",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "larger pixels",
        "decode",
        _GREY | {"scale": 2},
        ok(
            [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 255, 255]],
            PNG,
            x_model="grey",
            x_model_version="3",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "picture of a vector",
        "decode",
        _ONE,
        problem(
            "not_acceptable",
            "Accept: this call answers with application/json or application/x-npy or application/x-npz, got 'image/png'",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "picture in",
        "decode",
        b"",
        problem(
            "unsupported_media_type",
            "Content-Type: expected application/json or application/x-npy or application/x-npz, got 'image/png'",
        ),
        "model=grey",
        {"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "scale without a picture",
        "decode",
        _GREY | {"scale": 2},
        problem(
            "invalid_parameter", "scale: only pictures have one, send Accept: image/png", "/scale"
        ),
        v2=_NO_PICTURES,
    ),
    Case(
        "scale 17 without a picture",
        "decode",
        _GREY | {"scale": 17},
        problem(
            "invalid_parameter", "scale: only pictures have one, send Accept: image/png", "/scale"
        ),
        v2=_NO_PICTURES,
    ),
    Case(
        "scale 17",
        "decode",
        _GREY | {"scale": 17},
        problem("out_of_range", "scale: expected 1 .. 16, got 17", "/scale"),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    # Refusals
    Case(
        "rows null",
        "decode",
        {"model": "line", "z": None},
        problem("missing_field", "z: expected the rows", "/z"),
        v2=InV2({"inputs": [{"name": "z", "shape": [1, 3], "datatype": "FP32", "data": None}]}),
    ),
    Case(
        "rows missing",
        "decode",
        {"model": "line"},
        problem("missing_field", "z: expected the rows", "/z"),
    ),
    Case(
        "latents in the shape of x",
        "decode",
        {"model": "grey", "z": [[[[0, 1], [2, 3]]]]},
        problem("shape_mismatch", "z: expected (*, 4), got (1, 1, 2, 2)", "/z"),
    ),
    Case(
        "NaN names no column",
        "decode",
        b'{"model":"wide","z":[[1,NaN]]}',
        problem(
            "non_finite",
            "z: expected finite float64 numbers, row 0 holds nan",
            errors=[("/z/0", "not finite")],
        ),
    ),
    Case(
        "null",
        "decode",
        {"model": "wide", "z": [[1, None]]},
        problem("bad_dtype", "z: expected numbers, row 0 holds null", "/z/0"),
    ),
    Case(
        "field of another operation",
        "decode",
        {"model": "line", "x": [[1, 2, 3]]},
        problem(
            "unknown_field",
            "'x': no such field, expected model, z, columns, context, scale, invalid, return_evaluations, trajectory",
            "/x",
        ),
        v2=NotInV2("x is a question there: encode"),
    ),
    Case(
        "unknown model",
        "decode",
        {"model": "lune", "z": [[1, 2, 3]]},
        problem("model_not_found", "model: expected one of line, wide, got 'lune'"),
    ),
    # Columns of the answer
    Case(
        "columns",
        "decode",
        {"model": "wide", "z": [[0.1, 0.3], [1, 2]], "columns": ["speed", "mass"]},
        ok(b'{"model":"wide","version":"3","x":[[0.6,0.2],[4.0,2.0]],"log_det":[0.025,0.25]}'),
    ),
    Case(
        "one row in columns",
        "decode",
        {"model": "wide", "z": [[0.1, 0.3]], "columns": ["speed", "mass"]},
        ok(b'{"model":"wide","version":"3","x":[[0.6,0.2]],"log_det":[0.025]}'),
    ),
    Case(
        "columns of npy",
        "decode",
        npy([[0.125, 0.25]], "<f8"),
        ok(npy([[0.5, 0.25]], "<f8"), NPY, x_model="wide", x_model_version="3"),
        "model=wide&columns=speed,mass",
        {"Content-Type": NPY, "Accept": NPY},
    ),
    Case(
        "a column renamed",
        "decode",
        {"model": "wide", "z": [[0.1, 0.3]], "columns": ["spede", "mass"]},
        problem(
            "unknown_field",
            "columns: 'spede' is no column of the model, expected mass, speed; did you mean 'speed'?",
            "/columns/0",
        ),
    ),
    Case(
        "columns of a model without names",
        "decode",
        {"model": "line", "z": [[1, 2, 3]], "columns": ["a", "b", "c"]},
        problem(
            "invalid_parameter",
            "columns: the columns of model line have no names, send rows as lists in its own order",
            "/columns",
        ),
    ),
    Case(
        "latents as objects",
        "decode",
        {"model": "wide", "z": [{"mass": 1, "speed": 2}]},
        problem("bad_dtype", "z: expected numbers, row 0 holds an object", "/z/0"),
        v2=NotInV2("the protocol has no rows"),
    ),
    # States on the way
    Case(
        "states",
        "decode",
        {"model": "line", "z": [[1, 2, 3], [4, 0, 0]], "trajectory": 3},
        ok(
            b'{"model":"line","version":"3","trajectory_at":["0 noise","1 Half","2 Half"],"x":[[2.0,4.0,6.0],[8.0,0.0,0.0]],"log_det":[0.25,1.0],"trajectory":[[[1.0,2.0,3.0],[1.5,3.0,4.5],[2.0,4.0,6.0]],[[4.0,0.0,0.0],[6.0,0.0,0.0],[8.0,0.0,0.0]]]}'
        ),
    ),
    *(
        Case(
            f"states, {what}",
            "decode",
            {"model": "line", "z": [[1, 2, 3]], "trajectory": 2},
            ok(
                b'{"model":"line","version":"3","trajectory_at":["0 noise","2 Half"],"x":[[2.0,4.0,6.0]],"log_det":[0.25],"trajectory":[[[1.0,2.0,3.0],[2.0,4.0,6.0]]]}'
            ),
            v2=InV2({**_STATES_IN_V2, "outputs": [{"name": "x"}, {"name": "log_det"}, *named]}),
        )
        for what, named in (
            ("not named in V2", []),
            ("as bytes in V2", [{"name": "trajectory", "parameters": {"binary_data": True}}]),
        )
    ),
    Case(
        "states of one row, by class",
        "decode",
        {"model": "labelled", "z": [[1, 2]], "context": 1, "trajectory": 2},
        ok(
            b'{"model":"labelled","version":"3","trajectory_at":["0 noise","2 Half"],"x":[[4.0,6.0]],"log_det":[0.25],"trajectory":[[[1.0,2.0],[4.0,6.0]]]}'
        ),
    ),
    Case(
        "more states than layers",
        "decode",
        {"model": "line", "z": [[2, 0, 0]], "trajectory": 64},
        ok(
            b'{"model":"line","version":"3","trajectory_at":["0 noise","1 Half","2 Half"],"x":[[4.0,0.0,0.0]],"log_det":[0.5],"trajectory":[[[2.0,0.0,0.0],[3.0,0.0,0.0],[4.0,0.0,0.0]]]}'
        ),
    ),
    Case(
        "states in time",
        "decode",
        {"model": "flow", "z": [[1, 2, 0]], "trajectory": 3},
        ok(
            b'{"model":"flow","version":"3","trajectory_at":[1.0,0.5,0.0],"x":[[2.0,4.0,0.0]],"log_det":[0.25],"trajectory":[[[1.0,2.0,0.0],[1.5,3.0,0.0],[2.0,4.0,0.0]]]}'
        ),
    ),
    Case(
        "states of columns",
        "decode",
        {"model": "wide", "z": [[1, 2]], "trajectory": 2, "columns": ["speed", "mass"]},
        ok(
            b'{"model":"wide","version":"3","trajectory_at":["0 noise","2 Half"],"x":[[4.0,2.0]],"log_det":[0.25],"trajectory":[[[2.0,1.0],[4.0,2.0]]]}'
        ),
    ),
    Case(
        "states among invalid rows",
        "decode",
        {"model": "line", "z": [[None, 0, 0], [2, 0, 0]], "trajectory": 2, "invalid": "null"},
        ok(
            b'{"model":"line","version":"3","trajectory_at":["0 noise","2 Half"],"failures":[{"row":0,"status":"invalid_input","reason":"missing"}],"x":[null,[4.0,0.0,0.0]],"log_det":[null,0.5],"trajectory":[null,[[2.0,0.0,0.0],[4.0,0.0,0.0]]],"non_finite":[0]}'
        ),
    ),
    Case(
        "states of invalid rows alone",
        "decode",
        {"model": "line", "z": [[None, 0, 0]], "trajectory": 2, "invalid": "null"},
        ok(
            b'{"model":"line","version":"3","trajectory_at":[],"failures":[{"row":0,"status":"invalid_input","reason":"missing"}],"x":[null],"log_det":[null],"trajectory":[null],"non_finite":[0]}'
        ),
    ),
    Case(
        "states as npz",
        "decode",
        {"model": "grey", "z": [[0, 2, 4, 6]], "trajectory": 2},
        ok(
            {
                "x": np.array([[[[0.0, 4.0], [8.0, 12.0]]]], "<f4"),
                "log_det": np.array([0.0], "<f4"),
                "trajectory": np.array([[[[[0, 2], [4, 6]]], [[[0, 4], [8, 12]]]]], "<f4"),
                "trajectory_at": np.array(["0 noise", "2 Half"]),
            },
            NPZ,
            x_model="grey",
            x_model_version="3",
        ),
        headers={"Accept": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "no states",
        "decode",
        _ONE | {"trajectory": None},
        ok(b'{"model":"line","version":"3","x":[[2.0,4.0,6.0]],"log_det":[0.25]}'),
    ),
    Case(
        "one state",
        "decode",
        _ONE | {"trajectory": 1},
        problem("out_of_range", "trajectory: expected 2 .. 64, got 1", "/trajectory"),
    ),
    Case(
        "states as npy",
        "decode",
        _ONE | {"trajectory": 2},
        problem(
            "invalid_parameter",
            "trajectory: an answer as application/x-npy is x alone; ask for application/json or application/x-npz",
            "/trajectory",
        ),
        headers={"Accept": NPY},
        v2=NotInV2("a tensor alone has no names"),
    ),
    Case(
        "states of a model without",
        "decode",
        {"model": "digits", "z": [[0, 1, 2, 3]], "trajectory": 2},
        problem(
            "invalid_parameter",
            "trajectory: there are no states of digits here; leave trajectory out",
            "/trajectory",
        ),
    ),
    Case(
        "states of too many rows",
        "decode",
        {"model": "line", "z": [[0, 1, 2]] * 3, "trajectory": 64},
        problem(
            "too_large",
            "trajectory: 3 rows of 64 states take 192 rows, expected at most 128; ask for 2 rows at most, or for fewer states",
            "/trajectory",
        ),
        settings={"max_request_rows": 128},
    ),
]
