"""`python -m benchmarks.gpu` where there is no GPU, as on a machine that has one: the same checks.

The environment is such a machine's: the libraries, but no distribution of ours and no test tool.
"""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import subjects
from benchmarks.gpu.__main__ import EXIT_USAGE, main
from benchmarks.gpu.bits import check_bits
from benchmarks.gpu.results import Measurement, Results
from benchmarks.gpu.subjects import SLOW_ON_A_CPU, ZOO_NAMES, Sizes
from service.contracts import Array, EngineOutput
from service.engines.selection import EngineSelection
from tests.cases import CASES

# One process for all: the command runs once.
pytestmark = pytest.mark.xdist_group("gpu_benchmark")

ROOT = Path(__file__).resolve().parent.parent
# What a machine without our distribution and without tests lacks, by the start of the names.
ABSENT = ("pushforward", "__editable__", "pytest", "_pytest", "xdist", "hypothesis", "schemathesis")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An interpreter with the libraries on `PYTHONPATH`, and its variables."""
    folder = tmp_path_factory.mktemp("machine")
    made = [sys.executable, "-m", "venv", "--without-pip", str(folder / "env")]
    subprocess.run(made, check=True)
    (folder / "site").mkdir()
    for path in map(
        Path, {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *_added()}
    ):
        for entry in path.iterdir():
            link = folder / "site" / entry.name
            if not entry.name.startswith(ABSENT) and entry.suffix != ".pth" and not link.exists():
                link.symlink_to(entry)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    variables = {"PYTHONPATH": f"{ROOT}:{folder / 'site'}", "OMP_NUM_THREADS": "1"}
    return folder / "env/bin/python", kept | variables


def _added() -> set[str]:
    """Folders of libraries that a .pth file added."""
    return {path for path in sys.path if path.endswith("site-packages")}


@pytest.fixture(scope="module")
def found(
    python: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A quick run on the CPU, and the folder of what it wrote."""
    folder = tmp_path_factory.mktemp("gpu")
    words = ("-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--out", str(folder))
    run = subprocess.run(
        [str(python[0]), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=python[1],
        timeout=240,
    )
    return run, folder


def test_nothing_of_ours_is_installed_there(python: tuple[Path, dict[str, str]]) -> None:
    code = "from importlib import metadata; metadata.version('pushforward')"
    run = subprocess.run(
        [str(python[0]), "-c", code], capture_output=True, text=True, env=python[1]
    )
    assert "PackageNotFoundError" in run.stderr
    code = "import pytest"
    run = subprocess.run(
        [str(python[0]), "-c", code], capture_output=True, text=True, env=python[1]
    )
    assert "ModuleNotFoundError" in run.stderr


def test_every_check_passes_on_a_cpu(
    found: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    run, folder = found
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    report = json.loads((folder / "gpu.json").read_text("utf-8"))
    assert report["is_passed"]
    checked = {(one["part"], one["subject"].partition(",")[0]) for one in report["checks"]}
    for name in set(ZOO_NAMES) - SLOW_ON_A_CPU:
        assert {("correctness, zoo", name), ("bits in a bucket", name), ("HTTP", name)} <= checked
    assert {("HTTP", what) for what in ("overload", "reload", "drain")} <= checked
    assert report["machine"]["device"] == "cpu"
    # What did not fit is told; on cores that others use too there may be something.
    run_cases = {subject for part, subject in checked if part == "correctness, cases"}
    left_out = {one["subject"] for one in report["not_run"] if one["part"] == "correctness, cases"}
    assert run_cases | left_out == set(CASES)


def test_results_are_written_as_lines_and_as_a_table(
    found: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, folder = found
    lines = [json.loads(line) for line in (folder / "gpu.jsonl").read_text("utf-8").splitlines()]
    report = json.loads((folder / "gpu.json").read_text("utf-8"))
    checks = [{**line} for line in lines if line.pop("kind") == "check"]
    assert checks == report["checks"]
    table = (folder / "gpu.md").read_text("utf-8")
    assert f"- torch: {report['machine']['torch']}" in table
    assert "| bits in a bucket |" in table


def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cuda:7"])
    assert main() == EXIT_USAGE
    assert capsys.readouterr().err.startswith("benchmarks.gpu: --device cuda:7: expected one of ")


class Doubling:
    """Doubles, with other last bits for what stands in the last place, or beside NaN."""

    name, device, dtype = "torch", "cpu", "float32"

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def encode(self, x: Array, context: Array | None) -> EngineOutput:
        value = 2 * x.reshape(len(x), -1)
        is_wrong = np.arange(len(x)) == (len(x) - 1 if self.fault == "last place" else -1)
        if self.fault == "beside NaN":
            is_wrong[:] = np.isnan(x).any()
        value[is_wrong] = np.nextafter(value[is_wrong], np.float32(99))
        return value, np.zeros(len(x), np.float32)

    decode = generate = encode


@pytest.mark.parametrize(
    ("fault", "checked", "failed", "told"),
    [
        ("none", 2, 0, []),
        ("beside NaN", 2, 2, []),
        ("last place", 0, 0, ["on this machine bits depend on the place"]),
    ],
)
def test_bits_are_checked_where_a_server_promises_them(
    fault: str, checked: int, failed: int, told: list[str], results: Results
) -> None:
    _, make = next(subjects.cases("cpu", Sizes(2, 2)))
    check_bits(results, make(), "torch", EngineSelection(Doubling(fault)), is_quick=True)
    assert (len(results.checks), len(results.failed)) == (checked, failed)
    assert [one.reason.partition(",")[0] for one in results.not_run] == told


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Results]:
    """Results of which nothing is there yet; their clock stands."""
    with closing(Results(tmp_path / "lines", 10.0, lambda: 0.0)) as made:
        yield made


def test_a_check_that_fails_fails_the_run(results: Results) -> None:
    assert not results.is_passed, "nothing was checked"
    results.check_error("part", "flow", "z", 1.0, 2.0)
    assert results.is_passed
    results.check_error("part", "flow", "z", float("nan"), 2.0)
    assert not results.is_passed


def test_what_is_raised_is_a_check_that_failed(results: Results) -> None:
    with results.guard("part", "flow"):
        raise ValueError("no such device")
    (failed,) = results.failed
    assert (failed.what, failed.detail.splitlines()[-1]) == (
        "ValueError",
        "ValueError: no such device",
    )


def test_what_does_not_fit_is_told(results: Results) -> None:
    assert results.has_time("part", "first", 10.0)
    assert not results.has_time("part", "second", 11.0)
    assert [(one.subject, one.reason) for one in results.not_run] == [
        ("second", "no time left of 10 s")
    ]


def test_lines_hold_numbers_that_json_does_not(results: Results, tmp_path: Path) -> None:
    results.measure(Measurement("table", "flow", "torch", {"ms": float("inf")}))
    (line,) = (tmp_path / "lines").read_text("utf-8").splitlines()
    assert json.loads(line)["values"] == {"ms": "inf"}
