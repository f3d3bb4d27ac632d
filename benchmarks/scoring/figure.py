"""The figure of docs/scoring.md: two statistics of a flow of Fashion-MNIST on other images.

python -m benchmarks.scoring.figure [docs/scoring.png]
"""

import argparse
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.scoring.detection import odd_images
from benchmarks.scoring.flows import TrainedFlow, read_rows
from models.scoring.conformal import threshold
from models.scoring.statistics import STATISTICS

Array: TypeAlias = NDArray[Any]

ROWS = 2_000
ALPHA = 0.01
SHOWN = ("neg_log_prob", "complexity")
TITLES = {
    "neg_log_prob": "−log p, bits a pixel: digits and blank images look normal",
    "complexity": "complexity, bits a pixel: they stand out",
}


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", default="docs/scoring.png")
    out = parser.parse_args().out
    mpl.use("Agg")
    torch.set_grad_enabled(False)
    _draw(_sets(), out)


def _sets() -> dict[str, Array]:
    fashion = read_rows("fashion", "normal.npy")[:ROWS]
    odd = odd_images(fashion)
    sets = {"Fashion-MNIST, held out": fashion, "MNIST": read_rows("mnist", "normal.npy")[:ROWS]}
    return sets | {"constant": odd["constant"], "upside down": odd["upside down"]}


def _draw(sets: dict[str, Array], out: str) -> None:
    from matplotlib import pyplot as plt

    flow = TrainedFlow("fashion")
    evidence = {name: flow.evidence(rows) for name, rows in sets.items()}
    figure = plt.figure(figsize=(10, 5.2), layout="constrained")
    grid = figure.add_gridspec(len(sets), 3, width_ratios=[0.8, 2, 2])
    for row, (name, rows) in enumerate(sets.items()):
        axes = figure.add_subplot(grid[row, 0])
        axes.imshow(np.hstack([image[0] for image in rows[:5]]), cmap="gray", vmin=0, vmax=255)
        axes.set_title(name, fontsize=9, color=f"C{row}")
        axes.axis("off")
    for column, statistic in enumerate(SHOWN, start=1):
        axes = figure.add_subplot(grid[:, column])
        scores = {key: STATISTICS[statistic].score(one, {}) for key, one in evidence.items()}
        if statistic == "neg_log_prob":
            scores = {key: values / np.log(2) / 784 for key, values in scores.items()}
        _draw_scores(axes, scores)
        axes.set_title(TITLES[statistic], fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(out, dpi=90)


def _draw_scores(axes: Any, sets: dict[str, Array]) -> None:
    """Histograms, and the line beyond which rows are flagged; the first set calibrates."""
    normal = next(iter(sets.values()))
    least = min(scores.min() for scores in sets.values())
    edges = np.linspace(least, np.quantile(normal, 0.999) + 1.5, 80)
    for row, (name, scores) in enumerate(sets.items()):
        values = np.clip(scores, None, edges[-1])
        axes.hist(values, edges, density=True, alpha=0.55, label=name, color=f"C{row}")
    axes.axvline(threshold(np.sort(normal), ALPHA), color="black", linewidth=1)
    axes.set_xlabel(f"flagged at α = {ALPHA:g}: right of the line", fontsize=8)
    axes.set_yticks([])
    axes.set_ylim(0, 1.2 * _peak(list(sets.values())[:2], edges))


def _peak(sets: list[Array], edges: Array) -> float:
    """The highest bar of some; one grey would flatten all others."""
    return max(float(np.histogram(scores, edges, density=True)[0].max()) for scores in sets)


if __name__ == "__main__":
    main()
