"""Several live versions of a model: by name, by NAME@VERSION, and one that is retired meanwhile."""

# The bytes of an answer stand on one line.

from tests.contract.case import NPY, Case, NotInV2, npy, ok, problem

_NOT_LIVE = "model: version {!r:.20} of twofold is not live; live: 3, 4, 103"
_GONE = problem("model_not_found", "model: version '3' of retired is not live; live: 4")


def _x(model: str) -> dict[str, object]:
    return {"model": model, "x": [[2, 4, 6]]}


CASES = [
    Case(
        "the default",
        "encode",
        _x("twofold"),
        ok(b'{"model":"twofold","version":"4","z":[[1.0,2.0,3.0]],"log_det":[-0.5]}'),
    ),
    *(
        Case(
            f"{version} by its number",
            "encode",
            _x(f"twofold@{version}"),
            ok(
                b'{"model":"twofold","version":"%s","z":[[1.0,2.0,3.0]],"log_det":[%s]}'
                % (version.encode(), log_det)
            ),
        )
        for version, log_det in (("3", b"-0.25"), ("4", b"-0.5"), ("103", b"-1.0"))
    ),
    Case(
        "beside other versions",
        "log_prob",
        _x("twofold@3"),
        ok(b'{"model":"twofold","version":"3","log_prob":[-10.006816]}'),
    ),
    Case(
        "decode",
        "decode",
        {"model": "twofold@3", "z": [[1, 2, 3]]},
        ok(b'{"model":"twofold","version":"3","x":[[2.0,4.0,6.0]],"log_det":[0.25]}'),
    ),
    Case(
        "sample",
        "sample",
        {"model": "twofold@3", "seed": 7},
        ok(
            b'{"model":"twofold","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606]],"log_prob":[-4.607151]}'
        ),
    ),
    Case(
        "in the query string",
        "log_prob",
        npy([[2, 4, 6]]),
        ok(b'{"model":"twofold","version":"3","log_prob":[-10.006816]}'),
        {"model": "twofold@3"},
        {"Content-Type": NPY},
    ),
    *(
        Case(
            f"{version} is not live",
            "encode",
            _x(f"twofold@{version}"),
            problem("model_not_found", _NOT_LIVE.format(version)),
        )
        for version in (
            *("2", "04", "10", "1030", "999999999", "9223372036854775808", "-3", "3.0"),
            *("latest", "all", "3,4"),
        )
    ),
    Case(
        "a number is missing",
        "encode",
        _x("twofold@"),
        problem("model_not_found", _NOT_LIVE.format("")),
        v2=NotInV2("its path has a version or none"),
    ),
    Case("retired meanwhile", "encode", _x("retired@3"), _GONE),
    Case(
        "rows of one retired meanwhile",
        "log_prob",
        {"model": "retired@3", "x": [[2, 4, 6]] * 3},
        _GONE,
    ),
    Case("sample of one retired meanwhile", "sample", {"model": "retired@3", "seed": 7}, _GONE),
]
