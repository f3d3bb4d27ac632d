"""The zoo's flows of 28 x 28 images side by side: likelihood, cost, digits against clothes.

    python -m benchmarks.images.train --fashion 'fashion_mnist?folder=FOLDER'
    python -m benchmarks.bench_images --fashion 'fashion_mnist?folder=FOLDER' [PART ...]

Parts: `likelihoods` (bits/dim on the same 500 test rows with the same dequantisation noise, paired
with Glow), `rates` (the four operations over HTTP, all models in one `pushforward serve`, in
turns), `footprints` (each served alone), `detected` (every statistic of `/score`: models of digits
on clothes, models of clothes on digits; half of the test rows calibrate, the others are the normal
rows). What `benchmarks.images.train` makes takes part where it is there. `images/results.json` has
every number and `images/results.md` the tables; a part that is not measured again is kept.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import machine
from benchmarks.images import anomalies, likelihood, served
from benchmarks.images.report import sections_of
from benchmarks.images.rows import FASHION, MNIST, read_data, test_rows
from benchmarks.images.train import RUNS, VARIANTS
from benchmarks.workloads import ZOO

OUT = Path(__file__).parent / "images"
GLOW = "digits-glow"
MODELS = (
    "digits-nice",
    "digits-realnvp",
    GLOW,
    "digits-tarflow",
    "digits-tarflow-classes",
    "digits-pixelcnn",
)
ROUNDS, STARTS = 9, 3


def measures(fashion: str) -> dict[str, Callable[[], Any]]:
    """What is measured, by its name."""
    shipped = {name: ZOO / name for name in MODELS if (ZOO / name).exists()}
    made = {name: RUNS / name for name in VARIANTS if (RUNS / name).exists()}
    digits = read_data(MNIST)
    test = test_rows(digits)
    of_digits = shipped | {name: made[name] for name in made if name.startswith("digits")}

    def detected() -> list[anomalies.Detected]:
        data = {MNIST: digits, FASHION: read_data(FASHION, fashion)}
        return anomalies.detect(shipped | made, data)

    return {
        "likelihoods": partial(likelihood.measure, of_digits, GLOW, digits),
        "rates": partial(served.rates, shipped, test, ROUNDS),
        "footprints": partial(served.footprints, shipped, test, STARTS),
        "detected": detected,
    }


def write_report(results: dict[str, Any]) -> None:
    """Write results.json and results.md."""
    (OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sections = sections_of(results)
    text = "".join(f"\n## {title}\n\n{body}\n" for title, body in sections.items())
    head = "# Results of bench_images\n\nMade by `python -m benchmarks.bench_images`.\n"
    (OUT / "results.md").write_text(head + text)


def main() -> None:
    """Measure what is asked for, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="left out: all of them")
    parser.add_argument("--fashion", default=FASHION, help="data of the clothes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    kept = OUT / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    found = measures(chosen.fashion)
    for name in chosen.parts or found:
        results[name] = {"machine": machine(), "found": found[name]()}
        write_report(results)
    print((OUT / "results.md").read_text())


if __name__ == "__main__":
    main()
