"""The checks and measurements in their order, within the time there is: right first, then fast."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import bits, correctness, machine, over_http, report, speed, subjects
from benchmarks.gpu.candidates import engines_of
from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import Made, Sizes
from models.importers.report import ImportRefused
from service.engines.device import resolve_device

EXIT_PASSED, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

_SECONDS = {False: 340.0, True: 50.0}
# A device that does not come back is not waited for longer than this beyond the time; a CPU may
# be shared with others.
_GRACE_SECONDS = {False: 15.0, True: 90.0}
_SIZES = {False: Sizes(8, 24), True: Sizes(2, 2)}
# The largest batch of an engine: each size that it may have takes time to capture.
_MAX_ROWS = {"zoo": 256, "cases": 32, "golden cases": 32}

_NOT_QUICK = "the run without --quick has it"


def main() -> int:
    """Run everything.

    Returns:
        0 where every check holds, 1 where one does not, 2 where the device is not there.
    """
    options = _parse()
    try:
        device = resolve_device(options.device)
    except ValueError as error:
        print(f"benchmarks.gpu: --device {options.device}: {error}", file=sys.stderr)
        return EXIT_USAGE
    machine.require_float32()
    torch.set_num_threads(1 if device == "cpu" else os.cpu_count() or 1)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    seconds = _SECONDS[options.quick]
    results = Results(folder / "gpu.jsonl", seconds)
    facts = machine.describe(device)
    results.note("machine", facts)
    _end_when_stuck(results, folder, facts, seconds + _GRACE_SECONDS[options.quick])
    try:
        _run(results, folder, device, is_quick=options.quick)
    finally:
        results.close()
        _, markdown = report.write(results, folder, facts)
        print(markdown.read_text("utf-8") if options.quick else f"written to {markdown}")
    print(f"{len(results.checks)} checks, {len(results.failed)} failed, {results.elapsed:.0f} s")
    return EXIT_PASSED if results.is_passed else EXIT_FAILED


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="fewer rows, and one case a family")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder")
    return parser.parse_args()


def _run(results: Results, folder: Path, device: str, *, is_quick: bool) -> None:
    """Check the zoo and the server, then measure, then check every option of every family."""
    sizes = _SIZES[is_quick]
    zoo, chosen = subjects.zoo(device, sizes), frozenset(subjects.ZOO_NAMES)
    if is_quick:
        chosen -= subjects.SLOW_ON_A_CPU
        zoo = _only(results, "zoo", chosen, zoo)
    folders = [str(subjects.ZOO / name) for name in sorted(chosen)]
    known = _check_flows(results, "zoo", zoo, is_quick=is_quick)
    with (
        results.guard(over_http.PART, "server"),
        over_http.served(folder, "zoo", device, *folders) as server,
    ):
        over_http.check_answers(results, server, device, known)
        speed.measure_server(results, folder, server, device, is_quick=is_quick)
    with results.guard(over_http.PART, "server with a short queue"):
        over_http.check_behaviour(results, folder, device)
    cases = subjects.cases(device, sizes)
    if is_quick:
        cases = _only(results, "cases", subjects.first_of_families(), cases)
    _check_flows(results, "cases", cases, is_quick=is_quick)
    speed.measure_engines(results, device, is_quick=is_quick)
    if is_quick:
        results.skip(correctness.PART, "golden cases", _NOT_QUICK)
    else:
        _check_flows(results, "golden cases", subjects.stored(device, sizes), is_quick=False)


def _only(
    results: Results, group: str, names: Collection[str], made: Iterator[Made]
) -> Iterator[Made]:
    """Those of these names; the others are told as not run."""
    for name, make in made:
        if name in names:
            yield name, make
        else:
            results.skip(f"{correctness.PART}, {group}", name, _NOT_QUICK)


def _check_flows(
    results: Results, group: str, made: Iterator[Made], *, is_quick: bool
) -> over_http.Known:
    """Check every engine of some flows: numbers and bits."""
    found = {}
    for name, make in made:
        if not results.has_time(f"{correctness.PART}, {group}", name):
            continue
        with results.guard(f"{correctness.PART}, {group}", name):
            try:
                subject = make()
            except ImportRefused as reason:
                results.skip(f"{correctness.PART}, {group}", name, str(reason))
                continue
            wanted = correctness.wanted_of(subject)
            for engine, selection in engines_of(
                results, group, subject.checkpoint, _MAX_ROWS[group]
            ):
                correctness.check_engine(results, subject, engine, selection.engine, wanted)
                bits.check_bits(results, subject, engine, selection, is_quick=is_quick)
            found[name] = (subject, wanted)
    return found


def _end_when_stuck(results: Results, folder: Path, facts: dict[str, Any], seconds: float) -> None:
    """Write what there is and end, where a call on the device never comes back."""

    def end() -> None:
        results.check("time", "the run", "ends in time", passed=False, detail=f"{seconds:g} s")
        report.write(results, folder, facts)
        _kill_children()
        os._exit(EXIT_FAILED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _kill_children() -> None:
    """End the servers that this process has started."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text("ascii").split():
            os.kill(int(child), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
