"""Score a frame of Spark, by `mapInArrow` or `predict_batch_udf`.

    pip install 'pushforward[onnx,files]' pyspark pandas
    spark-submit spark.py models/fraud rows scores --keep id --alpha 0.001

The model lies at the same path on every machine. Each Python process of Spark loads it once, and
Spark has one for each core: one batch at a time in each.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.functions import array
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import DoubleType, FloatType, StringType, StructField, StructType

from pushforward.batch import Scorer

# What `score_columns` gives.
SCORES = StructType(
    [
        StructField("score", DoubleType()),
        StructField("log_prob", FloatType()),
        StructField("status", StringType()),
    ]
)


def score_rows(
    frame: DataFrame, model: str, *, keep: Sequence[str] = (), **fields: Any
) -> DataFrame:
    """Score the rows of a frame by `mapInArrow`: the columns that `pushforward score` writes.

    Args:
        frame: of rows.
        model: its folder.
        keep: columns that are carried along.
        fields: of the operation, as in a request.
    """
    scorer = Scorer(Path(model).resolve(), "score", keep=keep, instances=1, **fields)
    schema = from_arrow_schema(scorer.output_schema(to_arrow_schema(frame.schema)))
    return frame.mapInArrow(scorer.map_in_arrow, schema)


def score_columns(model: str, columns: Sequence[str], **fields: Any) -> Column:
    """Score columns by `predict_batch_udf`, for `withColumn` and `select`: a struct of `SCORES`.

    Args:
        model: its folder.
        columns: those of the features, numbers, in the model's order.
        fields: of the operation, as in a request.
    """

    def load() -> Callable[[Any], dict[str, Any]]:
        scorer = Scorer(Path(model).resolve(), "score", instances=1, **fields)

        def score(x: Any) -> dict[str, Any]:
            answer = scorer({"x": x})
            return {name: answer[name] for name in SCORES.names}

        return score

    function = predict_batch_udf(
        load, return_type=SCORES, batch_size=16_384, input_tensor_shapes=[[len(columns)]]
    )
    scored: Column = function(array(*columns))
    return scored


def main() -> None:
    """Score the files that the command names."""
    parser = argparse.ArgumentParser(description="Score files of rows with Spark.")
    parser.add_argument("model", help="its folder")
    parser.add_argument("rows", help="Parquet")
    parser.add_argument("out", help="the folder to write")
    parser.add_argument("--keep", nargs="*", default=[], help="columns to carry along")
    parser.add_argument("--alpha", type=float, help="share of ordinary rows that may be flagged")
    given = parser.parse_args()
    fields = {} if given.alpha is None else {"alpha": given.alpha}
    spark = SparkSession.builder.appName("pushforward").getOrCreate()
    rows = spark.read.parquet(given.rows)
    score_rows(rows, given.model, keep=given.keep, **fields).write.parquet(given.out)


if __name__ == "__main__":
    main()
