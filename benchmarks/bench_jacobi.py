"""Fixed-point (Jacobi) decoding of trained MAFs beside sequential decoding: bits, passes and time.

Five affine maps on 8 x 8 digits (D = 64, widths 128) and three on 28 x 28 digits (D = 784, widths
256), trained here for a minute each. Decoded are standard normal latents, in three forms: as
trained (torch), folded (the engine `folded`) and as graphs (the engine `onnx`). Jacobi is asked to
have the bits of whole passes, feature by feature (`decoding=passes`); what folding makes of
`sequential` takes pieces of passes, so its last bits are others: their distance is printed.

    python -m benchmarks.bench_jacobi train FOLDER [64|784]    # minutes: makes the graphs too
    python -m benchmarks.bench_jacobi FOLDER [64|784]

Predicted before it was measured: a pass of every map changes bits until about a third of D = 64
passes are taken and a tenth of D = 784, since digits hang together over few pixels; so over whole
passes Jacobi gains 2 to 3 times and about 10 times. Over the pieces of a folded decode, which are
one pass in all, it gains at most at D = 784 and one row, where 784 turns cost their overhead; in
batches it loses by the arithmetic, tens of passes against one.

Found: 11 to 13 passes at either D, so 3 times over whole passes at D = 64 and 50 at D = 784; over
the pieces 2 and 6 to 11 times at one row, and at 128 rows of D = 64 nothing (docs/serving.md). The
prediction took the reach of correlations for the number of passes: it is how fast a guess's error
shrinks, the bits of the mantissa over the bits a pass settles.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

import models
from benchmarks.harness import interleave, machine
from models.datasets import load
from models.flow import Flow
from models.fold import fold
from models.noise import base_noise
from models.ode.call import SolveCall, join_reports
from models.onnx.graphs import build_graphs
from models.onnx.runtime import open_session
from models.registry import build, choose_decoding
from models.transforms.jacobi import Decoding

OUT = Path("runs/benchmarks/jacobi.json")
# Features -> data, their levels, layers, width, steps of training.
RECIPES = {64: ("digits", 17, 5, 128, 1500), 784: ("mnist", 256, 3, 256, 500)}
BATCH_ROWS = 128
ROWS = {64: (1, 16, 128), 784: (1, 16)}
ROUNDS = {64: 5, 784: 3}

Decode = Callable[[], tuple[Any, Any, Any]]


def trained(features: int) -> Flow:
    """Train one flow on standardised pixels with noise."""
    name, levels, layers, width, steps = RECIPES[features]
    pixels = torch.from_numpy(load(name).x).float().flatten(1)
    torch.manual_seed(0)
    noisy = (pixels + torch.rand_like(pixels)) / levels
    mean, std = noisy.mean(0), noisy.std(0).clamp(min=0.05)
    config = {
        "event_shape": [features],
        "num_layers": layers,
        "scale": "soft_clamp",
        "conditioner": {"kind": "mlp", "widths": [width, width]},
    }
    flow = build("maf", config)
    adam = torch.optim.Adam(flow.parameters(), 1e-3)
    for step in range(steps):
        chosen = torch.randint(len(pixels), (BATCH_ROWS,))
        rows = (pixels[chosen] + torch.rand(BATCH_ROWS, features)) / levels
        loss = -flow.log_prob((rows - mean) / std).mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        adam.step()
        if step % 100 == 0:
            print(f"D = {features}, step {step}: {loss.item():.1f} nats", flush=True)
    return flow.eval()


def decoded_by(flow: Flow, decoding: Decoding) -> Flow:
    """The same flow, inverted in another way."""
    other = build("maf", choose_decoding("maf", flow.config, decoding))
    other.load_state_dict(flow.state_dict())
    return other.eval().requires_grad_(False)


def in_torch(flow: Flow, z: Tensor) -> Decode:
    """Decode by torch: x, log_det, passes of all maps together or None."""

    def decode() -> tuple[Any, Any, Any]:
        call = SolveCall()
        with torch.inference_mode():
            x, log_det = flow.decode(z, call=call)
        report = join_reports(call.reports)
        passes = None if report is None else report.evaluations.numpy()
        return x.numpy(), log_det.numpy(), passes

    return decode


def write_graphs(flow: Flow, folder: Path) -> None:
    """Write the graph of decode for every way to compute it."""
    for kind in get_args(Decoding):
        began = time.perf_counter()
        graph = build_graphs(fold(decoded_by(flow, kind)), torch.float32).decode
        (folder / f"{kind}.onnx").write_bytes(graph.SerializeToString())
        print(f"{kind}.onnx: made in {time.perf_counter() - began:.1f} s", flush=True)


def in_onnx(path: Path, z: Tensor) -> Decode:
    """Decode by a graph, on one thread."""
    session = open_session(path.read_bytes())
    names = [output.name for output in session.get_outputs()]

    def decode() -> tuple[Any, Any, Any]:
        found = dict(zip(names, session.run(None, {"z": z.numpy()}), strict=True))
        return found["x"], found["log_det"], found.get("evaluations")

    return decode


def same_bits(one: Decode, other: Decode) -> tuple[Any, Any]:
    """Hold Jacobi to the bits of whole passes; the passes of both, a map of a row."""
    (x, log_det, passes), (got, got_log_det, counted) = one(), other()
    np.testing.assert_array_equal(got, x)
    np.testing.assert_array_equal(got_log_det, log_det)
    return passes, counted


def measure(flow: Flow, folder: Path, rows: int) -> list[dict[str, Any]]:
    """Compare on one number of rows."""
    features, layers = flow.features, len(flow.transforms)
    z = torch.from_numpy(base_noise(rows, features, seed=0)).float()
    kinds = {kind: decoded_by(flow, kind) for kind in get_args(Decoding)}
    folded = {kind: fold(one) for kind, one in kinds.items()}
    forms = {
        "torch": {kind: in_torch(one, z) for kind, one in kinds.items() if kind != "passes"},
        "folded": {kind: in_torch(one, z) for kind, one in folded.items()},
        "onnx": {kind: in_onnx(folder / f"{kind}.onnx", z) for kind in kinds},
    }
    lines = []
    for form, decodes in forms.items():
        reference = decodes.get("passes", decodes["sequential"])
        _, counted = same_bits(reference, decodes["jacobi"])
        distance = float(np.abs(decodes["sequential"]()[0] - decodes["jacobi"]()[0]).max())
        timed = {name: (lambda one=one: one()) for name, one in decodes.items()}
        found = interleave(timed, rows=rows, rounds=ROUNDS[features])
        lines.append(
            {
                "form": form,
                "rows": rows,
                "passes": features,
                "jacobi_mean": float(np.mean(counted) / layers),
                "jacobi_max": float(np.max(counted) / layers),
                "distance_to_sequential": distance,
                "table": found.table(),
            }
        )
        print(
            f"\nD = {features}, {rows} rows, {form}: jacobi {lines[-1]['jacobi_mean']:.1f} passes"
        )
        print(f"a map and row (most {lines[-1]['jacobi_max']:.1f}) of {features}, the same bits;")
        print(f"x is {distance:.1e} from that of sequential\n{found.table()}", flush=True)
    return lines


def main() -> None:
    """Train, or measure and print."""
    torch.set_num_threads(1)
    *command, folder = [word for word in sys.argv[1:] if not word.isdigit()]
    chosen = [int(word) for word in sys.argv[1:] if word.isdigit()] or list(RECIPES)
    for features in chosen:
        path = Path(folder) / f"maf-{features}"
        if command == ["train"]:
            if not path.exists():
                models.save(trained(features), path, accuracy={})
            write_graphs(models.load(path), path)
            continue
        flow = models.load(path)
        lines = [line for rows in ROWS[features] for line in measure(flow, path, rows)]
        OUT.parent.mkdir(parents=True, exist_ok=True)
        facts = {"machine": machine(), "features": features, "lines": lines}
        OUT.with_stem(f"jacobi-{features}").write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
