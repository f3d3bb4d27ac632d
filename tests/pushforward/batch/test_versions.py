"""A path of a model with versions: without a server it means what a server answers with."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

import models
from models.checkpoints.manifest import digest
from pushforward.batch import Scorer
from pushforward.batch.locate import locate
from service.launch.exits import StartupError
from service.repository.folders import ModelLocation
from tests.pushforward.batch.test_files import run
from tests.pushforward.cli.test_calibration_scores import flow_of, saved

X = np.random.default_rng(5).normal(size=(40, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1, 2 and 010, each another flow."""
    folder = tmp_path_factory.mktemp("models") / "flights"
    for seed, version in enumerate(("1", "2", "010")):
        flow = flow_of()
        for parameter in flow.parameters():
            parameter.data += 0.1 * seed
        saved(flow, folder / version)
    return folder


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """The same folders, without what is in them."""
    for version in ("1", "2", "010"):
        (tmp_path / "flights" / version).mkdir(parents=True)
        (tmp_path / "flights" / version / "config.json").touch()
    return tmp_path / "flights"


@pytest.mark.parametrize(
    ("said", "default"),
    [
        ("", "10"),
        ('version_policy = "all"', "10"),
        ("version_policy = [2, 1]", "2"),
        ("version_policy = [1, 2]\ndefault_version = 1", "1"),
        ("default_version = 2", "2"),
    ],
)
def test_a_path_means_the_version_that_a_server_answers_with(
    listed: Path, said: str, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (listed / "serving.toml").write_text(said)
    folders = {"1": "1", "2": "2", "10": "010"}
    assert locate(listed) == ModelLocation("flights", default, listed / folders[default])
    for version, folder in folders.items():
        there = ModelLocation("flights", version, listed / folder)
        assert locate(Path(f"{listed}@{version}")) == locate(listed / folder) == there
    monkeypatch.chdir(listed / "010")
    assert locate(Path()) == ModelLocation("flights", "10", Path())
    assert locate(Path("../../flights@2")).version == "2"


def test_commands_take_a_version(flights: Path, tmp_path: Path) -> None:
    here, out = Path(shutil.copytree(flights, tmp_path / "flights")), tmp_path / "out.parquet"
    (here / "serving.toml").write_text("default_version = 2")
    versions = {here: "2", f"{here}@10": "10", here / "1": "1"}
    for model, version in versions.items():
        done = run("sample", model, "-n", 2, "--seed", 1, "-o", out, "--overwrite")
        assert done.exit_code == 0, done.output
        facts = json.loads(pq.read_schema(out).metadata[b"pushforward"])["model"]
        assert (facts["name"], facts["version"]) == ("flights", version)
        told = json.loads(run("inspect", model, "--json").stdout)
        assert told["weights_sha256"] == facts["weights_sha256"]
        assert facts["weights_sha256"] == digest(flights / version.replace("10", "010"))


@pytest.mark.parametrize("version", ["3", "010", "", "1x"])
def test_a_version_that_does_not_lie_there_is_refused(flights: Path, version: str) -> None:
    for command in (("inspect",), ("export",), ("evaluate", "--data", "x.npy")):
        done = run(command[0], f"{flights}@{version}", *command[1:])
        assert done.exit_code == 2
        expected = f"flights: expected a version that lies there (1, 2, 10), got '{version}'"
        assert expected in done.stderr
    with pytest.raises(ValueError, match=r"expected a version that lies there \(1, 2, 10\)"):
        Scorer(f"{flights}@{version}", "log_prob")({"x": X})


def test_what_is_said_of_versions_must_be_usable(listed: Path) -> None:
    (listed / "serving.toml").write_text("version_policy = [1, 7]")
    done = run("inspect", listed)
    assert (done.exit_code, "version_policy: expected versions that lie" in done.stderr) == (
        2,
        True,
    )
    assert locate(Path(f"{listed}@1")).version == "1"


def test_a_folder_of_which_the_name_has_an_at_is_itself(listed: Path) -> None:
    here = Path(shutil.copytree(listed / "1", listed.with_name("flights@2")))
    with pytest.raises(StartupError, match="'flights@2' cannot be a model's name"):
        locate(here)


@pytest.fixture
def rare(flights: Path, tmp_path: Path) -> Path:
    """A model beside, and rows."""
    root = tmp_path / "models"
    shutil.copytree(flights, root / "flights")
    (root / "flights" / "serving.toml").write_text("default_version = 1")
    np.save(tmp_path / "x.npy", X)
    return saved(models.build("realnvp", {"num_layers": 1, "event_shape": [2]}), root / "rare")


def calibrated(rare: Path, reference: str, given: str) -> Result:
    words = ("--statistic", f"ratio:{reference}", "--background", rare.parent / given)
    return run("calibrate", rare, "--data", rare.parents[1] / "x.npy", *words)


@pytest.mark.parametrize(
    ("reference", "given", "version"),
    [("flights", "flights", "1"), ("flights@10", "flights", "10")],
)
def test_a_ratio_is_to_the_version_that_it_was_calibrated_with(
    rare: Path, reference: str, given: str, version: str
) -> None:
    done = calibrated(rare, reference, given)
    assert done.exit_code == 0, done.output
    flights = rare.with_name("flights")
    log_probs = [
        Scorer(model, "log_prob")({"x": X})["log_prob"] for model in (f"{flights}@{version}", rare)
    ]
    # Whatever answers for flights meanwhile: the scores are ratios to the weights that they were.
    (flights / "serving.toml").write_text("default_version = 2")
    os.utime(rare / "config.json", ns=(1, 1))  # another session
    scores = Scorer(rare, "score")({"x": X})["score"]
    assert np.array_equal(scores, np.subtract(*np.float64(log_probs)))
    shutil.rmtree(flights / version.replace("10", "010"))
    (flights / "serving.toml").unlink()
    os.utime(rare / "config.json", ns=(2, 2))
    refused = "in other weights" if reference == "flights" else "expected a version that lies there"
    with pytest.raises(ValueError, match=refused):
        Scorer(rare, "score")({"x": X})


@pytest.mark.parametrize(
    ("reference", "given", "message"),
    [
        ("flights@1", "flights@2", "in .*flights@2 'flights@2': write ratio:flights@2"),
        ("flights@2", "flights/1", "in .*flights/1 'flights@1': write ratio:flights@1"),
        ("flight", "flights@1", "in .*flights@1 'flights@1': write ratio:flights@1"),
        ("flights@7", "flights", r"expected a version that lies there \(1, 2, 10\), got '7'"),
        ("flights@1", "fights", "does not exist"),
    ],
)
def test_a_ratio_to_another_version_than_is_given_is_refused(
    rare: Path, reference: str, given: str, message: str
) -> None:
    done = calibrated(rare, reference, given)
    assert done.exit_code == 2
    assert re.search(message, done.stderr)
