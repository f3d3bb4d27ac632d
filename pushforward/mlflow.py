"""Models in MLflow: `log_model` puts a folder into a run and the registry, as a function of frames.

    import mlflow
    from pushforward.mlflow import log_model

    with mlflow.start_run():
        logged = log_model("models/fraud", name="fraud", operation="score", alpha=0.001)
    mlflow.pyfunc.load_model(logged.model_uri).predict(frame)

What is stored is the folder as it is and the arguments, no pickle; what is loaded again is a
`pushforward.batch.Scorer`. Needs the extras mlflow and onnx; a model without certified graphs cpu.
"""

import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema

from pushforward.batch import Scorer
from pushforward.siblings import SIBLINGS, import_sibling

# Keys of what is stored beside the arguments of `Scorer`.
_MODEL, _OPERATION = "model", "operation"


class LoadedScorer:
    """A model that was logged, as MLflow calls it."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> Any:
        """Compute the rows of a frame of pandas; a bad row is told of in `status`.

        Raises:
            ValueError: the columns are not the model's, or there are `params`: what a model is
                asked is named when it is logged, or by the `model_config` that it is loaded with.
        """
        if params:
            raise ValueError(
                f"params: expected none, got {', '.join(params)}; name it when logging"
            )
        return _with_objects(self._scorer(rows))


def log_model(
    folder: str | Path,
    *,
    name: str | None = None,
    operation: str = "log_prob",
    scorer: dict[str, Any] | None = None,
    registered_model_name: str | None = None,
    **fields: Any,
) -> Any:
    """Log a model folder as a pyfunc: its signature and example are of the model's feature names.

    Args:
        folder: of the model; copied as it is, with the model that its scores are ratios to.
        name: in MLflow; left out, that of the folder.
        operation: log_prob, score, encode or decode.
        scorer: further arguments of `Scorer`: columns, context, keep, instances.
        registered_model_name: a name in the registry.
        fields: of the operation, as in a request: alpha, threshold.

    Returns:
        MLflow's `ModelInfo`: `model_uri` is what to load.

    Raises:
        ValueError: the model cannot be loaded, or the fields are not what the operation takes.
    """
    for sibling in SIBLINGS:
        import_sibling(sibling)
    from pushforward.batch.example import example_of

    settings = {**(scorer or {}), **fields}
    example = example_of(Path(folder), operation, settings)
    answer = LoadedScorer(Scorer(folder, operation, **settings)).predict(example.frame)
    with tempfile.TemporaryDirectory() as made:
        data = Path(made) / "models"
        for model, path in example.folders.items():
            shutil.copytree(path, data / model)
        return mlflow.pyfunc.log_model(
            name=name or example.name,
            loader_module=__name__,
            data_path=str(data),
            model_config={_MODEL: example.path, _OPERATION: operation, **settings},
            signature=_signature(example.frame, answer),
            input_example=example.frame,
            pip_requirements=[_requirement(example.engine)],
            registered_model_name=registered_model_name,
        )


def _with_objects(answer: Any) -> Any:
    """Truth values as objects, None where there is none: `spark_udf` knows no missing ones."""
    truths = answer.select_dtypes("boolean")
    objects = {
        name: truths[name].astype(object).where(truths[name].notna(), None) for name in truths
    }
    return answer.assign(**objects)


def _load_pyfunc(data: str, model_config: dict[str, Any]) -> LoadedScorer:
    """What MLflow calls to load a model."""
    settings = dict(model_config)
    folder, operation = Path(data) / settings.pop(_MODEL), settings.pop(_OPERATION)
    return LoadedScorer(Scorer(folder, operation, **settings))


def _signature(rows: Any, answer: Any) -> Any:
    """The columns in, and those out: a bad row has no numbers there."""
    inferred = infer_signature(rows, answer)
    outputs = Schema(
        [
            ColSpec(column.type, column.name, required=column.name == "status")
            for column in inferred.outputs.inputs
        ]
    )
    return ModelSignature(inferred.inputs, outputs)


def _requirement(engine: str) -> str:
    """What brings an engine, of this version."""
    extra = "onnx" if engine == "onnx" else "cpu"
    return f"pushforward[mlflow,{extra}]=={metadata.version('pushforward')}"
