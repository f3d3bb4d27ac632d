"""Which files of a store are models: those that a loader knows, and nothing else."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model as it lies in a store.

    folder: below the URI; empty where that is the model.
    versions: the folder of each, by its number; of a model without versions its own, as number 1.
    has_versions: whether each has a folder of its own.
    """

    folder: str
    versions: Mapping[int, str]
    has_versions: bool

    @property
    def settings(self) -> str:
        """The path of what is said of all versions."""
        return join(self.folder, SERVING_FILE)


class StoredFiles:
    """What a store lists of models, with the digests of the indexes that were read.

    An index stands for its folder and what is below it, but for folders that have their own. Where
    it names files of a folder, others there are left out.

    Args:
        listed: the files of a store.
    """

    def __init__(self, listed: Iterable[RemoteFile]) -> None:
        self.files = {one.path: one for one in listed if is_model_file(one.path)}
        self._indexes: dict[str, list[IndexEntry] | StoreError | BadUri] = {}

    @property
    def upper_indexes(self) -> list[RemoteFile]:
        """The indexes of folders that hold models or versions."""
        return [
            one
            for path, one in self.files.items()
            if _name(path) == INDEX_FILE and join(_folder(path), CONFIG_FILE) not in self.files
        ]

    def indexes_of(self, folders: Iterable[str]) -> list[RemoteFile]:
        """The indexes of the folders that have one, unless they were read."""
        paths = [join(folder, INDEX_FILE) for folder in folders if folder not in self._indexes]
        return [self.files[path] for path in paths if path in self.files]

    def read_index(self, file: RemoteFile, read: ReadIndex) -> None:
        """Read an index; where that fails, so does whoever asks for the files that it names."""
        folder = _folder(file.path)
        try:
            entries = read_index(read(file), file.path)
        except (StoreError, BadUri) as error:
            self._indexes[folder] = error
            return
        self._indexes[folder] = [
            one._replace(path=join(folder, one.path))
            for one in entries
            if is_model_file(join(folder, one.path))
        ]

    def models(self) -> list[StoredModel]:
        """The models that a server finds there, in order of folder.

        Raises:
            BadUri: there is none.
        """
        named = [
            one.path
            for entries in self._indexes.values()
            if isinstance(entries, list)
            for one in entries
        ]
        folders = {_folder(path) for path in (*self.files, *named) if _name(path) == CONFIG_FILE}
        if not folders:
            raise BadUri(f"no model here; expected {CONFIG_FILE}, or folders that hold one")
        own = _as_model("", folders)
        if own is not None:
            return [own]
        found = (
            _as_model(name, folders) for name in sorted({one.split("/")[0] for one in folders})
        )
        return [model for model in found if model is not None]

    def files_in(self, folder: str) -> list[RemoteFile]:
        """The files of a version.

        Raises:
            StoreError: they are not those that its index names, or that cannot be read.
        """
        entries = {one.path: one for one in self._entries(folder) if _folder(one.path) == folder}
        if not entries:
            return [
                one
                for path, one in sorted(self.files.items())
                if _folder(path) == folder and _name(path) != INDEX_FILE
            ]
        return [self._checked(entries[path]) for path in sorted(entries)]

    def settings_of(self, model: StoredModel) -> RemoteFile | None:
        """What is said of all versions of a model, if anything is.

        Raises:
            StoreError: as for `files_in`.
        """
        if not model.has_versions:
            return None
        entries = {one.path: one for one in self._entries(model.folder)}
        if model.settings in entries:
            return self._checked(entries[model.settings])
        return self.files.get(model.settings)

    def _entries(self, folder: str) -> list[IndexEntry]:
        """What the nearest index says."""
        nearest = next((one for one in (folder, *_above(folder)) if one in self._indexes), None)
        found = [] if nearest is None else self._indexes[nearest]
        if not isinstance(found, list):
            raise StoreError(str(found))
        return found

    def _checked(self, entry: IndexEntry) -> RemoteFile:
        file = self.files.get(entry.path)
        if file is None:
            raise StoreError(f"{entry.path}: its index names it, and it is not there")
        if entry.size != file.size:
            raise StoreError(
                f"{file.path}: has {file.size} bytes, its index says {entry.size}: it is being "
                "pushed, or was changed since; push it again"
            )
        return file._replace(sha256=entry.sha256)


def _as_model(folder: str, folders: Collection[str]) -> StoredModel | None:
    """The model in a folder, by the rules of `service.repository.folders`."""
    if folder in folders:
        return StoredModel(folder, {1: folder}, False)
    names = (one.rpartition("/") for one in sorted(folders))
    versions = {
        int(name): join(above, name)
        for above, _, name in names
        if above == folder and is_version(name)
    }
    return StoredModel(folder, dict(sorted(versions.items())), True) if versions else None


def models_among(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Leave out what is no file of a model, but for the settings above versions.

    Raises:
        BadUri: there is no model, or there are too many files.
    """
    files = [one for one in files if is_model_file(one.path)]
    models = {_folder(one.path) for one in files if _name(one.path) == CONFIG_FILE}
    tops = {_folder(folder) for folder in models if folder}
    chosen = [
        one
        for one in files
        if _folder(one.path) in models
        or (_folder(one.path) in tops and _name(one.path) == SERVING_FILE)
    ]
    if not models:
        raise BadUri(f"no model here; expected {CONFIG_FILE}, or folders that hold one")
    check_number(len(chosen))
    return sorted(chosen)


def check_number(files: int) -> None:
    """Refuse more files than models have.

    Raises:
        BadUri: there are too many.
    """
    if files > MAX_FILES:
        raise BadUri(f"expected at most {MAX_FILES} files of models, got {files}")


def join(folder: str, name: str) -> str:
    """The path of what lies in a folder, which may be that of the URI."""
    return f"{folder}/{name}" if folder else name


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _above(folder: str) -> list[str]:
    """The folders that a folder lies in, the nearest first."""
    found = []
    while folder:
        folder = _folder(folder)
        found.append(folder)
    return found
