"""The golden cases: checkpoints of public code with the numbers that this code computes of them.

tests/golden holds the cases as they were given, tests/golden_more other configurations of the same
sources: trained for no step, weights perturbed, numbers by the sources themselves in float64.
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

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "golden", ROOT / "golden_more")
# Every case that there is: a new folder is read without being named anywhere.
NAMES = sorted(path.name for folder in FOLDERS for path in folder.iterdir())


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
        """What importing it tells."""
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
    """Read a case of tests/golden or tests/golden_more."""
    (folder,) = (folder / name for folder in FOLDERS if (folder / name).is_dir())
    (checkpoint,) = (
        path for path in folder.iterdir() if path.name not in ("config.json", "expected.npz")
    )
    with np.load(folder / "expected.npz") as file:
        arrays = {key: torch.from_numpy(np.asarray(file[key], np.float64)) for key in file.files}
    return Golden(name, checkpoint, json.loads((folder / "config.json").read_text()), arrays)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """The largest |got - expected| / max(1, |expected|)."""
    return float(((got - expected).abs() / expected.abs().clamp(min=1)).max())
