"""Models of a folder pushed to a URI, each with an index, so that a reader never takes half of one.

    weights, graphs, ... ──> config.json ──> index of the model ──> index of the repository

A folder without config.json is no model, and one whose files are not those of its index is refused.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.checkpoints.files import sha256
from models.checkpoints.manifest import CONFIG_FILE
from models.checkpoints.naming import is_version
from service.remote.index import (
    INDEX_FILE,
    MAX_INDEX_BYTES,
    IndexEntry,
    read_index,
    write_index,
)
from service.remote.listing import is_model_file, join, models_among
from service.remote.local_store import LocalStore
from service.remote.store import BadUri, NothingThere, RemoteFile, Store
from service.remote.transfer import read_whole, within

_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class PushedModel:
    """One version of a model, and what became of it.

    path: below the URI; empty where it is the URI itself.
    is_new: whether it was pushed; it lay there as it is, where not.
    """

    path: str
    files: int
    num_bytes: int
    is_new: bool


class _LocalModel:
    """The files of one version in a folder of this machine.

    Args:
        folder: of the model, or the repository.
        path: of the version below it.
        files: of the version.
    """

    def __init__(self, folder: Path, path: str, files: Sequence[RemoteFile]) -> None:
        self.path = path
        self._folder = folder
        self.entries = [
            IndexEntry(PurePosixPath(one.path).name, one.size, sha256(folder / one.path))
            for one in files
        ]

    @property
    def uploads(self) -> list[tuple[str, Path]]:
        """Its files, config.json last."""
        names = sorted(one.path for one in self.entries)
        names.sort(key=lambda name: name == CONFIG_FILE)
        return [(join(self.path, name), self._folder / self.path / name) for name in names]

    @property
    def unfinished(self) -> list[IndexEntry]:
        """An index that tells of this version, and that no content fits."""
        return [
            one._replace(sha256=_NO_DIGEST) if one.path == CONFIG_FILE else one
            for one in self.entries
        ]

    def pushed(self, *, is_new: bool) -> PushedModel:
        """What became of it."""
        size = sum(one.size for one in self.entries)
        return PushedModel(self.path, len(self.entries), size, is_new)


def find_versions(folder: Path) -> dict[str, list[RemoteFile]]:
    """The files of every version of every model in a folder, by its path below it.

    Raises:
        BadUri: there is none.
    """
    listed = LocalStore(folder).list()
    files = [one for one in listed if PurePosixPath(one.path).name != INDEX_FILE]
    found: dict[str, list[RemoteFile]] = {}
    for one in models_among(files):
        found.setdefault(one.path.rpartition("/")[0], []).append(one)
    return found


def push(folder: Path, store: Store, *, timeout_seconds: float, force: bool) -> list[PushedModel]:
    """Push the models of a folder, which were validated.

    Args:
        folder: a model, its versions, or a repository.
        store: takes them.
        timeout_seconds: of each call that reads.
        force: whether to replace what lies there, be it the same or not.

    Raises:
        BadUri: something else lies there, and may not be replaced.
        StoreError: the store failed.
    """
    versions = find_versions(folder)
    there: dict[str, RemoteFile] = {}
    with suppress(NothingThere):
        listed = within(timeout_seconds, store.list, "cannot be listed")
        there = {one.path: one for one in listed}

    def read(path: str) -> list[IndexEntry] | None:
        """The index at a path, if there is one."""
        if path not in there:
            return None
        content = read_whole(store, there[path], MAX_INDEX_BYTES, timeout_seconds)
        return read_index(content, path)

    # Settings above versions go with the repository.
    tops = [
        IndexEntry(one.path, one.size, sha256(folder / one.path))
        for files in versions.values()
        for one in files
        if not _has_config(files)
    ]
    found = [
        _LocalModel(folder, path, files) for path, files in versions.items() if _has_config(files)
    ]
    states = {
        local.path: not force and _is_same(local, read(join(local.path, INDEX_FILE)), there)
        for local in found
    }
    if not force:
        for local in found:
            entries = read(join(local.path, INDEX_FILE)) or []
            # What its own index tells of is mended, or gone on with.
            is_its_own = {*entries} in ({*local.entries}, {*local.unfinished})
            if not states[local.path] and not is_its_own:
                _check_free(local, there)
        for top in tops:
            if top.path in there:
                content = read_whole(store, there[top.path], MAX_INDEX_BYTES, timeout_seconds)
                _check_settings(top, content)
    for local in found:
        if not states[local.path]:
            _upload(local, store, there)
    if "" not in states:
        settings = [(top.path, folder / top.path) for top in tops if force or top.path not in there]
        before = read(INDEX_FILE) or []
        joined = _joined(found, tops, before)
        if settings or {*joined} != {*before}:
            with _written(joined) as index:
                store.upload([*settings, (INDEX_FILE, index)], [])
    return [local.pushed(is_new=not states[local.path]) for local in found]


def _has_config(files: Sequence[RemoteFile]) -> bool:
    return any(PurePosixPath(one.path).name == CONFIG_FILE for one in files)


def _is_same(
    local: _LocalModel, index: list[IndexEntry] | None, there: dict[str, RemoteFile]
) -> bool:
    """Whether a version lies there by its index, and every file of it by its size."""
    if index is None or {*index} != {*local.entries}:
        return False
    listed = [there.get(join(local.path, one.path)) for one in local.entries]
    return all(
        file is not None and file.size == one.size and file.sha256 in ("", one.sha256)
        for file, one in zip(listed, local.entries, strict=True)
    )


def _check_settings(top: IndexEntry, content: bytes) -> None:
    """Refuse to replace what is said of all versions of a model.

    Raises:
        BadUri: saying what to do.
    """
    if hashlib.sha256(content).hexdigest() != top.sha256:
        raise BadUri(f"{top.path}: other settings lie there; replace them with --force")


def _check_free(local: _LocalModel, there: dict[str, RemoteFile]) -> None:
    """Refuse to replace what lies where a version is to be, or to hide the versions below.

    Raises:
        BadUri: saying what to do.
    """
    where = local.path or "the URI"
    inside = [path for path in there if path.rpartition("/")[0] == local.path]
    # Without config.json, which comes after the others, they are what a push left that was cut off.
    if join(local.path, CONFIG_FILE) in inside:
        raise BadUri(
            f"{where}: another model lies there; push this one as a version of a higher number, or "
            "replace it with --force"
        )
    below = [path.split("/") for path in there if local.path == "" and path.count("/") == 1]
    if any(is_version(folder) and name == CONFIG_FILE for folder, name in below):
        raise BadUri(f"{where}: versions of a model lie there; push this one to URI/NUMBER")


def _upload(local: _LocalModel, store: Store, there: dict[str, RemoteFile]) -> None:
    own = {path for path, _ in local.uploads}
    index = join(local.path, INDEX_FILE)
    stale = [
        path
        for path in there
        if path.rpartition("/")[0] == local.path
        and is_model_file(path)
        and path not in own
        and path != index
    ]
    if index in there:
        # It fits no model while files are replaced, nor after a push that was cut off.
        with _written(local.unfinished) as file:
            store.upload([(index, file)], [])
    with _written(local.entries) as file:
        store.upload([*local.uploads, (index, file)], stale)


def _joined(
    found: Sequence[_LocalModel], tops: Sequence[IndexEntry], before: Sequence[IndexEntry]
) -> list[IndexEntry]:
    """The index of a repository: what is pushed, and what else it had."""
    pushed = {local.path for local in found}
    settings = {top.path for top in tops}
    kept = [
        one
        for one in before
        if one.path.rpartition("/")[0] not in pushed and one.path not in settings
    ]
    new = [
        one._replace(path=join(local.path, one.path)) for local in found for one in local.entries
    ]
    return [*kept, *new, *tops]


@contextmanager
def _written(entries: Sequence[IndexEntry]) -> Iterator[Path]:
    """An index as a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / INDEX_FILE
        path.write_bytes(write_index(entries))
        yield path
