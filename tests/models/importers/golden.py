"""The golden cases: checkpoints of public code with the numbers that this code computes of them.

They lie in `tests/fixtures`; a new folder there is a new case, without being named anywhere.
"""

import copy
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.flow import Flow
from models.importers.report import Report
from models.importers.run import Preprocessing, Request, run
from tests.fixtures import CONFIG_FILE, EXPECTED_FILE, checkpoint_of, golden_cases

FOLDERS = golden_cases()
NAMES = sorted(FOLDERS)
# Their images are (H, W, C), and everywhere here (C, H, W).
CHANNELS_LAST = ("jet",)


@dataclass(frozen=True, slots=True)
class Golden:
    """One case: the checkpoint, the hyper-parameters, the expected arrays in float64."""

    name: str
    checkpoint: Path
    config: Mapping[str, Any]
    arrays: Mapping[str, Tensor]

    def flow(self, preprocessing: Preprocessing = "none") -> Flow:
        """A copy of the flow it becomes, its source not named."""
        return copy.deepcopy(_imported(self.name, preprocessing)[0])

    def report(self, preprocessing: Preprocessing = "none") -> Report:
        """The report of importing it."""
        return _imported(self.name, preprocessing)[1]

    def context(self, rows: int | None = None) -> Tensor | None:
        """The context of its rows; class numbers become one-hot."""
        context = self.arrays.get("context")
        if context is None:
            return None
        if context.dim() == 1:
            context = F.one_hot(context.long(), int(self.config["num_classes"])).double()
        return context[:rows]


@functools.cache
def _imported(name: str, preprocessing: Preprocessing) -> tuple[Flow, Report]:
    case = load(name)
    config = {key: value for key, value in case.config.items() if key != "source"}
    return run(case.checkpoint, Request(None, config, preprocessing))


@functools.cache
def load(name: str) -> Golden:
    """Read a golden case."""
    folder = FOLDERS[name]
    with np.load(folder / EXPECTED_FILE) as file:
        arrays = {key: torch.from_numpy(np.asarray(file[key], np.float64)) for key in file.files}
    config = json.loads((folder / CONFIG_FILE).read_text())
    if name.startswith(CHANNELS_LAST):
        arrays |= {key: arrays[key].permute(0, 3, 1, 2).contiguous() for key in ("x", "x_gen")}
    return Golden(name, checkpoint_of(folder), config, arrays)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """The largest |got - expected| / max(1, |expected|)."""
    return float(((got - expected).abs() / expected.abs().clamp(min=1)).max())
