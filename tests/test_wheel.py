"""The wheel: built, installed in a clean environment, and used as people use it."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]

pytestmark = pytest.mark.xdist_group("wheel")


def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command outside of this folder, that sees nothing of this environment's settings."""
    unwanted = ("PYTHONPATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return subprocess.run(
        [*map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=kept | variables,
        timeout=120,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    backend = folder / "backend"
    got = run(*PIP, "install", "--no-compile", "--target", backend, "hatchling>=1.27")
    if got.returncode != 0:
        pytest.skip(f"hatchling, which builds the wheel, cannot be had: {got.stderr[-200:]}")
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    built = run(*PIP, "wheel", *options, ROOT, PYTHONPATH=str(backend))
    assert built.returncode == 0, built.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment in which the wheel and what it requires are installed."""
    folder = tmp_path_factory.mktemp("environment")
    made = run(sys.executable, "-m", "venv", "--without-pip", folder)
    assert made.returncode == 0, made.stderr
    python = folder / "bin/python"
    got = run(
        *PIP, "--python", python, "install", "--no-compile", wheel, "-c", ROOT / "constraints.txt"
    )
    if got.returncode != 0:
        pytest.skip(f"httpx and numpy cannot be had: {got.stderr[-200:]}")
    return folder


def test_it_holds_the_packages_and_the_zoo_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"pushforward", "models", "service", f"pushforward-{VERSION}.dist-info"}
    assert {f"{top}/py.typed" for top in ("pushforward", "models", "service")} <= names
    static = (path for path in (ROOT / "service/static").rglob("*") if path.is_file())
    assert {path.relative_to(ROOT).as_posix() for path in static} <= names
    licences = f"pushforward-{VERSION}.dist-info/licenses"
    assert {f"{licences}/LICENSE", f"{licences}/NOTICE"} <= names
    zoo = [path.parent.name for path in (ROOT / "models/zoo").glob("*/config.json")]
    files = ("config.json", "model.safetensors", "golden.safetensors")
    files += ("calibration.json", "calibration.safetensors")
    assert {f"models/zoo/{model}/{file}" for model in zoo for file in files} <= names
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_its_command_says_its_version(environment: Path) -> None:
    done = run(environment / "bin/pushforward", "--version")
    assert (done.returncode, done.stdout) == (0, f"pushforward {VERSION}\n"), done.stderr


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("client", "pushforward client: needs the extra 'cli': pip install 'pushforward[cli] @ "),
        (
            "serve",
            "pushforward serve: needs the extra 'cpu' (or 'gpu', 'onnx'): pip install "
            "'pushforward[cpu] @ ",
        ),
    ],
)
def test_its_command_says_which_extra_is_missing(
    environment: Path, wheel: Path, command: str, line: str
) -> None:
    """It came from a file, so it is installed from that again."""
    done = run(environment / "bin/pushforward", command, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}{wheel.as_uri()}'\n")


def test_its_client_is_there(environment: Path) -> None:
    code = "import pushforward; from pushforward import AsyncClient, Client; print(Client.__name__)"
    done = run(environment / "bin/python", "-W", "error", "-c", code)
    assert (done.returncode, done.stdout) == (0, "Client\n"), done.stderr


@pytest.fixture
def served(environment: Path) -> Iterator[str]:
    """The address of a server of the wheel; the packages of the extras are the tests' own."""
    inner = ("-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    site = Path(run(environment / "bin/python", *inner).stdout.strip())
    lenders = [path for path in sys.path if path.endswith("site-packages")]
    (site / "extras.pth").write_text("\n".join([*lenders, sysconfig.get_path("purelib")]))
    command = [environment / "bin/pushforward", "serve", site / "models/zoo/moons"]
    flags = ["--port", "0", "--engine", "torch"]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        [*map(str, command), *flags], stdout=subprocess.PIPE, text=True, cwd="/", env=variables
    ) as server:
        assert server.stdout is not None
        found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stdout)
        yield next((address[0] for address in found if address), "")
        server.terminate()
        server.stdout.read()
    assert server.returncode == 0


def test_it_serves(served: str) -> None:
    answer = httpx.post(f"{served}/log_prob", json={"x": [[0.0, 1.0]]}, timeout=30)
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["log_prob"], [-0.30267775], atol=1e-5)
