"""POST /log_prob: log p(x) in nats, and bits per dimension of pixels."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

import math

import numpy as np

from tests.contract.case import (
    JPEG,
    NPY,
    NPZ,
    PNG,
    Case,
    InV2,
    NotInV2,
    npy,
    npz,
    ok,
    picture,
    problem,
)

_ONE = {"model": "line", "x": [[2, 4, 6]]}
_ONE_PROBE = "the trace is estimated with one probe (divergence.num_probes), which shows no spread"
_NO_PICTURES = NotInV2("the protocol has no pictures")
_NO_ROWS = NotInV2("the protocol has no rows")

CASES = [
    # Answers
    Case(
        "one row", "log_prob", _ONE, ok(b'{"model":"line","version":"3","log_prob":[-10.006816]}')
    ),
    Case(
        "rows",
        "log_prob",
        {"model": "line", "x": [[0, 1, 2], [-4, 0.5, 0.25], [8, 0, 0]]},
        ok(b'{"model":"line","version":"3","log_prob":[-3.3818157,-4.295878,-11.756816]}'),
    ),
    Case(
        "float64",
        "log_prob",
        {"model": "wide", "x": [[0.1, 0.3]]},
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
    ),
    Case(
        "pixels",
        "log_prob",
        {"model": "grey", "x": [[[[0, 1], [2, 3]]]]},
        ok(b'{"model":"grey","version":"3","log_prob":[-5.425754],"bits_per_dim":[1.9569271]}'),
    ),
    Case(
        "fractions of pixels",
        "log_prob",
        {"model": "grey", "x": [[[[0.5, 1], [2, 300.5]]]]},
        ok(b'{"model":"grey","version":"3","log_prob":[-11291.926],"bits_per_dim":[4072.7014]}'),
    ),
    Case(
        "context",
        "log_prob",
        {"model": "steered", "x": [[1, 2]], "context": [[3, 4]]},
        ok(b'{"model":"steered","version":"3","log_prob":[-23.212877]}'),
    ),
    Case(
        "label",
        "log_prob",
        {"model": "labelled", "x": [[1, 2], [3, 4]], "context": 2},
        ok(b'{"model":"labelled","version":"3","log_prob":[-2.212877,-1.962877]}'),
    ),
    Case(
        "a density of zero",
        "log_prob",
        {"model": "bounded", "x": [[0.5, 0.25], [0.5, 1.5]]},
        ok(
            b'{"model":"bounded","version":"3","failures":[{"row":1,"status":"outside_support","reason":"out_of_bounds"}],"log_prob":[-1.9394395,null],"non_finite":[1]}'
        ),
    ),
    Case(
        "too small for float32",
        "log_prob",
        {"model": "line", "x": [[3e38, 0, 0], [0, 0, 0]]},
        ok(
            b'{"model":"line","version":"3","failures":[{"row":0,"status":"outside_support","reason":"density_underflow"}],"log_prob":[null,-2.7568157],"non_finite":[0]}'
        ),
    ),
    Case(
        "one row too small for float32",
        "log_prob",
        {"model": "line", "x": [[3e38, 0, 0]]},
        ok(
            b'{"model":"line","version":"3","failures":[{"row":0,"status":"outside_support","reason":"density_underflow"}],"log_prob":[null],"non_finite":[0]}'
        ),
    ),
    # Other forms
    Case(
        "npy in",
        "log_prob",
        npy([[2, 4, 6]]),
        ok(b'{"model":"line","version":"3","log_prob":[-10.006816]}'),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "npy out",
        "log_prob",
        _ONE,
        ok(npy([-10.006815910339355], "<f4"), NPY, x_model="line", x_model_version="3"),
        headers={"Accept": NPY},
        v2=NotInV2("a tensor alone has no names"),
    ),
    Case(
        "npy in and out",
        "log_prob",
        npy([[2, 4, 6], [0, 0, 2]]),
        ok(
            npy([-10.006815910339355, -3.2568156719207764], "<f4"),
            NPY,
            x_model="line",
            x_model_version="3",
        ),
        "model=line",
        {"Content-Type": NPY, "Accept": NPY},
    ),
    Case(
        "npz out",
        "log_prob",
        {"model": "grey", "x": [[[[0, 1], [2, 3]]]]},
        ok(
            {
                "log_prob": np.array([-5.425754070281982], "<f4"),
                "bits_per_dim": np.array([1.9569270610809326], "<f4"),
            },
            NPZ,
            x_model="grey",
            x_model_version="3",
        ),
        headers={"Accept": NPZ},
        v2=NotInV2("the protocol has no archives"),
    ),
    Case(
        "picture in",
        "log_prob",
        picture([[0, 1], [2, 3]]),
        ok(b'{"model":"grey","version":"3","log_prob":[-5.425754],"bits_per_dim":[1.9569271]}'),
        "model=grey",
        {"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "picture out",
        "log_prob",
        {"model": "grey", "x": [[[[0, 1], [2, 3]]]]},
        problem(
            "not_acceptable",
            "Accept: this call answers with application/json or application/x-npy or application/x-npz, got 'image/png'",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "CMYK picture",
        "log_prob",
        picture([[[0, 0, 0, 0]] * 2] * 2, "CMYK", "JPEG"),
        problem(
            "unsupported_media_type", "body: expected grey or RGB, got CMYK; convert it to RGB"
        ),
        "model=colour",
        {"Content-Type": JPEG},
        v2=_NO_PICTURES,
    ),
    Case(
        "damaged picture",
        "log_prob",
        picture([[0, 1], [2, 3]])[:30],
        problem("malformed_body", "body: damaged or truncated PNG picture"),
        "model=grey",
        {"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    # Continuous flows
    Case(
        "solved",
        "log_prob",
        {"model": "flow", "x": [[1, 0, 0], [2, 0, 0]]},
        ok(b'{"model":"flow","version":"3","log_prob":[-3.0068157,-3.5068157]}'),
    ),
    Case(
        "not solved",
        "log_prob",
        {"model": "flow", "x": [[1, 0, 0], [3, 0, 0], [2, 0, 0]]},
        ok(
            b'{"model":"flow","version":"3","failures":[{"row":1,"status":"solver_failed","reason":"budget_spent","evaluations":30}],"log_prob":[-3.0068157,null,-3.5068157],"non_finite":[1]}'
        ),
    ),
    Case(
        "one row not solved",
        "log_prob",
        {"model": "flow", "x": [[3, 0, 0]]},
        ok(
            b'{"model":"flow","version":"3","failures":[{"row":0,"status":"solver_failed","reason":"budget_spent","evaluations":30}],"log_prob":[null],"non_finite":[0]}'
        ),
    ),
    Case(
        "not solved, npz out",
        "log_prob",
        {"model": "flow", "x": [[1, 0, 0], [3, 0, 0]]},
        ok(
            {
                "log_prob": np.array([-3.0068156719207764, math.nan], "<f4"),
                "status": np.array([0, 1], "<i8"),
            },
            NPZ,
            x_failures="1",
            x_failed_rows="1",
            x_model="flow",
            x_model_version="3",
            x_non_finite="1",
        ),
        headers={"Accept": NPZ},
        v2=NotInV2("the protocol has no archives"),
    ),
    Case(
        "estimated",
        "log_prob",
        {"model": "flow", "x": [[1, 0, 0], [5, 0, 0]]},
        ok(
            b'{"model":"flow","version":"3","log_prob":[-3.0068157,-6.5068154],"log_prob_se":[0.0,0.25]}'
        ),
    ),
    Case(
        "estimated with one probe",
        "log_prob",
        {"model": "flow", "x": [[1, 0, 0], [6, 0, 0]]},
        ok(
            b'{"model":"flow","version":"3","log_prob_se_reason":"the trace is estimated with one probe (divergence.num_probes), which shows no spread","log_prob":[-3.0068157,-8.006816],"log_prob_se":[0.0,null],"non_finite":[1]}'
        ),
    ),
    Case(
        "evaluations",
        "log_prob",
        {"model": "flow", "x": [[1, 0, 0], [4, 0, 0]], "return_evaluations": True},
        ok(
            b'{"model":"flow","version":"3","log_prob":[-3.0068157,-5.2568154],"evaluations":[10,40]}'
        ),
    ),
    Case(
        "evaluations of no flow",
        "log_prob",
        _ONE | {"return_evaluations": True},
        problem(
            "invalid_parameter",
            "return_evaluations: this model is no continuous flow, nor one with decoding=jacobi or passes",
            "/return_evaluations",
        ),
    ),
    Case(
        "evaluations 1 and rows too short",
        "log_prob",
        {"model": "flow", "x": [[1, 0]], "return_evaluations": 1},
        problem(
            "invalid_parameter",
            "return_evaluations: expected true or false, got 1",
            "/return_evaluations",
        ),
    ),
    Case(
        "evaluations 1",
        "log_prob",
        {"model": "flow", "x": [[1, 0, 0]], "return_evaluations": 1},
        problem(
            "invalid_parameter",
            "return_evaluations: expected true or false, got 1",
            "/return_evaluations",
        ),
    ),
    Case(
        "estimated with one probe, npz out",
        "log_prob",
        {"model": "flow", "x": [[6, 0, 0]]},
        ok(
            {
                "log_prob": np.array([-8.006815910339355], "<f4"),
                "log_prob_se": np.array([math.nan], "<f4"),
                "log_prob_se_reason": np.array(_ONE_PROBE),
            },
            NPZ,
            {"x-log_prob_se_reason": _ONE_PROBE},
            x_model="flow",
            x_model_version="3",
            x_non_finite="1",
        ),
        headers={"Accept": NPZ},
        v2=NotInV2("the protocol has no archives"),
    ),
    Case(
        "evaluations of npy, npz out",
        "log_prob",
        npy([[1, 0, 0], [3, 0, 0]]),
        ok(
            {
                "log_prob": np.array([-3.0068156719207764, math.nan], "<f4"),
                "evaluations": np.array([10, 30], "<i8"),
                "status": np.array([0, 1], "<i8"),
            },
            NPZ,
            x_failures="1",
            x_failed_rows="1",
            x_model="flow",
            x_model_version="3",
            x_non_finite="1",
        ),
        "model=flow&return_evaluations=true",
        {"Content-Type": NPY, "Accept": NPZ},
        v2=NotInV2("the protocol has no npz"),
    ),
    # Refusals
    Case(
        "unknown model",
        "log_prob",
        {"model": "lune", "x": [[1, 2, 3]]},
        problem("model_not_found", "model: expected one of line, wide, got 'lune'"),
    ),
    Case(
        "rows missing",
        "log_prob",
        {"model": "line"},
        problem("missing_field", "x: expected the rows", "/x"),
    ),
    Case(
        "rows null",
        "log_prob",
        {"model": "line", "x": None},
        problem("missing_field", "x: expected the rows", "/x"),
        v2=InV2({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": None}]}),
    ),
    Case(
        "a null in a row, by column",
        "log_prob",
        {"model": "wide", "x": [[1, 2], [1, None]]},
        problem("bad_dtype", "x: expected numbers, row 1 holds null in column 1 'speed'", "/x/1"),
    ),
    Case(
        "NaN, by column",
        "log_prob",
        b'{"model": "wide", "x": [[1, 2], [NaN, 2]]}',
        problem(
            "non_finite",
            "x: expected finite float64 numbers, row 1 holds nan in column 0 'mass'",
            errors=[("/x/1", "not finite in column 0 'mass'")],
        ),
    ),
    Case(
        "no pixels",
        "log_prob",
        npy([[[[0, 1], [2, 17]]]], "u1"),
        problem(
            "out_of_range",
            "x: expected pixels 0 .. 16, row 0 holds 0 .. 17; scale them as in training",
            "/x/0",
        ),
        "model=digits",
        {"Content-Type": NPY},
    ),
    Case(
        "context not wanted",
        "log_prob",
        _ONE | {"context": 1},
        problem(
            "invalid_parameter", "context: this model is unconditional, leave it out", "/context"
        ),
    ),
    Case(
        "field of another operation",
        "log_prob",
        {"model": "line", "z": [[1, 2, 3]]},
        problem(
            "unknown_field",
            "'z': no such field, expected model, x, columns, context, invalid, return_evaluations",
            "/z",
        ),
        v2=NotInV2("z is a question there: decode"),
    ),
    # Rows by name
    Case(
        "rows as objects",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mass": 0.1}]},
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
    ),
    Case(
        "rows as objects, each in an order of its own",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mass": 0.1}, {"mass": -2, "speed": 1}]},
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453,-2.2128770664093453]}'),
    ),
    Case(
        "columns",
        "log_prob",
        {"model": "wide", "columns": ["speed", "mass"], "x": [[0.3, 0.1]]},
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
    ),
    Case(
        "columns in their own order",
        "log_prob",
        {"model": "wide", "columns": ["mass", "speed"], "x": [[0.1, 0.3]]},
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
    ),
    Case(
        "columns null",
        "log_prob",
        {"model": "wide", "columns": None, "x": [[0.1, 0.3]]},
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
    ),
    Case(
        "columns in the query",
        "log_prob",
        {"model": "wide", "x": [[0.3, 0.1]]},
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
        "columns=speed,m%61ss",
    ),
    Case(
        "columns in the query as a list",
        "log_prob",
        {"model": "wide", "x": [[0.3, 0.1]]},
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
        {"columns": '["speed", "mass"]'},
    ),
    Case(
        "columns of npy",
        "log_prob",
        npy([[0.3, 0.1]], "<f8"),
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
        "model=wide&columns=speed,mass",
        {"Content-Type": NPY},
    ),
    Case(
        "columns of npz",
        "log_prob",
        npz(x=np.array([[0.3, 0.1]])),
        ok(b'{"model":"wide","version":"3","log_prob":[-1.8628770664093453]}'),
        "model=wide&columns=speed,mass",
        {"Content-Type": NPZ},
        v2=NotInV2("the protocol has no archives"),
    ),
    Case(
        "columns of a picture",
        "log_prob",
        picture([[0, 1], [2, 3]]),
        problem(
            "invalid_parameter",
            "columns: the columns of model grey have no names, send rows as lists in its own order",
            "/columns",
        ),
        "model=grey&columns=a,b,c,d",
        {"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "a column renamed",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mas": 0.1}]},
        problem(
            "unknown_field",
            "x: row 0: 'mas' is no column of the model, expected mass, speed; did you mean 'mass'?",
            "/x/0/mas",
        ),
    ),
    Case(
        "a column renamed in columns",
        "log_prob",
        {"model": "wide", "columns": ["spede", "mass"], "x": [[0.3, 0.1]]},
        problem(
            "unknown_field",
            "columns: 'spede' is no column of the model, expected mass, speed; did you mean 'speed'?",
            "/columns/0",
        ),
    ),
    Case(
        "a column too many",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mass": 0.1, "age": 1}]},
        problem(
            "unknown_field",
            "x: row 0: 'age' is no column of the model, expected mass, speed",
            "/x/0/age",
        ),
    ),
    Case(
        "a column missing",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3}]},
        problem(
            "missing_field", "x: row 0: column 'mass' is missing, expected mass, speed", "/x/0"
        ),
    ),
    Case(
        "a column missing in one row",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mass": 0.1}, {"mass": 1}]},
        problem(
            "missing_field", "x: row 1: column 'speed' is missing, expected mass, speed", "/x/1"
        ),
        v2=NotInV2("columns have as many rows there"),
    ),
    Case(
        "a column renamed in one row",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mass": 0.1}, {"mass": 1, "sp/ed": 1}]},
        problem(
            "unknown_field",
            "x: row 1: 'sp/ed' is no column of the model, expected mass, speed; did you mean 'speed'?",
            "/x/1/sp~1ed",
        ),
        v2=NotInV2("columns have as many rows there"),
    ),
    Case(
        "a column missing in columns",
        "log_prob",
        {"model": "wide", "columns": ["speed"], "x": [[0.3]]},
        problem(
            "missing_field", "columns: column 'mass' is missing, expected mass, speed", "/columns"
        ),
    ),
    Case(
        "a column twice in columns",
        "log_prob",
        {"model": "wide", "columns": ["speed", "mass", "speed"], "x": [[0.3, 0.1, 0.3]]},
        problem(
            "invalid_parameter",
            "columns: 'speed' stands twice, expected each column once",
            "/columns/2",
        ),
    ),
    Case(
        "a column twice in a row",
        "log_prob",
        b'{"model":"wide","x":[{"mass":1,"speed":2,"mass":3}]}',
        problem("malformed_body", "body: the key 'mass' stands twice in one object"),
        v2=InV2(
            b'{"inputs": [{"name": "mass", "name": "mass", "shape": [1], "datatype": "FP64", "data": [1]}]}'
        ),
    ),
    Case(
        "columns empty",
        "log_prob",
        {"model": "wide", "columns": [], "x": [[0.1, 0.3]]},
        problem(
            "invalid_parameter",
            "columns: expected the names of all columns, as a list or with commas between them, got []",
            "/columns",
        ),
    ),
    Case(
        "columns no names",
        "log_prob",
        {"model": "wide", "columns": ["mass", 1], "x": [[0.1, 0.3]]},
        problem(
            "invalid_parameter",
            "columns: expected the names of all columns, as a list or with commas between them, got ['mass', 1]",
            "/columns",
        ),
    ),
    Case(
        "columns of a model without names",
        "log_prob",
        _ONE | {"columns": ["a", "b", "c"]},
        problem(
            "invalid_parameter",
            "columns: the columns of model line have no names, send rows as lists in its own order",
            "/columns",
        ),
    ),
    Case(
        "objects for a model without names",
        "log_prob",
        {"model": "line", "x": [{"a": 1, "b": 2, "c": 3}]},
        problem(
            "invalid_parameter",
            "x: the columns of model line have no names, send rows as lists in its own order",
            "/x",
        ),
        v2=NotInV2("a tensor of another name is an unknown one there"),
    ),
    Case(
        "objects and columns",
        "log_prob",
        {"model": "wide", "columns": ["speed", "mass"], "x": [{"speed": 0.3, "mass": 0.1}]},
        problem(
            "invalid_parameter",
            "columns: leave it out, the rows name their columns themselves",
            "/columns",
        ),
    ),
    Case(
        "columns in query and body",
        "log_prob",
        {"model": "wide", "columns": ["speed", "mass"], "x": [[0.3, 0.1]]},
        problem(
            "invalid_parameter",
            "columns: given in the query string and in the body, expected one of them",
            "/columns",
        ),
        "columns=speed,mass",
        v2=NotInV2("the protocol has no query"),
    ),
    Case(
        "a list among objects",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mass": 0.1}, [0.1, 0.3]]},
        problem(
            "bad_dtype",
            "x: expected an object a row, as the first one is, row 1 is a list",
            "/x/1",
        ),
        v2=_NO_ROWS,
    ),
    Case(
        "an object among lists",
        "log_prob",
        {"model": "wide", "x": [[0.1, 0.3], {"speed": 0.3, "mass": 0.1}]},
        problem("bad_dtype", "x: expected numbers, row 1 holds an object", "/x/1"),
        v2=_NO_ROWS,
    ),
    Case(
        "a string in an object",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mass": 0.1}, {"speed": "fast", "mass": 0.1}]},
        problem(
            "bad_dtype",
            "x: expected numbers, row 1 holds a string in column 'speed'",
            "/x/1/speed",
        ),
    ),
    Case(
        "null in an object",
        "log_prob",
        {"model": "wide", "x": [{"speed": 0.3, "mass": None}]},
        problem("bad_dtype", "x: expected numbers, row 0 holds null in column 'mass'", "/x/0/mass"),
    ),
    Case(
        "true in an object",
        "log_prob",
        {"model": "wide", "x": [{"speed": True, "mass": 1}]},
        problem(
            "bad_dtype",
            "x: expected numbers, row 0 holds true or false in column 'speed'",
            "/x/0/speed",
        ),
    ),
    Case(
        "a list in an object",
        "log_prob",
        {"model": "wide", "x": [{"speed": [1], "mass": [2]}]},
        problem(
            "bad_dtype", "x: expected numbers, row 0 holds a list in column 'speed'", "/x/0/speed"
        ),
        v2=_NO_ROWS,
    ),
    Case(
        "an object in an object",
        "log_prob",
        {"model": "wide", "x": [{"speed": {}, "mass": 2}]},
        problem(
            "bad_dtype",
            "x: expected numbers, row 0 holds an object in column 'speed'",
            "/x/0/speed",
        ),
        v2=_NO_ROWS,
    ),
    Case(
        "NaN in an object",
        "log_prob",
        b'{"model":"wide","x":[{"speed":1,"mass":2},{"speed":NaN,"mass":2}]}',
        problem(
            "non_finite",
            "x: expected finite float64 numbers, row 1 holds nan in column 'speed'",
            errors=[("/x/1/speed", "not finite in column 'speed'")],
        ),
    ),
    Case(
        "NaN beside columns",
        "log_prob",
        b'{"model":"wide","columns":["speed","mass"],"x":[[NaN,2]]}',
        problem(
            "non_finite",
            "x: expected finite float64 numbers, row 0 holds nan in column 0 'speed'",
            errors=[("/x/0", "not finite in column 0 'speed'")],
        ),
    ),
    Case(
        "a string beside columns",
        "log_prob",
        {"model": "wide", "columns": ["speed", "mass"], "x": [["fast", 2]]},
        problem(
            "bad_dtype",
            "x: expected numbers, row 0 holds a string in column 0 'speed'",
            "/x/0",
        ),
    ),
    Case(
        "a string beside columns in the query",
        "log_prob",
        {"x": [["fast", 2]]},
        problem(
            "bad_dtype",
            "x: expected numbers, row 0 holds a string in column 0 'speed'",
            "/x/0",
        ),
        "model=wide&columns=speed,mass",
    ),
    Case(
        "too narrow beside columns",
        "log_prob",
        {"model": "wide", "columns": ["speed", "mass"], "x": [[1]]},
        problem("shape_mismatch", "x: expected (*, 2), got (1, 1)", "/x"),
    ),
    Case(
        "an unknown field of strings",
        "log_prob",
        _ONE | {"labels": ["a", "b"]},
        problem(
            "unknown_field",
            "'labels': no such field, expected model, x, columns, context, invalid, return_evaluations",
            "/labels",
        ),
        v2=InV2({"inputs": [], "labels": ["a", "b"]}),
    ),
]
