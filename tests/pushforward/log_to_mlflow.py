"""Log models to a local store of MLflow, load them again, and print what came as JSON.

python -m tests.pushforward.log_to_mlflow FOLDER
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

# Before the import. MLflow 3 wants to be asked for its store of files.
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}

import mlflow
import pandas as pd

from pushforward.batch import Scorer
from pushforward.mlflow import log_model

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"
MOONS = ZOO / "moons"
ROWS = pd.DataFrame({"x2": [0.1, None, 0.2, -0.5], "x1": [0.5, 0.2, float("inf"), -1.0]})


def main() -> None:
    """Log, load, predict."""
    store = Path(sys.argv[1]) / "runs"
    mlflow.set_tracking_uri(store.as_uri())
    with mlflow.start_run():
        logged = log_model(MOONS, operation="score", alpha=0.05, registered_model_name="moons")
        pictures = log_model(ZOO / "digits-nice", name="digits", operation="encode")
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    registered = mlflow.pyfunc.load_model("models:/moons/1", model_config={"alpha": 0.002})
    digits = mlflow.pyfunc.load_model(pictures.model_uri)
    (requirements,) = store.rglob(f"{logged.model_id}/artifacts/requirements.txt")
    (weights,) = store.rglob(f"{logged.model_id}/artifacts/**/encode.onnx")
    direct = Scorer(MOONS, "score", alpha=0.05)(ROWS)
    rows, graph = loaded.predict(ROWS), MOONS / "encode.onnx"
    told: dict[str, Any] = {
        "inputs": logged.signature.inputs.to_dict(),
        "outputs": logged.signature.outputs.to_dict(),
        "is_equal": rows.astype({"is_anomaly": "boolean"}).equals(direct),
        "is_anomaly": rows["is_anomaly"].tolist(),
        "status": rows["status"].tolist(),
        "flagged": [int(each.predict(ROWS)["is_anomaly"].sum()) for each in (loaded, registered)],
        "requirements": requirements.read_text().splitlines(),
        "is_copied": weights.read_bytes() == graph.read_bytes(),
        "picture": pictures.signature.inputs.to_dict(),
        "latents": len(digits.predict(digits.input_example).columns),
        "refused": [],
    }
    for operation, fields in (("sample", {"seed": 1}), ("score", {"beta": 1})):
        try:
            log_model(MOONS, operation=operation, **fields)
        except ValueError as error:
            told["refused"].append(str(error))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
