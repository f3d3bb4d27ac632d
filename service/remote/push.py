"""Models of a folder pushed to a URI, each with an index, so that a reader never takes half of one.

    weights, graphs, ... ──> config.json ──> index of the model ──> index of the repository

A folder without config.json is no model, and one whose files are not those of its index is refused.
"""

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
        force: whether to replace what differs.

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
    tops = [one for path, files in versions.items() for one in files if not _has_config(files)]
    found = [
        _LocalModel(folder, path, files) for path, files in versions.items() if _has_config(files)
    ]
    states = {local.path: _is_same(local, read(join(local.path, INDEX_FILE))) for local in found}
    for local in found:
        if not states[local.path] and not force:
            _check_free(local, there)
    for local in found:
        if not states[local.path]:
            _upload(local, store, there)
    if "" not in states:
        settings = [(one.path, folder / one.path) for one in tops]
        before = read(INDEX_FILE) or []
        joined = _joined(found, before)
        if settings or {*joined} != {*before}:
            with _written(joined) as index:
                store.upload([*settings, (INDEX_FILE, index)], [])
    return [local.pushed(is_new=not states[local.path]) for local in found]


def _has_config(files: Sequence[RemoteFile]) -> bool:
    return any(PurePosixPath(one.path).name == CONFIG_FILE for one in files)


def _is_same(local: _LocalModel, index: list[IndexEntry] | None) -> bool:
    return index is not None and {*index} == {*local.entries}


def _check_free(local: _LocalModel, there: dict[str, RemoteFile]) -> None:
    """Refuse to replace what lies where a version is to be, or to hide the versions below.

    Raises:
        BadUri: saying what to do.
    """
    where = local.path or "the URI"
    inside = [path for path in there if path.rpartition("/")[0] == local.path]
    if any(is_model_file(path) for path in inside):
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
    with _written(local.entries) as file:
        store.upload([*local.uploads, (index, file)], stale)


def _joined(found: Sequence[_LocalModel], before: Sequence[IndexEntry]) -> list[IndexEntry]:
    """The index of a repository: the models that are pushed, and the others that it had."""
    pushed = {local.path for local in found}
    kept = [one for one in before if one.path.rpartition("/")[0] not in pushed]
    new = [
        one._replace(path=join(local.path, one.path)) for local in found for one in local.entries
    ]
    return [*kept, *new]


@contextmanager
def _written(entries: Sequence[IndexEntry]) -> Iterator[Path]:
    """An index as a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / INDEX_FILE
        path.write_bytes(write_index(entries))
        yield path
