"""`examples/dask_rows.py`: frames in partitions."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from examples import dask_rows
from pushforward.batch import Scorer
from tests.clusters.rows import ALPHA, make_rows, read_rows


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of Dask, by pandas 3.1
def test_partitions_have_the_rows_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(tmp_path, "moons", 6_000, files=3)
    out = tmp_path / "out"
    paths = []

    def scorer(model: Path, *arguments: Any, **named: Any) -> Scorer:
        paths.append(model)
        return Scorer(model, *arguments, **named)

    # Workers may run in another folder.
    monkeypatch.chdir(rows.model.parent)
    monkeypatch.setattr(dask_rows, "Scorer", scorer)
    dask_rows.score(rows.model.name, rows.pattern, str(out), keep=["id"], alpha=ALPHA)
    assert paths == [rows.model.resolve()]
    assert len([*out.glob("*.parquet")]) == 3
    got, expected = read_rows(out), rows.expected
    # A frame of pandas has one word for null and for what is no number.
    told = pc.replace_substring(expected.column("status"), ": nan", ": missing")
    expected = expected.set_column(5, "status", told).combine_chunks()
    assert got.cast(pa.schema(expected.schema)).equals(expected)
