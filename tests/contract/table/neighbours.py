"""Healthy requests that share a batch with a case, and must not notice it."""

# The bytes of an answer stand on one line.

import json
from dataclasses import dataclass
from typing import Any

from tests.contract.backend import calibration_of
from tests.contract.case import Case, ExpectedResponse, ok, problem


@dataclass(frozen=True)
class Neighbour:
    """A request and its answer."""

    operation: str
    body: dict[str, Any]
    answer: ExpectedResponse

    def case_beside(self, case: Case) -> Case:
        """The request as a case of the same server."""
        keys = case.settings.get("api_keys", ())
        headers = {"X-API-Key": keys[0]} if keys else {}
        return Case("neighbour", self.operation, self.body, self.answer, headers=headers)


def _pair(operation: str, *pairs: tuple[dict[str, Any], bytes]) -> list[Neighbour]:
    return [Neighbour(operation, body, ok(answer)) for body, answer in pairs]


def described(name: str, alpha: float | None = None, label: int | None = None) -> bytes:
    """What an answer says of the calibration of a model."""
    calibration = calibration_of(name)
    assert calibration is not None
    return json.dumps(calibration.describe(alpha, label), separators=(",", ":")).encode()


LOST = problem("engine_error", "the engine was lost")
NEIGHBOURS = {
    ("log_prob", "line"): _pair(
        "log_prob",
        (
            {"model": "line", "x": [[8, 0, 2]]},
            b'{"model":"line","version":"3","log_prob":[-12.256816]}',
        ),
        (
            {"model": "line", "x": [[-2, 1, 0]]},
            b'{"model":"line","version":"3","log_prob":[-3.1318157]}',
        ),
    ),
    ("log_prob", "twofold@3"): _pair(
        "log_prob",
        (
            {"model": "twofold", "x": [[8, 0, 2]]},
            b'{"model":"twofold","version":"4","log_prob":[-13.256816]}',
        ),
        (
            {"model": "twofold@4", "x": [[-2, 1, 0]]},
            b'{"model":"twofold","version":"4","log_prob":[-2.8818157]}',
        ),
    ),
    ("log_prob", "wide"): _pair(
        "log_prob",
        (
            {"model": "wide", "x": [[8, 2]]},
            b'{"model":"wide","version":"3","log_prob":[-11.337877066409344]}',
        ),
        (
            {"model": "wide", "x": [[-2, 1]]},
            b'{"model":"wide","version":"3","log_prob":[-2.2128770664093453]}',
        ),
    ),
    ("log_prob", "grey"): _pair(
        "log_prob",
        (
            {"model": "grey", "x": [[[[8, 2], [1, 0]]]]},
            b'{"model":"grey","version":"3","log_prob":[-13.300755],"bits_per_dim":[4.797233]}',
        ),
        (
            {"model": "grey", "x": [[[[4, 2], [0, 0]]]]},
            b'{"model":"grey","version":"3","log_prob":[-6.675754],"bits_per_dim":[2.4077692]}',
        ),
    ),
    ("log_prob", "bounded"): _pair(
        "log_prob",
        (
            {"model": "bounded", "x": [[0.5, 1]]},
            b'{"model":"bounded","version":"3","log_prob":[-2.056627]}',
        ),
        (
            {"model": "bounded", "x": [[0.25, 0]]},
            b'{"model":"bounded","version":"3","log_prob":[-1.8769395]}',
        ),
    ),
    ("log_prob", "steered"): _pair(
        "log_prob",
        (
            {"model": "steered", "x": [[8, 2]], "context": [[1, 1]]},
            b'{"model":"steered","version":"3","log_prob":[-5.7128773]}',
        ),
        (
            {"model": "steered", "x": [[-2, 1]], "context": [[0, 1]]},
            b'{"model":"steered","version":"3","log_prob":[-3.462877]}',
        ),
    ),
    ("log_prob", "labelled"): _pair(
        "log_prob",
        (
            {"model": "labelled", "x": [[8, 2]], "context": 1},
            b'{"model":"labelled","version":"3","log_prob":[-7.0878773]}',
        ),
        (
            {"model": "labelled", "x": [[-2, 1]], "context": [[2, 0, 0, 0]]},
            b'{"model":"labelled","version":"3","log_prob":[-3.462877]}',
        ),
    ),
    ("log_prob", "flow"): _pair(
        "log_prob",
        (
            {"model": "flow", "x": [[8, 0, 2]]},
            b'{"model":"flow","version":"3","log_prob":[-12.256816]}',
        ),
        (
            {"model": "flow", "x": [[-2, 1, 0]]},
            b'{"model":"flow","version":"3","log_prob":[-3.1318157]}',
        ),
    ),
    ("log_prob", "failing"): _pair(
        "log_prob",
        (
            {"model": "failing", "x": [[8, 0, 2]]},
            b'{"model":"failing","version":"3","log_prob":[-12.256816]}',
        ),
        (
            {"model": "failing", "x": [[-2, 1, 0]]},
            b'{"model":"failing","version":"3","log_prob":[-3.1318157]}',
        ),
    ),
    ("score", "line"): _pair(
        "score",
        (
            {"model": "line", "x": [[8, 0, 2]]},
            b'{"model":"line","version":"3","p_value":null,"calibration":null,'
            b'"score":[12.256815910339355],"log_prob":[-12.256816]}',
        ),
        (
            {"model": "line", "x": [[-2, 1, 0]], "threshold": 3},
            b'{"model":"line","version":"3","p_value":null,"calibration":null,'
            b'"score":[3.1318156719207764],"log_prob":[-3.1318157],"is_anomaly":[true]}',
        ),
    ),
    ("score", "judged"): _pair(
        "score",
        (
            {"model": "judged", "x": [[8, 0, 2]], "alpha": 0.1},
            b'{"model":"judged","version":"3","calibration":%b,'
            b'"score":[12.256815910339355],"log_prob":[-12.256816],"p_value":[0.4],'
            b'"is_anomaly":[false]}' % described("judged", 0.1),
        ),
        (
            {"model": "judged", "x": [[-2, 1, 0]], "fdr": 0.1},
            b'{"model":"judged","version":"3","calibration":%b,'
            b'"score":[3.1318156719207764],"log_prob":[-3.1318157],"p_value":[0.85],'
            b'"q_value":[0.85],"is_anomaly":[false]}' % described("judged"),
        ),
    ),
    ("encode", "line"): _pair(
        "encode",
        (
            {"model": "line", "x": [[8, 0, 2]]},
            b'{"model":"line","version":"3","z":[[4.0,0.0,1.0]],"log_det":[-1.0]}',
        ),
        (
            {"model": "line", "x": [[-2, 1, 0]]},
            b'{"model":"line","version":"3","z":[[-1.0,0.5,0.0]],"log_det":[0.25]}',
        ),
    ),
    ("encode", "wide"): _pair(
        "encode",
        (
            {"model": "wide", "x": [[8, 2]]},
            b'{"model":"wide","version":"3","z":[[4.0,1.0]],"log_det":[-1.0]}',
        ),
        (
            {"model": "wide", "x": [[-2, 1]]},
            b'{"model":"wide","version":"3","z":[[-1.0,0.5]],"log_det":[0.25]}',
        ),
    ),
    ("encode", "grey"): _pair(
        "encode",
        (
            {"model": "grey", "x": [[[[8, 2], [1, 0]]]]},
            b'{"model":"grey","version":"3","z":[[4.0,1.0,0.5,0.0]],"log_det":[-1.0]}',
        ),
        (
            {"model": "grey", "x": [[[[4, 2], [0, 0]]]]},
            b'{"model":"grey","version":"3","z":[[2.0,1.0,0.0,0.0]],"log_det":[-0.5]}',
        ),
    ),
    ("encode", "bounded"): _pair(
        "encode",
        (
            {"model": "bounded", "x": [[0.5, 1]]},
            b'{"model":"bounded","version":"3","z":[[0.25,0.5]],"log_det":[-0.0625]}',
        ),
        (
            {"model": "bounded", "x": [[0.25, 0]]},
            b'{"model":"bounded","version":"3","z":[[0.125,0.0]],"log_det":[-0.03125]}',
        ),
    ),
    ("encode", "steered"): _pair(
        "encode",
        (
            {"model": "steered", "x": [[8, 2]], "context": [[1, 1]]},
            b'{"model":"steered","version":"3","z":[[2.5,-0.5]],"log_det":[-0.625]}',
        ),
        (
            {"model": "steered", "x": [[-2, 1]], "context": [[0, 1]]},
            b'{"model":"steered","version":"3","z":[[-2.0,-0.5]],"log_det":[0.5]}',
        ),
    ),
    ("encode", "labelled"): _pair(
        "encode",
        (
            {"model": "labelled", "x": [[8, 2]], "context": 1},
            b'{"model":"labelled","version":"3","z":[[3.0,0.0]],"log_det":[-0.75]}',
        ),
        (
            {"model": "labelled", "x": [[-2, 1]], "context": [[2, 0, 0, 0]]},
            b'{"model":"labelled","version":"3","z":[[-2.0,-0.5]],"log_det":[0.5]}',
        ),
    ),
    ("encode", "flow"): _pair(
        "encode",
        (
            {"model": "flow", "x": [[8, 0, 2]]},
            b'{"model":"flow","version":"3","z":[[4.0,0.0,1.0]],"log_det":[-1.0]}',
        ),
        (
            {"model": "flow", "x": [[-2, 1, 0]]},
            b'{"model":"flow","version":"3","z":[[-1.0,0.5,0.0]],"log_det":[0.25]}',
        ),
    ),
    ("encode", "failing"): _pair(
        "encode",
        (
            {"model": "failing", "x": [[8, 0, 2]]},
            b'{"model":"failing","version":"3","z":[[4.0,0.0,1.0]],"log_det":[-1.0]}',
        ),
        (
            {"model": "failing", "x": [[-2, 1, 0]]},
            b'{"model":"failing","version":"3","z":[[-1.0,0.5,0.0]],"log_det":[0.25]}',
        ),
    ),
    ("encode", "replaced_in_call"): _pair(
        "encode",
        (
            {"model": "replaced_in_call", "x": [[8, 0, 2]]},
            b'{"model":"replaced_in_call","version":"3","z":[[4.0,0.0,1.0]],"log_det":[-1.0]}',
        ),
        (
            {"model": "replaced_in_call", "x": [[-2, 1, 0]]},
            b'{"model":"replaced_in_call","version":"3","z":[[-1.0,0.5,0.0]],"log_det":[0.25]}',
        ),
    ),
    ("encode", "failing_when_full"): _pair(
        "encode",
        (
            {"model": "failing_when_full", "x": [[8, 0, 2]]},
            b'{"model":"failing_when_full","version":"3","z":[[4.0,0.0,1.0]],"log_det":[-1.0]}',
        ),
        (
            {"model": "failing_when_full", "x": [[-2, 1, 0]]},
            b'{"model":"failing_when_full","version":"3","z":[[-1.0,0.5,0.0]],"log_det":[0.25]}',
        ),
    ),
    # Where the engine is lost, they are too.
    ("encode", "lost"): [
        Neighbour("encode", {"model": "lost", "x": [[x, 0, 2]]}, LOST) for x in (8, -2)
    ],
    ("decode", "line"): _pair(
        "decode",
        (
            {"model": "line", "z": [[4, 0, 1]]},
            b'{"model":"line","version":"3","x":[[8.0,0.0,2.0]],"log_det":[1.0]}',
        ),
        (
            {"model": "line", "z": [[-2, 1, 0]]},
            b'{"model":"line","version":"3","x":[[-4.0,2.0,0.0]],"log_det":[-0.5]}',
        ),
    ),
    ("decode", "wide"): _pair(
        "decode",
        (
            {"model": "wide", "z": [[4, 1]]},
            b'{"model":"wide","version":"3","x":[[8.0,2.0]],"log_det":[1.0]}',
        ),
        (
            {"model": "wide", "z": [[-2, 1]]},
            b'{"model":"wide","version":"3","x":[[-4.0,2.0]],"log_det":[-0.5]}',
        ),
    ),
    ("decode", "grey"): _pair(
        "decode",
        (
            {"model": "grey", "z": [[4, 1, 0, 0]]},
            b'{"model":"grey","version":"3","x":[[[[8.0,2.0],[0.0,0.0]]]],"log_det":[1.0]}',
        ),
        (
            {"model": "grey", "z": [[-2, 1, 3, 2]]},
            b'{"model":"grey","version":"3","x":[[[[-4.0,2.0],[6.0,4.0]]]],"log_det":[-0.5]}',
        ),
    ),
    ("decode", "steered"): _pair(
        "decode",
        (
            {"model": "steered", "z": [[4, 1]], "context": [[1, 1]]},
            b'{"model":"steered","version":"3","x":[[11.0,5.0]],"log_det":[1.0]}',
        ),
        (
            {"model": "steered", "z": [[-2, 1]], "context": [[0, 1]]},
            b'{"model":"steered","version":"3","x":[[-2.0,4.0]],"log_det":[-0.5]}',
        ),
    ),
    ("decode", "flow"): _pair(
        "decode",
        (
            {"model": "flow", "z": [[4, 0, 1]]},
            b'{"model":"flow","version":"3","x":[[8.0,0.0,2.0]],"log_det":[1.0]}',
        ),
        (
            {"model": "flow", "z": [[-2, 1, 0]]},
            b'{"model":"flow","version":"3","x":[[-4.0,2.0,0.0]],"log_det":[-0.5]}',
        ),
    ),
    ("decode", "failing"): _pair(
        "decode",
        (
            {"model": "failing", "z": [[4, 0, 1]]},
            b'{"model":"failing","version":"3","x":[[8.0,0.0,2.0]],"log_det":[1.0]}',
        ),
        (
            {"model": "failing", "z": [[-2, 1, 0]]},
            b'{"model":"failing","version":"3","x":[[-4.0,2.0,0.0]],"log_det":[-0.5]}',
        ),
    ),
    ("sample", "line"): _pair(
        "sample",
        (
            {"model": "line", "seed": 1, "temperature": 0},
            b'{"model":"line","version":"3","seed":1,"x":[[0.0,0.0,0.0]],"log_prob":[-2.7568157]}',
        ),
        (
            {"model": "line", "seed": 2, "first_row": 1},
            b'{"model":"line","version":"3","seed":2,"x":[[-2.5825944,1.3229839,-0.13102837]],"log_prob":[-3.4886475]}',
        ),
    ),
    ("sample", "wide"): _pair(
        "sample",
        (
            {"model": "wide", "seed": 1, "temperature": 0},
            b'{"model":"wide","version":"3","seed":1,"x":[[0.0,0.0]],"log_prob":[-1.8378770664093453]}',
        ),
        (
            {"model": "wide", "seed": 2},
            b'{"model":"wide","version":"3","seed":2,"x":[[-2.1341243458683476,2.3737014827235394]],"log_prob":[-2.8447297047647937]}',
        ),
    ),
    ("sample", "grey"): _pair(
        "sample",
        (
            {"model": "grey", "seed": 1, "temperature": 0},
            b'{"model":"grey","version":"3","seed":1,"x":[[[[0.0,0.0],[0.0,0.0]]]],"log_prob":[-3.675754]}',
        ),
        (
            {"model": "grey", "seed": 2},
            b'{"model":"grey","version":"3","seed":2,"x":[[[[-2.1341243,2.3737016],[0.19821562,-2.5825944]]]],"log_prob":[-5.521242]}',
        ),
    ),
    ("sample", "steered"): _pair(
        "sample",
        (
            {"model": "steered", "seed": 1, "temperature": 0, "context": [[1, 1]]},
            b'{"model":"steered","version":"3","seed":1,"x":[[3.0,3.0]],"log_prob":[-1.837877]}',
        ),
        (
            {"model": "steered", "seed": 2, "context": [[1, 1]]},
            b'{"model":"steered","version":"3","seed":2,"x":[[0.8658757,5.3737016]],"log_prob":[-2.8447297]}',
        ),
    ),
    ("sample", "flow"): _pair(
        "sample",
        (
            {"model": "flow", "seed": 1, "temperature": 0},
            b'{"model":"flow","version":"3","seed":1,"x":[[0.0,0.0,0.0]],"log_prob":[-2.7568157]}',
        ),
        (
            {"model": "flow", "seed": 2},
            b'{"model":"flow","version":"3","seed":2,"x":[[-2.1341243,2.3737016,0.19821562]],"log_prob":[-3.7685795]}',
        ),
    ),
}
