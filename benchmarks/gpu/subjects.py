"""The flows that are checked: the zoo, the tests' table of every option, the golden cases.

Of the tests it takes two tables, of flows and of stored checkpoints: what the numbers are checked
on must be the same on every device.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import models
from models.checkpoints import golden
from models.checkpoints.loading import Checkpoint, load_checkpoint
from models.checkpoints.reference import continuous_parts, reference
from models.flow import Flow
from models.noise import base_noise
from models.ode.call import SolveCall
from models.ode.solver import SolverSettings
from models.onnx.replay import ReplayRows
from tests.cases import CASES, make_flow, make_inputs
from tests.models.importers.golden import FOLDERS, load

SAMPLE_SEED = 7
ZOO = Path(models.__file__).parent / "zoo"
# Which go patch by patch or pixel by pixel, or are large where a smaller one takes the same way:
# minutes of a CPU, which the quick run has not.
SLOW_ON_A_CPU = frozenset(
    ("digits-classes", "digits-ffjord", "digits-pixelcnn", "digits-realnvp", "digits-tarflow")
)
ZOO_NAMES = tuple(sorted(path.parent.name for path in ZOO.glob("*/config.json")))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows: those of the record, and samples beside them."""

    golden: int
    samples: int


@dataclass(frozen=True, slots=True)
class Subject:
    """A flow where it is checked, and the rows that it is checked on.

    checkpoint: its flow is on the device.
    exact: the flow in float64 on the CPU, its equations solved tighter.
    rows: x and z with context; the last `samples` of them are a draw from `SAMPLE_SEED`.
    """

    group: str
    name: str
    checkpoint: Checkpoint
    exact: Flow
    rows: ReplayRows
    samples: int

    @property
    def flow(self) -> Flow:
        """The flow on the device."""
        return self.checkpoint.flow


# A name, and what makes the subject of it when its turn comes.
Made = tuple[str, Callable[[], Subject]]


def zoo(device: str, sizes: Sizes) -> Iterator[Made]:
    """The models that ship, by their folders."""

    def make(name: str) -> Subject:
        return _subject("zoo", name, load_checkpoint(ZOO / name, device=device), sizes)

    for name in ZOO_NAMES:
        yield name, lambda name=name: make(name)  # type: ignore[misc]


def cases(device: str, sizes: Sizes) -> Iterator[Made]:
    """Every family with every option, with perturbed weights."""

    def make(name: str) -> Subject:
        flow = _as_served(make_flow(name))
        inputs = make_inputs(name, flow, sizes.golden)
        return _subject("cases", name, _checkpoint(name, flow, inputs, device), sizes)

    for name in CASES:
        yield name, lambda name=name: make(name)  # type: ignore[misc]


def first_of_families() -> frozenset[str]:
    """The names of the cases that are the first of their families."""
    firsts: dict[str, str] = {}
    for name, case in CASES.items():
        firsts.setdefault(case.family, name)
    return frozenset(firsts.values())


def stored(device: str, sizes: Sizes) -> Iterator[Made]:
    """The golden cases: checkpoints of public code, as they are imported."""

    def make(name: str) -> Subject:
        case = load(name)
        flow = _as_served(case.flow())
        x = case.arrays["x"][: sizes.golden].reshape(-1, *flow.event_shape)
        inputs = golden.Inputs(x, case.context(len(x)))
        return _subject("golden cases", name, _checkpoint(name, flow, inputs, device), sizes)

    for name in sorted(FOLDERS):
        yield name, lambda name=name: make(name)  # type: ignore[misc]


def _as_served(flow: Flow) -> Flow:
    """Give continuous parts a tolerance that float32 can hold; those of tests are tighter."""
    for part in continuous_parts(flow):
        part.solver = SolverSettings()
    return flow.eval().requires_grad_(False)


def _checkpoint(name: str, flow: Flow, inputs: golden.Inputs, device: str) -> Checkpoint:
    served = copy.deepcopy(flow).to(device, torch.float32).eval()
    return Checkpoint(Path(name), served, flow, golden.record(flow, inputs))


def _subject(group: str, name: str, checkpoint: Checkpoint, sizes: Sizes) -> Subject:
    """Put together golden rows and samples, as float32 takes them."""
    record = {key: tensor[: sizes.golden].numpy() for key, tensor in checkpoint.record.items()}
    rows = ReplayRows.of(record, "float32")
    noise = base_noise(sizes.samples, checkpoint.flow.features, seed=SAMPLE_SEED)
    context = None
    if rows.context is not None:
        context = rows.context[np.arange(sizes.samples) % len(rows.context)]
    exact = reference(checkpoint.exact)
    x = _decode(exact, noise, context)
    drawn = ReplayRows(x.astype(np.float32), noise.astype(np.float32), context)
    joined = ReplayRows(
        np.concatenate([rows.x, drawn.x]),
        np.concatenate([rows.z, drawn.z]),
        None if rows.context is None else np.concatenate([rows.context, drawn.context]),
    )
    return Subject(group, name, checkpoint, exact, joined, sizes.samples)


@torch.no_grad()
def _decode(
    exact: Flow, noise: NDArray[np.float64], context: NDArray[Any] | None
) -> NDArray[np.float64]:
    given = None if context is None else torch.from_numpy(context).double()
    x, _ = exact.decode(torch.from_numpy(noise), given, call=SolveCall(wants_log_det=False))
    decoded: NDArray[np.float64] = x.numpy()
    return decoded
