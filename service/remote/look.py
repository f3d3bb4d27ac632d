"""One look at a URI: what is to be served of it is copied, and what fails is held back alone.

list ──> settings of models ──> versions to be served ──> files, several at a time ──> snapshot
                                      └──────────────────────┴──> held back: the version
                                                                  before stays, with the reason
"""

import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from models.checkpoints.manifest import CONFIG_FILE
from service.contracts import HeldBack
from service.launch.exits import StartupError
from service.remote.cache import CacheEntry
from service.remote.digests import key_of
from service.remote.index import MAX_INDEX_BYTES
from service.remote.listing import StoredFiles, StoredModel, check_number
from service.remote.parallel import in_parallel
from service.remote.store import BadUri, RemoteFile, Store, StoreError
from service.remote.transfer import ATTEMPTS, copy_file, read_whole, within

# Beside the files: room for what else writes to that disk.
_SPARE_BYTES = 64 * 2**20
# Versions that may stall one after the other until the store itself is taken to be at fault.
_MOST_SILENT = 2

# Of these versions of the model in a folder below the URI, with its settings if it has some, those
# that are to be served; StartupError: the settings cannot be used.
ChooseVersions = Callable[[str, Path | None, Collection[int]], Collection[int]]


class Taken(NamedTuple):
    """What came of a look.

    keys: by path, of each file that is to be served.
    kept: keys of what was copied of versions that are held back.
    held_back: what failed.
    lacking: the models of which there is no version.
    """

    keys: dict[str, str]
    kept: set[str]
    held_back: list[HeldBack]
    lacking: list[str]


class Look:
    """A look at a store.

    Args:
        store: is asked.
        entry: takes what is copied.
        former: the snapshot before, the key of each file.
        choose: says which versions are served; None where the URI is to be a model itself.
        timeout_seconds: of each list and each part of a file.
    """

    def __init__(
        self,
        store: Store,
        entry: CacheEntry,
        former: Mapping[str, str],
        *,
        choose: ChooseVersions | None,
        timeout_seconds: float,
    ) -> None:
        self._store = store
        self._entry = entry
        self._former = {path: key for path, key in former.items() if entry.blob_of(key).is_file()}
        self._choose = choose
        self._seconds = timeout_seconds
        self._faults: dict[str, str] = {}
        self._progress = time.monotonic()

    def take(self) -> Taken:
        """Copy what is new.

        Raises:
            BadUri: there is no model, or there are too many files.
            StoreError: the store cannot be listed.
        """
        listing = StoredFiles(self._list())
        self._read_indexes(listing, listing.upper_indexes)
        models = listing.models()
        if self._choose is None:
            _check_is_model(models)
        settings = self._copy_settings(listing, models)
        chosen = {model.folder: self._chosen(model, settings) for model in models}
        folders = [folder for versions in chosen.values() for folder in versions]
        self._read_indexes(listing, listing.indexes_of(folders))
        wanted = self._files_of(listing, folders)
        check_number(sum(map(len, wanted.values())))
        self._copy(wanted)
        settled = {
            model.settings: [settings[model.folder]] for model in models if model.folder in settings
        }
        self._check_unchanged(listing, wanted | settled)
        keys: dict[str, str] = {}
        lacking = []
        for model in models:
            found = self._assemble(model, chosen[model.folder], wanted, settings)
            keys |= found
            if not any(path.rpartition("/")[2] == CONFIG_FILE for path in found):
                lacking.append(model.folder)
        return Taken(
            keys,
            {key_of(file) for files in wanted.values() for file in files},
            [HeldBack(path or ".", reason) for path, reason in sorted(self._faults.items())],
            lacking,
        )

    def _list(self) -> list[RemoteFile]:
        return within(self._seconds, self._store.list, "cannot be listed")

    def _read_indexes(self, listing: StoredFiles, indexes: Sequence[RemoteFile]) -> None:
        def read(file: RemoteFile) -> bytes:
            return read_whole(self._store, file, MAX_INDEX_BYTES, self._seconds)

        in_parallel(indexes, lambda one: listing.read_index(one, read), self._store.at_once)

    def _copy_settings(
        self, listing: StoredFiles, models: Sequence[StoredModel]
    ) -> dict[str, RemoteFile]:
        """Copy what is said of all versions of each model; by its folder, what could be had."""
        found: dict[str, list[RemoteFile]] = {}
        for model in models:
            try:
                file = listing.settings_of(model)
            except StoreError as error:
                self._faults[model.settings] = str(error)
                continue
            if file is not None:
                found[model.settings] = [file]
        self._copy(found)
        return {
            model.folder: found[model.settings][0]
            for model in models
            if model.settings in found and model.settings not in self._faults
        }

    def _chosen(self, model: StoredModel, settings: Mapping[str, RemoteFile]) -> list[str]:
        """The folders of the versions that are to be served."""
        if not model.has_versions or self._choose is None:
            return list(model.versions.values())
        file = settings.get(model.folder)
        path = None if file is None else self._entry.blob(file)
        if model.settings in self._faults:
            key = self._former.get(model.settings)
            if key is None:
                return []  # what was not read may say anything
            path = self._entry.blob_of(key)
        try:
            numbers = self._choose(model.folder, path, model.versions)
        except StartupError as error:
            reason = str(error).replace(str(path), model.settings)
            self._faults.setdefault(model.settings, reason)
            return []
        return [model.versions[number] for number in sorted(numbers)]

    def _files_of(
        self, listing: StoredFiles, folders: Sequence[str]
    ) -> dict[str, list[RemoteFile]]:
        """The files of each version, but for those that are not what an index says."""
        found = {}
        for folder in folders:
            try:
                found[folder] = listing.files_in(folder)
            except StoreError as error:
                self._faults[folder] = str(error)
        return found

    def _copy(self, wanted: Mapping[str, Sequence[RemoteFile]]) -> None:
        """Copy the files of versions, several at a time; a version of which one fails is given up.

        Versions may share what has the same digest: it is copied once.
        """
        missing: dict[str, list[tuple[str, RemoteFile]]] = {}
        free = shutil.disk_usage(self._entry.folder).free - _SPARE_BYTES
        for folder, files in wanted.items():
            fresh = {key_of(one): one for one in files if not self._entry.holds(one)}
            needed = sum(one.size for key, one in fresh.items() if key not in missing)
            if needed > free:
                self._faults[folder] = (
                    f"the cache: expected {needed + _SPARE_BYTES} free bytes, "
                    f"there are {free + _SPARE_BYTES}"
                )
                continue
            free -= needed
            for key, one in fresh.items():
                missing.setdefault(key, []).append((folder, one))
        self._progress = time.monotonic()
        in_parallel(missing.values(), self._copy_one, self._store.at_once)

    def _copy_one(self, places: Sequence[tuple[str, RemoteFile]]) -> None:
        """Copy a file that has this content, from the first place that gives it."""
        reason = ""
        for folder, file in places:
            if folder in self._faults:
                reason = reason or self._faults[folder]
                continue
            silent = time.monotonic() - self._progress
            try:
                if silent > _MOST_SILENT * ATTEMPTS * self._seconds:
                    raise StoreError(f"{file.path}: nothing has come of others for {silent:.0f} s")
                copy_file(
                    self._store, file, self._entry.blob(file), self._seconds, self._note_progress
                )
                return
            except StoreError as error:
                reason = str(error)
        for folder, _ in places:
            self._faults.setdefault(folder, reason)

    def _note_progress(self) -> None:
        self._progress = time.monotonic()

    def _check_unchanged(
        self, listing: StoredFiles, taken: Mapping[str, Sequence[RemoteFile]]
    ) -> None:
        """Hold back what was changed since it was listed, so that all of a version is of one time.

        Raises:
            StoreError: the store cannot be listed.
        """
        unproved = [
            folder
            for folder, files in taken.items()
            if folder not in self._faults and not all(file.is_proved for file in files)
        ]
        if not unproved:
            return
        now = StoredFiles(self._list()).files
        for folder in unproved:
            names = {one.path for one in taken[folder]}
            again = {path for path in now if path.rpartition("/")[0] == folder}
            changed = [path for path in names | again if now.get(path) != listing.files.get(path)]
            if changed:
                self._faults[folder] = f"{min(changed)} was changed while the others were read"

    def _assemble(
        self,
        model: StoredModel,
        chosen: Sequence[str],
        wanted: Mapping[str, Sequence[RemoteFile]],
        settings: Mapping[str, RemoteFile],
    ) -> dict[str, str]:
        """The files of a model that are to be served: new where they could be had, else former."""
        before = {
            path: key
            for path, key in self._former.items()
            if not model.folder or path.startswith(f"{model.folder}/")
        }
        has_failed = any(path in self._faults for path in (*chosen, model.settings))
        if not has_failed:
            # What was served before and still lies there is kept: a rollback may want it.
            still = {*model.versions.values()} if model.has_versions else set()
            before = {path: key for path, key in before.items() if _folder(path) in still}
        taken = [folder for folder in chosen if folder not in self._faults]
        found = {path: key for path, key in before.items() if _folder(path) not in taken}
        found |= {file.path: key_of(file) for folder in taken for file in wanted[folder]}
        file = settings.get(model.folder)
        if file is not None and model.settings not in self._faults:
            is_usable = not has_failed or self._is_usable(model, file, found)
            if is_usable:
                found[file.path] = key_of(file)
        return found

    def _is_usable(self, model: StoredModel, file: RemoteFile, found: Mapping[str, str]) -> bool:
        """Whether what is said of all versions can be done with those that there are."""
        numbers = _numbers(model, found)
        try:
            return bool(
                numbers
                and self._choose
                and self._choose(model.folder, self._entry.blob(file), numbers)
            )
        except StartupError:
            return False


def _check_is_model(models: Sequence[StoredModel]) -> None:
    """Refuse what holds several models, or versions of one.

    Raises:
        BadUri: saying what to name instead.
    """
    first = models[0]
    if first.folder == "" and not first.has_versions:
        return
    inside = [folder for model in models for folder in model.versions.values()]
    several = f"{', '.join(inside[:5])}{', ...' if len(inside) > 5 else ''}"
    raise BadUri(f"expected {CONFIG_FILE} in it, it holds {several}: name one as URI/{inside[-1]}")


def _numbers(model: StoredModel, keys: Mapping[str, str]) -> set[int]:
    """The versions of a model among these files."""
    folders = {_folder(path) for path in keys if path.rpartition("/")[2] == CONFIG_FILE}
    if not model.has_versions:
        return {1}
    names = (folder.rpartition("/") for folder in folders)
    return {int(name) for above, _, name in names if above == model.folder and name.isdecimal()}


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
