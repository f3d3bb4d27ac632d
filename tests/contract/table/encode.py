"""POST /encode: z = f(x) and log |det dz/dx|; and what is wrong with rows, whatever is done to them."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

import numpy as np

from tests.contract.case import NPY, NPZ, PNG, Case, InV2, NotInV2, npy, npz, ok, picture, problem

_ONE = {"model": "line", "x": [[2, 4, 6]]}
_NO_PICTURES = NotInV2("the protocol has no pictures")
_NO_ARCHIVES = NotInV2("the protocol has no archives")
_SAME_NAME = NotInV2("the path names the model")


def _line(x: object, **more: object) -> dict[str, object]:
    return {"model": "line", "x": x, **more}


CASES = [
    # Answers
    Case(
        "one row",
        "encode",
        _ONE,
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
    ),
    Case(
        "rows",
        "encode",
        _line([[2, 4, 6], [0.5, -1, 3], [0, 0, 0]]),
        ok(
            b'{"model":"line","version":"3","z":[[1.0,2.0,3.0],[0.25,-0.5,1.5],[0.0,0.0,0.0]],"log_det":[-0.25,-0.0625,-0.0]}'
        ),
    ),
    Case(
        "float64",
        "encode",
        {"model": "wide", "x": [[0.1, 0.3]]},
        ok(b'{"model":"wide","version":"3","z":[[0.05,0.15]],"log_det":[-0.0125]}'),
    ),
    Case(
        "pixels",
        "encode",
        {"model": "grey", "x": [[[[0, 1], [2, 3]]]]},
        ok(b'{"model":"grey","version":"3","z":[[0.0,0.5,1.0,1.5]],"log_det":[-0.0]}'),
    ),
    Case(
        "context",
        "encode",
        {"model": "steered", "x": [[1, 2]], "context": [[3, 4]]},
        ok(b'{"model":"steered","version":"3","z":[[-5.0,-4.5]],"log_det":[1.25]}'),
    ),
    Case(
        "context without its axis",
        "encode",
        {"model": "steered", "x": [[1, 2], [0, 0]], "context": [1, 2]},
        ok(
            b'{"model":"steered","version":"3","z":[[-2.0,-1.5],[-2.5,-2.5]],"log_det":[0.5,0.625]}'
        ),
        v2=NotInV2("a tensor of one row has its axis"),
    ),
    Case(
        "one context for all",
        "encode",
        {"model": "steered", "x": [[1, 2], [0, 0]], "context": [[1, 2]]},
        ok(
            b'{"model":"steered","version":"3","z":[[-2.0,-1.5],[-2.5,-2.5]],"log_det":[0.5,0.625]}'
        ),
    ),
    Case(
        "a context a row",
        "encode",
        {"model": "steered", "x": [[1, 2], [0, 0]], "context": [[1, 2], [3, 4]]},
        ok(
            b'{"model":"steered","version":"3","z":[[-2.0,-1.5],[-5.5,-5.5]],"log_det":[0.5,1.375]}'
        ),
    ),
    Case(
        "label for all",
        "encode",
        {"model": "labelled", "x": [[1, 2], [0, 0]], "context": 2},
        ok(
            b'{"model":"labelled","version":"3","z":[[-1.0,-0.5],[-1.5,-1.5]],"log_det":[0.25,0.375]}'
        ),
    ),
    Case(
        "a label a row",
        "encode",
        {"model": "labelled", "x": [[1, 2], [0, 0]], "context": [3, 0]},
        ok(
            b'{"model":"labelled","version":"3","z":[[-1.5,-1.0],[-0.5,-0.5]],"log_det":[0.375,0.125]}'
        ),
    ),
    Case(
        "soft labels",
        "encode",
        {"model": "labelled", "x": [[1, 2]], "context": [[0.5, 0.25, 0, 0]]},
        ok(b'{"model":"labelled","version":"3","z":[[0.0,0.5]],"log_det":[-0.0]}'),
    ),
    Case(
        "non-finite",
        "encode",
        {"model": "bounded", "x": [[2, 0.5], [0.5, 0.5]]},
        ok(
            b'{"model":"bounded","version":"3","failures":[{"row":0,"status":"outside_support","reason":"out_of_bounds"}],"z":[[1.0,0.25],[0.25,0.25]],"log_det":[null,-0.0625],"non_finite":[0]}'
        ),
    ),
    Case(
        "not solved",
        "encode",
        {"model": "flow", "x": [[3, 0, 0], [1, 0, 0]]},
        ok(
            b'{"model":"flow","version":"3","failures":[{"row":0,"status":"solver_failed","reason":"budget_spent","evaluations":30}],"z":[null,[0.5,0.0,0.0]],"log_det":[null,-0.125],"non_finite":[0]}'
        ),
    ),
    Case(
        "estimated",
        "encode",
        {"model": "flow", "x": [[5, 0, 0]]},
        ok(
            b'{"model":"flow","version":"3","z":[[2.5,0.0,0.0]],"log_det":[-0.625],"log_prob_se":[0.25]}'
        ),
    ),
    Case(
        "null is absent",
        "encode",
        _ONE | {"context": None},
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
    ),
    Case(
        "evaluations",
        "encode",
        {"model": "flow", "x": [[1, 0, 0], [4, 0, 0]], "return_evaluations": True},
        ok(
            b'{"model":"flow","version":"3","z":[[0.5,0.0,0.0],[2.0,0.0,0.0]],"log_det":[-0.125,-0.5],"evaluations":[10,40]}'
        ),
    ),
    # Other forms
    Case(
        "npy in",
        "encode",
        npy([[2, 4, 6]]),
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "npy of float64",
        "encode",
        npy([[2, 4, 6]], ">f8"),
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "npy of integers",
        "encode",
        npy([[2, 4, 6]], "<i4"),
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "npy of bytes",
        "encode",
        npy([[2, 4, 6]], "u1"),
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "npy in and out",
        "encode",
        npy([[2, 4, 6], [1, 0, 0]]),
        ok(
            npy([[1.0, 2.0, 3.0], [0.5, 0.0, 0.0]], "<f4"), NPY, x_model="line", x_model_version="3"
        ),
        "model=line",
        {"Content-Type": NPY, "Accept": NPY},
    ),
    Case(
        "npy out",
        "encode",
        _ONE,
        ok(npy([[1.0, 2.0, 3.0]], "<f4"), NPY, x_model="line", x_model_version="3"),
        headers={"Accept": NPY},
        v2=NotInV2("a tensor alone has no names"),
    ),
    Case(
        "npz out",
        "encode",
        _ONE,
        ok(
            {"z": np.array([[1.0, 2.0, 3.0]], "<f4"), "log_det": np.array([-0.25], "<f4")},
            NPZ,
            x_model="line",
            x_model_version="3",
        ),
        headers={"Accept": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "npz in",
        "encode",
        npz(x=[[1.0, 2.0]], context=[3]),
        ok(b'{"model":"labelled","version":"3","z":[[-1.5,-1.0]],"log_det":[0.375]}'),
        "model=labelled",
        {"Content-Type": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "picture in",
        "encode",
        picture([[0, 1], [2, 3]]),
        ok(b'{"model":"grey","version":"3","z":[[0.0,0.5,1.0,1.5]],"log_det":[-0.0]}'),
        "model=grey",
        {"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    # The body
    Case(
        "empty body",
        "encode",
        b"",
        problem(
            "malformed_body",
            "body: not valid JSON: Input is a zero-length, empty document: line 1 column 1 (char 0)",
        ),
    ),
    Case(
        "no JSON",
        "encode",
        b"x=1",
        problem(
            "malformed_body",
            "body: not valid JSON: unexpected character, expected a JSON value: line 1 column 1 (char 0)",
        ),
    ),
    Case(
        "truncated JSON",
        "encode",
        b'{"x": [[1',
        problem(
            "malformed_body",
            "body: not valid JSON: unexpected end of data: line 1 column 10 (char 9)",
        ),
    ),
    Case(
        "byte order mark",
        "encode",
        b"\xef\xbb\xbf{}",
        problem(
            "malformed_body",
            "body: not valid JSON: UTF-8 byte order mark (BOM) is not supported: line 1 column 1 (char 0)",
        ),
    ),
    Case(
        "invalid UTF-8",
        "encode",
        b'{"model": "\xff"}',
        problem(
            "malformed_body",
            "body: not valid JSON: str is not valid UTF-8: surrogates not allowed: line 1 column 1 (char 0)",
        ),
    ),
    Case(
        "no object",
        "encode",
        b"[[1, 2, 3]]",
        problem("malformed_body", "body: expected a JSON object, as {...}"),
    ),
    Case(
        "deep",
        "encode",
        b"[" * 49_000,
        problem(
            "malformed_body",
            "body: not valid JSON: depth limit exceeded: line 1 column 1026 (char 1025)",
        ),
    ),
    Case(
        "a key twice",
        "encode",
        b'{"model": "line", "x": [[1, 2, 3]], "x": [[1, 2, 3]]}',
        problem("malformed_body", "body: the key 'x' stands twice in one object"),
        v2=InV2(
            b'{"id": "a", "id": "b", "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'
        ),
    ),
    Case(
        "a long integer",
        "encode",
        b'{"model":"line","x":[[' + b"1" * 40_000 + b",2,3]]}",
        problem("malformed_body", "body: not valid JSON"),
    ),
    Case(
        "picture with alpha",
        "encode",
        picture([[[0, 0, 0, 7]] * 2] * 2, "RGBA"),
        problem(
            "unsupported_media_type",
            "body: expected a picture without transparency, got an alpha channel or transparent colour; put it on a background",
        ),
        "model=grey",
        {"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "unknown field",
        "encode",
        _ONE | {"modell": "line"},
        problem(
            "unknown_field",
            "'modell': no such field, expected model, x, columns, context, invalid, return_evaluations; did you mean 'model'?",
            "/modell",
        ),
    ),
    Case(
        "field of another operation",
        "encode",
        {"model": "line", "z": [[1, 2, 3]]},
        problem(
            "unknown_field",
            "'z': no such field, expected model, x, columns, context, invalid, return_evaluations",
            "/z",
        ),
        v2=NotInV2("z is a question there: decode"),
    ),
    Case(
        "rows missing",
        "encode",
        {"model": "line"},
        problem("missing_field", "x: expected the rows", "/x"),
    ),
    Case(
        "model a number",
        "encode",
        {"model": 1, "x": [[1, 2, 3]]},
        problem("invalid_parameter", "model: expected a string, got 1", "/model"),
        v2=_SAME_NAME,
    ),
    Case(
        "unknown model",
        "encode",
        {"model": "lune", "x": [[1, 2, 3]]},
        problem("model_not_found", "model: expected one of line, wide, got 'lune'"),
    ),
    Case(
        "no model",
        "encode",
        {"x": [[1, 2, 3]]},
        problem("model_not_found", "model: expected one of line, wide, got None"),
        v2=_SAME_NAME,
    ),
    Case(
        "model empty",
        "encode",
        {"model": "", "x": [[1, 2, 3]]},
        problem("model_not_found", "model: expected one of line, wide, got None"),
        v2=_SAME_NAME,
    ),
    Case(
        "model a path",
        "encode",
        {"model": "../line", "x": [[1, 2, 3]]},
        problem("model_not_found", "model: expected one of line, wide, got '../line'"),
        v2=NotInV2("the path would be another one"),
    ),
    Case(
        "default model",
        "encode",
        {"x": [[2, 4, 6]]},
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
        settings={"default_model": "line"},
        v2=_SAME_NAME,
    ),
    # Rows
    Case(
        "one event",
        "encode",
        _line([1, 2, 3]),
        problem(
            "shape_mismatch",
            "x: expected (*, 3), got (3,); put one row in a list of its own, as [[...]]",
            "/x",
        ),
    ),
    Case(
        "too narrow",
        "encode",
        _line([[1, 2], [3, 4]]),
        problem("shape_mismatch", "x: expected (*, 3), got (2, 2)", "/x"),
    ),
    Case(
        "too wide",
        "encode",
        _line([[1, 2, 3, 4]]),
        problem("shape_mismatch", "x: expected (*, 3), got (1, 4)", "/x"),
    ),
    Case(
        "wrong rank",
        "encode",
        _line([[[1, 2, 3]]]),
        problem("shape_mismatch", "x: expected (*, 3), got (1, 1, 3)", "/x"),
    ),
    Case(
        "flat pixels",
        "encode",
        {"model": "grey", "x": [[0, 1, 2, 3]]},
        problem("shape_mismatch", "x: expected (*, 1, 2, 2), got (1, 4)", "/x"),
    ),
    Case(
        "ragged",
        "encode",
        _line([[1, 2, 3], [1, 2]]),
        problem("shape_mismatch", "x: expected (*, 3), row 1 has shape (2,)", "/x/1"),
    ),
    Case(
        "no rows",
        "encode",
        _line([]),
        problem("shape_mismatch", "x: expected (*, 3) with at least one row, got none", "/x"),
    ),
    Case(
        "empty row",
        "encode",
        _line([[]]),
        problem("shape_mismatch", "x: expected (*, 3), got (1, 0)", "/x"),
    ),
    Case(
        "a string",
        "encode",
        _line([["1", 2, 3]]),
        problem("bad_dtype", "x: expected numbers, row 0 holds a string", "/x/0"),
    ),
    Case(
        "true",
        "encode",
        _line([[1, 2, 3], [1, True, 3]]),
        problem("bad_dtype", "x: expected numbers, row 1 holds true or false", "/x/1"),
    ),
    Case(
        "null",
        "encode",
        _line([[None, 2, 3]]),
        problem("bad_dtype", "x: expected numbers, row 0 holds null", "/x/0"),
    ),
    Case(
        "a row null",
        "encode",
        _line([[1, 2, 3], None]),
        problem("bad_dtype", "x: expected numbers, row 1 holds null", "/x/1"),
    ),
    Case(
        "rows a string",
        "encode",
        _line("1,2,3"),
        problem("bad_dtype", "x: expected numbers, got a string", "/x"),
        v2=InV2({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": "123"}]}),
    ),
    Case(
        "rows an object",
        "encode",
        _line({"a": [1]}),
        problem("bad_dtype", "x: expected numbers, got an object", "/x"),
        v2=InV2(
            {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": {"a": [1]}}]}
        ),
    ),
    Case(
        "NaN",
        "encode",
        b'{"model":"line","x":[[1,2,3],[1,NaN,3]]}',
        problem(
            "non_finite",
            "x: expected finite float32 numbers, row 1 holds nan",
            errors=[("/x/1", "not finite")],
        ),
    ),
    Case(
        "minus infinity",
        "encode",
        b'{"model":"line","x":[[1,-Infinity,3]]}',
        problem(
            "non_finite",
            "x: expected finite float32 numbers, row 0 holds -inf",
            errors=[("/x/0", "not finite")],
        ),
    ),
    Case(
        "1e400",
        "encode",
        b'{"model":"line","x":[[1,1e400,3]]}',
        problem(
            "non_finite",
            "x: expected finite float32 numbers, row 0 holds inf",
            errors=[("/x/0", "not finite")],
        ),
    ),
    Case(
        "too large for float32",
        "encode",
        _line([[1, 1e39, 3]]),
        problem(
            "non_finite",
            "x: expected finite float32 numbers, row 0 holds 1e+39",
            errors=[("/x/0", "not finite")],
        ),
    ),
    Case(
        "a column by name",
        "encode",
        b'{"model":"wide","x":[[1,NaN]]}',
        problem(
            "non_finite",
            "x: expected finite float64 numbers, row 0 holds nan in column 1 'speed'",
            errors=[("/x/0", "not finite in column 1 'speed'")],
        ),
    ),
    Case(
        "npy of NaN",
        "encode",
        npy([["nan", 2, 3], [1, 2, 3], [1, 2, "inf"]]),
        problem(
            "non_finite",
            "x: expected finite float32 numbers, row 0 holds nan",
            errors=[("/x/0", "not finite"), ("/x/2", "not finite")],
        ),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "npy of NaN, by column",
        "encode",
        npy([[1, "nan"], ["inf", 1]]),
        problem(
            "non_finite",
            "x: expected finite float64 numbers, row 0 holds nan in column 1 'speed'",
            errors=[
                ("/x/0", "not finite in column 1 'speed'"),
                ("/x/1", "not finite in column 0 'mass'"),
            ],
        ),
        "model=wide",
        {"Content-Type": NPY},
    ),
    Case(
        "npy too narrow",
        "encode",
        npy([[1, 2]]),
        problem("shape_mismatch", "x: expected (*, 3), got (1, 2)", "/x"),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "npy complex",
        "encode",
        npy([[1, 2, 3]], "<c16"),
        problem(
            "bad_dtype",
            "x: expected a dtype out of f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8, got '<c16'",
            "/x",
        ),
        "model=line",
        {"Content-Type": NPY},
        v2=NotInV2("the protocol has no complex numbers"),
    ),
    Case(
        "npy cut short",
        "encode",
        npy([[1, 2, 3]])[:-1],
        problem(
            "malformed_body", "x: an npy header for (1, 3) float32 announces 12 bytes, got 11", "/x"
        ),
        "model=line",
        {"Content-Type": NPY},
        v2=NotInV2("lengths stand elsewhere there"),
    ),
    Case(
        "npy of objects",
        "encode",
        npy([[{}]], "O", allow_pickle=True),
        problem("unsupported_media_type", "x: pickled objects are never read", "/x"),
        "model=line",
        {"Content-Type": NPY},
        v2=NotInV2("the protocol has no objects"),
    ),
    Case(
        "no npz",
        "encode",
        b"PK\x03\x04",
        problem("malformed_body", "body: expected an npz archive of x and context"),
        "model=line",
        {"Content-Type": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "no pixels",
        "encode",
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
        "picture for a vector",
        "encode",
        picture([[0, 1], [2, 3]]),
        problem(
            "unsupported_media_type",
            "Content-Type: model line takes no pictures, its rows have shape (3,)",
        ),
        "model=line",
        {"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "picture of another size",
        "encode",
        picture([[0, 1]]),
        problem(
            "shape_mismatch",
            "x: expected a picture of 2 x 2 pixels (width x height), got 2 x 1",
            "/x",
        ),
        "model=grey",
        {"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    # Contexts
    Case(
        "context not wanted",
        "encode",
        _ONE | {"context": [1]},
        problem(
            "invalid_parameter", "context: this model is unconditional, leave it out", "/context"
        ),
    ),
    Case(
        "context missing",
        "encode",
        {"model": "labelled", "x": [[1, 2]]},
        problem(
            "missing_field",
            "context: this model needs labels 0 .. 3, or one row of shape (4,) a row, or one for all",
            "/context",
        ),
    ),
    Case(
        "context rows missing",
        "encode",
        {"model": "steered", "x": [[1, 2]]},
        problem(
            "missing_field",
            "context: this model needs one row of shape (2,) a row, or one for all",
            "/context",
        ),
    ),
    Case(
        "label too large",
        "encode",
        {"model": "labelled", "x": [[1, 2], [1, 2]], "context": [0, 4]},
        problem("out_of_range", "context: expected labels 0 .. 3, row 1 has 4", "/context/1"),
    ),
    Case(
        "label a fraction",
        "encode",
        {"model": "labelled", "x": [[1, 2]], "context": [0.5]},
        problem(
            "bad_dtype",
            "context: expected whole numbers 0 .. 3 as labels, or rows of 4 numbers as [[...]]",
            "/context",
        ),
        v2=NotInV2("data of whole numbers has a type there"),
    ),
    Case(
        "context too narrow",
        "encode",
        {"model": "steered", "x": [[1, 2]], "context": [[1]]},
        problem("shape_mismatch", "context: expected (*, 2), got (1, 1)", "/context"),
    ),
    Case(
        "contexts of another count",
        "encode",
        {"model": "steered", "x": [[1, 2]] * 3, "context": [[1, 2], [3, 4]]},
        problem("shape_mismatch", "context: expected 3 rows or 1 for all, got 2", "/context"),
    ),
    Case(
        "more contexts than rows",
        "encode",
        {"model": "steered", "x": [[1, 2]], "context": [[1, 2], [3, 4]]},
        problem("shape_mismatch", "context: expected 1 rows or 1 for all, got 2", "/context"),
    ),
    Case(
        "context not finite",
        "encode",
        b'{"model":"steered","x":[[1,2]],"context":[[1,NaN]]}',
        problem(
            "non_finite",
            "context: expected finite float32 numbers, row 0 holds nan",
            errors=[("/context/0", "not finite")],
        ),
    ),
    # Query strings
    Case(
        "field in query and body",
        "encode",
        _ONE,
        problem(
            "invalid_parameter",
            "model: given in the query string and in the body, expected one of them",
            "/model",
        ),
        "model=line",
        v2=_SAME_NAME,
    ),
    Case(
        "model in the query",
        "encode",
        {"x": [[2, 4, 6]]},
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
        "model=line",
    ),
    Case(
        "rows in the query",
        "encode",
        {"model": "line"},
        problem(
            "unknown_field",
            "'x': no such field, expected model, columns, context, invalid, return_evaluations",
            "/x",
        ),
        "x=[[1,2,3]]",
        v2=NotInV2("the protocol has no query"),
    ),
    Case(
        "unknown query",
        "encode",
        _ONE,
        problem(
            "unknown_field",
            "'modell': no such field, expected model, columns, context, invalid, return_evaluations; did you mean 'model'?",
            "/modell",
        ),
        "modell=line",
        v2=NotInV2("the protocol has no query"),
    ),
    Case(
        "query twice",
        "encode",
        {"x": [[2, 4, 6]]},
        problem("invalid_parameter", "model: given twice in the query string", "/model"),
        "model=line&model=line",
        v2=NotInV2("the protocol has no query"),
    ),
    # Rows by name
    Case(
        "rows as objects",
        "encode",
        {"model": "wide", "x": [{"speed": 0.3, "mass": 0.1}, {"mass": 1, "speed": 2}]},
        ok(
            b'{"model":"wide","version":"3","z":[[0.05,0.15],[0.5,1.0]],"log_det":[-0.0125,-0.125]}'
        ),
    ),
    Case(
        "columns",
        "encode",
        {"model": "wide", "columns": ["speed", "mass"], "x": [[0.3, 0.1]]},
        ok(b'{"model":"wide","version":"3","z":[[0.05,0.15]],"log_det":[-0.0125]}'),
    ),
    Case(
        "columns of npy of NaN",
        "encode",
        npy([[1, "nan"], ["inf", 1]]),
        problem(
            "non_finite",
            "x: expected finite float64 numbers, row 0 holds nan in column 1 'mass'",
            errors=[
                ("/x/0", "not finite in column 1 'mass'"),
                ("/x/1", "not finite in column 0 'speed'"),
            ],
        ),
        "model=wide&columns=speed,mass",
        {"Content-Type": NPY},
    ),
    Case(
        "a column renamed",
        "encode",
        {"model": "wide", "x": [{"speeed": 0.3, "mass": 0.1}]},
        problem(
            "unknown_field",
            "x: row 0: 'speeed' is no column of the model, expected mass, speed; did you mean 'speed'?",
            "/x/0/speeed",
        ),
    ),
]
