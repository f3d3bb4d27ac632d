"""A service in trouble: engines that fail, queues that are full, models that leave."""

# The bytes of an answer stand on one line.

from tests.contract.case import Case, ok, problem

_LATE = {"X-Timeout-Seconds": "0.05"}


def _x(model: str, *rows: float) -> dict[str, object]:
    return {"model": model, "x": [[row, 4, 6] for row in rows]}


CASES = [
    Case(
        "engine fails",
        "encode",
        _x("failing", -1),
        problem("engine_error", "the engine failed on these rows"),
    ),
    Case(
        "engine fails on one of two rows",
        "encode",
        _x("failing", 2, -1),
        problem("engine_error", "the engine failed on these rows"),
    ),
    Case(
        "engine fails in log_prob",
        "log_prob",
        _x("failing", -1),
        problem("engine_error", "the engine failed on these rows"),
    ),
    Case(
        "engine fails in decode",
        "decode",
        {"model": "failing", "z": [[-1, 0, 0]]},
        problem("engine_error", "the engine failed on these rows"),
    ),
    Case(
        "engine does not fail",
        "encode",
        _x("failing", 2),
        ok(b'{"model":"failing","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
    ),
    Case(
        "engine fails while its version is replaced",
        "encode",
        _x("replaced_in_call", -1),
        problem("engine_error", "the engine failed on these rows"),
    ),
    Case(
        "version is replaced while it computes",
        "encode",
        _x("replaced_in_call", 2),
        ok(b'{"model":"replaced_in_call","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
    ),
    Case(
        "engine is lost",
        "encode",
        _x("lost", -1),
        problem("engine_error", "the engine was lost"),
    ),
    Case(
        "engine fails while its queue is full",
        "encode",
        _x("failing_when_full", -1),
        problem("engine_error", "the engine failed on these rows"),
    ),
    Case(
        "engine has no memory",
        "encode",
        _x("no_memory", 2),
        problem("not_ready", "the device has too little memory now", retry_after="1"),
    ),
    Case(
        "engine gives too few rows",
        "encode",
        _x("wrong_shape", 2, 4),
        problem("engine_error", "the engine failed on these rows"),
    ),
    Case(
        "queue is full",
        "encode",
        _x("full", 2),
        problem("overloaded", "4 of at most 4 rows wait, 1 more do not fit", retry_after="1"),
    ),
    Case(
        "queue is full for log_prob",
        "log_prob",
        _x("full", 2),
        problem("overloaded", "4 of at most 4 rows wait, 1 more do not fit", retry_after="1"),
    ),
    Case(
        "queue is full for decode",
        "decode",
        {"model": "full", "z": [[1, 2, 3]]},
        problem("overloaded", "4 of at most 4 rows wait, 1 more do not fit", retry_after="1"),
    ),
    Case(
        "queue is full for sample",
        "sample",
        {"model": "full", "seed": 7},
        problem("overloaded", "4 of at most 4 rows wait, 1 more do not fit", retry_after="1"),
    ),
    *(
        Case(
            f"queue takes too long for {operation}",
            operation,
            body,
            problem(
                "overloaded",
                "the 257 rows ahead take 2 s, longer than a queue may take",
                retry_after="3",
            ),
        )
        for operation, body in (
            ("encode", _x("behind", 2)),
            ("log_prob", _x("behind", 2)),
            ("decode", {"model": "behind", "z": [[1, 2, 3]]}),
            ("sample", {"model": "behind", "seed": 7}),
        )
    ),
    Case(
        "deadline",
        "encode",
        _x("slow", 2),
        problem("deadline_exceeded", "no answer before the deadline"),
        headers=_LATE,
    ),
    Case(
        "deadline of rows",
        "encode",
        _x("slow", 2, 3),
        problem("deadline_exceeded", "no answer before the deadline"),
        headers=_LATE,
    ),
    Case(
        "deadline of sample",
        "sample",
        {"model": "slow", "seed": 7},
        problem("deadline_exceeded", "no answer before the deadline"),
        headers=_LATE,
    ),
    Case(
        "models load",
        "encode",
        _x("loading", 2),
        problem("not_ready", "models are loading", retry_after="2"),
    ),
    Case(
        "models load for sample",
        "sample",
        {"model": "loading"},
        problem("not_ready", "models are loading", retry_after="2"),
    ),
    Case(
        "model without successor",
        "encode",
        _x("drained", 2),
        problem("not_ready", "drained.encode: not taking requests now", retry_after="1"),
    ),
    Case(
        "model with successor",
        "encode",
        _x("replaced", 2),
        ok(b'{"model":"replaced","version":"4","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
    ),
    Case(
        "rows with successor",
        "encode",
        _x("replaced", 2, 4),
        ok(
            b'{"model":"replaced","version":"4","z":[[1.0,2.0,3.0],[2.0,2.0,3.0]],"log_det":[-0.25,-0.5]}'
        ),
    ),
    Case(
        "sample with successor",
        "sample",
        {"model": "replaced", "seed": 7, "temperature": 0},
        ok(
            b'{"model":"replaced","version":"4","seed":7,"x":[[0.0,0.0,0.0]],"log_prob":[-2.7568157]}'
        ),
    ),
]
