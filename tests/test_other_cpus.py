"""The same answers on another kind of CPU: numpy computes with the instructions that it finds.

Its exp, cos and sin have other last bits on another CPU. Here they are the plainest there are: a
second process leaves out every instruction set that numpy chooses at run time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from models.datasets import load
from models.datasets.toys import TOYS
from models.importers.registry import NAMES as SOURCES
from models.training import TrainingOptions, train
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)
from tests.fixtures import CONFIG_FILE, checkpoint_of, golden_cases

ROOT = Path(__file__).resolve().parents[1]
# Of what numpy was built to choose from, what it has chosen here: it refuses to leave out others.
FEATURES = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
FLOW = {"num_layers": 2, "conditioner": {"kind": "mlp", "widths": [8]}}
ROWS = 1000  # of the pinwheel, 1.6 % have other bits
ZOO = {"moons": "two_moons", "pinwheel": "pinwheel"}

pytestmark = pytest.mark.skipif(not FEATURES, reason="numpy chooses nothing on this CPU")

# Evaluates as the command does, many models in one process: a line of arguments each.
EVALUATE = """
import json, sys
from typer.testing import CliRunner
from pushforward.cli import app as cli

for line in sys.stdin:
    words = ["evaluate", *json.loads(line), "--rows", "test", "--json"]
    result = CliRunner().invoke(cli.build(words), words)
    print(json.dumps([result.exit_code, result.output, result.stdout]))
"""
CHOSEN = """
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
print([name for name in __cpu_dispatch__ if __cpu_features__[name]])
"""


def elsewhere(*command: str, given: str = "", **settings: str) -> str:
    """Run Python without the instructions that numpy chooses.   -> its stdout."""
    variables = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(FEATURES), **settings}
    result = subprocess.run(
        [sys.executable, *command],
        input=given, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_other_cpu_is_another() -> None:
    assert elsewhere("-W", "error", "-c", CHOSEN) == "[]\n"


def test_models_know_the_generated_rows_they_were_trained_on(tmp_path: Path) -> None:
    lines = {name: ([f"models/zoo/{name}", "--data", data], 2000) for name, data in ZOO.items()}
    for name in TOYS:
        data = load(f"{name}?rows={ROWS}")
        train(data, "realnvp", FLOW, tmp_path / name, options=TrainingOptions(epochs=1))
        lines[f"new {name}"] = [str(tmp_path / name), "--data", data.spec], ROWS // 10
    text = "".join(f"{json.dumps(words)}\n" for words, _ in lines.values())
    answers = map(json.loads, elsewhere("-c", EVALUATE, given=text).splitlines())
    for (name, (_, rows)), (code, output, stdout) in zip(lines.items(), answers, strict=True):
        assert code == 0, f"{name}: {output}"
        assert json.loads(stdout)["rows"] == rows, name


def test_the_readme_is_answered_and_checkpoints_have_their_numbers() -> None:
    """One checkpoint of every source: what numpy computes of it is the same for all of them."""
    cases = " or ".join(f"[{name}]" for name in one_case_a_source())
    elsewhere(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *("tests/docs/test_blocks.py", "tests/models/importers/test_golden.py"),
        *("-k", f"(a_block_runs and README and console) or (test_golden and ({cases}))"),
    )


def one_case_a_source() -> list[str]:
    """Names of golden cases: a small checkpoint of every source, a trained one."""
    cases = golden_cases()
    found: dict[str, str] = {}
    for name in sorted(cases, key=lambda name: checkpoint_of(cases[name]).stat().st_size):
        source = json.loads((cases[name] / CONFIG_FILE).read_text()).get("source")
        if name.endswith("_a"):
            found.setdefault(source, name)
    assert set(SOURCES) <= set(found)
    return list(found.values())
