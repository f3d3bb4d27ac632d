"""U-Nets of torchcfm: velocity and divergence are those that the public code computes.

`numbers.npz` was made by torchcfm 1.0.7 in float64 (its frequencies in float32, as they are there)
of weights that a formula gives, which keeps them out of the fixture; `shapes.json` has the
constructors' arguments and the shapes of the state dicts.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.flow import Flow
from models.importers.report import ImportRefused, Report
from models.importers.run import Request, run
from models.ode.transform import ContinuousTransform
from tests.fixtures import case_folder

FOLDER = case_folder("torchcfm", "unet_variants")
VARIANTS: dict[str, Any] = json.loads((FOLDER / "shapes.json").read_text())


def weights(name: str) -> dict[str, Tensor]:
    """A state dict whose numbers follow from its keys."""
    return {key: _numbers(key, shape) for key, shape in VARIANTS[name]["shapes"].items()}


def _numbers(key: str, shape: list[int]) -> Tensor:
    generator = np.random.Generator(np.random.Philox(zlib.crc32(key.encode())))
    values = generator.integers(-1000, 1001, size=shape) / 1000
    inputs = int(np.prod(shape[1:])) if len(shape) > 1 else 4
    values = values * np.sqrt(3 / inputs) * 0.8
    if len(shape) == 1 and key.endswith("weight"):
        values = 1 + values
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def imported(folder: Path, name: str, content: Any = None, **changes: Any) -> tuple[Flow, Report]:
    path = folder / "cfm.pt"
    torch.save(weights(name) if content is None else content, path)
    given = {"model": VARIANTS[name]["model"], **VARIANTS[name]["config"], **changes}
    return run(path, Request(None, given, "none"))


def block(flow: Flow) -> ContinuousTransform:
    found = flow.chain[0]
    assert isinstance(found, ContinuousTransform)
    return found


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / "numbers.npz") as file:
        found = [key for key in file.files if key.startswith(f"{name}.")]
        return {key.split(".")[1]: torch.from_numpy(file[key]) for key in found}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_velocity_and_divergence_are_the_sources(tmp_path: Path, name: str) -> None:
    numbers = arrays(name)
    context = numbers.get("y")
    if context is not None:
        context = F.one_hot(context, VARIANTS[name]["config"]["num_classes"]).double()
    field = block(imported(tmp_path, name)[0]).dynamics
    t, x = numbers["t"].unsqueeze(1), numbers["x"]
    velocity, divergence = field.velocity_and_trace(t, x, context)
    # Frequencies are of float32, as the source has them: their last bit is the processor's.
    torch.testing.assert_close(velocity, numbers["v"], rtol=2e-8, atol=2e-8)
    torch.testing.assert_close(divergence, numbers["div"], rtol=2e-8, atol=2e-8)


def test_the_scripts_file_is_read_as_its_author_samples_from_it(tmp_path: Path) -> None:
    """{net_model, ema_model, sched, optim, step} with the keys of DataParallel."""
    trained = {f"module.{key}": value for key, value in weights("no_blocks").items()}
    average = {f"module.{key}": value / 2 for key, value in weights("no_blocks").items()}
    content = {
        "net_model": trained,
        "ema_model": average,
        "sched": {"base_lrs": [2e-4], "last_epoch": 3},
        "optim": {"state": {}, "param_groups": [{"lr": 2e-4}]},
        "step": 20000,
    }
    flow, report = imported(tmp_path, "no_blocks", content)
    bias = "transforms.0.dynamics.last.bias"
    half = weights("no_blocks")["out.2.bias"].double() / 2
    assert torch.equal(flow.state_dict()[bias], half)
    said = [item.detail for item in report.items if item.what == "net_model"]
    assert any("--weights model takes it instead" in detail for detail in said)
    path = tmp_path / "cfm.pt"
    given = VARIANTS["no_blocks"]["config"]
    trained_flow, report = run(path, Request(None, given, "none", weights="model"))
    assert torch.equal(trained_flow.state_dict()[bias], 2 * half)
    assert any(item.kind == "warning" and item.what == "ema_model" for item in report.items)


def test_beyond_64_values_the_trace_is_an_estimate_with_as_many_probes_as_asked(
    tmp_path: Path,
) -> None:
    flow, _ = imported(tmp_path, "head_channels", dim=[1, 12, 12], attention_resolutions="12,3")
    assert "Hutchinson's estimate with 16 probes" in flow.facts.notes["trace"]
    more, _ = imported(
        tmp_path,
        "head_channels",
        dim=[1, 12, 12],
        attention_resolutions="12,3",
        num_probes=3,
    )
    probes = block(more).probes
    assert probes is not None
    assert probes.shape == (3, 1, 12, 12)
    small, _ = imported(tmp_path, "head_channels")
    assert block(small).probes is None


def test_heads_that_nobody_gave_are_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "cfm.pt"
    torch.save(weights("no_blocks"), path)
    _, report = run(path, Request(None, {"dim": [1, 2, 2]}, "none"))
    assert any(item.kind == "warning" and item.what == "num_heads" for item in report.items)
    _, report = imported(tmp_path, "no_blocks")
    assert not any(item.kind == "warning" for item in report.items)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("no_blocks", {"dim": [3, 2, 2]}, "dim: .* input_blocks.0.0 takes 1 channels"),
        ("no_blocks", {"channel_mult": [1, 2]}, "channel_mult: .* stages have"),
        ("no_blocks", {"attention_resolutions": "1"}, "attention_resolutions: '1' means .* at"),
        ("no_blocks", {"attention_resolutions": "x"}, "expected sizes with commas"),
        ("no_blocks", {"dim": [1, 3, 3]}, "height and width divisible by 2"),
        ("no_blocks", {"num_heads": 3}, "num_heads: expected a divisor of 32, got 3"),
        ("no_blocks", {"learn_sigma": True}, "learn_sigma: true was given"),
        ("no_blocks", {"class_cond": True}, "class_cond: true was given"),
        ("labels", {"resblock_updown": False}, "resblock_updown: false was given"),
        ("labels", {"use_scale_shift_norm": False}, "use_scale_shift_norm: false was given"),
        ("labels", {"t_noise": 1.0}, "expected 0 and 1"),
        ("plain", {"conv_resample": True}, "conv_resample: true was given"),
    ],
)
def test_what_contradicts_the_weights_is_named(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportRefused, match=message):
        imported(tmp_path, name, **changes)


def test_a_network_that_gives_variances_too_is_no_velocity_field(tmp_path: Path) -> None:
    content = weights("no_blocks")
    content["out.2.weight"] = content["out.2.weight"].repeat(2, 1, 1, 1)
    with pytest.raises(ImportRefused, match=r"out.2.weight: .* \(learn_sigma\)"):
        imported(tmp_path, "no_blocks", content)


def test_the_size_of_the_images_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "cfm.pt"
    torch.save(weights("no_blocks"), path)
    with pytest.raises(ImportRefused, match=r"dim is not in the checkpoint.*\[1, H, W\].* 2 div"):
        run(path, Request("torchcfm", {}, "none"))
