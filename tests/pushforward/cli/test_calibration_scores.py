"""What is calibrated: every row's score as it is served, whatever the model is conditional on."""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

import models
from models.checkpoints.facts import ModelFacts, facts_of
from models.datasets import Dataset, DatasetError
from models.flow import Flow
from models.scoring.errors import CalibrationError
from models.scoring.storage import read_calibration
from pushforward.cli.calibration import CalibrationPlan, calibrate_model, make_inputs
from pushforward.cli.evidence import OpenedModel, gather_evidence, open_model
from service.app import create_app
from service.repository import FolderRepository
from service.settings import Settings
from service.telemetry import Metrics
from tests.pushforward.cli.test_calibrate import run

ZOO = Path(__file__).resolve().parents[3] / "models" / "zoo"
PLAN = CalibrationPlan("rows")
MLP = {"kind": "mlp", "widths": [8]}
RNG = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test draws does not depend on which ran before it in its process."""
    monkeypatch.setattr(sys.modules[__name__], "RNG", np.random.default_rng(4))


def flow_of(**config: Any) -> Flow:
    torch.manual_seed(0)
    flow = models.build(
        "realnvp", {"num_layers": 2, "event_shape": [2], "conditioner": MLP, **config}
    )
    with torch.no_grad():  # as it is made it ignores its context
        for weights in flow.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return flow


def saved(flow: Flow, folder: Path) -> Path:
    models.save(flow.eval(), folder)
    return folder


class Broken:
    """An engine whose rows have the log_det that their first value says."""

    name, device, dtype = "broken", "cpu", "float32"

    def encode(self, x: np.ndarray, context: np.ndarray | None) -> tuple[np.ndarray, ...]:
        log_det = np.select([x[:, 0] > 2, x[:, 0] < -2], [np.nan, -np.inf], x[:, 0])
        return np.zeros_like(x), log_det.astype(np.float32)

    decode = generate = encode


def broken(tmp_path: Path) -> OpenedModel:
    facts: ModelFacts = facts_of(flow_of())
    return OpenedModel(tmp_path, facts, Broken(), "0" * 64)


def test_rows_without_a_score_and_outside_the_support_are_counted_and_told(tmp_path: Path) -> None:
    x = RNG.uniform(-1, 1, (40, 2))
    x[:3, 0], x[3:5, 0] = 5, -5
    model = broken(tmp_path)
    made = calibrate_model(model, make_inputs(model.facts, Dataset(name="t", x=x)), PLAN)
    checks = made.report["checks"]
    assert (checks["rows_without_score"], checks["rows_outside_support"]) == (3, 2)
    assert made.rows == 37
    assert np.isinf(made.scores).sum() == 2
    warnings = "\n".join(made.report["warnings"])
    assert "3 of 40 calibration rows have no log_prob (NaN) and were left out" in warnings
    assert "2 of 40 calibration rows lie outside the support" in warnings
    json.dumps(dict(made.report), allow_nan=False)
    x[:, 0] = 5
    with pytest.raises(CalibrationError, match="expected rows that the model gives a finite score"):
        calibrate_model(model, make_inputs(model.facts, Dataset(name="t", x=x)), PLAN)


def test_a_row_has_the_bits_that_it_has_alone() -> None:
    model = open_model(ZOO / "moons")
    x = RNG.normal(size=(1100, 2))  # several batches
    together = gather_evidence(model, x).log_prob
    alone = [gather_evidence(model, row[None]).log_prob[0] for row in x[::100]]
    assert together[::100].tolist() == alone


def write_csv(path: Path, x: np.ndarray, kinds: np.ndarray | None = None) -> Path:
    names = ["x1,x2"] if kinds is None else ["x1,x2,kind"]
    rows = (
        x.tolist() if kinds is None else [[*a, b] for a, b in zip(x.tolist(), kinds, strict=True)]
    )
    path.write_text("\n".join([*names, *(",".join(map(str, row)) for row in rows)]))
    return path


def test_classes_are_a_column_and_have_scores_of_their_own_where_there_are_enough(
    tmp_path: Path,
) -> None:
    flow = flow_of(num_classes=2)
    model = saved(flow, tmp_path / "model")
    x, labels = RNG.normal(size=(1050, 2)).round(5), np.repeat([0, 1], [1000, 50])
    data = write_csv(tmp_path / "t.csv", x, labels)
    done = run("calibrate", model, "--data", f"{data}?label=kind", "--json")
    assert done.exit_code == 0, done.output
    made = read_calibration(model)
    assert made is not None
    assert {label: len(scores) for label, scores in made.class_scores.items()} == {0: 1000}
    given = torch.eye(2, dtype=flow.dtype)[torch.from_numpy(labels)]
    exact = -flow.log_prob(torch.from_numpy(x).to(flow.dtype), given).detach().double().numpy()
    assert np.allclose(made.scores, np.sort(exact), atol=1e-4)
    assert np.allclose(made.class_scores[0], np.sort(exact[:1000]), atol=1e-4)
    done = run("calibrate", model, "--data", data)
    assert done.exit_code == 2
    assert "the model" in done.stderr


@pytest.mark.parametrize("shared", [False, True], ids=["a_row_each", "one_for_all"])
def test_numbers_come_as_a_file_of_context(tmp_path: Path, shared: bool) -> None:
    flow = flow_of(context_features=3)
    model = saved(flow, tmp_path / "model")
    x, context = RNG.normal(size=(30, 2)).round(5), RNG.normal(size=(1 if shared else 30, 3))
    np.save(tmp_path / "context.npy", context)
    data = write_csv(tmp_path / "t.csv", x)
    done = run("calibrate", model, "--data", data, "--context", tmp_path / "context.npy")
    assert done.exit_code == 0, done.output
    made = read_calibration(model)
    assert made is not None
    given = torch.from_numpy(np.broadcast_to(context, (30, 3)).copy()).to(flow.dtype)
    exact = -flow.log_prob(torch.from_numpy(x).to(flow.dtype), given).detach().double().numpy()
    assert np.allclose(made.scores, np.sort(exact), atol=1e-4)
    done = run("calibrate", model, "--data", data)
    assert (done.exit_code, "name the file that holds them with --context" in done.stderr) == (
        2, True
    )  # fmt: skip
    np.save(tmp_path / "context.npy", context[:, :2])
    done = run("calibrate", model, "--data", data, "--context", tmp_path / "context.npy")
    assert (done.exit_code, "--context: expected (30, 3)" in done.stderr) == (2, True)


def test_a_context_for_a_model_without_is_refused() -> None:
    with pytest.raises(DatasetError, match="the model takes none"):
        make_inputs(facts_of(flow_of()), Dataset(name="t", x=np.zeros((4, 2))), np.zeros((4, 1)))


def test_images_are_calibrated_by_complexity_and_probed_by_it_and_log_prob(tmp_path: Path) -> None:
    model = Path(shutil.copytree(ZOO / "digits-nice", tmp_path / "digits"))
    x = RNG.integers(0, 256, size=(30, 1, 28, 28)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    done = run("calibrate", model, "--data", tmp_path / "x.npy", "--json")
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["statistic"] == "complexity"
    assert shown["checks"]["statistic_chosen_by"] == "auto"
    # Noise is the data here: digits are not, and blank images are likelier than it.
    named = {probe["name"]: probe["statistics"] for probe in shown["probes"]}
    assert named.keys() == {"constants", "noise", "flipped", "permuted"}
    assert all(found.keys() == {"neg_log_prob", "complexity"} for found in named.values())
    line = "this model finds blank images more likely than its own data: AUROC of -log p 0."
    assert [warning.startswith(line) for warning in shown["warnings"]] == [True]
    assert f"warning: {line}" in done.stderr


async def ask(folder: Path, body: dict[str, Any]) -> dict[str, Any]:
    settings, metrics = Settings(watch_models=False, model_repository=str(folder)), Metrics()
    app = create_app(settings, FolderRepository(settings, metrics), metrics)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/score", json=body)
            card = await client.get("/models/model")
    assert answer.status_code == 200, answer.text
    return {"answer": answer.json(), "card": card.json()}


@pytest.mark.parametrize("name", ["magic", "digits-nice"])
def test_what_is_served_are_the_scores_that_were_calibrated(tmp_path: Path, name: str) -> None:
    model = Path(shutil.copytree(ZOO / name, tmp_path / "model"))
    shape = open_model(model).facts.event_shape
    x = RNG.integers(0, 256, size=(64, *shape)) if len(shape) > 1 else RNG.normal(size=(64, 10))
    np.save(tmp_path / "x.npy", x.astype(np.uint8) if len(shape) > 1 else x)
    done = run("calibrate", model, "--data", tmp_path / "x.npy", "--json")
    assert done.exit_code == 0, done.output
    found = asyncio.run(ask(model, {"x": x.tolist(), "alpha": 0.05}))
    made = read_calibration(model)
    assert made is not None
    assert np.sort(found["answer"]["score"]).tolist() == made.scores.tolist()
    # Rows of the calibration itself: k of n tie with the threshold or lie above it.
    assert sum(found["answer"]["is_anomaly"]) == 2
    assert found["card"]["calibration"]["id"] == made.id
    assert found["card"]["calibration"]["warnings"] == made.report["warnings"]
