"""Benjamini and Hochberg over the rows of a whole file, which come in parts.

What decides is how many rows have which p-value. P-values of a calibration with n rows are
(1 + k) / (n + 1): of a file of any length few are different.
"""

from collections import Counter
from typing import Any

import numpy as np

from models.datasets.dataset import optional_package
from service.codec.tensors import Array


class Discoveries:
    """Which rows of all are anomalies: the q-values of `models.scoring.conformal.q_values`.

    Args:
        fdr: the share of false alarms among those that are.
    """

    def __init__(self, fdr: float) -> None:
        self._fdr = fdr
        self._counts: Counter[float] = Counter()

    def add(self, table: Any) -> None:
        """Count the p-values of a part; rows that have none do not count."""
        for chunk in table.column("p_value").drop_null().chunks:
            values, counts = np.unique(np.from_dlpack(chunk), return_counts=True)
            self._counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def decide(self, table: Any) -> Any:
        """Write q_value and is_anomaly into a part, once all are counted."""
        pyarrow = optional_package("pyarrow", needed_for="files", extra="files")
        compute = optional_package("pyarrow.compute", needed_for="files")
        p, q = self._values()
        place = compute.index_in(table.column("p_value"), value_set=pyarrow.array(p))
        for name, values in (("q_value", q), ("is_anomaly", q <= self._fdr)):
            column = pyarrow.array(values).take(place)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table

    def _values(self) -> tuple[Array, Array]:
        """The p-values that there are, ascending, and the q-value of each.

        The largest rank among equals counts: the others are raised more, and take the minimum.
        """
        p = np.array(sorted(self._counts))
        ranks = np.cumsum([self._counts[value] for value in p.tolist()], dtype=np.int64)
        raised = p * (ranks[-1:] / ranks)
        return p, np.minimum.accumulate(raised[::-1])[::-1]
