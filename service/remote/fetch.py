"""What a URI holds, copied to the cache: each version as it is at one time, or as it was before."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.contracts import SourceStatus
from service.remote.cache import CacheEntry, CacheState
from service.remote.look import ChooseVersions, Look
from service.remote.store import BadUri, StoreError, open_store
from service.settings import Settings, flag_name
from service.uris import show_uri

# Told of at a time.
_MOST_REASONS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How models behind URIs are fetched; the settings of these names say what each means.

    choose: says which versions are served; None where the URI is to be a model itself.
    may_lack_models: whether a first copy is taken without the models that cannot be had.
    """

    cache: Path
    timeout_seconds: float
    is_offline: bool = False
    choose: ChooseVersions | None = None
    may_lack_models: bool = False

    @classmethod
    def of(cls, settings: Settings, choose: ChooseVersions | None = None) -> "FetchOptions":
        """Those of a service, or of a command that wants a model alone."""
        cache = settings.cache or default_cache()
        return cls(
            cache,
            settings.fetch_timeout_seconds,
            settings.offline,
            choose,
            settings.on_bad_model == "skip",
        )


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


def fetch(
    uri: str, options: FetchOptions, *, max_age_seconds: float = 0.0, verify: bool = False
) -> SourceStatus:
    """Copy what a URI holds to the cache, if it is not there already.

    A failure leaves the cache as it was, and is told of; so is what another process does meanwhile
    or has done within `max_age_seconds`.

    Args:
        uri: of models.
        options: how they are fetched.
        max_age_seconds: how old the answer of another process may be.
        verify: whether to copy anew what the cache holds and has not its digest any more.

    Raises:
        StoreError: the cache holds nothing of it, and cannot be written.
        BadUri: the URI names no place in it.
    """
    entry = CacheEntry.of(options.cache, uri)
    if options.is_offline:
        return _held(entry)
    must_wait = not (max_age_seconds and entry.is_filled)
    try:
        with entry.locked(wait=must_wait) as is_ours:
            state = entry.read_state()
            if is_ours and time.time() - state.checked >= max_age_seconds:
                state = _copy(entry, state, options, verify=verify)
                state = _write(entry, state)
    except StoreError as error:
        if not entry.is_filled:
            raise
        state = entry.read_state().ended(str(error))
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


def _write(entry: CacheEntry, state: CacheState) -> CacheState:
    """Keep what came of a copy; where that cannot be kept, this look has failed."""
    try:
        entry.write_state(state)
    except OSError as error:
        return state.ended(f"the cache: {error.strerror or error}")
    return state


def _copy(
    entry: CacheEntry, state: CacheState, options: FetchOptions, *, verify: bool
) -> CacheState:
    """Copy what is new, and let the link lead to it."""
    try:
        damaged = entry.discard_damaged() if verify else []
        if damaged:
            _log.warning(
                "%s: damaged in the cache, and copied anew: %s",
                show_uri(entry.uri),
                ", ".join(path for path, key in state.files.items() if key in damaged),
            )
        look = Look(
            open_store(entry.uri, options.timeout_seconds),
            entry,
            state.files,
            choose=options.choose,
            timeout_seconds=options.timeout_seconds,
        )
        taken = look.take()
        reason = _join(one.reason for one in taken.held_back)
        if not taken.keys or (taken.lacking and not (entry.is_filled or options.may_lack_models)):
            return state.ended(reason)
        state = entry.publish(taken.keys, state, taken.kept)
    except BadUri as error:
        return state.ended(str(error), is_misnamed=True)
    except StoreError as error:
        return state.ended(str(error))
    except OSError as error:  # of the disk
        return state.ended(f"the cache: {error.strerror or error}")
    except Exception as error:
        _log.error("%s: unexpected error", show_uri(entry.uri), exc_info=error)
        return state.ended(f"unexpected error, see the log: {type(error).__name__}")
    return state.ended(reason, taken.held_back)


def _join(reasons: Iterable[str]) -> str:
    """Several reasons in one line; of many the first."""
    found = [*dict.fromkeys(reasons)]
    more = len(found) - _MOST_REASONS
    return "; ".join(found[:_MOST_REASONS]) + f"; and {more} more" * (more > 0)
