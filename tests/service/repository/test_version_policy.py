"""Which versions are live: what serving.toml, the settings and a load may say of it."""

from pathlib import Path
from typing import Any

import pytest

from service.contracts import VersionPolicy
from service.launch.exits import StartupError
from service.repository.folders import find_model_folders
from service.repository.overrides import read_overrides
from service.repository.version_policy import LiveVersions, find_live, live_versions
from service.settings import Settings


def write(folder: Path, said: str = "", versions: tuple[str, ...] = ("1", "2", "10")) -> Path:
    for version in versions:
        (folder / "flow" / version).mkdir(parents=True)
        (folder / "flow" / version / "config.json").touch()
    if said:
        (folder / "flow" / "serving.toml").write_text(said)
    return folder


def live(folder: Path, wanted: VersionPolicy | None = None, **settings: Any) -> LiveVersions:
    (model,) = find_model_folders([folder])
    return live_versions(model, Settings(**settings), wanted)


@pytest.mark.parametrize(
    ("said", "setting", "wanted", "expected"),
    [
        ("", "latest", None, (["10"], "10")),
        ("", "all", None, (["1", "2", "10"], "10")),
        ('version_policy = "latest"', "all", None, (["10"], "10")),
        ('version_policy = "all"', "latest", None, (["1", "2", "10"], "10")),
        ("version_policy = [2, 1, 2]", "latest", None, (["1", "2"], "2")),
        ("version_policy = [10, 2]", "latest", None, (["2", "10"], "10")),
        ("version_policy = [1, 2]\ndefault_version = 1", "latest", None, (["1", "2"], "1")),
        ("default_version = 2", "all", None, (["1", "2", "10"], "2")),
        ("default_version = 10", "latest", None, (["10"], "10")),
        ("", "all", VersionPolicy((1, 2)), (["1", "2"], "2")),
        ("version_policy = [1, 2]", "latest", VersionPolicy("latest"), (["10"], "10")),
        ("version_policy = [1, 2]", "latest", VersionPolicy(None, 1), (["1", "2"], "1")),
        ("default_version = 2", "all", VersionPolicy(None, 1), (["1", "2", "10"], "1")),
    ],
)
def test_the_nearest_word_counts(
    tmp_path: Path, said: str, setting: str, wanted: Any, expected: tuple[list[str], str]
) -> None:
    found = live(write(tmp_path, said), wanted, version_policy=setting)
    assert (list(found.versions), found.default) == expected


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("version_policy = [1, 7, 5]", "expected versions that lie there (1, 2, 10), got 5, 7"),
        ("default_version = 1", "default_version: expected a version that is live (10), got 1"),
        ("version_policy = []", 'version_policy: expected "latest", "all" or a list of versions'),
        ('version_policy = "newest"', 'version_policy: expected "latest", "all" or a list'),
        ("version_policy = [1, -2]", 'version_policy: expected "latest", "all" or a list'),
        ("version_policy = [1.5]", 'version_policy: expected "latest", "all" or a list'),
        ("version_policy = true", 'version_policy: expected "latest", "all" or a list'),
        ('default_version = "1"', "default_version: expected a version as 3, got '1'"),
        ("default_version = true", "default_version: expected a version as 3, got True"),
        ('engine = "torch"', "engine: expected version_policy or default_version; what is said of"),
        ("versions = [1]", "versions: expected version_policy or default_version"),
        ("version_policy = ", "cannot be read: Invalid value"),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_field(
    tmp_path: Path, said: str, reason: str
) -> None:
    with pytest.raises(StartupError) as raised:
        live(write(tmp_path, said))
    assert str(raised.value).startswith(str(tmp_path / "flow" / "serving.toml"))
    assert reason in str(raised.value)


def test_a_load_that_names_what_is_not_there_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^flow: version_policy: expected .* got 7"):
        live(write(tmp_path, "default_version = 10"), VersionPolicy((7,)))


@pytest.mark.parametrize("name", ["version_policy", "default_version"])
def test_beside_weights_nothing_is_said_of_versions(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path) / "flow" / "1"
    (folder / "serving.toml").write_text(f"{name} = 1")
    with pytest.raises(
        StartupError, match=f"{name}: .* belongs to serving.toml in the folder above"
    ):
        read_overrides(folder, Settings())


def test_a_model_without_versions_is_version_1(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "serving.toml").write_text('engine = "torch"')
    found = live(tmp_path, version_policy="all")
    assert [location.folder for location in found.locations] == [tmp_path]


def test_of_two_folders_of_one_version_always_the_same_is_taken(tmp_path: Path) -> None:
    write(tmp_path, versions=("2", "02", "1"))
    found = find_live([tmp_path], Settings(version_policy="all"))
    assert [location.folder.name for location in found] == ["1", "2"]
