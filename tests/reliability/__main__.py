"""Try the list and print a table; exit code 1 where anything was wrong."""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

from tests.e2e import test_hostile
from tests.reliability import (  # noqa: F401  (each registers its trials)
    bodies,
    connections,
    files,
    fuzz,
    lifecycle,
    load,
    names,
    numbers,
)
from tests.reliability.registry import TRIALS, Ground, table, try_one


def main() -> int:
    """Try what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds where the list says minutes")
    parser.add_argument("--share", type=float, default=1.0, help="of the full length, such as 0.5")
    parser.add_argument("--lines", default="", help="numbers of the list, joined by commas")
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    asked = parser.parse_args()
    lines = {int(line) for line in asked.lines.split(",") if line}
    trials = sorted((t for t in TRIALS if not lines or t.line in lines), key=lambda t: t.line)
    findings = []
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(Path(name), test_hostile.KEY, asked.quick, asked.share)
        try:
            for each in trials:
                findings.append(try_one(each, ground))
                print(table(findings[-1:]).splitlines()[-1], flush=True)
        finally:
            ground.close()
    if asked.out:
        asked.out.write_text(table(findings), encoding="utf-8")
    wrong = [found for found in findings if not found.is_right]
    print(f"{len(findings) - len(wrong)} of {len(findings)} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
