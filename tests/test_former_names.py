"""Import paths of 0.1.0 that its documentation named: they work, and say what to write instead."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import models
import pushforward
from models.importers.store import save_import

ROOT = Path(__file__).resolve().parent.parent
MOONS = ROOT / "models/zoo/moons"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """A warning comes with the first import."""
    for module in ("checkpoint", "evaluate", "certificate", "transforms.ode"):
        sys.modules.pop(f"models.{module}", None)
    for module in [name for name in sys.modules if f"{name}.".startswith("service.client.")]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("former", "names", "module", "instead"),
    [
        (
            "service.client",
            "AccessDenied AsyncClient Client ClientError ConnectionFailed DeadlineExceeded Decoded "
            "DrawOptions Encoded NotFound NotReady Overloaded RequestRefused ResponseError Samples "
            "ServerFailed TimedOut UnreadableAnswer",
            "pushforward.client",
            "from pushforward import Client, AsyncClient",
        ),
        (
            "models.checkpoint",
            "CONFIG_FILE CheckpointError Manifest check_target digest load read_golden save",
            "models.checkpoints.folder",
            "from pushforward import load, save",
        ),
        ("models.evaluate", "Evaluation evaluate", "models.training.evaluate", ""),
        (
            "models.certificate",
            "Certificate CertificateError certify Tolerance",
            "models.onnx.certificate",
            "",
        ),
        (
            "models.transforms.ode",
            "ContinuousTransform TrainingSettings is_continuous",
            "models.ode.transform",
            "",
        ),
    ],
)
def test_a_former_path_works_and_says_what_to_write(
    former: str, names: str, module: str, instead: str
) -> None:
    with pytest.warns(DeprecationWarning, match=f"^{former} goes with .* write ") as caught:
        found = importlib.import_module(former)
    (warning,) = caught
    assert (instead or module) in str(warning.message)
    home = importlib.import_module(module)
    for name in names.split():
        assert getattr(found, name) is getattr(home, name)


@pytest.mark.filterwarnings("ignore:models.transforms.ode goes:DeprecationWarning")
def test_what_was_asked_of_solves_in_a_block_is_still_heeded() -> None:
    former = importlib.import_module("models.transforms.ode")
    flow = pushforward.load(ROOT / "models/zoo/pinwheel").double()
    z = torch.ones(2, 2).double()
    with torch.no_grad():
        x, log_det = flow.decode(z)
        with former.values_only(), former.solve_reports() as reports:
            alone, nothing = flow.decode(z)
        assert torch.equal(flow.decode(z)[1], log_det)
        with pytest.raises(ZeroDivisionError), former.values_only():
            1 / 0  # noqa: B018 (an exception ends the block too)
        assert torch.equal(flow.decode(z)[1], log_det)
    assert nothing.isnan().all()
    torch.testing.assert_close(alone, x, rtol=1e-4, atol=1e-4)
    assert [report.status.tolist() for report in reports] == [[0, 0]]


def test_the_warning_points_at_who_imports(tmp_path: Path) -> None:
    """Python shows a DeprecationWarning only where it is the program's own."""
    program = tmp_path / "program.py"
    program.write_text("\nfrom service.client import Client\n")
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.stderr.startswith(f"{program}:2: DeprecationWarning: service.client ")


def test_modules_of_the_client_go_on() -> None:
    """One class of an exception under both names: what catches it catches it."""
    with pytest.warns(DeprecationWarning, match=r"service\.client"):
        errors = importlib.import_module("service.client.errors")
    assert errors is importlib.import_module("pushforward.client.errors")


def test_load_exact_goes_on() -> None:
    with pytest.warns(DeprecationWarning, match="models.checkpoint"):
        load_exact = importlib.import_module("models.checkpoint").load_exact
    flow, exact = models.load(MOONS), load_exact(MOONS)
    assert {str(value.dtype) for value in exact.state_dict().values()} == {"torch.float64"}
    assert flow.state_dict().keys() == exact.state_dict().keys()


def test_what_has_not_moved_does_not_warn() -> None:
    assert models.load is pushforward.load
    assert models.importers.store.save_import is save_import


@pytest.mark.parametrize(
    "arguments", [["-m", "service.cli"], ["-c", "from service.cli import main; main()"]]
)
def test_the_former_command_goes_on(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments, "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.startswith("pushforward ")
    assert "DeprecationWarning: service.cli goes with " in done.stderr


def test_the_former_way_to_train_the_zoo_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "models.zoo", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, "usage" in done.stdout.lower()) == (0, True), done.stderr
    assert "write `python -m tools.zoo`" in done.stderr


def test_the_zoo_is_trained_in_a_clone() -> None:
    """What is installed from a wheel has no `tools`."""
    code = """
import runpy
import tools
tools.__path__ = []  # as of a package of that name that is somebody else's
runpy.run_module("models.zoo", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "in a clone of the project: python -m tools.zoo" in done.stderr
