"""What simpler detectors reach on the same split: a flow is worth its cost only above them."""

import numpy as np

from models.datasets import Dataset, Split
from models.datasets.dataset import optional_package
from models.training.evaluate import Floats, area_under_roc

_MIXTURE_COMPONENTS = 16
_SEED = 0


def baseline_aurocs(parts: Split) -> dict[str, float]:
    """AUROC of a Gaussian, a mixture of 16 Gaussians and an isolation forest.

    All see the standardised training rows and rank the test rows, as the flow does; empty where
    no anomalies are marked.

    Raises:
        DatasetError: if scikit-learn is missing.
    """
    mixture = optional_package("sklearn.mixture", needed_for="baselines")
    ensemble = optional_package("sklearn.ensemble", needed_for="baselines")
    mean, std = parts.train.x.mean(0), parts.train.x.std(0)

    def standardised(data: Dataset) -> Floats:
        return np.asarray((data.x - mean) / std, dtype=np.float64)

    is_anomaly = parts.test.anomaly
    if is_anomaly is None:
        return {}
    detectors = {
        "Gaussian": mixture.GaussianMixture(1, random_state=_SEED),
        f"{_MIXTURE_COMPONENTS} Gaussians": mixture.GaussianMixture(
            _MIXTURE_COMPONENTS, random_state=_SEED
        ),
        "isolation forest": ensemble.IsolationForest(random_state=_SEED),
    }
    found = {}
    for name, detector in detectors.items():
        scores = -detector.fit(standardised(parts.train)).score_samples(standardised(parts.test))
        found[name] = area_under_roc(scores[~is_anomaly], scores[is_anomaly])
    return found
