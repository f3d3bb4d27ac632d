"""Two exact decodes of a TarFlow: token by token with a KV cache, and by fixed-point iteration.

    python -m benchmarks.bench_jacobi_tokens train FOLDER         # minutes: tokens of 16 x 16 x 8
    python -m benchmarks.bench_jacobi_tokens FOLDER [ROWS ...]    # any folder of a TarFlow

Decoded are standard normal latents by the graphs (the engine `onnx`), on one thread. Asked of both
are the same bits of x and log_det; shown are milliseconds, the passes of Jacobi, and of how many
passes nothing is left to be done but rounding: the first pass that moves no number by more than
1e-5 (1 + |x|).

Trained are tokens such as an autoencoder's: 8 x 16 x 16, the leading components of windows of 4 x 4
pixels of 28 x 28 digits, two pixels apart, with a little noise.

Predicted before it was measured, from a flow that was trained for a minute: Jacobi changes bits
until the last token in float32, so it takes a pass a token of every block, and each costs more than
a turn with the cache: 3 times as slow as that at 49 tokens and one row, 5 times at 16 rows, and 10
times at 256 tokens. All but rounding is done after 20 passes of the first block that is decoded and
10 of the others, so that even a stop there would gain next to nothing at 49 tokens.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import models
from benchmarks.harness import machine, take_turns
from models.datasets import load
from models.flow import Flow
from models.fold import fold
from models.fold.autoregressive import FoldedAutoregressive
from models.fold.chain import FoldedChain
from models.noise import base_noise
from models.onnx.graphs import build_graphs
from models.onnx.runtime import open_session
from models.registry import build, choose_decoding
from models.transforms.jacobi import Decoding
from models.transforms.transform import Transform

OUT = Path("runs/benchmarks/jacobi-tokens.json")
CONFIG = {
    "event_shape": [8, 16, 16],
    "patch_size": 1,
    "channels": 64,
    "num_blocks": 4,
    "layers_per_block": 2,
    "head_dim": 16,
}
STEPS, BATCH_ROWS = 800, 8
ROUNDS = 3
# A change of less is rounding.
SETTLED = 1e-5


def components() -> Tensor:
    """Digits as 8 components of windows, (B, 8, 16, 16)."""
    pixels = torch.from_numpy(load("mnist").x).float() / 255
    windows = F.unfold(F.pad(pixels.reshape(-1, 1, 28, 28), (3, 3, 3, 3)), 4, stride=2)
    rows = windows.transpose(1, 2).reshape(-1, 16)
    rows = rows - rows.mean(0)
    basis = torch.linalg.svd(rows.T @ rows)[0][:, :8]
    found = torch.einsum("bkt,kc->bct", windows, basis).reshape(-1, 8, 16, 16)
    return (found - found.mean((0, 2, 3), keepdim=True)) / found.std()


def train(folder: Path) -> None:
    """Train on components with noise, and save."""
    torch.manual_seed(0)
    rows = components()
    flow = build("tarflow", CONFIG)
    adam = torch.optim.AdamW(flow.parameters(), 1e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-3, STEPS)
    for step in range(STEPS):
        chosen = rows[torch.randint(len(rows), (BATCH_ROWS,))]
        loss = -flow.log_prob(chosen + 0.1 * torch.randn_like(chosen)).mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: {loss.item() / flow.features:.3f} nats a number", flush=True)
    models.save(flow.eval(), folder, accuracy={})


def decoded_by(flow: Flow, decoding: Decoding) -> Flow:
    """The same flow, folded, inverted in another way."""
    other = build(flow.family, choose_decoding(flow.family, flow.config, decoding))
    other.load_state_dict(flow.state_dict())
    return fold(other.to(flow.dtype).eval().requires_grad_(False))


def passes_to_rounding(folded: Flow, z: Tensor) -> list[float]:
    """The passes of each block, in the order of decoding, until only rounding is left; the mean."""
    found = []
    with torch.inference_mode():
        for transform in reversed(list(cast(FoldedChain, folded.chain[0]).transforms)):
            if not isinstance(transform, FoldedAutoregressive):
                z, _ = cast(Transform, transform).decode(z)
                continue
            x, taken = torch.zeros_like(z), torch.zeros(len(z), 1)
            moves = torch.ones(len(z), 1, dtype=torch.bool)
            while moves.any():
                new, _ = transform.scalar.decode(z, transform.network(x, None))
                taken += moves
                change = (new - x).abs() / (1 + new.abs())
                moves &= change.amax(1, keepdim=True) > SETTLED
                x = new
            found.append(float(taken.mean()))
            z = x
    return found


def seconds(session: Any, inputs: dict[str, Any]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    session.run(None, inputs)
    return time.perf_counter() - began


def measure(flow: Flow, rows: int) -> dict[str, Any]:
    """Compare the graphs on one number of rows."""
    z = base_noise(rows, flow.features, seed=0).astype(np.float32)
    inputs = {"z": z}
    measures, answers, opened = {}, {}, {}
    folded = {kind: decoded_by(flow, kind) for kind in ("sequential", "jacobi")}
    for kind, one in folded.items():
        graph = build_graphs(one, torch.float32).decode.SerializeToString()
        began = time.perf_counter()
        session = open_session(graph)
        opened[kind] = time.perf_counter() - began
        names = [output.name for output in session.get_outputs()]
        answers[kind] = dict(zip(names, session.run(None, inputs), strict=True))
        measures[kind] = partial(seconds, session, inputs)
    for name in ("x", "log_det"):
        np.testing.assert_array_equal(answers["jacobi"][name], answers["sequential"][name])
    blocks = sum(isinstance(part, FoldedAutoregressive) for part in folded["jacobi"].modules())
    found = take_turns(measures, rounds=ROUNDS if rows == 1 else 1, rows=rows)
    line = {
        "rows": rows,
        "blocks": blocks,
        "passes_a_block": float(np.mean(answers["jacobi"]["evaluations"]) / blocks),
        "to_rounding": passes_to_rounding(folded["jacobi"], torch.from_numpy(z)),
        "opened_seconds": opened,
        "seconds": {name: list(turns) for name, turns in found.seconds.items()},
        "speedup": found.speedup("jacobi"),
    }
    print(f"\n{rows} rows, the same bits; jacobi took {line['passes_a_block']:.1f} passes a block,")
    print(f"all but rounding done after {line['to_rounding']}; opened in {opened}")
    print(found.table(), flush=True)
    return line


def main() -> None:
    """Train, or measure and print."""
    torch.set_num_threads(1)
    words = sys.argv[1:]
    if words[0] == "train":
        train(Path(words[1]))
        return
    folder = Path(words[0])
    flow = models.load(folder).float()
    lines = [measure(flow, int(rows)) for rows in words[1:] or ("1", "16")]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine(), "config": flow.config, "lines": lines}
    OUT.with_stem(f"jacobi-tokens-{folder.name}").write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
