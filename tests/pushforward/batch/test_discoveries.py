"""q-values over parts: the same as over all rows at once."""

import numpy as np
import pyarrow as pa
import pytest

from models.scoring.conformal import q_values
from pushforward.batch.discoveries import Discoveries


@pytest.mark.parametrize("different", [1, 7, 300])
def test_parts_have_the_q_values_of_the_whole(different: int) -> None:
    rng = np.random.default_rng(different)
    p = (1 + rng.integers(0, different, 1000)) / (different + 1)
    p[::50] = np.nan
    parts = [
        pa.table(
            {
                "p_value": pa.array(part, mask=np.isnan(part)),
                "q_value": pa.nulls(len(part), pa.float64()),
                "is_anomaly": pa.nulls(len(part), pa.bool_()),
            }
        )
        for part in np.split(p, [100, 101, 700])
    ]
    discoveries = Discoveries(0.5)
    for part in parts:
        discoveries.add(part)
    decided = pa.concat_tables([discoveries.decide(part) for part in parts])
    q = q_values(p)
    assert np.array_equal(np.array(decided["q_value"].to_pylist(), float), q, equal_nan=True)
    flags = [None if np.isnan(value) else value <= 0.5 for value in q]
    assert decided["is_anomaly"].to_pylist() == flags
