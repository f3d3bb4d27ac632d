"""What is too much: 50,000 bytes of body, 1000 rows, 20,000 bytes of answer."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

from tests.contract.case import NPY, PNG, Case, NotInV2, npy, ok, problem

_WIDER = {"max_body_bytes": 2**26, "max_request_rows": 16_384, "max_response_bytes": 2**28}
# Rows whose text is long: read by a thread, as is a draw of many.
_LONG = ", ".join(["[2, 4, 6.%s]" % ("0" * 120)] * 9000)

CASES = [
    Case(
        "body",
        "encode",
        b" " * 50_001,
        problem(
            "too_large", "body: expected at most 50000 bytes; send the rows in several requests"
        ),
    ),
    Case(
        "body that fits",
        "encode",
        b'{"model":"line","x":[[2,4,6]]}' + b" " * 49_970,
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
        v2=NotInV2("its question is longer there"),
    ),
    Case(
        "rows",
        "encode",
        {"model": "line", "x": [[1, 2, 3]] * 1001},
        problem(
            "too_large",
            "x: expected at most 1000 rows a request, got 1001; send them in several",
            "/x",
        ),
    ),
    Case(
        "rows of npy",
        "encode",
        npy([[1, 2, 3]] * 1001),
        problem(
            "too_large",
            "x: expected at most 1000 rows a request, got 1001; send them in several",
            "/x",
        ),
        "model=line",
        {"Content-Type": NPY},
    ),
    Case(
        "rows of log_prob",
        "log_prob",
        {"model": "line", "x": [[1, 2, 3]] * 1001},
        problem(
            "too_large",
            "x: expected at most 1000 rows a request, got 1001; send them in several",
            "/x",
        ),
    ),
    Case(
        "answer",
        "encode",
        {"model": "line", "x": [[1, 2, 3]] * 334},
        problem(
            "too_large",
            "answer: expected at most 20000 bytes, 334 rows take up to 20040 as application/json; ask for 333 at most",
        ),
        v2=NotInV2("its answer is another one there"),
    ),
    Case(
        "answer of decode",
        "decode",
        {"model": "line", "z": [[1, 2, 3]] * 334},
        problem(
            "too_large",
            "answer: expected at most 20000 bytes, 334 rows take up to 20040 as application/json; ask for 333 at most",
        ),
    ),
    Case(
        "samples",
        "sample",
        {"model": "line", "num_samples": 1001},
        problem(
            "too_large", "num_samples: expected at most 1000 a request, got 1001", "/num_samples"
        ),
    ),
    Case(
        "10^12 samples",
        "sample",
        {"model": "line", "num_samples": 10**12},
        problem(
            "too_large",
            "num_samples: expected at most 1000 a request, got 1000000000000",
            "/num_samples",
        ),
    ),
    Case(
        "answer of sample",
        "sample",
        {"model": "line", "num_samples": 334},
        problem(
            "too_large",
            "answer: expected at most 20000 bytes, 334 rows take up to 20040 as application/json; ask for 333 at most",
        ),
    ),
    Case(
        "picture",
        "sample",
        {"model": "colour", "num_samples": 30, "scale": 16},
        problem(
            "too_large",
            "answer: expected at most 20000 bytes, 30 rows take up to 92160 as image/png; ask for 6 at most",
        ),
        headers={"Accept": PNG},
        v2=NotInV2("the protocol has no pictures"),
    ),
    Case(
        "rows of the queue",
        "encode",
        {"model": "full", "x": [[1, 2, 3]] * 5},
        problem("too_large", "expected at most 4 rows a request, got 5: send fewer"),
    ),
    # What is long but not too long
    Case(
        "a long body",
        "log_prob",
        b'{"model": "line", "x": [%s]}' % _LONG.encode(),
        ok(b'{"model":"line","version":"3","log_prob":[%s]}' % b",".join([b"-10.006816"] * 9000)),
        settings=_WIDER,
    ),
    Case(
        "a long body with a wrong row",
        "log_prob",
        b'{"model": "line", "x": [%s, [1, 2, 1e39]]}' % _LONG.encode(),
        problem(
            "non_finite",
            "x: expected finite float32 numbers, row 9000 holds 1e+39",
            errors=[("/x/9000", "not finite")],
        ),
        settings=_WIDER,
    ),
    Case(
        "a long body with an unknown field",
        "log_prob",
        b'{"model": "line", "y": 1, "x": [%s]}' % _LONG.encode(),
        problem(
            "unknown_field",
            "'y': no such field, expected model, x, columns, context, invalid, return_evaluations",
            "/y",
        ),
        settings=_WIDER,
    ),
    Case(
        "a long draw",
        "sample",
        {"model": "line", "num_samples": 16_000, "seed": 7, "temperature": 0},
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[%s],"log_prob":[%s]}'
            % (b",".join([b"[0.0,0.0,0.0]"] * 16_000), b",".join([b"-2.7568157"] * 16_000))
        ),
        settings=_WIDER,
    ),
    Case(
        "a long draw for a full queue",
        "sample",
        {"model": "full", "num_samples": 16_000, "seed": 7},
        problem("too_large", "expected at most 4 rows a request, got 16000: send fewer"),
        settings=_WIDER,
    ),
]
