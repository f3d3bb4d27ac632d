"""The table: what is asked of each operation, of heads and limits, and of a service in trouble."""

from tests.contract.case import Case
from tests.contract.table import (
    decode,
    encode,
    faults,
    heads,
    invalid,
    limits,
    log_prob,
    mends,
    sample,
    score,
    versions,
)
from tests.contract.table.neighbours import NEIGHBOURS, Neighbour

PARTS = {
    "log_prob": log_prob.CASES,
    "score": score.CASES,
    "encode": encode.CASES,
    "decode": decode.CASES,
    "sample": sample.CASES,
    "heads": heads.CASES,
    "invalid": invalid.CASES,
    "limits": limits.CASES,
    "faults": faults.CASES,
    "mends": mends.CASES,
    "versions": versions.CASES,
}
CASES: dict[str, Case] = {
    f"{part}-{case.name}": case for part, cases in PARTS.items() for case in cases
}

__all__ = ["CASES", "NEIGHBOURS", "PARTS", "Neighbour"]
