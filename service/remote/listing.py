"""Which files of a store are models: those that a loader knows, and nothing else."""

import logging
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from models.checkpoints.manifest import (
    CALIBRATION_FILES,
    CONFIG_FILE,
    GOLDEN_FILE,
    WEIGHTS_FILE,
)
from models.checkpoints.naming import describe_bad_name, is_version
from models.onnx.names import (
    ANSWERS_FILE,
    CERTIFICATE_FILE,
    DECODE_FILE,
    ENCODE_FILE,
    GENERATE_FILE,
)
from models.scoring.card import CARD_FILE
from service.remote.index import INDEX_FILE, IndexEntry, read_index
from service.remote.store import BadUri, RemoteFile, StoreError

# Written by training; calibrating asks it which rows the model has seen.
_REPORT_FILE = "training.json"
SERVING_FILE = "serving.toml"
NAMES = frozenset(
    (
        *(CONFIG_FILE, WEIGHTS_FILE, GOLDEN_FILE, *CALIBRATION_FILES, CARD_FILE),
        *(ENCODE_FILE, DECODE_FILE, GENERATE_FILE, CERTIFICATE_FILE, ANSWERS_FILE),
        *(_REPORT_FILE, SERVING_FILE),
    )
)
MAX_FILES = 10_000

_log = logging.getLogger(__name__)

ReadIndex = Callable[[RemoteFile], bytes]


def is_model_file(path: str) -> bool:
    """Whether a path is a model's: FILE, VERSION/FILE, NAME/FILE or NAME/VERSION/FILE.

    So it leads nowhere else: no part of it is empty, '.' or '..'.
    """
    *folders, name = path.split("/")
    if name not in NAMES and name != INDEX_FILE:
        return False
    match folders:
        case []:
            return True
        case [folder]:
            return is_version(folder) or describe_bad_name(folder) is None
        case [folder, version]:
            return is_version(version) and describe_bad_name(folder) is None
    return False


def choose_files(listed: Iterable[RemoteFile], read: ReadIndex) -> list[RemoteFile]:
    """Choose the files of models, with the digests that their indexes have.

    An index stands for its folder and what is below it, but for folders that have their own. Where
    it names files of a folder, others there are left out.

    Args:
        listed: the files of a store.
        read: reads an index.

    Raises:
        BadUri: there is no model, or there are too many files.
        StoreError: a file is not the one that an index names.
    """
    files = {one.path: one for one in listed if is_model_file(one.path)}
    indexes = {
        _folder(path): read_index(read(one), path)
        for path, one in sorted(files.items())
        if PurePosixPath(path).name == INDEX_FILE
    }
    known = _entries(indexes)
    indexed = {_folder(path) for path in known}
    chosen = [
        _with_digest(one, known.get(path))
        for path, one in files.items()
        if PurePosixPath(path).name != INDEX_FILE
        and (path in known or _folder(path) not in indexed)
    ]
    missing = [path for path in known if is_model_file(path) and path not in files]
    if missing:
        raise StoreError(f"{missing[0]}: its index names it, and it is not there")
    return _models_among(chosen)


def _entries(indexes: dict[str, list[IndexEntry]]) -> dict[str, IndexEntry]:
    """What the indexes say of each file: the nearest one above it."""
    known: dict[str, IndexEntry] = {}
    for folder, entries in indexes.items():
        for entry in entries:
            path = f"{folder}/{entry.path}" if folder else entry.path
            nearest = next((above for above in _above(path) if above in indexes), folder)
            if nearest == folder and is_model_file(path):
                known[path] = entry
    return known


def _with_digest(file: RemoteFile, entry: IndexEntry | None) -> RemoteFile:
    if entry is None:
        return file
    if entry.size != file.size:
        raise StoreError(
            f"{file.path}: has {file.size} bytes, its index says {entry.size}: it is being pushed, "
            "or was changed since; push it again"
        )
    return file._replace(sha256=entry.sha256)


def _models_among(files: list[RemoteFile]) -> list[RemoteFile]:
    """Leave out folders that are no models, but for the settings above versions."""
    models = {_folder(one.path) for one in files if PurePosixPath(one.path).name == CONFIG_FILE}
    tops = {_folder(folder) for folder in models if folder}
    chosen = [
        one
        for one in files
        if _folder(one.path) in models
        or (_folder(one.path) in tops and PurePosixPath(one.path).name == SERVING_FILE)
    ]
    if not models:
        raise BadUri(f"no model here; expected {CONFIG_FILE}, or folders that hold one")
    if len(chosen) > MAX_FILES:
        raise BadUri(f"expected at most {MAX_FILES} files of models, got {len(chosen)}")
    return sorted(chosen)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _above(path: str) -> list[str]:
    """The folders that a file lies in, the nearest first."""
    found = []
    while path:
        path = _folder(path)
        found.append(path)
    return found
