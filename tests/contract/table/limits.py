"""What is too much: 50,000 bytes of body, 1000 rows, 20,000 bytes of answer."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

from tests.contract.case import NPY, PNG, Case, NotInV2, npy, ok, problem

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
        {"model": "crowded", "x": [[1, 2, 3]] * 5},
        problem("too_large", "expected at most 4 rows a request, got 5: send fewer"),
    ),
]
