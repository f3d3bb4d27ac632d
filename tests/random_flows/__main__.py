"""Judge thousands of random configurations and print a table: `python -m tests.random_flows`.

Exit code 1 if one of them is wrong. The same numbers give the same configurations.
"""

import argparse
import sys
import time
from dataclasses import dataclass, field

import torch

from tests.random_flows.compare import ALLOWED, Errors, make, measure
from tests.random_flows.draw import CONTINUOUS, DISCRETE, draw


@dataclass
class _Row:
    family: str
    refused: int = 0
    beyond: int = 0
    errors: list[Errors] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        worst = (max((getattr(e, name) for e in self.errors), default=0.0) for name in ALLOWED)
        counts = (len(self.errors), self.refused, self.beyond)
        return [
            self.family,
            *map(str, counts),
            *(f"{value:.1e}" for value in worst),
            str(len(self.wrong)),
        ]


def run(family: str, count: int, first_seed: int) -> _Row:
    """Judge `count` configurations that build."""
    row, seed = _Row(family), first_seed
    while len(row.errors) < count:
        drawn = draw(family, seed)
        try:
            flow = make(drawn, seed)
        except ValueError:
            row.refused += 1
        else:
            errors = measure(flow, drawn, seed)
            row.errors.append(errors)
            row.beyond += errors.is_beyond
            if wrong := errors.wrong(continuous=family in CONTINUOUS):
                row.wrong.append(f"{family}, seed {seed}: {', '.join(wrong)}: {errors}: {drawn}")
        seed += 1
    return row


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--discrete", type=int, default=300, help="of each discrete family")
    parser.add_argument("--continuous", type=int, default=200, help="of ffjord")
    parser.add_argument(
        "--images", type=int, default=10, help="of cnf_unet and ffjord_image, which are slow"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first configuration")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, faults = time.monotonic(), []
    heads = ("family", "flows", "refused", "too steep", *ALLOWED, "wrong")
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads), flush=True)
    counts = dict.fromkeys(DISCRETE, options.discrete)
    counts |= {"ffjord": options.continuous}
    counts |= dict.fromkeys(("cnf_unet", "ffjord_image"), options.images)
    for family, count in counts.items():
        row = run(family, count, options.seed)
        faults += row.wrong
        print("| " + " | ".join(row.cells()) + " |", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s")
    print(*faults, sep="\n", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
