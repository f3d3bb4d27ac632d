"""In projects that have folders `models` and `service` of their own, first on `sys.path`."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MOONS = ROOT / "models/zoo/moons"
MAIN = "from pushforward.cli.main import main; main()"


@pytest.fixture(params=["packages", "namespaces", "modules"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project with `models` and `service` as packages, folders of modules, or modules."""
    for name in ("models", "service"):
        content = f"RAN = {name!r}\n"
        if request.param == "modules":
            (tmp_path / f"{name}.py").write_text(content)
            continue
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text(content)
        if request.param == "packages":
            (tmp_path / name / "__init__.py").write_text(content)
    return tmp_path


def environment(project: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(project), str(ROOT)])}


def run(project: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=project,
        env=environment(project),
        timeout=60,
    )


@pytest.mark.parametrize("project", ["packages", "modules"], indirect=True)
def test_the_client_leaves_the_projects_packages_alone(project: Path) -> None:
    code = """
from pushforward import AsyncClient, Client
import sys
assert not {"models", "service"} & set(sys.modules)
import models, service
print(models.__file__)
"""
    done = run(project, code)
    assert done.returncode == 0, done.stderr
    assert project in Path(done.stdout.strip()).parents


def test_load_save_build_and_import_take_our_models(project: Path) -> None:
    code = f"""
import numpy as np
from pushforward import build, import_checkpoint, load, save
flow = build("realnvp", {{"event_shape": [2], "num_layers": 2}})
save(flow, "saved")
assert load("saved").family == load({str(MOONS)!r}).family
try:
    import_checkpoint("nothing.pt")
except (OSError, ValueError) as error:
    print(error)
"""
    done = run(project, code)
    assert done.returncode == 0, done.stderr
    assert "nothing.pt" in done.stdout


# Python itself prefers our package to a folder without __init__.py.
@pytest.mark.parametrize("project", ["packages", "modules"], indirect=True)
@pytest.mark.parametrize("name", ["load", "save", "build", "import_checkpoint"])
def test_a_package_that_is_imported_already_stays_and_is_named(project: Path, name: str) -> None:
    code = f"""
import models
try:
    from pushforward import {name}
except ImportError as error:
    print(error)
import models as again
assert again is models and models.RAN == "models"
"""
    done = run(project, code)
    assert done.returncode == 0, done.stderr
    in_the_way = project / ("models.py" if (project / "models.py").exists() else "models")
    assert str(in_the_way) in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("project", ["packages", "modules"], indirect=True)
@pytest.mark.parametrize("name", ["models", "service"])
def test_the_command_names_what_is_in_its_way(project: Path, name: str) -> None:
    """As where something that starts with Python itself has imported it."""
    code = f"import {name}, sys; sys.argv[1:] = ['serve']\n{MAIN}"
    done = run(project, code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"pushforward needs its own package {name!r}, but ")
    assert str(project / name) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def served(project: Path) -> Iterator[str]:
    """The address of `pushforward serve` with two workers, started in the project."""
    command = [sys.executable, "-c", MAIN]
    flags = ["serve", str(MOONS), "--port", "0", "--workers", "2", "--engine", "torch"]
    with subprocess.Popen(
        [*command, *flags],
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stdout)
        yield next((address[0] for address in found if address), "")
        server.terminate()
        server.stdout.read()
    assert server.returncode == 0


@pytest.mark.parametrize("project", ["packages"], indirect=True)
def test_the_command_and_its_workers_serve(served: str) -> None:
    for _ in range(4):
        answer = httpx.post(f"{served}/log_prob", json={"x": [[0.0, 1.0]]}, timeout=30)
        assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["log_prob"], [-0.30267775], atol=1e-5)
