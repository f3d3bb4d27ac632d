"""POST /score: anomaly scores; every rule of it has a case.

19 rows calibrate, with the scores 1 .. 19: p is (1 + those that are at least as high) / 20.
"""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

from collections.abc import Mapping
from typing import Any

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
    ok,
    picture,
    problem,
)
from tests.contract.table.neighbours import described

# Scores 10.0068, 2.7568 and 19.7568.
_ROWS = [[2, 4, 6], [0, 0, 0], [8, 8, 0]]
_SCORES = b'"score":[10.006815910339355,2.7568156719207764,19.75681495666504],"log_prob":[-10.006816,-2.7568157,-19.756815]'
_NO_ARCHIVES = NotInV2("the protocol has no archives")
_NO_PICTURES = NotInV2("the protocol has no pictures")
_NO_ROWS = NotInV2("the protocol has no rows")

_BLUE, _WHITE, _BLACK = [5, 48, 97], [255, 255, 255], [0, 0, 0]
# Two pixels of each: a gradient, two rows without one, and nothing.
_GRID_OF_MAPS = [
    [*[upper] * 2, *[_WHITE] * 2, *[left] * 2, *[right] * 2]
    for upper, left, right in ((_BLUE, _BLACK, _WHITE), (_WHITE, _WHITE, _BLACK))
    for _ in range(2)
] + [
    [*[left] * 2, *[right] * 2, *[_BLACK] * 4]
    for left, right in ((_BLACK, _WHITE), (_WHITE, _BLACK))
    for _ in range(2)
]


def _ok(model: str, rest: bytes, alpha: float | None = None, label: int | None = None) -> Any:
    said = described(model, alpha, label)
    return ok(b'{"model":"%b","version":"3","calibration":%b,%b}' % (model.encode(), said, rest))


def _case(
    name: str, body: Mapping[str, Any] | bytes, answer: ExpectedResponse, **more: Any
) -> Case:
    content = body if isinstance(body, bytes) else {"model": "judged", **body}
    return Case(name, "score", content, answer, **more)


CASES = [
    # What decides
    Case(
        "one row",
        "score",
        {"model": "line", "x": [[2, 4, 6]]},
        ok(
            b'{"model":"line","version":"3","p_value":null,"calibration":null,"score":[10.006815910339355],"log_prob":[-10.006816]}'
        ),
    ),
    _case("nothing decides", {"x": _ROWS}, _ok("judged", _SCORES + b',"p_value":[0.5,0.9,0.05]')),
    _case(
        "null decides nothing",
        {"x": _ROWS, "alpha": None, "fdr": None, "threshold": None},
        _ok("judged", _SCORES + b',"p_value":[0.5,0.9,0.05]'),
    ),
    _case(
        "alpha",
        {"x": _ROWS, "alpha": 0.05},
        _ok("judged", _SCORES + b',"p_value":[0.5,0.9,0.05],"is_anomaly":[false,false,true]', 0.05),
    ),
    _case(
        "alpha in the query",
        {"x": [[2, 4, 6]]},
        _ok(
            "judged",
            b'"score":[10.006815910339355],"log_prob":[-10.006816],"p_value":[0.5],"is_anomaly":[true]',
            0.5,
        ),
        query={"alpha": 0.5},
    ),
    _case(
        "one row by alpha",
        {"x": [[8, 8, 0]], "alpha": 0.1},
        _ok(
            "judged",
            b'"score":[19.75681495666504],"log_prob":[-19.756815],"p_value":[0.05],"is_anomaly":[true]',
            0.1,
        ),
    ),
    _case(
        "fdr over the request",
        {"x": _ROWS, "fdr": 0.2},
        _ok(
            "judged",
            _SCORES
            + b',"p_value":[0.5,0.9,0.05],"q_value":[0.75,0.9,0.15000000000000002],"is_anomaly":[false,false,true]',
        ),
    ),
    _case(
        "one row by fdr",
        {"x": [[8, 8, 0]], "fdr": 0.1},
        _ok(
            "judged",
            b'"score":[19.75681495666504],"log_prob":[-19.756815],"p_value":[0.05],"q_value":[0.05],"is_anomaly":[true]',
        ),
    ),
    _case(
        "threshold",
        {"x": _ROWS, "threshold": 10.006815910339355},
        _ok("judged", _SCORES + b',"p_value":[0.5,0.9,0.05],"is_anomaly":[false,false,true]'),
    ),
    Case(
        "threshold without calibration",
        "score",
        {"model": "line", "x": _ROWS, "threshold": 10},
        ok(
            b'{"model":"line","version":"3","p_value":null,"calibration":null,%b,"is_anomaly":[true,false,true]}'
            % _SCORES
        ),
    ),
    # What the rows are
    Case(
        "a table by name",
        "score",
        {"model": "judged_table", "x": [{"speed": 12, "mass": 0}], "alpha": 0.05},
        _ok(
            "judged_table",
            b'"score":[19.837877066409344],"log_prob":[-19.837877066409344],"p_value":[0.05],"is_anomaly":[true]',
            0.05,
        ),
    ),
    Case(
        "columns in another order",
        "score",
        {"model": "judged_table", "x": [[12, 0]], "columns": ["speed", "mass"]},
        _ok(
            "judged_table",
            b'"score":[19.837877066409344],"log_prob":[-19.837877066409344],"p_value":[0.05]',
        ),
    ),
    Case(
        "outside the support",
        "score",
        {"model": "judged_bounds", "x": [[0.5, 0.5], [2, 0.5]], "alpha": 0.05},
        _ok(
            "judged_bounds",
            b'"failures":[{"row":1,"status":"outside_support","reason":"out_of_bounds"}],"score":[1.9628770351409912,null],"log_prob":[-1.962877,null],"p_value":[0.95,0.05],"is_anomaly":[false,true],"non_finite":[1]',
            0.05,
        ),
    ),
    Case(
        "one row outside the support",
        "score",
        {"model": "judged_bounds", "x": [[2, 0.5]], "threshold": 1e9},
        _ok(
            "judged_bounds",
            b'"failures":[{"row":0,"status":"outside_support","reason":"out_of_bounds"}],"score":[null],"log_prob":[null],"p_value":[0.05],"is_anomaly":[true],"non_finite":[0]',
        ),
    ),
    Case(
        "pixels that are none",
        "score",
        {"model": "judged_grey", "x": [[[[0, 1], [2, 3]]], [[[0, 1], [2, 300]]]], "fdr": 0.1},
        _ok(
            "judged_grey",
            b'"failures":[{"row":1,"status":"outside_support","reason":"out_of_bounds"}],"score":[-22.04307287743027,null],"log_prob":[-5.425754,null],"p_value":[1.0,0.05],"q_value":[1.0,0.1],"is_anomaly":[false,true],"non_finite":[1]',
        ),
    ),
    Case(
        "an unsolved row",
        "score",
        {"model": "judged_flow", "x": [[0, 0, 0], [3, 0, 0], [9, 9, 9]], "alpha": 0.05},
        _ok(
            "judged_flow",
            b'"failures":[{"row":1,"status":"solver_failed","reason":"budget_spent","evaluations":30}],"score":[1.2431843280792236,null,30.256816864013672],"log_prob":[-2.7568157,null,-34.256817],"p_value":[0.95,null,0.05],"is_anomaly":[false,false,true],"non_finite":[1]',
            0.05,
        ),
    ),
    Case(
        "what a solve cost",
        "score",
        {"model": "judged_flow", "x": [[9, 9, 9]], "return_evaluations": True},
        _ok(
            "judged_flow",
            b'"score":[30.256816864013672],"log_prob":[-34.256817],"evaluations":[90],"p_value":[0.05]',
        ),
    ),
    _case(
        "an invalid row is not flagged",
        {"x": [[2, 4, 6], [None, 0, 0], [8, 8, 0]], "alpha": 0.05, "invalid": "null"},
        _ok(
            "judged",
            b'"failures":[{"row":1,"status":"invalid_input","reason":"missing"}],"score":[10.006815910339355,null,19.75681495666504],"log_prob":[-10.006816,null,-19.756815],"p_value":[0.5,null,0.05],"is_anomaly":[false,false,true],"non_finite":[1]',
            0.05,
        ),
    ),
    _case(
        "an invalid row does not count for fdr",
        {"x": [[2, 4, 6], [None, 0, 0], [8, 8, 0]], "fdr": 0.1, "invalid": "null"},
        _ok(
            "judged",
            b'"failures":[{"row":1,"status":"invalid_input","reason":"missing"}],"score":[10.006815910339355,null,19.75681495666504],"log_prob":[-10.006816,null,-19.756815],"p_value":[0.5,null,0.05],"q_value":[0.5,null,0.1],"is_anomaly":[false,false,true],"non_finite":[1]',
        ),
    ),
    _case(
        "invalid rows alone",
        {"x": [[None, 0, 0]], "alpha": 0.05, "invalid": "null"},
        _ok(
            "judged",
            b'"failures":[{"row":0,"status":"invalid_input","reason":"missing"}],"score":[null],"log_prob":[null],"p_value":[null],"is_anomaly":[false],"non_finite":[0]',
            0.05,
        ),
    ),
    # Classes: 9 rows of class 2 decide for it
    Case(
        "a class of its own",
        "score",
        {"model": "judged_classes", "x": [[16, 4]], "context": 2, "alpha": 0.1},
        _ok(
            "judged_classes",
            b'"score":[24.71287727355957],"log_prob":[-24.712877],"p_value":[0.1],"is_anomaly":[true]',
            0.1,
            2,
        ),
    ),
    Case(
        "a class among all",
        "score",
        {"model": "judged_classes", "x": [[0, 0]], "context": 1, "alpha": 0.05},
        _ok(
            "judged_classes",
            b'"score":[2.587877035140991],"log_prob":[-2.587877],"p_value":[0.9],"is_anomaly":[false]',
            0.05,
            1,
        ),
    ),
    Case(
        "several classes",
        "score",
        {"model": "judged_classes", "x": [[0, 0], [16, 4]], "context": [1, 2], "alpha": 0.1},
        _ok(
            "judged_classes",
            b'"score":[2.587877035140991,24.71287727355957],"log_prob":[-2.587877,-24.712877],"p_value":[0.9,0.1],"is_anomaly":[false,true]',
            0.1,
        ),
    ),
    Case(
        "a context that is no class",
        "score",
        {"model": "judged_classes", "x": [[0, 0]], "context": [[0.5, 0.5, 0, 0]]},
        _ok(
            "judged_classes",
            b'"score":[2.212877035140991],"log_prob":[-2.212877],"p_value":[0.9]',
            None,
            -1,
        ),
    ),
    Case(
        "alpha below a class",
        "score",
        {"model": "judged_classes", "x": [[0, 0], [4, 4]], "context": [1, 2], "alpha": 0.05},
        problem(
            "out_of_range",
            "alpha: judged_classes has 9 calibration rows of class 2, which promise 0.1 at least, got 0.05; that needs 19 rows: calibrate it on more",
            "/alpha",
        ),
    ),
    Case(
        "pixels that are none, of a class of its own",
        "score",
        {
            "model": "judged_digits",
            "x": [[[[0, 1], [2, 300]]], [[[0, 1], [2, 3]]]],
            "context": [2, 1],
            "alpha": 0.1,
        },
        _ok(
            "judged_digits",
            b'"failures":[{"row":0,"status":"outside_support","reason":"out_of_bounds"}],"score":[null,4.175754070281982],"log_prob":[null,-4.175754],"p_value":[0.1,0.8],"is_anomaly":[true,false],"non_finite":[0]',
            0.1,
        ),
    ),
    Case(
        "alpha below the class of pixels that are none",
        "score",
        {
            "model": "judged_digits",
            "x": [[[[0, 1], [2, 300]]], [[[0, 1], [2, 3]]]],
            "context": [2, 1],
            "alpha": 0.05,
        },
        problem(
            "out_of_range",
            "alpha: judged_digits has 9 calibration rows of class 2, which promise 0.1 at least, got 0.05; that needs 19 rows: calibrate it on more",
            "/alpha",
        ),
    ),
    Case(
        "an invalid row has no class",
        "score",
        {
            "model": "judged_classes",
            "x": [[0, 0], [None, 4]],
            "context": [1, 2],
            "alpha": 0.05,
            "invalid": "null",
        },
        _ok(
            "judged_classes",
            b'"failures":[{"row":1,"status":"invalid_input","reason":"missing"}],"score":[2.587877035140991,null],"log_prob":[-2.587877,null],"p_value":[0.9,null],"is_anomaly":[false,false],"non_finite":[1]',
            0.05,
            1,
        ),
    ),
    Case(
        "classes of invalid rows alone",
        "score",
        {
            "model": "judged_classes",
            "x": [[None, 4]],
            "context": 2,
            "alpha": 0.05,
            "invalid": "null",
        },
        _ok(
            "judged_classes",
            b'"failures":[{"row":0,"status":"invalid_input","reason":"missing"}],"score":[null],"log_prob":[null],"p_value":[null],"is_anomaly":[false],"non_finite":[0]',
            0.05,
        ),
    ),
    # Ratios to another model
    Case(
        "ratio",
        "score",
        {"model": "contrast", "x": _ROWS, "alpha": 0.1},
        _ok(
            "contrast",
            b'"score":[24.000000953674316,0.0,32.00000190734863],"log_prob":[-34.006817,-2.7568157,-51.756817],"p_value":[0.05,1.0,0.05],"is_anomaly":[true,false,true]',
            0.1,
        ),
    ),
    Case(
        "ratio of one row",
        "score",
        {"model": "contrast", "x": [[2, 4, 6]]},
        _ok("contrast", b'"score":[24.000000953674316],"log_prob":[-34.006817],"p_value":[0.05]'),
    ),
    Case(
        "ratio of invalid rows alone",
        "score",
        {"model": "contrast", "x": [[None, 4, 6]], "invalid": "null"},
        _ok(
            "contrast",
            b'"failures":[{"row":0,"status":"invalid_input","reason":"missing"}],"score":[null],"log_prob":[null],"p_value":[null],"non_finite":[0]',
        ),
    ),
    Case(
        "ratio to a model that is not served",
        "score",
        {"model": "orphan", "x": _ROWS},
        problem(
            "background_not_served",
            "model: orphan is scored by ratio:nobody, and no model 'nobody' is served; serve it beside, or calibrate orphan again by another statistic",
            "/model",
        ),
    ),
    Case(
        "ratio to other weights",
        "score",
        {"model": "stale", "x": _ROWS, "threshold": 0},
        problem(
            "background_not_served",
            "model: stale is scored by ratio:line, and line is served in other weights than it was calibrated with; serve those, or calibrate stale again",
            "/model",
        ),
    ),
    *(
        Case(
            f"ratio to {what}",
            "score",
            {"model": model, "x": _ROWS},
            _ok(
                model,
                b'"score":[0.0,0.0,0.0],"log_prob":[-10.006816,-2.7568157,-19.756815],"p_value":[1.0,1.0,1.0]',
            ),
        )
        for model, what in (
            ("beside_3", "a version that is not the default"),
            ("beside_weights_of_3", "the version that has the weights, which is not the default"),
        )
    ),
    Case(
        "ratio to a version that is not live",
        "score",
        {"model": "beside_2", "x": _ROWS},
        problem(
            "background_not_served",
            "model: beside_2 is scored by ratio:twofold@2, and version 2 of twofold is not live; live: 3, 4, 103; make it live, or calibrate beside_2 again by another statistic",
            "/model",
        ),
    ),
    Case(
        "ratio to a version in other weights, which another version has",
        "score",
        {"model": "stale_3", "x": _ROWS},
        problem(
            "background_not_served",
            "model: stale_3 is scored by ratio:twofold@3, and twofold@3 is served in other weights than it was calibrated with; serve those, or calibrate stale_3 again",
            "/model",
        ),
    ),
    Case(
        "ratio to a model with a full queue",
        "score",
        {"model": "beside_full", "x": _ROWS},
        problem(
            "overloaded",
            "4 of at most 4 rows wait, 3 more do not fit",
            retry_after="1",
        ),
    ),
    # Other forms
    _case(
        "npy in and out",
        npy([[8, 8, 0]]),
        ok(
            npy([19.75681495666504], "<f8"),
            NPY,
            x_model="judged",
            x_model_version="3",
            x_calibration=described("judged", 0.1).decode(),
        ),
        query={"model": "judged", "alpha": 0.1},
        headers={"Content-Type": NPY, "Accept": NPY},
        v2=NotInV2("a tensor alone has no names"),
    ),
    _case(
        "npz out",
        {"x": _ROWS, "fdr": 0.2},
        ok(
            {
                "score": np.array([10.006815910339355, 2.7568156719207764, 19.75681495666504]),
                "log_prob": np.array([-10.006816, -2.7568157, -19.756815], "<f4"),
                "p_value": np.array([0.5, 0.9, 0.05]),
                "q_value": np.array([0.75, 0.9, 0.15000000000000002]),
                "is_anomaly": np.array([False, False, True]),
                "calibration": np.array(described("judged").decode()),
            },
            NPZ,
            x_model="judged",
            x_model_version="3",
            x_calibration=described("judged").decode(),
        ),
        headers={"Accept": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "npz without calibration",
        "score",
        {"model": "line", "x": [[0, 0, 0]]},
        ok(
            {
                "score": np.array([2.7568156719207764]),
                "log_prob": np.array([-2.7568157], "<f4"),
            },
            NPZ,
            x_model="line",
            x_model_version="3",
        ),
        headers={"Accept": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "npy outside the support",
        "score",
        {"model": "judged_bounds", "x": [[2, 0.5]]},
        ok(
            npy([np.inf], "<f8"),
            NPY,
            x_model="judged_bounds",
            x_model_version="3",
            x_calibration=described("judged_bounds").decode(),
            x_non_finite="1",
            x_failures="1",
            x_failed_rows="0",
        ),
        headers={"Accept": NPY},
        v2=NotInV2("a tensor alone has no names"),
    ),
    Case(
        "a picture in",
        "score",
        picture([[0, 1], [2, 3]]),
        _ok(
            "judged_grey",
            b'"score":[-22.04307287743027],"log_prob":[-5.425754],"p_value":[1.0],"is_anomaly":[false]',
            0.05,
        ),
        query={"model": "judged_grey", "alpha": 0.05},
        headers={"Content-Type": PNG},
        v2=_NO_PICTURES,
    ),
    _case(
        "no picture out",
        {"x": _ROWS},
        problem(
            "not_acceptable",
            "Accept: this call answers with application/json or application/x-npy or application/x-npz, got 'image/png'",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    _case(
        "some outputs in V2",
        {"x": _ROWS, "alpha": 0.05},
        _ok("judged", _SCORES + b',"p_value":[0.5,0.9,0.05],"is_anomaly":[false,false,true]', 0.05),
        v2=InV2(
            {
                "inputs": [{"name": "x", "shape": [3, 3], "datatype": "FP32", "data": _ROWS}],
                "parameters": {"operation": "score", "alpha": 0.05},
                "outputs": [
                    {"name": name, "parameters": {"binary_data": name != "log_prob"}}
                    for name in ("score", "log_prob", "p_value", "is_anomaly")
                ],
            }
        ),
    ),
    # Refusals
    Case(
        "another model",
        "score",
        {"model": "cone", "x": [[2, 4, 6]]},
        problem("model_not_found", "model: expected one of line, wide, got 'cone'"),
    ),
    _case(
        "no rows",
        {},
        problem("missing_field", "x: expected the rows", "/x"),
        v2=_NO_ROWS,
    ),
    Case(
        "alpha without calibration",
        "score",
        {"model": "line", "x": [[2, 4, 6]], "alpha": 0.1},
        problem(
            "not_calibrated",
            "alpha: model line has no calibration; run `pushforward calibrate line --data HELD-OUT` with rows that it never saw, or send threshold",
            "/alpha",
        ),
    ),
    Case(
        "fdr without calibration",
        "score",
        {"model": "line", "x": _ROWS, "fdr": 0.1},
        problem(
            "not_calibrated",
            "fdr: model line has no calibration; run `pushforward calibrate line --data HELD-OUT` with rows that it never saw, or send threshold",
            "/fdr",
        ),
    ),
    _case(
        "alpha below what can be promised",
        {"x": [[2, 4, 6]], "alpha": 0.01},
        problem(
            "out_of_range",
            "alpha: judged has 19 calibration rows, which promise 0.05 at least, got 0.01; that needs 99 rows: calibrate it on more",
            "/alpha",
        ),
    ),
    _case(
        "alpha and fdr",
        {"x": [[2, 4, 6]], "alpha": 0.1, "fdr": 0.1},
        problem(
            "invalid_parameter",
            "fdr: alpha is given too, expected one of alpha, fdr, threshold; leave one out",
            "/fdr",
        ),
    ),
    _case(
        "fdr and threshold",
        {"x": [[2, 4, 6]], "fdr": 0.1, "threshold": 3},
        problem(
            "invalid_parameter",
            "threshold: fdr is given too, expected one of alpha, fdr, threshold; leave one out",
            "/threshold",
        ),
    ),
    *(
        _case(
            f"{name} of {value}",
            {"x": [[2, 4, 6]], name: value},
            problem(
                "out_of_range",
                f"{name}: expected a number above 0 and below 1, got {value}",
                f"/{name}",
            ),
        )
        for name in ("alpha", "fdr")
        for value in (0, 1, -0.1, 1.5)
    ),
    _case(
        "alpha of a truth",
        {"x": [[2, 4, 6]], "alpha": True},
        problem(
            "invalid_parameter",
            "alpha: expected a number above 0 and below 1, got true or false",
            "/alpha",
        ),
    ),
    _case(
        "threshold of a truth",
        {"x": [[2, 4, 6]], "threshold": True},
        problem(
            "invalid_parameter",
            "threshold: expected a finite number, got true or false",
            "/threshold",
        ),
    ),
    _case(
        "threshold of words",
        {"x": [[2, 4, 6]], "threshold": "high"},
        problem(
            "invalid_parameter", "threshold: expected a finite number, got 'high'", "/threshold"
        ),
    ),
    _case(
        "threshold without end",
        b'{"model":"judged","x":[[2,4,6]],"threshold":1e400}',
        problem("out_of_range", "threshold: expected a finite number, got inf", "/threshold"),
    ),
    _case(
        "contamination",
        {"x": [[2, 4, 6]], "contamination": 0.1},
        problem(
            "unknown_field",
            "'contamination': no such field, expected model, x, columns, context, invalid, return_evaluations, alpha, fdr, threshold, explain, observe, scale; use 'alpha', the share of normal rows that may be flagged, fixed beforehand",
            "/contamination",
        ),
    ),
    _case(
        "contamination of rows alone",
        {"x": [[2, 4, 6]]},
        problem(
            "unknown_field",
            "'contamination': no such field, expected model, columns, context, invalid, return_evaluations, alpha, fdr, threshold, explain, observe, scale; use 'alpha', the share of normal rows that may be flagged, fixed beforehand",
            "/contamination",
        ),
        query={"contamination": 0.1},
    ),
    _case(
        "NaN refuses the request",
        b'{"model":"judged","x":[[2,4,6],[NaN,0,0]],"alpha":0.1}',
        problem(
            "non_finite",
            "x: expected finite float32 numbers, row 1 holds nan",
            errors=[("/x/1", "not finite")],
        ),
    ),
    _case(
        "another shape",
        {"x": [[2, 4]], "alpha": 0.1},
        problem("shape_mismatch", "x: expected (*, 3), got (1, 2)", "/x"),
    ),
    # What explains them
    _case(
        "explained",
        {"x": _ROWS, "alpha": 0.05, "explain": 2},
        _ok(
            "judged",
            b'"explanation":[null,null,[{"feature":"0","value":8.0,"expected":0.0,"nats":8.999999046325684},{"feature":"1","value":8.0,"expected":1.0,"nats":7.874999046325684}]],"explained_nats":[null,null,16.874998092651367],'
            + _SCORES
            + b',"p_value":[0.5,0.9,0.05],"is_anomaly":[false,false,true]',
            0.05,
        ),
    ),
    # What counts in the metrics: tests/contract/test_drift.py
    _case(
        "not observed",
        {"x": _ROWS, "alpha": 0.1, "observe": False},
        _ok("judged", _SCORES + b',"p_value":[0.5,0.9,0.05],"is_anomaly":[false,false,true]', 0.1),
    ),
    _case(
        "one row not observed",
        {"x": [[8, 8, 0]], "alpha": 0.1, "observe": False},
        _ok(
            "judged",
            b'"score":[19.75681495666504],"log_prob":[-19.756815],"p_value":[0.05],"is_anomaly":[true]',
            0.1,
        ),
    ),
    _case(
        "observed or what",
        {"x": _ROWS, "observe": 0},
        problem("invalid_parameter", "observe: expected true or false, got 0", "/observe"),
    ),
    _case(
        "explained by all features",
        {"x": [[8, 8, 0]], "fdr": 0.1, "explain": 3},
        _ok(
            "judged",
            b'"explanation":[[{"feature":"0","value":8.0,"expected":0.0,"nats":8.999999046325684},{"feature":"1","value":8.0,"expected":1.0,"nats":7.874999046325684},{"feature":"2","value":0.0,"expected":0.0,"nats":0.0}]],"explained_nats":[16.874998092651367],"score":[19.75681495666504],"log_prob":[-19.756815],"p_value":[0.05],"q_value":[0.05],"is_anomaly":[true]',
        ),
    ),
    _case(
        "nothing flagged to explain",
        {"x": [[2, 4, 6]], "threshold": 20, "explain": 1},
        _ok(
            "judged",
            b'"explanation":[null],"explained_nats":[null],"score":[10.006815910339355],"log_prob":[-10.006816],"p_value":[0.5],"is_anomaly":[false]',
        ),
    ),
    _case(
        "all explained where nothing decides",
        {"x": [[2, 4, 6], [0, 0, 0]], "explain": 1},
        _ok(
            "judged",
            b'"explanation":[[{"feature":"2","value":6.0,"expected":2.0,"nats":4.000000476837158}],[{"feature":"0","value":0.0,"expected":0.0,"nats":0.0}]],"explained_nats":[4.000000476837158,0.0],"score":[10.006815910339355,2.7568156719207764],"log_prob":[-10.006816,-2.7568157],"p_value":[0.5,0.9]',
        ),
    ),
    _case(
        "explain nothing",
        {"x": [[8, 8, 0]], "explain": None},
        _ok("judged", b'"score":[19.75681495666504],"log_prob":[-19.756815],"p_value":[0.05]'),
    ),
    _case(
        "explain in the query",
        {"x": [[8, 8, 0]]},
        _ok(
            "judged",
            b'"explanation":[[{"feature":"0","value":8.0,"expected":0.0,"nats":8.999999046325684}]],"explained_nats":[8.999999046325684],"score":[19.75681495666504],"log_prob":[-19.756815],"p_value":[0.05]',
        ),
        query={"explain": 1},
    ),
    Case(
        "explained by name",
        "score",
        {"model": "judged_table", "x": [{"speed": 8, "mass": 0.1}], "explain": 1},
        _ok(
            "judged_table",
            b'"explanation":[[{"feature":"speed","value":8.0,"expected":1.0,"nats":7.875000000000001}]],"explained_nats":[7.875000000000001],"score":[9.851627066409346],"log_prob":[-9.851627066409346],"p_value":[0.55]',
        ),
    ),
    Case(
        "explained within a class",
        "score",
        {"model": "judged_classes", "x": [[6, 6], [6, 6]], "context": [3, 0], "explain": 2},
        _ok(
            "judged_classes",
            b'"explanation":[[{"feature":"0","value":6.0,"expected":4.0,"nats":0.75},{"feature":"1","value":6.0,"expected":3.0,"nats":0.375}],[{"feature":"0","value":6.0,"expected":0.0,"nats":3.75},{"feature":"1","value":6.0,"expected":1.0,"nats":3.125}]],"explained_nats":[1.125,6.875],"score":[3.087877035140991,8.71287727355957],"log_prob":[-3.087877,-8.712877],"p_value":[0.85,0.6]',
        ),
    ),
    Case(
        "explained outside the support",
        "score",
        {"model": "judged_bounds", "x": [[5, 0.5], [5, 5]], "alpha": 0.1, "explain": 2},
        _ok(
            "judged_bounds",
            b'"explanation":[[{"feature":"0","value":5.0,"expected":0.0,"nats":null},{"feature":"1","value":0.5,"expected":0.5,"nats":0.0}],[{"feature":"0","value":5.0,"expected":5.0,"nats":0.0},{"feature":"1","value":5.0,"expected":5.0,"nats":0.0}]],"explained_nats":[null,0.0],"failures":[{"row":0,"status":"outside_support","reason":"out_of_bounds"},{"row":1,"status":"outside_support","reason":"out_of_bounds"}],"score":[null,null],"log_prob":[null,null],"p_value":[0.05,0.05],"is_anomaly":[true,true],"non_finite":[0,1]',
            0.1,
        ),
    ),
    _case(
        "explained among invalid rows",
        {
            "x": [[None, 0, 0], [8, 8, 0], [0, 0, 0]],
            "threshold": 19,
            "explain": 1,
            "invalid": "null",
        },
        _ok(
            "judged",
            b'"explanation":[null,[{"feature":"0","value":8.0,"expected":0.0,"nats":8.999999046325684}],null],"explained_nats":[null,8.999999046325684,null],"failures":[{"row":0,"status":"invalid_input","reason":"missing"}],"score":[null,19.75681495666504,2.7568156719207764],"log_prob":[null,-19.756815,-2.7568157],"p_value":[null,0.05,0.9],"is_anomaly":[false,true,false],"non_finite":[0]',
        ),
    ),
    _case(
        "invalid rows alone are not explained",
        {"x": [[None, 0, 0]], "explain": 1, "invalid": "null"},
        _ok(
            "judged",
            b'"explanation":[null],"explained_nats":[null],"failures":[{"row":0,"status":"invalid_input","reason":"missing"}],"score":[null],"log_prob":[null],"p_value":[null],"non_finite":[0]',
        ),
    ),
    Case(
        "unsolved rows are not explained",
        "score",
        {"model": "judged_flow", "x": [[3, 0, 0], [1, 8, 0]], "explain": 1},
        _ok(
            "judged_flow",
            b'"explanation":[null,[{"feature":"1","value":8.0,"expected":1.0,"nats":7.875000238418579}]],"explained_nats":[null,7.875000238418579],"failures":[{"row":0,"status":"solver_failed","reason":"budget_spent","evaluations":30}],"score":[null,7.0068159103393555],"log_prob":[null,-11.006816],"p_value":[null,0.65],"non_finite":[0]',
        ),
    ),
    Case(
        "explained ratio",
        "score",
        {"model": "contrast", "x": [[2, 4, 6]], "explain": 1},
        _ok(
            "contrast",
            b'"explanation":[[{"feature":"2","value":6.0,"expected":2.0,"nats":12.000001907348633}]],"explained_nats":[12.000001907348633],"score":[24.000000953674316],"log_prob":[-34.006817],"p_value":[0.05]',
        ),
    ),
    _case(
        "explained as npz",
        {"x": [[0, 0, 0], [8, 8, 0]], "alpha": 0.05, "explain": 1},
        ok(
            {
                "score": np.array([2.7568156719207764, 19.75681495666504]),
                "log_prob": np.array([-2.7568157, -19.756815], "<f4"),
                "p_value": np.array([0.9, 0.05]),
                "is_anomaly": np.array([False, True]),
                "calibration": np.array(described("judged", 0.05).decode()),
                "explanation": np.array(
                    '[null,[{"feature":"0","value":8.0,"expected":0.0,"nats":8.999999046325684}]]'
                ),
                "explained_nats": np.array([np.nan, 8.999999046325684]),
            },
            NPZ,
            x_model="judged",
            x_model_version="3",
            x_calibration=described("judged", 0.05).decode(),
        ),
        headers={"Accept": NPZ},
        v2=_NO_ARCHIVES,
    ),
    _case(
        "explain as npy",
        {"x": [[8, 8, 0]], "explain": 1},
        problem(
            "invalid_parameter",
            "explain: an answer as npy is one array; ask for application/json or application/x-npz",
            "/explain",
        ),
        headers={"Accept": NPY},
        v2=NotInV2("a tensor alone has no names"),
    ),
    _case(
        "explain no feature",
        {"x": _ROWS, "explain": 0},
        problem("out_of_range", "explain: expected 1 .. 3, got 0", "/explain"),
    ),
    _case(
        "explain more features than there are",
        {"x": _ROWS, "explain": 4},
        problem("out_of_range", "explain: expected 1 .. 3, got 4", "/explain"),
    ),
    _case(
        "explain half a feature",
        {"x": _ROWS, "explain": 1.5},
        problem(
            "invalid_parameter", "explain: expected a whole number 1 .. 3, got 1.5", "/explain"
        ),
    ),
    Case(
        "explain without calibration",
        "score",
        {"model": "line", "x": _ROWS, "threshold": 1, "explain": 1},
        problem(
            "not_calibrated",
            "explain: model line has no calibration, by whose quantiles features are replaced; run `pushforward calibrate line --data HELD-OUT` with rows that it never saw",
            "/explain",
        ),
    ),
    Case(
        "explain pictures",
        "score",
        {"model": "judged_grey", "x": [[[[0, 0], [0, 0]]]], "explain": 1},
        problem(
            "invalid_parameter",
            "explain: the rows of judged_grey are pictures, which a heat map explains: leave explain out and send Accept: image/png",
            "/explain",
        ),
    ),
    _case(
        "as many rows are explained as fit",
        {"x": [[8, 8, 0], [8, 8, 0], [0, 0, 0]], "alpha": 0.05, "explain": 1},
        _ok(
            "judged",
            b'"explanation":[[{"feature":"0","value":8.0,"expected":0.0,"nats":8.999999046325684}],[{"feature":"0","value":8.0,"expected":0.0,"nats":8.999999046325684}],null],"explained_nats":[8.999999046325684,8.999999046325684,null],"score":[19.75681495666504,19.75681495666504,2.7568156719207764],"log_prob":[-19.756815,-19.756815,-2.7568157],"p_value":[0.05,0.05,0.9],"is_anomaly":[true,true,false]',
            0.05,
        ),
        settings={"max_request_rows": 100},
    ),
    _case(
        "more flagged rows than can be explained",
        {"x": [[8, 8, 0], [8, 8, 0], [8, 8, 0]], "alpha": 0.05, "explain": 1},
        problem(
            "too_large",
            "explain: 3 rows of 3 features take 144 rows to explain, expected at most 100; 2 of them fit: send fewer, or leave explain out",
        ),
        settings={"max_request_rows": 100},
    ),
    _case(
        "more rows than can be explained",
        {"x": [[0, 0, 0], [0, 0, 0], [0, 0, 0]], "explain": 1},
        problem(
            "too_large",
            "explain: 3 rows of 3 features take 144 rows to explain, expected at most 100; 2 of them fit: send fewer, or leave explain out",
        ),
        settings={"max_request_rows": 100},
    ),
    _case(
        "no row can be explained",
        {"x": [[0, 0, 0]], "threshold": 100, "explain": 1},
        problem(
            "too_large",
            "explain: 1 rows of 3 features take 48 rows to explain, expected at most 40; not one fits: leave explain out, or serve with a larger max_request_rows",
        ),
        settings={"max_request_rows": 40},
    ),
    # Heat maps
    Case(
        "a heat map",
        "score",
        {"model": "judged_grey", "x": [[[[0, 1], [2, 3]]]], "alpha": 0.05},
        ok(
            [[[216, 233, 242], [166, 207, 228]], [[55, 130, 187], [5, 48, 97]]],
            PNG,
            x_model="judged_grey",
            x_model_version="3",
            x_heat_map_scale="0.7425",
            x_calibration=described("judged_grey", 0.05).decode(),
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "heat maps in a grid",
        "score",
        {
            "model": "judged_grey",
            "x": [[[[0, 0], [0, 0]]], [[[0, 0], [0, 255]]], [[[300, 0], [0, 0]]]],
            "scale": 2,
        },
        ok(
            _GRID_OF_MAPS,
            PNG,
            x_model="judged_grey",
            x_model_version="3",
            x_heat_map_scale="0.12125",
            x_calibration=described("judged_grey").decode(),
            x_non_finite="2",
            x_failures="2",
            x_failed_rows="1,2",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "the heat map of a picture",
        "score",
        picture([[0, 1], [2, 3]]),
        ok(
            [[[216, 233, 242], [166, 207, 228]], [[55, 130, 187], [5, 48, 97]]],
            PNG,
            x_model="judged_grey",
            x_model_version="3",
            x_heat_map_scale="0.7425",
            x_calibration=described("judged_grey").decode(),
        ),
        query={"model": "judged_grey"},
        headers={"Content-Type": PNG, "Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "heat maps of invalid rows alone",
        "score",
        {"model": "judged_grey", "x": [[[[0, None], [0, 0]]]], "invalid": "null"},
        ok(
            [[[0, 0, 0], [255, 255, 255]], [[255, 255, 255], [0, 0, 0]]],
            PNG,
            x_model="judged_grey",
            x_model_version="3",
            x_heat_map_scale="0",
            x_calibration=described("judged_grey").decode(),
            x_non_finite="1",
            x_failures="1",
            x_failed_rows="0",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "a heat map without gradients",
        "score",
        {"model": "grey", "x": [[[[0, 1], [2, 3]]]]},
        problem(
            "not_acceptable",
            "Accept: there are no gradients of grey here, which a heat map shows; ask for application/json",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "explain beside a heat map",
        "score",
        {"model": "judged_grey", "x": [[[[0, 1], [2, 3]]]], "explain": 2},
        problem(
            "invalid_parameter",
            "explain: the rows of judged_grey are pictures, which a heat map explains: leave explain out and send Accept: image/png",
            "/explain",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "a scale without a picture",
        "score",
        {"model": "judged_grey", "x": [[[[0, 1], [2, 3]]]], "scale": 2},
        problem(
            "invalid_parameter", "scale: only pictures have one, send Accept: image/png", "/scale"
        ),
        v2=_NO_PICTURES,
    ),
    Case(
        "a heat map that would be too large",
        "score",
        {"model": "judged_grey", "x": [[[[0, 1], [2, 3]]]] * 7, "scale": 16},
        problem(
            "too_large",
            "answer: expected at most 20000 bytes, 7 rows take up to 21504 as image/png; ask for 6 at most",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
]
