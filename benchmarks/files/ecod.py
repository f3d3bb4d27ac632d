"""PyOD's ECOD over the same file, in an environment that has it: python ecod.py IN OUT."""

import sys

import numpy as np
import pandas
from pyod.models.ecod import ECOD


def main(path: str, out: str) -> None:
    """Fit it on the rows, and write the score of each."""
    frame = pandas.read_parquet(path)
    detector = ECOD(n_jobs=1)
    detector.fit(frame.to_numpy())
    np.save(out, detector.decision_scores_)


if __name__ == "__main__":
    main(*sys.argv[1:])
