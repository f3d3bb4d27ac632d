"""Bits a pixel of all models on the same rows with the same noise, paired with one of them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from benchmarks.images.rows import test_rows
from models.datasets import Dataset
from models.flow import Flow
from models.training.evaluate import log_probs
from pushforward import load

Array: TypeAlias = NDArray[Any]
NOISE_SEED = 0


class Likelihood(TypedDict):
    """Bits a pixel of one model on the test rows.

    difference and its standard error: to the model that all are paired with. coarse_bits: with
    which pixels were redrawn while it was trained; it then knows nothing of what is finer.
    """

    model: str
    parameters: int
    coarse_bits: int | None
    sees_label: bool
    bits: float
    standard_error: float
    difference: float
    difference_error: float


def measure(
    folders: Mapping[str, Path], beside: str, data: Dataset, coarse: Mapping[str, int | None]
) -> list[Likelihood]:
    """Score the test rows by every model.

    Args:
        folders: of the models by name.
        beside: which of them the others are paired with.
        data: 256 levels; the rows that the recipes of the zoo test on are taken.
        coarse: of each model, with how many bits pixels were redrawn while it was trained.
    """
    rows = test_rows(data)
    flows = {name: load(folder) for name, folder in folders.items()}
    bits = {name: _bits(flow, rows) for name, flow in flows.items()}
    return [
        _state(name, flow, coarse[name], (bits[name], bits[beside])) for name, flow in flows.items()
    ]


def _bits(flow: Flow, rows: Dataset) -> Array:
    """Of every row, with the noise that every model gets."""
    bits: Array = -log_probs(flow, rows, noise_seed=NOISE_SEED) / (flow.features * math.log(2))
    return bits


def _state(name: str, flow: Flow, coarse: int | None, both: tuple[Array, Array]) -> Likelihood:
    bits, others = both
    difference = bits - others
    return Likelihood(
        model=name,
        parameters=sum(weights.numel() for weights in flow.parameters()),
        coarse_bits=coarse,
        sees_label=flow.facts.num_classes is not None,
        bits=float(bits.mean()),
        standard_error=_error(bits),
        difference=float(difference.mean()),
        difference_error=_error(difference),
    )


def _error(values: Array) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
