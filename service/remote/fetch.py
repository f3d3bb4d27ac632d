"""What a URI holds, copied to the cache: all of it as it is at one time, or nothing of it."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from service.contracts import SourceStatus
from service.remote.cache import CacheEntry, CacheState
from service.remote.index import MAX_INDEX_BYTES
from service.remote.listing import choose_files
from service.remote.store import BadUri, ChangedError, RemoteFile, Store, StoreError, open_store
from service.remote.transfer import copy_file, read_whole, within
from service.settings import Settings, flag_name
from service.uris import show_uri

# Beside the files: room for what else writes to that disk.
_SPARE_BYTES = 64 * 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How models behind URIs are fetched; the settings of these names say what each means."""

    cache: Path
    timeout_seconds: float
    is_offline: bool = False

    @classmethod
    def of(cls, settings: Settings) -> "FetchOptions":
        """Those of a service."""
        cache = settings.cache or default_cache()
        return cls(cache, settings.fetch_timeout_seconds, settings.offline)


def default_cache() -> Path:
    """The cache of this user on this platform.

    Raises:
        BadUri: the package that knows it is missing.
    """
    try:
        from platformdirs import user_cache_path
    except ImportError:
        raise BadUri(f"{flag_name('cache')}: expected a folder, or the extra 'hub'") from None
    return user_cache_path("pushforward", appauthor=False) / "models"


def fetch(uri: str, options: FetchOptions, *, max_age_seconds: float = 0.0) -> SourceStatus:
    """Copy what a URI holds to the cache, if it is not there already.

    A failure leaves the cache as it was, and is told of; so is what another process does meanwhile
    or has done within `max_age_seconds`.

    Raises:
        StoreError: the cache cannot be written.
        BadUri: the URI names no place in it.
    """
    entry = CacheEntry.of(options.cache, uri)
    if options.is_offline:
        return _held(entry)
    must_wait = not (max_age_seconds and entry.is_filled)
    with entry.locked(wait=must_wait) as is_ours:
        state = entry.read_state()
        if is_ours and time.time() - state.checked >= max_age_seconds:
            state = _copy(entry, state, options)
            entry.write_state(state)
    return state.status(show_uri(uri))


def _held(entry: CacheEntry) -> SourceStatus:
    if entry.is_filled:
        # That nobody is asked is what was wanted.
        succeeded = entry.read_state().succeeded
        return SourceStatus(
            show_uri(entry.uri), is_ok=True, reason="", since=succeeded, succeeded=succeeded
        )
    return SourceStatus(
        show_uri(entry.uri),
        is_ok=False,
        reason=f"{flag_name('offline')}: it is not in the cache, {entry.folder.parent}: fetch it "
        f"once without {flag_name('offline')}",
        since=time.time(),
    )


def _copy(entry: CacheEntry, state: CacheState, options: FetchOptions) -> CacheState:
    """Copy what is new, and let the link lead to it."""
    try:
        store = open_store(entry.uri, options.timeout_seconds)
        files = _list(store, entry, options)
        _copy_blobs(store, files, entry, options)
        if not all(file.sha256 for file in files):
            _check_unchanged(store, files, entry, options)
        state = entry.publish(files, state)
    except (StoreError, BadUri) as error:
        return state.ended(str(error))
    except OSError as error:  # of the disk
        return state.ended(f"the cache: {error.strerror or error}")
    except Exception as error:
        _log.error("%s: unexpected error", show_uri(entry.uri), exc_info=error)
        return state.ended(f"unexpected error, see the log: {type(error).__name__}")
    return state.ended("")


def _list(store: Store, entry: CacheEntry, options: FetchOptions) -> list[RemoteFile]:
    seconds = options.timeout_seconds

    def read(file: RemoteFile) -> bytes:
        return read_whole(store, file, MAX_INDEX_BYTES, seconds)

    listed = within(seconds, store.list, "cannot be listed")
    return choose_files(listed, read)


def _copy_blobs(
    store: Store, files: list[RemoteFile], entry: CacheEntry, options: FetchOptions
) -> None:
    missing = [file for file in files if not entry.blob(file).is_file()]
    needed = sum(file.size for file in missing) + _SPARE_BYTES
    free = shutil.disk_usage(entry.folder).free
    if missing and needed > free:
        raise StoreError(f"the cache: expected {needed} free bytes, there are {free}")
    for file in missing:
        if not entry.blob(file).is_file():  # else two have the same content
            copy_file(store, file, entry.blob(file), options.timeout_seconds)


def _check_unchanged(
    store: Store, files: list[RemoteFile], entry: CacheEntry, options: FetchOptions
) -> None:
    """See that no file was changed since it was listed, so that all are of one time."""
    now = _list(store, entry, options)
    changed = [one.path for one in {*files} ^ {*now}]
    if changed:
        raise ChangedError(f"{min(changed)} was changed while the others were read")
