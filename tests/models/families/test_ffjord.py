"""The continuous families: against the numbers of public code, and their arrangement."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.flow import Flow
from models.ode.transform import ContinuousTransform
from models.registry import build
from models.transforms.batchnorm import BatchNorm
from models.transforms.split import Chain, FactorOut
from tests.fixtures import EXPECTED_FILE, case_folder

# Weights under our names, and x, z, log_prob, z_gen and x_gen as the code that owns the checkpoint
# computed them in float64 (rows 0-7 in distribution, 8-15 odd): rtqichen/ffjord at 994864ad with
# torchdiffeq 0.2.5 and exact traces, zuko 1.6.0, torchcfm 1.0.7.
GOLDEN = case_folder("continuous", "families") / EXPECTED_FILE
EXACT = {"solver": {"rtol": 1e-8, "atol": 1e-8}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ffjord_toy": (
        "ffjord",
        {"event_shape": [2], "hidden_features": [16, 16], "learn_end_time": True},
    ),
    "ffjord_tabular": (
        "ffjord",
        {
            "event_shape": [6],
            "hidden_features": [24, 24],
            "nonlinearity": "softplus",
            "num_blocks": 2,
            "batch_norm": True,
            "learn_end_time": True,
        },
    ),
    "ffjord_image": (
        "ffjord_image",
        {
            "event_shape": [1, 8, 8],
            "num_scales": 2,
            "hidden_channels": [8, 8],
            "learn_end_time": True,
            "preprocessing": [{"kind": "logit", "alpha": 0.05}],
        },
    ),
    "zuko_cnf": (
        "ffjord",
        {
            "event_shape": [3],
            "hidden_features": [20, 20],
            "layer_type": "ignore",
            "nonlinearity": "elu",
            "time_input": "fourier",
            "num_frequencies": 3,
        },
    ),
    "torchcfm_mlp": (
        "ffjord",
        {
            "event_shape": [2],
            "hidden_features": [20, 20, 20],
            "layer_type": "ignore",
            "nonlinearity": "selu",
            "time_input": "last",
            "data_time": "end",
        },
    ),
}
# SELU's slope jumps, and the reference itself is good to 7e-4 only.
TOLERANCES = {"torchcfm_mlp": 1e-3}

names = pytest.mark.parametrize("name", CASES)


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN) as arrays:
        keys = [key for key in arrays.files if key.startswith(f"{name}/")]
        return {key.removeprefix(f"{name}/"): torch.from_numpy(arrays[key]) for key in keys}


def load(name: str, **changes: Any) -> tuple[Flow, dict[str, Tensor]]:
    family, config = CASES[name]
    arrays = golden(name)
    flow = build(family, config | changes)
    weights = {
        key.removeprefix("weights/"): value
        for key, value in arrays.items()
        if key.startswith("weights/")
    }
    flow.load_state_dict(weights)
    return flow.eval(), arrays


@names
def test_the_numbers_of_public_code_in_float64(name: str) -> None:
    changes = {} if name == "torchcfm_mlp" else EXACT
    flow, arrays = load(name, **changes)
    flow.double()
    tolerance = TOLERANCES.get(name, 1e-5)
    with torch.no_grad():
        x = arrays["x"].double()
        z, log_det = flow.encode(x)
        drawn, _ = flow.decode(arrays["z_gen"].double())
    log_prob = base(z) + log_det
    relative = (log_prob - arrays["log_prob"]).abs() / arrays["log_prob"].abs().clamp(min=1)
    assert relative.max() < tolerance
    torch.testing.assert_close(z, arrays["z"], rtol=0, atol=tolerance)
    torch.testing.assert_close(drawn, arrays["x_gen"], rtol=0, atol=tolerance)


@names
def test_the_numbers_of_public_code_as_served(name: str) -> None:
    """Float32 at the default tolerance, in nats."""
    flow, arrays = load(name)
    with torch.no_grad():
        log_prob = flow.log_prob(arrays["x"].float())
    error = (log_prob.double() - arrays["log_prob"]).abs().max()
    assert error < TOLERANCES.get(name, 1e-4)


def base(z: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)


def kinds(flow: Flow) -> list[str]:
    return [type(transform).__name__ for transform in flow.chain]


def test_batch_norms_stand_around_the_blocks() -> None:
    flow = build("ffjord", {"event_shape": [3], "num_blocks": 2, "batch_norm": True})
    block, norm = "ContinuousTransform", "BatchNorm"
    assert kinds(flow) == [norm, block, norm, block, norm]
    first = flow.chain[0]
    assert isinstance(first, BatchNorm)
    assert (first.eps, first.statistics, first.scale) == (1e-4, "running", "exp")


def test_images_have_one_batch_norm_at_the_end() -> None:
    config = {"event_shape": [2, 4, 4], "num_blocks": 2, "batch_norm": True}
    flow = build("ffjord_image", config)
    assert kinds(flow) == ["ContinuousTransform"] * 2 + ["BatchNorm", "Flatten"]


def test_scales_are_nested() -> None:
    config = {"event_shape": [1, 8, 8], "num_scales": 3, "num_blocks": 2, "hidden_channels": [2]}
    flow = build("ffjord_image", config)
    blocks = ["ContinuousTransform"] * 2
    assert kinds(flow) == [*blocks, "Squeeze", *blocks, "FactorOut"]
    inner = flow.chain[-1]
    assert isinstance(inner, FactorOut)
    assert isinstance(inner.rest, Chain)
    shapes = [
        module.dynamics.event_shape
        for module in flow.modules()
        if isinstance(module, ContinuousTransform)
    ]
    assert shapes[::2] == [(1, 8, 8), (4, 4, 4), (2, 4, 4), (8, 2, 2), (4, 2, 2)]


def test_settings_reach_the_blocks() -> None:
    flow = build(
        "ffjord",
        {
            "event_shape": [2],
            "end_time": 0.25,
            "data_time": "end",
            "residual": True,
            "solver": {"rtol": 1e-4, "atol": 1e-5, "max_evaluations": 700},
            "divergence": {"evaluation": "hutchinson", "num_probes": 3, "noise": "gaussian"},
            "training": {"gradient": "direct", "rtol": 1e-3, "atol": 1e-2},
        },
    )
    (block,) = flow.chain
    assert isinstance(block, ContinuousTransform)
    assert block.sqrt_end_time.item() == 0.5
    assert not isinstance(block.sqrt_end_time, torch.nn.Parameter)
    assert block.data_time == "end"
    assert block.dynamics.residual
    solver, training = block.solver, block.training_settings
    assert (solver.rtol, solver.atol, solver.max_evaluations) == (1e-4, 1e-5, 700)
    assert (training.gradient, training.rtol, training.atol) == ("direct", 1e-3, 1e-2)
    assert block.probes is not None
    assert block.probes.shape == (3, 2)


def test_users_are_told_whether_log_prob_is_exact() -> None:
    exact = build("ffjord_image", {"event_shape": [1, 8, 8]})
    assert exact.facts.notes["trace"] == "exact"
    estimated = build(
        "ffjord", {"event_shape": [2], "divergence": {"evaluation": "hutchinson", "num_probes": 4}}
    )
    assert estimated.facts.notes["trace"] == "Hutchinson's estimate with 4 probes"


def test_hypernetworks_start_small() -> None:
    torch.manual_seed(0)
    for family, shape in (("ffjord", [3]), ("ffjord_image", [1, 4, 4])):
        flow = build(family, {"event_shape": shape, "layer_type": "hyper"}).eval()
        z, log_det = flow.encode(torch.ones(1, *shape))
        torch.testing.assert_close(z, torch.ones_like(z), rtol=0, atol=0.5)
        assert log_det.abs() < 0.5


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("ffjord", {"layer_type": "concatcoord"}, "layer_type"),
        ("ffjord", {"time_input": "fourier"}, "num_frequencies: expected 1 or more"),
        ("ffjord", {"end_time": -1.0}, "end_time"),
        ("ffjord", {"solver": {"rtol": 0.0}}, r"solver\.rtol"),
        ("ffjord", {"solver": {"tolerance": 1e-5}}, r"solver\.tolerance"),
        ("ffjord", {"num_classes": 2, "context_features": 1}, "num_classes"),
        ("ffjord_image", {"num_scales": 3}, "event_shape: expected height and width divisible"),
        ("ffjord_image", {"num_scales": 2, "batch_norm": True}, "batch_norm: expected false"),
        ("ffjord_image", {"strides": [2, 1, 1, 1]}, "strides: expected to lead from"),
        ("ffjord_image", {"strides": [3, 1, 1, 1]}, "strides"),
    ],
)
def test_refusals(family: str, changes: dict[str, Any], message: str) -> None:
    shape = [2] if family == "ffjord" else [1, 6, 6]
    with pytest.raises(ValueError, match=message):
        build(family, {"event_shape": shape} | changes)
