"""The cache: what a URI held when it was copied, in a folder of this machine.

    CACHE/<uri>-<digest>/NAME                 a link, which is served: to a snapshot
                        /.snapshots/<id>/...  the files as they were at a time, links to blobs
                        /.blobs/<key>         a file, complete and verified
                        /.blobs/<key>.partial what an interrupted copy has left
                        /.state.json          what came of the last copy
                        /.lock                of the process that copies

A file that stays as it was is the same inode in the next snapshot: its model is not loaded anew.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.checkpoints.files import write_file
from models.checkpoints.naming import describe_bad_name
from service.contracts import HeldBack, SourceStatus
from service.remote.digests import is_damaged, key_of
from service.remote.store import BadUri, RemoteFile, StoreError
from service.settings import flag_name
from service.uris import identify_uri, show_uri

_ODD = re.compile(r"[^A-Za-z0-9]+")
_SHOWN_LETTERS = 60
_DIGITS = 12
# Of a copy that nobody goes on with.
_STALE_SECONDS = 7 * 86_400


@dataclass(frozen=True, slots=True)
class CacheState:
    """What came of the last copy.

    reason: why it failed; empty where it did not.
    held_back: of that, what was held back while the rest was taken: path and reason.
    is_misnamed: whether another URI would do: no model is there, or no store is known.
    since: when that began, in seconds since 1970.
    checked: when the store was asked last. succeeded: when that went well last, 0 for never.
    snapshots: by id, the newest last, the key of each file.
    """

    reason: str = ""
    since: float = 0.0
    checked: float = 0.0
    succeeded: float = 0.0
    snapshots: dict[str, dict[str, str]] = field(default_factory=dict)
    held_back: list[tuple[str, str]] = field(default_factory=list)
    is_misnamed: bool = False

    @property
    def files(self) -> dict[str, str]:
        """The key of each file that is served."""
        return next(reversed(self.snapshots.values()), {})

    def ended(
        self, reason: str, held_back: Sequence[HeldBack] = (), *, is_misnamed: bool = False
    ) -> "CacheState":
        """The state after another attempt, which failed where there is a reason."""
        now = time.time()
        is_new = not self.checked or bool(reason) != bool(self.reason)
        return replace(
            self,
            reason=reason,
            since=now if is_new else self.since,
            checked=now,
            succeeded=self.succeeded if reason else now,
            held_back=[(one.path, one.reason) for one in held_back],
            is_misnamed=is_misnamed,
        )

    def status(self, shown: str) -> SourceStatus:
        """What is said of it to others, who know the URI by this text."""
        return SourceStatus(
            shown,
            is_ok=not self.reason,
            reason=self.reason,
            since=self.since,
            succeeded=self.succeeded,
            held_back=tuple(HeldBack(path, reason) for path, reason in self.held_back),
            is_misnamed=self.is_misnamed,
        )


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The folder of one URI in the cache."""

    uri: str
    folder: Path

    @classmethod
    def of(cls, cache: Path, uri: str) -> "CacheEntry":
        """The entry of a URI, which need not exist."""
        shown = _ODD.sub("-", show_uri(uri)).strip("-")[:_SHOWN_LETTERS]
        digest = hashlib.sha256(identify_uri(uri).encode()).hexdigest()[:_DIGITS]
        return cls(uri, cache / f"{shown}-{digest}")

    @property
    def link(self) -> Path:
        """Where its files are, by a name that stays: that of the model, where it is one."""
        return self.folder / name_of_uri(self.uri)

    @property
    def is_filled(self) -> bool:
        """Whether there is something to serve."""
        return self.link.is_dir()

    @contextmanager
    def locked(self, *, wait: bool) -> Iterator[bool]:
        """Be the one process that copies; without waiting, perhaps not.

        Raises:
            StoreError: the cache cannot be written.
        """
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=-1 if wait else 0)
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise StoreError(
                f"{self.folder}: cannot be written: {error.strerror}; name another folder by "
                f"{flag_name('cache')}"
            ) from None
        try:
            yield True
        finally:
            lock.release()

    def read_state(self) -> CacheState:
        """What came of the last copy; nothing has, where that cannot be read."""
        try:
            content: dict[str, Any] = json.loads((self.folder / ".state.json").read_bytes())
            known = {name: content[name] for name in CacheState.__slots__ if name in content}
            return CacheState(**known)
        except (OSError, ValueError, TypeError):
            return CacheState()

    def write_state(self, state: CacheState) -> None:
        """Keep what came of a copy, for the other processes and the next start."""
        write_file(self.folder / ".state.json", json.dumps(asdict(state)).encode())

    def blob(self, file: RemoteFile) -> Path:
        """Where the content of a file is."""
        return self.blob_of(key_of(file))

    def blob_of(self, key: str) -> Path:
        """Where the content of this key is."""
        folder = self.folder / ".blobs"
        folder.mkdir(exist_ok=True)
        return folder / key

    def holds(self, file: RemoteFile) -> bool:
        """Whether the content of a file is there, with all its bytes."""
        try:
            return self.blob(file).stat().st_size == file.size
        except FileNotFoundError:
            return False

    def discard_damaged(self) -> list[str]:
        """Remove what has not the digest by which it is known any more.

        Returns:
            Its keys.
        """
        folder = self.folder / ".blobs"
        blobs = [blob for blob in folder.glob("*") if blob.suffix != ".partial"]
        damaged = [blob for blob in blobs if is_damaged(blob, blob.name)]
        for blob in damaged:
            blob.unlink()
        return [blob.name for blob in damaged]

    def publish(
        self, keys: Mapping[str, str], state: CacheState, spared: Collection[str] = ()
    ) -> CacheState:
        """Let the link lead to files, all of whose blobs are there, in one step.

        Args:
            keys: of the files, by path.
            state: before.
            spared: keys of other blobs that are kept.

        Returns:
            The state with this snapshot; without those that nobody needs any more.
        """
        name = hashlib.sha256(json.dumps(sorted(keys.items())).encode()).hexdigest()[:_DIGITS]
        snapshot = self.folder / ".snapshots" / name
        if snapshot.is_dir():
            self._mend_snapshot(snapshot, keys)
        else:
            self._make_snapshot(snapshot, keys)
        _point(self.link, Path(".snapshots") / name)
        before = {one: kept for one, kept in state.snapshots.items() if one != name}
        # The one before is kept: some process may be reading it.
        kept = {**dict([*before.items()][-1:]), name: dict(keys)}
        self._remove_others(kept, spared)
        return replace(state, snapshots=kept)

    def _make_snapshot(self, snapshot: Path, keys: Mapping[str, str]) -> None:
        fresh = snapshot.with_name(f".{snapshot.name}.partial")
        shutil.rmtree(fresh, ignore_errors=True)
        for path, key in keys.items():
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(self.blob_of(key), target)
        fresh.rename(snapshot)
        _sync(snapshot.parent)

    def _mend_snapshot(self, snapshot: Path, keys: Mapping[str, str]) -> None:
        """Replace the files whose content was damaged, and had to be copied once more."""
        for path, key in keys.items():
            target, blob = snapshot / path, self.blob_of(key)
            if not _is_link(target, blob):
                fresh = target.with_name(f".{target.name}.partial")
                fresh.unlink(missing_ok=True)
                _link(blob, fresh)
                fresh.replace(target)

    def _remove_others(
        self, kept: Mapping[str, Mapping[str, str]], spared: Collection[str]
    ) -> None:
        for snapshot in (self.folder / ".snapshots").iterdir():
            if snapshot.name not in kept:
                shutil.rmtree(snapshot, ignore_errors=True)
        keys = {key for files in kept.values() for key in files.values()} | {*spared}
        for blob in (self.folder / ".blobs").iterdir():
            is_stale = time.time() - blob.stat().st_mtime > _STALE_SECONDS
            if blob.name not in keys and (blob.suffix != ".partial" or is_stale):
                blob.unlink()


def name_of_uri(uri: str) -> str:
    """What the model behind a URI is called, where it is one.

    Raises:
        BadUri: its last part cannot be a name.
    """
    parts = urlsplit(show_uri(uri))
    path = parts.path.rstrip("/")
    if parts.scheme == "hf" and path.count("/") == 1:
        path = path.partition("@")[0]
    name = path.rpartition("/")[2] or parts.netloc.partition(":")[0]
    if not name or name.startswith("."):
        raise BadUri(f"{describe_bad_name(name)}")
    return name


def _link(blob: Path, target: Path) -> None:
    """Let a file be that of the blob, or a copy of it where the file system has no links."""
    try:
        target.hardlink_to(blob)
    except OSError:
        shutil.copy2(blob, target)


def _is_link(target: Path, blob: Path) -> bool:
    """Whether a file is that of the blob, or a copy, which has its time too."""
    found = [path.stat() for path in (target, blob) if path.exists()]
    return len({(info.st_size, info.st_mtime_ns) for info in found}) == 1 and len(found) == 2


def _point(link: Path, target: Path) -> None:
    """Let a link lead elsewhere, in one step; where it leads there already, leave it."""
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".{link.name}.fresh")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target, target_is_directory=True)
    fresh.replace(link)
    _sync(link.parent)


def _sync(folder: Path) -> None:
    """Write the names in a folder to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
