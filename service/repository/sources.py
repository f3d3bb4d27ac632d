"""The URIs that models come from: fetched at the start, then looked at as often as is asked for.

A URI is a folder in the cache to everybody else, which the watcher of folders sees change.
"""

import asyncio
import logging
from pathlib import Path

from service.contracts import SourceStatus
from service.launch.exits import StartupError
from service.remote.cache import CacheEntry
from service.remote.fetch import FetchOptions, fetch
from service.remote.store import BadUri, StoreError
from service.repository.dedicated_thread import run_in_dedicated_thread
from service.settings import Settings
from service.telemetry import Metrics
from service.uris import show_uri

# Of several processes one looks; the others take what came of it, where it is no older than this
# share of the time between two looks.
_SHARE_OF_WATCH = 0.8

_log = logging.getLogger(__name__)


def uris_of(settings: Settings) -> list[str]:
    """The URIs among the folders to serve."""
    return [one for one in settings.model_repository if isinstance(one, str)]


def local_folders(settings: Settings) -> tuple[Path, ...]:
    """The folders to serve; of a URI that in the cache, whether it was fetched yet or not.

    Raises:
        StartupError: there can be no such folder.
    """
    if not uris_of(settings):
        return tuple(Path(one) for one in settings.model_repository)
    try:
        cache = FetchOptions.of(settings).cache
        return tuple(
            one if isinstance(one, Path) else CacheEntry.of(cache, one).link
            for one in settings.model_repository
        )
    except BadUri as error:
        raise StartupError(str(error)) from None


def fetch_all(settings: Settings) -> list[SourceStatus]:
    """Fetch every URI, or be content with what the cache holds of it.

    Raises:
        StartupError: there is nothing to serve of one of them.
    """
    return [_fetch_first(uri, settings) for uri in uris_of(settings)]


def read_all(settings: Settings) -> list[SourceStatus]:
    """What came of the last look at every URI, which some process of this service made."""
    options = FetchOptions.of(settings)
    if settings.offline:
        return [fetch(uri, options) for uri in uris_of(settings)]
    return [
        CacheEntry.of(options.cache, uri).read_state().status(show_uri(uri))
        for uri in uris_of(settings)
    ]


def _fetch_first(uri: str, settings: Settings) -> SourceStatus:
    try:
        options = FetchOptions.of(settings)
        status = fetch(uri, options)
        is_held = CacheEntry.of(options.cache, uri).is_filled
    except (BadUri, StoreError) as error:
        raise StartupError(f"{show_uri(uri)}: {error}") from None
    if not is_held:
        raise StartupError(f"{status.uri}: {status.reason}")
    if not status.is_ok:
        _log.error("%s: what the cache holds of it is served: %s", status.uri, status.reason)
    return status


class SourceWatch:
    """Looks at the URIs of a service now and then, each in a thread of its own.

    Args:
        settings: of the service.
        metrics: where failures are counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._statuses: dict[str, SourceStatus] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def statuses(self) -> list[SourceStatus]:
        """What came of the last look at each."""
        return list(self._statuses.values())

    async def start(self, *, is_fetched: bool) -> None:
        """Fetch all, unless that was done, and begin to look.

        Raises:
            StartupError: there is nothing to serve of one of them.
        """
        uris = uris_of(self._settings)
        if not uris:
            return
        look = read_all if is_fetched else fetch_all
        found = await run_in_dedicated_thread(lambda: look(self._settings))
        for uri, status in zip(uris, found, strict=True):
            self._take(uri, status)
        seconds = self._settings.watch_seconds
        if seconds is not None and not self._settings.offline:
            self._tasks = [asyncio.create_task(self._watch(uri, seconds)) for uri in uris]

    def stop(self) -> None:
        """Look no more; a thread that waits for a store is left to it."""
        for task in self._tasks:
            task.cancel()

    async def _watch(self, uri: str, seconds: float) -> None:
        options = FetchOptions.of(self._settings)
        while True:
            await asyncio.sleep(seconds)
            try:
                status = await run_in_dedicated_thread(
                    lambda: fetch(uri, options, max_age_seconds=_SHARE_OF_WATCH * seconds)
                )
            except (BadUri, StoreError, RuntimeError) as error:  # the disk, or no thread
                status = self._statuses[uri].failed(str(error))
            self._take(uri, status)

    def _take(self, uri: str, status: SourceStatus) -> None:
        former = self._statuses.get(uri)
        self._statuses[uri] = status
        shown = status.uri
        self._metrics.source_success.labels(shown).set(status.succeeded)
        failures = self._metrics.source_failures.labels(shown)
        if not status.is_ok:
            failures.inc()
            if former is not None and former.reason != status.reason:
                _log.error("%s: what was fetched before is served on: %s", shown, status.reason)
        elif former is not None and not former.is_ok:
            _log.info("%s: it can be fetched again", shown)
