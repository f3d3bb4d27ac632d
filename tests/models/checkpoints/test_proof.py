"""A model's identity: what saving and loading compare, how closely, and what is told apart."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models
from models.checkpoints import golden
from models.checkpoints.folder import CheckpointError
from models.flow import Flow
from models.transforms.actnorm import ActNorm
from models.transforms.affine import Scale
from tests.cases import CASES, make_flow, perturb

SCALE = {"event_shape": [1], "layers": [{"kind": "scale"}]}
SHIFTS = {"event_shape": [1], "layers": [{"kind": "actnorm"}, {"kind": "actnorm"}]}
PERMUTATION = {"event_shape": [3], "layers": [{"kind": "permute", "indices": [2, 0, 1]}]}


def scale() -> Flow:
    return models.build("chain", SCALE).double().eval()


def shifted(by: float) -> Flow:
    """z = (x + s) - s with a large s: rounding leaves little of x."""
    flow = models.build("chain", SHIFTS).double().eval()
    with torch.no_grad():
        for layer, sign in zip(flow.chain, (1, -1), strict=True):
            assert isinstance(layer, ActNorm)
            layer.shift.fill_(sign * by)
    return flow


def steep(deviation: float) -> Flow:
    """Couplings with scales that nothing bounds, and large weights."""
    config = {"event_shape": [2], "num_layers": 6, "scale": "exp"}
    torch.manual_seed(0)
    flow = models.build("realnvp", config).double().eval()
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(deviation * torch.randn_like(weights))
    return flow


def at(x: float) -> golden.Inputs:
    return golden.Inputs(torch.tensor([[x], [0.5]], dtype=torch.float64))


# ------------------------------------------------------------------ how closely


@pytest.mark.parametrize(
    ("x", "is_taken"), [(0.03, False), (0.003, True)], ids=["3 times", "0.3 times"]
)
def test_float32_may_be_off_by_a_hundredth_when_saved_and_when_loaded(
    tmp_path: Path, x: float, is_taken: bool
) -> None:
    # Float32 keeps eighths of numbers about 2^20.
    flow, folder = shifted(2.0**20), tmp_path / "m"
    models.save(flow, folder, rows=at(x), dtype=torch.float64)
    if is_taken:
        models.save(flow, tmp_path / "short", rows=at(x), dtype=torch.float32)
        models.load(folder, dtype=torch.float32)
        return
    with pytest.raises(CheckpointError, match=r"ill-conditioned .steep. for float32.*float64"):
        models.save(flow, tmp_path / "short", rows=at(x), dtype=torch.float32)
    assert not (tmp_path / "short").exists()
    with pytest.raises(CheckpointError, match=r"ill-conditioned .steep. for float32.*off by 0.03"):
        models.load(folder, dtype=torch.float32)
    models.load(folder)


@pytest.mark.parametrize(("error", "is_taken"), [(3e-4, False), (3e-5, True)], ids=str)
def test_the_inverse_may_be_off_by_a_ten_thousandth_when_saved_and_when_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float, is_taken: bool
) -> None:
    flow, folder, decode = scale(), tmp_path / "m", Scale.decode
    models.save(flow, folder)

    def inexact(layer: Scale, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = decode(layer, z, context)
        return x + error, log_det

    monkeypatch.setattr(Scale, "decode", inexact)
    if is_taken:
        models.load(folder)
        models.save(flow, tmp_path / "other")
        return
    with pytest.raises(CheckpointError, match=r"not each other's inverse.*a mask, an order"):
        models.load(folder)
    with pytest.raises(CheckpointError, match=r"not each other's inverse.*a mask, an order"):
        models.save(flow, tmp_path / "other")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (torch.float64, r"does not reproduce its golden rows in torch.float64: off by nan"),
        (torch.float32, r"for float32.*does not reproduce its golden rows, off by nan"),
    ],
    ids=["float64", "float32"],
)
def test_a_log_prob_that_is_not_a_number_is_no_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: torch.dtype, message: str
) -> None:
    flow, folder, encode = scale(), tmp_path / "m", Scale.encode
    models.save(flow, folder, dtype=torch.float32)
    record = golden.record(flow)

    def numberless(layer: Scale, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = encode(layer, x, context)
        return z, log_det * (math.nan if x.dtype == where else 1)

    monkeypatch.setattr(Scale, "encode", numberless)
    assert math.isnan(golden.drift(flow.to(where), record))
    with pytest.raises(CheckpointError, match=message):
        models.load(folder)


@pytest.mark.parametrize("place", range(3))
def test_the_largest_of_errors_is_not_a_number_where_one_is(place: int) -> None:
    errors = [0.0, 1.0, 2.0]
    assert golden.largest(*errors) == 2
    errors[place] = math.nan
    assert math.isnan(golden.largest(*errors))


def test_golden_rows_of_a_conditional_flow_are_of_every_class() -> None:
    name = "glow_class_conditional_logit"
    context = golden.draw(make_flow(name)).context
    assert context is not None
    classes = CASES[name].config["num_classes"]
    assert classes > 1
    assert context.argmax(1).tolist() == [row % classes for row in range(golden.DEFAULT_ROWS)]
    assert torch.equal(context.sum(1), torch.ones(golden.DEFAULT_ROWS, dtype=torch.float64))


# ------------------------------------------------------------------ save and load agree


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_flow_without_weights_is_saved_and_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    flow = models.build("chain", PERMUTATION).eval()
    models.save(flow, tmp_path / "m", dtype=dtype)
    loaded = models.load(tmp_path / "m")
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype)
    assert loaded.dtype == dtype
    assert loaded.encode(x)[0].tolist() == flow.to(dtype).encode(x)[0].tolist()
    assert sorted(loaded.encode(x)[0][0].tolist()) == [1, 2, 3]


def test_steep_weights_are_refused_when_they_are_saved(tmp_path: Path) -> None:
    flow = steep(0.25)
    with pytest.raises(CheckpointError, match=r"ill-conditioned .steep. for float32"):
        models.save(flow, tmp_path / "m", dtype=torch.float32)
    models.save(flow, tmp_path / "m")
    assert models.load(tmp_path / "m").dtype == torch.float64


def test_rounding_and_a_wrong_mask_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not each other's.*ill-conditioned .steep. to be"):
        models.save(steep(0.4), tmp_path / "m")
    flow = make_flow("maf")
    for key, mask in flow.named_buffers():
        if key.endswith("mask"):
            mask.fill_(True)
    with pytest.raises(CheckpointError, match=r"not each other's.*a mask, an order or a permut"):
        models.save(flow, tmp_path / "m")


def test_rounding_is_told_where_its_error_cannot_grow(tmp_path: Path) -> None:
    """Steep splines, whose bounds hold latents together in any precision."""
    torch.manual_seed(0)
    flow = models.build("nsf", {"event_shape": [3]}).eval()
    with torch.no_grad():
        for weights in flow.parameters():
            weights.copy_(30 * torch.randn_like(weights))
    with pytest.raises(CheckpointError, match=r"not each other's.*ill-conditioned .steep. to be"):
        models.save(flow, tmp_path / "m")


def test_accuracy_that_json_cannot_hold_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, folder, decode = perturb(scale(), 0.2), tmp_path / "m", Scale.decode
    models.save(flow, folder, dtype=torch.float32)

    def overflows(layer: Scale, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = decode(layer, z, context)
        return (x * math.inf if x.dtype == torch.float32 else x), log_det

    monkeypatch.setattr(Scale, "decode", overflows)
    for act in (
        lambda: models.save(flow, tmp_path / "n", dtype=torch.float32),
        lambda: models.load(folder),
    ):
        with pytest.raises(CheckpointError, match=r"for float32.*decode\(encode\(x\)\).*finite"):
            act()


def test_what_is_saved_is_what_the_configuration_builds(tmp_path: Path) -> None:
    flow = scale()
    flow.config = {**flow.config, "layers": [{"kind": "logistic"}]}
    with pytest.raises(CheckpointError, match="Unexpected key"):
        models.save(flow, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_model_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, folder = scale(), tmp_path / "m"
    models.save(flow, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rename = Path.rename

    def fails(path: Path, target: Path) -> Any:
        if path.name == "model" and target == folder:
            raise OSError(5, "Input/output error", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output error"):
        models.save(perturb(flow, 0.2), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert json.loads(before["config.json"])["family"] == "chain"
