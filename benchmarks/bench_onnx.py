"""Discrete flows folded and in onnxruntime, beside eager torch; what a model costs to have.

The baseline is the flow as it was built, in eager torch under `no_grad`. Beside it stand the
arithmetic of public Glow code (slogdet or inverse of every 1x1 convolution at each call), the
folded flow in eager torch, and the graph that `pushforward export` writes, in onnxruntime with
buffers that are bound once. All have one thread. Weights are seeded; the answers must agree before
anything is timed. Sampling is timed from latents to rows.

Times are processor time, so that neighbours on the machine do not count; with one thread that is
the wall clock of a quiet machine. Where a batch is large, eager torch may spend half of its time on
pages that glibc has given back; with MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ set to 2^30
it does not, and speed-ups are smaller.
"""

import copy
import gc
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import onnx_costs
from benchmarks.harness import Ratios, interleave, machine
from benchmarks.onnx_candidates import Call, Forms, make_flow, with_public_linear
from models.flow import Flow

OUT = Path("runs/benchmarks/onnx.json")
# Of the largest value: float32 through up to 96 couplings, and inverses in float32 in public code.
AGREEMENT = {"log_prob": 1e-5, "sample": 1e-4}


@dataclass(frozen=True, slots=True)
class Subject:
    """A flow, and the speed-up over eager torch that its graphs should reach.

    targets: rows a call -> speed-up.
    samples: whether sampling is measured beside log_prob.
    """

    name: str
    family: str
    config: Mapping[str, Any]
    targets: Mapping[int, float]
    samples: bool = False
    rounds: int = 9


def _glow(steps: int, hidden: int) -> dict[str, Any]:
    sizes = {"num_levels": 3, "num_steps": steps, "hidden_channels": hidden}
    return {"event_shape": [3, 32, 32], **sizes}


SUBJECTS = (
    Subject(
        "RealNVP, 8 couplings 128x2, D = 8",
        "realnvp",
        {"event_shape": [8], "num_layers": 8, "conditioner": {"kind": "mlp", "widths": [128, 128]}},
        {1: 12, 64: 4.5, 1024: 1.8},
        rounds=15,
    ),
    Subject(
        "Glow 3x32x32, L3 K8, hidden 128",
        "glow",
        _glow(8, 128),
        {1: 3, 16: 1.6, 64: 2.4},
        samples=True,
    ),
    Subject(
        "Glow 3x32x32, L3 K32, hidden 512",
        "glow",
        _glow(32, 512),
        {1: 1.7, 16: 1.7},
        samples=True,
        rounds=3,
    ),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table; the speed-up is over eager torch."""

    flow: str
    call: str
    rows: int
    candidate: str
    milliseconds: float
    speedup: float
    quartiles: tuple[float, float]
    noise: float
    target: float | None

    @property
    def is_met(self) -> bool:
        """Whether the target is reached; where there is none it is."""
        return self.target is None or self.speedup >= self.target

    def row(self) -> str:
        """Write it for the table."""
        low, high = self.quartiles
        target = "" if self.target is None else f"{self.target:g}: {_verdict(self.is_met)}"
        return (
            f"| {self.flow} | {self.call} | {self.rows} | {self.candidate} | "
            f"{self.milliseconds:.3g} | {self.speedup:.2f} ({low:.2f} to {high:.2f}) | {target} |"
        )


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def compare(subject: Subject) -> list[Measured]:
    """Time a subject in all its forms, at all its batch sizes."""
    flow = make_flow(subject.family, dict(subject.config))
    public = with_public_linear(copy.deepcopy(flow)) if subject.family == "glow" else None
    forms = Forms(flow, public)
    results = []
    for rows, target in subject.targets.items():
        x, z = _rows(flow, rows)
        calls = {"log_prob": forms.scoring(x)}
        if subject.samples:
            calls["sample"] = forms.sampling(z)
        for call, candidates in calls.items():
            check(candidates, AGREEMENT[call])
            ratios = interleave(
                candidates,
                rounds=subject.rounds,
                turn_seconds=0.1,
                rows=rows,
                clock=time.process_time,
            )
            found = _read(subject.name, call, target, ratios)
            print("\n".join(line.row() for line in found), flush=True)
            results += found
    return results


def _rows(flow: Flow, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Seeded data, and the latents they have: an untrained flow need not decode others."""
    x = torch.randn(rows, *flow.event_shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return x, flow.encode(x)[0]


def check(candidates: Mapping[str, Call], tolerance: float) -> None:
    """See that all candidates give the answer of the first, relative to its largest value.

    Raises:
        ValueError: if one does not.
    """
    answers = {name: torch.as_tensor(call()).double() for name, call in candidates.items()}
    expected = next(iter(answers.values()))
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    for name, answer in answers.items():
        error = float((answer - expected).abs().max())
        if not error <= allowed:
            raise ValueError(f"{name}: off by {error:.3g}, at most {allowed:.3g} is allowed")


def _read(flow: str, call: str, target: float, ratios: Ratios) -> list[Measured]:
    return [
        Measured(
            flow,
            call,
            ratios.rows,
            name,
            1e3 * median(turns),
            ratios.speedup(name),
            ratios.spread(name),
            ratios.noise,
            target if name == "onnx" else None,
        )
        for name, turns in ratios.seconds.items()
    ]


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    print("| flow | call | rows | candidate | ms | speed-up (quartiles) | target |")
    print("|---|---|---|---|---|---|---|")
    results: list[Measured] = []
    for subject in SUBJECTS:
        results += compare(subject)
        gc.collect()
    noise = max(found.noise for found in results)
    targets = [found for found in results if found.target is not None]
    met = sum(found.is_met for found in targets)
    print(f"\nthe baseline against itself: ±{100 * noise:.1f} % at worst")
    print(f"targets met: {met} of {len(targets)}\n\n{onnx_costs.HEADING}")
    costs = []
    for name in onnx_costs.MODELS:
        costs.append(onnx_costs.measure(name))
        print(costs[-1].row(), flush=True)
    content = {
        "machine": machine(),
        "results": [asdict(found) for found in results],
        "costs": [asdict(cost) for cost in costs],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
