"""`examples/spark.py` on a local Spark of two cores, where there is one."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.rows import ALPHA, ScoredRows, make_rows, read_rows

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("pyspark", reason="needs pyspark, 400 MB: pip install pyspark")
pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
    pytest.mark.filterwarnings("ignore"),  # those of pyspark
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> ScoredRows:
    return make_rows(tmp_path_factory.mktemp("rows"), "magic", 30_000, files=3)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
        yield session
        session.stop()


def test_map_in_arrow_has_the_rows_of_the_command(
    rows: ScoredRows, spark: Any, tmp_path: Path
) -> None:
    from examples.spark import score_rows

    frame = spark.read.parquet(*map(str, rows.files))
    scored = score_rows(frame, str(rows.model), keep=["id"], alpha=ALPHA)
    scored.write.parquet(str(tmp_path / "out"))
    assert read_rows(tmp_path / "out").equals(rows.expected.combine_chunks())


def test_map_in_pandas_takes_a_scorer_too(rows: ScoredRows, spark: Any) -> None:
    from pushforward.batch import Scorer

    scorer = Scorer(rows.model, "log_prob", keep=["id"], instances=1)
    frame = spark.read.parquet(str(rows.files[0]))
    schema = "id long, log_prob float, status string"
    scored = frame.mapInPandas(scorer.map_in_pandas, schema).orderBy("id").toPandas()
    expected = rows.expected.slice(0, len(scored)).to_pandas()
    assert scored["log_prob"].equals(expected["log_prob"])


def test_columns_have_their_numbers(rows: ScoredRows, spark: Any) -> None:
    from examples.spark import score_columns

    frame = spark.read.parquet(str(rows.files[0]))
    columns = [name for name in frame.columns if name != "id"]
    found = frame.select("id", score_columns(str(rows.model), columns, alpha=ALPHA).alias("found"))
    scored = found.select("id", "found.*").orderBy("id").toPandas()
    expected = rows.expected.slice(0, len(scored)).to_pandas()
    for name in ("score", "log_prob"):
        assert scored[name].equals(expected[name]), name
    assert (scored["status"] == expected["status"].str.replace("missing", "nan")).all()


def test_a_logged_model_is_a_function_of_columns(
    rows: ScoredRows, spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    from pushforward.mlflow import log_model

    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run():
        logged = log_model(rows.model, operation="score", alpha=ALPHA)
    function = mlflow.pyfunc.spark_udf(spark, logged.model_uri, env_manager="local")
    frame = spark.read.parquet(str(rows.files[0]))
    found = frame.withColumn("found", function()).select("id", "found.*")
    scored = found.orderBy("id").toPandas()
    expected = rows.expected.slice(0, len(scored)).to_pandas()
    for name in ("score", "log_prob", "p_value"):
        assert scored[name].equals(expected[name]), name
