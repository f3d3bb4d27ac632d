"""AUROC, AP and TPR of flows beside other detectors: tables, and images in both directions."""

from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from benchmarks.scoring.flows import TrainedFlow, read_rows, scores_by_statistic
from benchmarks.scoring.measures import Measures, halves, measure
from benchmarks.scoring.train import RUNS

Array: TypeAlias = NDArray[Any]

IMAGES = {"fashion": "mnist", "mnist": "fashion"}
NOISE_ROWS = 2_000


class Detected(TypedDict):
    """One detector on one set of anomalies."""

    data: str
    anomalies: str
    detector: str
    rows: tuple[int, int, int]
    measures: Measures


def detect_table(name: str) -> list[Detected]:
    """Flow and peers on a table's anomalies."""
    normal, anomalous = read_rows(name, "normal.csv"), read_rows(name, "anomalies.csv")
    first, second = halves(len(normal))
    flow = TrainedFlow(name)
    sets = {"calibration": normal[first], "normal": normal[second], "anomalies": anomalous}
    scored = scores_by_statistic({key: flow.evidence(rows) for key, rows in sets.items()})
    named = {f"flow, {statistic}": scores for statistic, scores in scored.items()}
    named |= _peer_scores(name, first, second)
    return [_detected(name, "anomalies", detector, scores) for detector, scores in named.items()]


def detect_images(name: str) -> list[Detected]:
    """Every statistic on every set of odd images, and a Gaussian over the pixels."""
    normal, other = read_rows(name, "normal.npy"), read_rows(IMAGES[name], "normal.npy")
    first, second = halves(len(normal))
    sets = {"calibration": normal[first], "normal": normal[second], IMAGES[name]: other}
    sets |= odd_images(normal[second])
    flow, background = TrainedFlow(name), TrainedFlow("background")
    evidence = {key: flow.evidence(rows, background) for key, rows in sets.items()}
    scored = scores_by_statistic(evidence)
    found = [
        _detected(name, anomalies, f"flow, {statistic}", scores)
        for anomalies in sets
        if anomalies not in ("calibration", "normal")
        for statistic, scores in scored.items()
    ]
    with np.load(RUNS / name / "peers.npz") as peers:
        gaussian = {
            "calibration": peers["Gaussian.normal"][first],
            "normal": peers["Gaussian.normal"][second],
            IMAGES[name]: peers["Gaussian.other"],
        }
    return [*found, _detected(name, IMAGES[name], "Gaussian over pixels", gaussian)]


def odd_images(images: Array) -> dict[str, Array]:
    """Images that are none of the data, in float32."""
    random = np.random.default_rng(0)
    shape = (NOISE_ROWS, *images.shape[1:])
    grey = random.integers(0, 256, (NOISE_ROWS, 1, 1, 1))
    return {
        "noise": random.integers(0, 256, shape).astype(np.float32),
        "constant": np.broadcast_to(grey, shape).astype(np.float32),
        "upside down": np.ascontiguousarray(images[:, :, ::-1]),
        "inverted": 255 - images,
    }


def _peer_scores(name: str, first: Array, second: Array) -> dict[str, dict[str, Array]]:
    found: dict[str, dict[str, Array]] = {}
    with np.load(RUNS / name / "peers.npz") as peers:
        for key in peers.files:
            detector, _, rows = key.rpartition(".")
            found.setdefault(detector, {})[rows] = peers[key]
    for scores in found.values():
        normal = scores["normal"]
        scores["calibration"], scores["normal"] = normal[first], normal[second]
    return found


def _detected(data: str, anomalies: str, detector: str, scores: dict[str, Array]) -> Detected:
    chosen = [scores[key] for key in ("calibration", "normal", anomalies)]
    rows = (len(chosen[0]), len(chosen[1]), len(chosen[2]))
    return Detected(
        data=data, anomalies=anomalies, detector=detector, rows=rows, measures=measure(*chosen)
    )
