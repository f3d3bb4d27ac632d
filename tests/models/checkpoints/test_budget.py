"""A model folder may ask for anything; it gets what its own files can be worth."""

import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from models.checkpoints.budget import Budget, BudgetExceeded
from models.checkpoints.folder import CheckpointError
from tests.cases import CASES, make_flow
from tests.models.checkpoints.test_folder import edit_config, edit_family_config

ASKED: dict[str, tuple[str, dict[str, Any], str]] = {
    "10^9 layers": ("realnvp", {"num_layers": 10**9}, "num_layers: 1e.09 is more than"),
    "2^63 layers": ("realnvp", {"num_layers": 2**63}, "num_layers: "),
    "10^400 layers": ("realnvp", {"num_layers": 10**400}, "num_layers: "),
    "4096 layers": ("realnvp", {"num_layers": 4096}, "far more than"),
    "10^8 blocks": ("ffjord", {"num_blocks": 10**8}, "num_blocks: "),
    "10^7 units": (
        "realnvp",
        {"conditioner": {"kind": "mlp", "widths": [10**7, 10**7]}},
        "widths.0: 1e.07 is more than",
    ),
    "10^6 units": (
        "realnvp",
        {"conditioner": {"kind": "mlp", "widths": [10**6, 10**6]}},
        "far more than",
    ),
    "5000 units": (
        "realnvp",
        {"conditioner": {"kind": "mlp", "widths": [5000, 5000]}},
        "far more than",
    ),
    "2^63 units": (
        "realnvp",
        {"conditioner": {"kind": "mlp", "widths": [2**63]}},
        "widths.0: ",
    ),
    "5000 hidden layers": (
        "realnvp",
        {"conditioner": {"kind": "mlp", "widths": [1] * 5000}},
        "widths: .*at most 4096",
    ),
    "a long event": ("realnvp", {"event_shape": [2 * 10**13]}, "event_shape.0: "),
    "10^7 bins": ("nsf", {"num_bins": 10**7}, "num_bins: "),
    "10^6 classes": ("glow", {"num_classes": 10**6}, "far more than"),
    "10^5 channels": ("glow", {"hidden_channels": 10**5}, "far more than"),
    "4097 couplings": ("nice", {"num_couplings": 4097}, "num_couplings: .* equal to 4096"),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_the_files_cannot_be_worth_is_refused_at_once(tmp_path: Path, case: str) -> None:
    family, asked, message = ASKED[case]
    name = next(name for name in sorted(CASES) if CASES[name].family == family)
    models.save(make_flow(name), tmp_path / "m")
    edit_family_config(**asked)(tmp_path / "m")
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=message) as caught:
        models.load(tmp_path / "m")
    assert time.process_time() - began < 5
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'm' / 'config.json'}: ")


def test_an_event_that_is_not_that_of_the_golden_rows_is_refused_before(tmp_path: Path) -> None:
    models.save(make_flow("realnvp"), tmp_path / "m")
    edit_family_config(event_shape=[2 * 10**13])(tmp_path / "m")
    edit_config(event_shape=[2 * 10**13])(tmp_path / "m")
    with pytest.raises(CheckpointError, match="expected that of the golden rows"):
        models.load(tmp_path / "m")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(10**5, 10**5),
        lambda: torch.zeros(10**10),
        lambda: torch.eye(10**5),
        lambda: torch.arange(10**10),
        lambda: torch.ones(10**5)[:, None] * torch.ones(10**5)[None],
        lambda: torch.ones(1).expand(10**10).clone(),
        lambda: [torch.ones(2**19) for _ in range(10**4)],
        lambda: [torch.ones(1) for _ in range(10**4)],
    ],
    ids=["empty", "zeros", "eye", "arange", "outer", "expand", "many large", "many small"],
)
def test_nothing_larger_than_the_budget_is_allocated(make: Any) -> None:
    with pytest.raises(BudgetExceeded, match="far more than the 200 numbers"), Budget([(10, 20)]):
        make()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "golden.safetensors"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "m"
    models.save(make_flow("realnvp"), folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=rf"{name}: .*expected a file, got"):
        models.load(folder)


def test_weights_that_no_memory_holds_are_refused_before_they_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    models.save(make_flow("realnvp"), folder)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(memory + 1)  # a hole: no block of the disk is taken
    with pytest.raises(CheckpointError, match=rf"model.safetensors: .*at most {memory} bytes"):
        models.load(folder)
