"""Exact log_prob and samples of continuous flows, beside public code re-created.

The dynamics are concatsquash 64x3 in D = 2, 6, 43, 64, at batches of 1, 64 and 1024 rows; weights
are seeded and so large that rows take as many steps as in trained flows. The reference is FFJORD's
own arithmetic: D backward passes an evaluation, dopri5 at 1e-5, one step for the whole batch. For
D >= 43 at 1024 rows, where it takes minutes, it is zuko's exact trace. Errors are the largest over
the rows, in nats, against a float64 solve at 1e-10.

`loose` is our graph at the reference's tolerance, ten times the default. Samples are compared with
FFJORD's code, which integrates a one-probe estimate beside them.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, cast

import torch
from torch import Tensor

from benchmarks.ffjord_references import (
    batched_products,
    brute_force,
    closed_form,
    dense,
    log_prob,
    one_probe,
    solve,
)
from benchmarks.harness import interleave, machine
from models.flow import Flow
from models.fold import fold
from models.noise import base_log_prob_torch
from models.ode.solver import SolverSettings
from models.ode.transform import ContinuousTransform
from models.onnx.graphs import build_graphs
from models.onnx.runtime import open_session
from models.registry import build

FEATURES = (2, 6, 43, 64)
ROWS = (1, 64, 1024)
WEIGHT_SCALE = 3.0
LOOSE = 1e-5
MANY = 1024
WIDE = 43
# Rows whose error is computed: float64 at 1e-10 is slow.
JUDGED = 32
OUT = Path("runs/benchmarks/ffjord.json")


Candidates = dict[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table; the speed-up is over the first candidate of the same kind."""

    what: str
    features: int
    rows: int
    candidate: str
    milliseconds: float
    speedup: float
    error: float | None
    noise: float


def make_flow(features: int) -> Flow:
    """A flow whose weights are drawn from a seed."""
    torch.manual_seed(0)
    flow = build("ffjord", {"event_shape": [features]}).eval().requires_grad_(False)
    for name, parameter in flow.named_parameters():
        if "dynamics" in name:
            parameter.mul_(WEIGHT_SCALE)
    return flow


def with_tolerance(flow: Flow, tolerance: float) -> Flow:
    """A copy that solves to another tolerance."""
    changed = copy.deepcopy(flow)
    block(changed).solver = SolverSettings(tolerance, tolerance)
    return changed


def block(flow: Flow) -> ContinuousTransform:
    """Its one continuous transform."""
    return cast(ContinuousTransform, flow.chain[0])


def exact_log_prob(flow: Flow, x: Tensor) -> Tensor:
    """In float64, to 1e-10."""
    return with_tolerance(flow, 1e-10).double().log_prob(x.double())


class Graphs(NamedTuple):
    """The flow in onnxruntime: log_prob of x; that of what z decodes to; and x alone."""

    score: Callable[[Tensor], Tensor]
    draw: Callable[[Tensor], Tensor]
    generate: Callable[[Tensor], Tensor]


def graphs(flow: Flow) -> Graphs:
    """Fold and trace."""
    made = build_graphs(fold(flow), torch.float32)
    encode, decode, generate = (open_session(model.SerializeToString()) for model in made.all)

    def score(x: Tensor) -> Tensor:
        return torch.from_numpy(encode.run(["log_prob"], {"x": x.numpy()})[0])

    def draw(z: Tensor) -> Tensor:
        _, log_det = decode.run(["x", "log_det"], {"z": z.numpy()})
        return base_log_prob_torch(z) - torch.from_numpy(log_det)

    def alone(z: Tensor) -> Tensor:
        return torch.from_numpy(generate.run(["x"], {"z": z.numpy()})[0])

    return Graphs(score, draw, alone)


def compare_scores(flow: Flow, x: Tensor) -> list[Measured]:
    """Time log_prob and judge its error."""
    dynamics = dense(flow)
    large = len(x) >= MANY and flow.features >= WIDE
    reference = batched_products(dynamics) if large else brute_force(dynamics)
    candidates: Candidates = {
        "zuko's exact trace" if large else "reference": partial(log_prob, reference),
        "ours in torch": torch.inference_mode()(flow.log_prob),
        "ours": graphs(flow).score,
        "ours, loose": graphs(with_tolerance(flow, LOOSE)).score,
    }
    if len(x) < MANY:
        closed = closed_form(dynamics)
        candidates["torchdiffeq, closed form"] = partial(log_prob, closed)
        candidates["the same, worst row's norm"] = partial(log_prob, closed, by_worst_row=True)
    else:
        del candidates["ours in torch"]
    exact = exact_log_prob(flow, x[:JUDGED])
    # Shared steps depend on the batch: rows are judged as they come out of theirs.
    errors = {
        name: float((call(x)[:JUDGED].double() - exact).abs().max())
        for name, call in candidates.items()
    }
    rounds = 5 if len(x) == 1 else 3 if len(x) < MANY else 1
    return measure("log_prob", candidates, x, rounds, errors)


def compare_samples(flow: Flow, z: Tensor) -> list[Measured]:
    """Time samples: alone, and with their exact log_prob; the reference's is an estimate."""
    dynamics = dense(flow)

    def reference(z: Tensor) -> Tensor:
        x, _ = solve(one_probe(dynamics, z), z, decoding=True)
        return x

    candidates: Candidates = {
        "one-probe reference": reference,
        "ours": graphs(flow).generate,
        "ours, loose": graphs(with_tolerance(flow, LOOSE)).generate,
        "ours, with log_prob": graphs(flow).draw,
    }
    return measure("sample", candidates, z, 5 if len(z) == 1 else 3, {})


def measure(
    what: str, candidates: Candidates, x: Tensor, rounds: int, errors: dict[str, float]
) -> list[Measured]:
    """Let the candidates take turns."""
    calls = {name: partial(call, x) for name, call in candidates.items()}
    ratios = interleave(calls, rounds=rounds, turn_seconds=0.05, rows=len(x))
    return [
        Measured(
            what,
            x.shape[1],
            len(x),
            name,
            1e3 * median(turns),
            ratios.speedup(name),
            errors.get(name),
            ratios.noise,
        )
        for name, turns in ratios.seconds.items()
    ]


def show(results: list[Measured]) -> None:
    """Print rows of the table."""
    for found in results:
        error = "" if found.error is None else f"{found.error:.1e}"
        print(
            f"| {found.what} | {found.features} | {found.rows} | {found.candidate} | "
            f"{found.milliseconds:.3g} | {found.speedup:.2f} | {error} |",
            flush=True,
        )


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    print("| call | D | rows | candidate | ms | speed-up | largest error (nats) |")
    print("|---|---|---|---|---|---|---|")
    results: list[Measured] = []
    for features in FEATURES:
        flow = make_flow(features)
        x = torch.randn(max(ROWS), features, generator=torch.Generator().manual_seed(1))
        for rows in ROWS:
            found = compare_scores(flow, x[:rows])
            if rows < MANY:
                found += compare_samples(flow, x[:rows])
            show(found)
            results += found
    noise = max(found.noise for found in results)
    print(f"\nthe baseline against itself: ±{100 * noise:.1f} % at worst")
    content = {"machine": machine(), "results": [asdict(found) for found in results]}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
