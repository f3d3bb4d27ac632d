"""Columns that float32 has too few digits for: timestamps, large ids."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from models.checkpoints import golden
from models.checkpoints.folder import CheckpointError, load_checkpoint
from models.datasets import Dataset, DatasetError
from models.fold import fold
from models.onnx.export import ExportError, export, export_folder
from models.onnx.load import read_export
from models.registry import build
from models.training import TrainingOptions, train
from models.training.evaluate import evaluate
from models.transforms.preprocess import ShiftScale, Standardise
from service.engines.autotune import select_engine
from service.engines.selection import EngineConfig
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)
from tests.cases import perturb

NOW = 1.7e9 + 0.3
CONFIG = {
    "event_shape": [2],
    "num_layers": 2,
    "conditioner": {"kind": "mlp", "widths": [8]},
    "preprocessing": [{"kind": "standardise", "mean": [NOW, 1.0], "std": [20.0, 2.0]}],
}
QUICK = TrainingOptions(epochs=2, batch_rows=64)


def steep() -> models.Flow:
    return perturb(build("maf", CONFIG), 0.3).eval().requires_grad_(False)


def by_hand(flow: models.Flow, x: torch.Tensor) -> torch.Tensor:
    """log_prob where the standardising is done outside, from small numbers."""
    inner = build("maf", {**CONFIG, "preprocessing": []}).double().eval()
    inner.load_state_dict(
        {
            f"transforms.{int(number) - 1}.{rest}": value
            for key, value in flow.state_dict().items()
            for _, number, rest in [key.split(".", 2)]
            if number != "0"
        }
    )
    # Not torch.tensor(...).double(), which is float32 on the way.
    z = (x - x.new_tensor([NOW, 1.0])) / x.new_tensor([20.0, 2.0])
    with torch.no_grad():
        return inner.log_prob(z) - math.log(40.0)


def rows(count: int = 6) -> torch.Tensor:
    seconds = torch.linspace(-30, 30, count, dtype=torch.float64)
    return torch.stack((1.7e9 + seconds, seconds / 20), 1)


def stamps(count: int = 300, spread: float = 20.0) -> Dataset:
    generator = np.random.default_rng(3)
    x = np.stack(
        (1.7e9 + spread * generator.standard_normal(count), generator.standard_normal(count)), 1
    )
    return Dataset(name="stamps", x=x, columns=("ts", "load"))


@pytest.mark.parametrize(
    ("mean", "std", "needed"),
    [(1.7e9, 20.0, True), (-1.7e9, 20.0, True), (1e4, 1.0, True), (1e3, 1.0, False), (0, 1, False)],
)
def test_what_needs_float64(mean: float, std: float, needed: bool) -> None:
    assert Standardise([0.0, mean], [1.0, std]).needs_float64 is needed
    assert ShiftScale(-mean / std, 1 / std).needs_float64 is needed


def test_a_mean_keeps_its_digits() -> None:
    flow = build("maf", CONFIG)
    assert flow.dtype == torch.float64
    assert float(flow.state_dict()["transforms.0.mean"][0]) == NOW
    assert build("maf", {**CONFIG, "preprocessing": []}).dtype == torch.float32


def test_a_second_more_is_another_log_prob_on_every_engine(tmp_path: Path) -> None:
    flow, x = steep(), rows()
    expected = by_hand(flow, x)
    assert len(set(expected.tolist())) == len(x)
    models.save(flow, tmp_path / "model", rows=golden.Inputs(x))
    export_folder(tmp_path / "model").write(tmp_path / "model")
    checkpoint = load_checkpoint(tmp_path / "model")
    loaded, config = checkpoint.flow, EngineConfig(checkpoint, threads=1, max_rows=8)
    for name in ("torch", "folded", "onnx"):
        engine = select_engine(name, config).engine
        assert engine.dtype == "float64"
        z, log_det = engine.encode(x.numpy(), None)
        log_prob = -0.5 * (z**2).sum(1) - np.log(2 * np.pi) + log_det
        assert np.abs(log_prob - expected.numpy()).max() <= 1e-6
        back, _ = engine.decode(z, None)
        assert np.abs(back - x.numpy()).max() <= 1e-6
    assert loaded.accuracy["log_prob_max_abs_error"] <= 1e-9
    assert float((fold(loaded).log_prob(x) - expected).abs().max()) <= 1e-6


def test_folders_saved_in_float32_are_computed_in_float64(tmp_path: Path) -> None:
    folder, flow = tmp_path / "model", steep()
    models.save(flow, folder, rows=golden.Inputs(rows()))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"float64"', '"float32"'))
    assert models.load(folder).dtype == torch.float64
    assert export_folder(folder).certificate.precision == "float64"


def test_graphs_that_take_float32_are_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of before: float32 in its configuration, and graphs that take float32."""
    folder = tmp_path / "model"
    models.save(steep(), folder, rows=golden.Inputs(rows()))
    graphs = export_folder(folder)
    graphs.write(folder)
    stored = read_export(folder, steep(), models.checkpoints.folder.digest(folder))
    older = replace(stored, certificate={**stored.certificate, "precision": "float32"})
    monkeypatch.setattr("service.engines.onnx_graphs.read_export", lambda *_: older)
    selection = select_engine("onnx", EngineConfig(load_checkpoint(folder), threads=1, max_rows=8))
    assert selection.engine.dtype == "float64"
    assert selection.certificate["precision"] == "float64"


def test_float32_is_refused_where_it_has_too_few_digits(tmp_path: Path) -> None:
    models.save(steep(), tmp_path / "model", rows=golden.Inputs(rows()))
    with pytest.raises(ExportError, match="expected fp64, got fp32"):
        export(steep(), precision="fp32")
    with pytest.raises(CheckpointError, match="dtype: expected float64, got float32"):
        models.load(tmp_path / "model", dtype=torch.float32)


def test_training_on_timestamps(tmp_path: Path) -> None:
    data = stamps(120)
    config = {key: CONFIG[key] for key in ("num_layers", "conditioner")}
    report = train(data, "maf", config, tmp_path / "out", options=QUICK)
    flow = models.load(tmp_path / "out")
    assert flow.dtype == torch.float64
    assert evaluate(flow, data).float32_max_error == 0
    x = torch.from_numpy(data.x[:50])
    with torch.no_grad():
        assert len(set(flow.log_prob(x).tolist())) == 50
    assert report.test.nats < 6


def test_golden_rows_are_those_of_the_data_unrounded(tmp_path: Path) -> None:
    """What rounding them to float32 costs is part of the error that is stated."""
    data = stamps(spread=2e6)
    train(data, "maf", {"num_layers": 1}, tmp_path / "out", options=QUICK)
    flow = models.load(tmp_path / "out")
    assert flow.dtype == torch.float32
    x = models.checkpoints.folder.read_golden(tmp_path / "out", flow)["x"]
    assert all(value in data.x for value in x.flatten().tolist())


@pytest.mark.parametrize("value", [1e30, -1e37])
def test_values_that_fall_together_are_refused(tmp_path: Path, value: float) -> None:
    data = stamps()
    data.x[17, 1] = value
    with pytest.raises(DatasetError) as caught:
        train(data, "maf", {}, tmp_path / "out", options=QUICK)
    assert re.search(r"column (1 )?'load'", str(caught.value))
    assert f"{value} in row 17" in str(caught.value)


def test_integers_beyond_float64_are_refused(tmp_path: Path) -> None:
    x = np.stack((10**18 + 5 * np.arange(50), np.arange(50) % 7), 1)
    with pytest.raises(DatasetError, match=r"column '0': of 50 different values [23] are left"):
        train(Dataset(name="ids", x=x), "maf", {}, tmp_path / "out", options=QUICK)


def test_dense_columns_are_not_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((2_000, 2))
    x[:, 1] = np.repeat([0.0, 1.0], 1_000)
    train(Dataset(name="plain", x=x), "maf", {"num_layers": 1}, tmp_path / "out", options=QUICK)
