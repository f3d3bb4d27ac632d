"""What is timed: flows with seeded weights, how many rows, and what each should reach on a card."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_ffjord import make_flow as make_ffjord
from benchmarks.onnx_candidates import make_flow
from models.checkpoints import golden
from models.checkpoints.loading import Checkpoint
from models.checkpoints.reference import reference
from models.flow import Flow

# The fastest of all candidates is what a goal is for.
BEST = "best"
# Rows -> candidate -> how many times as fast as the baseline it should be.
Goals = Mapping[int, Mapping[str, float]]

_MLP = {"kind": "mlp", "widths": [128, 128]}


@dataclass(frozen=True, slots=True)
class Work:
    """One flow, and what is timed of it.

    operations: "log_prob", timed as encode, or "samples", as decode: the noise is apart.
    is_public: whether the baseline is the arithmetic of public code; else eager torch.
    matrix_share: of the device's float32 matrix rate, at the largest batch.
    """

    name: str
    make: Callable[[], Flow]
    rows: tuple[int, ...]
    operations: tuple[str, ...] = ("log_prob",)
    goals: Goals = field(default_factory=dict)
    is_public: bool = False
    matrix_share: float = 0.0


def _glow(shape: list[int], levels: int, steps: int, hidden: int) -> Callable[[], Flow]:
    config: dict[str, Any] = {"event_shape": shape, "num_levels": levels, "num_steps": steps}
    return partial(make_flow, "glow", {**config, "hidden_channels": hidden})


def _realnvp(features: int) -> Callable[[], Flow]:
    config = {"event_shape": [features], "num_layers": 8, "conditioner": _MLP}
    return partial(make_flow, "realnvp", config)


def _ffjord(features: int, one_row_fused: float) -> Work:
    rows = (1, 64, 1024, 16384)
    first = {"graphs": 40.0 if features > 6 else 5.0}
    if one_row_fused:
        first["fused"] = one_row_fused
    goals = {1: first, **{n: {BEST: r} for n, r in zip(rows[1:], (30.0, 20.0, 10.0), strict=True)}}
    return Work(
        f"FFJORD 64x3 D = {features}", partial(make_ffjord, features), rows, goals=goals,
        is_public=True,
    )  # fmt: skip


ON_A_GPU = (
    Work(
        "RealNVP D = 8, 8 couplings 128x2",
        _realnvp(8),
        (1, 64, 1024, 65536),
        goals={
            1: {"graphs": 4.0, "fused": 10.0},
            **{64: {BEST: 8.0}, 1024: {BEST: 4.0}, 65536: {BEST: 2.0}},
        },
    ),
    Work(
        "Glow 3x32x32 L3 K8 h128",
        _glow([3, 32, 32], 3, 8, 128),
        (1, 16, 64, 256),
        ("log_prob", "samples"),
        {n: {BEST: r} for n, r in ((1, 8.0), (16, 6.0), (64, 4.0), (256, 2.0))},
        matrix_share=0.3,
    ),
    _ffjord(2, 30.0),
    _ffjord(6, 30.0),
    _ffjord(43, 0.0),
    _ffjord(64, 0.0),
    Work(
        "Glow 3x64x64 L4 K32 h512",
        _glow([3, 64, 64], 4, 32, 512),
        (1, 16),
        ("samples",),
        {1: {BEST: 6.0}, 16: {BEST: 2.0}},
    ),
)
# The same measurements where a CPU is to show that they run.
QUICK = (
    Work("RealNVP D = 8, 8 couplings 128x2", _realnvp(8), (1, 64)),
    Work("Glow 1x8x8 L2 K2 h16", _glow([1, 8, 8], 2, 2, 16), (1, 4), ("log_prob", "samples")),
    Work("FFJORD 64x3 D = 2", partial(make_ffjord, 2), (1, 4), is_public=True),
)
# Golden rows of a flow that is only timed: engines prove themselves by them.
_GOLDEN_ROWS = 2


@torch.no_grad()
def checkpoint_of(work: Work, device: str) -> Checkpoint:
    """Make the flow on the device, with few golden rows."""
    flow = work.make().eval().requires_grad_(False)
    exact = reference(flow)
    record = golden.record(exact, golden.draw(exact, rows=_GOLDEN_ROWS))
    return Checkpoint(Path(work.name), copy.deepcopy(flow).to(device), exact, record)
