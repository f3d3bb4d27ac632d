"""Scores of other detectors on the same rows.

    python -m venv runs/pyod
    runs/pyod/bin/pip install pyod rdata scikit-learn pandas
    runs/pyod/bin/python -m benchmarks.scoring.peers [NAME ...]

It needs nothing of this project. All see the standardised training rows; scikit-learn's and PyOD's
default settings but for the seed. Higher is more anomalous, as PyOD has it. ECOD and COPOD of PyOD
rank the rows of a call among the training rows *and each other*, so all held-out rows are scored in
one call, as users do.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from pyod.models.copod import COPOD
from pyod.models.ecod import ECOD
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture

RUNS = Path("runs/scoring")
TABLES = ("shuttle", "magic", "satellite", "penbased", "letter")
# The images and those of the other direction.
IMAGES = {"fashion": "mnist", "mnist": "fashion"}
IMAGE_ROWS = 10_000
SEED = 0


def detectors() -> dict[str, Any]:
    """Name -> detector that has `fit`, and `score_samples` or `decision_function`."""
    return {
        "Gaussian": GaussianMixture(1, random_state=SEED),
        "GMM-16": GaussianMixture(16, random_state=SEED),
        "IsolationForest": IsolationForest(random_state=SEED),
        "ECOD": ECOD(),
        "COPOD": COPOD(),
    }


def score_table(folder: Path) -> dict[str, Any]:
    """`DETECTOR.SET` -> scores, of the normal rows that were held out and of the anomalies."""
    train, normal, anomalous = (
        np.loadtxt(folder / f"{name}.csv", delimiter=",", skiprows=1)
        for name in ("train", "normal", "anomalies")
    )
    mean, std = train.mean(0), train.std(0)
    train, rows = (train - mean) / std, (np.concatenate([normal, anomalous]) - mean) / std
    found = {}
    for name, detector in detectors().items():
        scores = _score(detector.fit(train), rows)
        found[f"{name}.normal"] = scores[: len(normal)]
        found[f"{name}.anomalies"] = scores[len(normal) :]
    return found


def score_images(runs: Path, name: str) -> dict[str, Any]:
    """`Gaussian.SET` -> scores of a Gaussian over the pixels."""
    train = _pixels(runs / name / "train.npy")[:IMAGE_ROWS]
    detector = GaussianMixture(1, random_state=SEED, reg_covar=1e-3).fit(train)
    sets = {
        "normal": runs / name / "normal.npy",
        "other": runs / IMAGES[name] / "normal.npy",
    }
    return {f"Gaussian.{key}": _score(detector, _pixels(path)) for key, path in sets.items()}


def _pixels(path: Path) -> Any:
    images = np.load(path)
    return images.reshape(len(images), -1) / 255


def _score(detector: Any, rows: Any) -> Any:
    # scikit-learn's are lower for anomalies.
    if hasattr(detector, "score_samples"):
        return -detector.score_samples(rows)
    return detector.decision_function(rows)


def main() -> None:
    """Write `peers.npz` beside the data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*TABLES, *IMAGES])
    for name in parser.parse_args().names:
        found = score_images(RUNS, name) if name in IMAGES else score_table(RUNS / name)
        np.savez(RUNS / name / "peers.npz", **found)


if __name__ == "__main__":
    main()
