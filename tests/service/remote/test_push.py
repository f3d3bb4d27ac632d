"""What a push writes, replaces and leaves alone."""

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from service.remote.index import INDEX_FILE, read_index
from service.remote.local_store import LocalStore
from service.remote.push import PushedModel, push
from service.remote.store import BadUri, RemoteFile, StoreError

SETTINGS = "toy/serving.toml"


class CutOff(LocalStore):
    """Takes some files, and no more."""

    def __init__(self, folder: Path, files: int) -> None:
        super().__init__(folder)
        self._left = files

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        for one in files:
            if self._left == 0:
                raise StoreError("cut off")
            self._left -= 1
            super().upload([one], [])
        super().upload([], removed)


class Digesting(LocalStore):
    """Lists digests as the Hub does, and one of them is that of another file."""

    def list(self) -> list[RemoteFile]:
        return [one._replace(sha256=sha256(b"other").hexdigest()) for one in super().list()]


def make(folder: Path, content: str = "a") -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "golden.safetensors"):
        (folder / name).write_text(f"{content}{name}")
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    make(tmp_path / "mine" / "toy" / "1")
    (tmp_path / "mine" / SETTINGS).write_text("version_policy = [1]")
    return tmp_path / "mine"


def pushed(folder: Path, store: LocalStore, *, force: bool = False) -> list[PushedModel]:
    return push(folder, store, timeout_seconds=10, force=force)


def named(folder: Path) -> list[str]:
    """What the index in a folder names."""
    return sorted(one.path for one in read_index((folder / INDEX_FILE).read_bytes(), "index"))


def test_the_index_of_a_repository_names_settings_and_what_was_there(
    mine: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    pushed(mine, LocalStore(there))
    first = named(there)
    assert SETTINGS in first
    make(tmp_path / "more" / "toy" / "2", "b")
    make(tmp_path / "more" / "other" / "1", "c")
    pushed(tmp_path / "more", LocalStore(there))
    new = [f"{path}/{name}" for path in ("toy/2", "other/1") for name in _NAMES]
    assert named(there) == sorted([*first, *new])
    before = (there / INDEX_FILE).stat().st_mtime_ns
    assert not any(one.is_new for one in pushed(mine, LocalStore(there)))
    assert (there / INDEX_FILE).stat().st_mtime_ns == before


_NAMES = ("config.json", "golden.safetensors", "model.safetensors")


def test_other_settings_are_replaced_by_force_alone(mine: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    pushed(mine, LocalStore(there))
    (mine / SETTINGS).write_text("version_policy = [2]")
    with pytest.raises(BadUri, match=f"{SETTINGS}: other settings lie there; .* --force"):
        pushed(mine, LocalStore(there))
    assert (there / SETTINGS).read_text() == "version_policy = [1]"
    pushed(mine, LocalStore(there), force=True)
    assert (there / SETTINGS).read_text() == "version_policy = [2]"
    assert len(named(there)) == 4


@pytest.mark.parametrize("content", [None, "shorter"])
def test_what_is_lost_or_damaged_there_is_mended(tmp_path: Path, content: str | None) -> None:
    folder, there = make(tmp_path / "toy"), tmp_path / "there"
    pushed(folder, LocalStore(there))
    weights = there / "model.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_text(content)
    assert [one.is_new for one in pushed(folder, LocalStore(there))] == [True]
    assert weights.read_text() == "amodel.safetensors"


def test_a_store_that_lists_another_digest_holds_another_file(tmp_path: Path) -> None:
    folder, there = make(tmp_path / "toy"), tmp_path / "there"
    pushed(folder, LocalStore(there))
    assert [one.is_new for one in pushed(folder, Digesting(there))] == [True]


def test_force_writes_what_seems_to_lie_there(tmp_path: Path) -> None:
    folder, there = make(tmp_path / "toy"), tmp_path / "there"
    pushed(folder, LocalStore(there))
    (there / "model.safetensors").write_text("xmodel.safetensors")
    assert [one.is_new for one in pushed(folder, LocalStore(there), force=True)] == [True]
    assert (there / "model.safetensors").read_text() == "amodel.safetensors"


@pytest.mark.parametrize("files", range(5))
def test_a_first_push_that_was_cut_off_is_gone_on_with(tmp_path: Path, files: int) -> None:
    folder, there = make(tmp_path / "toy"), tmp_path / "there"
    if files < 4:
        with pytest.raises(StoreError):
            pushed(folder, CutOff(there, files))
    is_whole = (there / "config.json").exists() and not (there / INDEX_FILE).exists()
    pushed(folder, LocalStore(there), force=is_whole)
    assert named(there) == [*_NAMES]


@pytest.mark.parametrize("files", range(1, 5))
def test_a_replacement_that_was_cut_off_is_gone_on_with_and_nothing_else(
    tmp_path: Path, files: int
) -> None:
    old, there = make(tmp_path / "old"), tmp_path / "there"
    new = make(tmp_path / "new", "b")
    pushed(old, LocalStore(there))
    with pytest.raises(StoreError):
        pushed(new, CutOff(there, files), force=True)
    with pytest.raises(BadUri, match="--force"):
        pushed(old, LocalStore(there))
    assert [one.is_new for one in pushed(new, LocalStore(there))] == [True]
    assert all((there / name).read_text() == f"b{name}" for name in _NAMES)
    assert [one.is_new for one in pushed(new, LocalStore(there))] == [False]


def test_what_the_former_model_had_more_is_removed(tmp_path: Path) -> None:
    old, there = make(tmp_path / "old"), tmp_path / "there"
    shutil.copy(old / "config.json", old / "training.json")
    pushed(old, LocalStore(there))
    (there / "notes.txt").touch()
    pushed(make(tmp_path / "new", "b"), LocalStore(there), force=True)
    assert sorted(one.name for one in there.iterdir()) == sorted([*_NAMES, INDEX_FILE, "notes.txt"])
