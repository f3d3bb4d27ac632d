"""The zoo's flows of 28 x 28 images side by side: likelihood, cost, digits against clothes.

    python -m benchmarks.images.train --fashion 'fashion_mnist?folder=FOLDER'
    python -m benchmarks.bench_images --fashion 'fashion_mnist?folder=FOLDER' [PART ...]

Parts: `likelihoods` (bits/dim on the same 500 test rows with the same dequantisation noise, paired
with Glow), `rates` (the four operations over HTTP, all models in one `pushforward serve`, in
turns), `footprints` (each served alone), `decoded` (PixelCNN row by row beside whole passes),
`detected` (every statistic of `/score`: models of digits on clothes, models of clothes on digits;
half of the test rows calibrate, the others are the normal rows).
What `benchmarks.images.train` makes takes part where it is there. `images/results.json` has every
number and `images/results.md` the tables; a part that is not measured again is kept, and with
`--models` so is what `detected` found of the others.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import machine
from benchmarks.images import anomalies, decoding, likelihood, served
from benchmarks.images.report import sections_of
from benchmarks.images.rows import FASHION, MNIST, read_data, test_rows
from benchmarks.images.train import RUNS, VARIANTS, options_of
from benchmarks.workloads import ZOO

OUT = Path(__file__).parent / "images"
GLOW, PIXELCNN = "digits-glow", "digits-pixelcnn"
MODELS = (
    "digits-nice",
    "digits-realnvp",
    GLOW,
    "digits-tarflow",
    "digits-classes",
    PIXELCNN,
)
ROUNDS, STARTS = 9, 3


def measures(fashion: str, models: list[str], starts: int) -> dict[str, Callable[[], Any]]:
    """What is measured, by its name.

    Args:
        fashion: what the clothes are loaded by.
        models: those whose scores are measured; none: all.
        starts: of each server of `footprints`.
    """
    shipped = {name: ZOO / name for name in MODELS if (ZOO / name).exists()}
    made = {name: RUNS / name for name in VARIANTS if (RUNS / name).exists()}
    digits = read_data(MNIST)
    test = test_rows(digits)
    of_digits = shipped | {name: made[name] for name in made if name.startswith("digits")}

    of_clothes = {name: made[name] for name in made if name not in of_digits}
    coarse = {name: options_of(name).get("coarse_bits") for name in of_digits}

    def detected() -> list[anomalies.Detected]:
        data = {MNIST: digits, FASHION: read_data(FASHION, fashion)}
        folders = shipped | of_clothes
        return anomalies.detect({name: folders[name] for name in models or folders}, data)

    parts: dict[str, Callable[[], Any]] = {
        "likelihoods": partial(likelihood.measure, of_digits, GLOW, digits, coarse),
        "rates": partial(served.rates, shipped, test, ROUNDS),
        "footprints": partial(served.footprints, shipped, test, starts),
        "detected": detected,
    }
    if PIXELCNN in shipped:
        parts["decoded"] = partial(decoding.measure, shipped[PIXELCNN])
    return parts


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
    parser.add_argument("--models", nargs="*", default=[], help="of `detected`, left out: all")
    parser.add_argument("--beside", action="store_true", help="say that other programs ran beside")
    parser.add_argument("--starts", type=int, default=STARTS, help="of each of `footprints`")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    file = OUT / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    measure = measures(chosen.fashion, chosen.models, chosen.starts)
    for name in chosen.parts or measure:
        found = measure[name]()
        if name == "detected" and chosen.models:
            kept = results[name]["found"]
            found = [one for one in kept if one["model"] not in chosen.models] + found
        results[name] = {"machine": machine(), "beside": chosen.beside, "found": found}
        write_report(results)
    print((OUT / "results.md").read_text())


if __name__ == "__main__":
    main()
