"""The URIs that models come from: fetched at the start, then looked at as often as is asked for.

A URI is a folder in the cache to everybody else, which the watcher of folders sees change.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from models.checkpoints.naming import is_version
from service.contracts import SourceStatus, VersionPolicy
from service.launch.exits import StartupError
from service.remote.cache import CacheEntry
from service.remote.fetch import FetchOptions, fetch
from service.remote.store import BadUri, StoreError
from service.repository.dedicated_thread import run_in_dedicated_thread
from service.repository.folders import ModelFolder
from service.repository.overrides import SERVING_FILE
from service.repository.version_policy import chooser
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
        links = _links(settings)
    except BadUri as error:
        raise StartupError(str(error)) from None
    twice = [uri for uri, link in links.items() if [*links.values()].count(link) > 1]
    twice += [uri for uri in links if settings.model_repository.count(uri) > 1]
    if twice:
        raise StartupError(f"{show_uri(twice[-1])}: is named twice")
    return tuple(one if isinstance(one, Path) else links[one] for one in settings.model_repository)


def _links(settings: Settings) -> dict[str, Path]:
    """The folder in the cache of each URI."""
    cache = FetchOptions.of(settings).cache
    return {uri: CacheEntry.of(cache, uri).link for uri in uris_of(settings)}


@contextmanager
def told_by_uri(settings: Settings) -> Iterator[None]:
    """Tell what is wrong with folders of the cache by the URIs that they are copies of.

    Raises:
        StartupError: what was wrong.
    """
    try:
        yield
    except StartupError as error:
        text = str(error)
        for uri, link in _links(settings).items() if uris_of(settings) else ():
            text = text.replace(str(link), show_uri(uri).rstrip("/"))
        raise StartupError(text) from None


def options_for(
    uri: str, settings: Settings, wanted: Mapping[str, VersionPolicy] | None = None
) -> FetchOptions:
    """How a URI is fetched: of its models the versions that are to be served.

    Args:
        uri: of models.
        settings: of the service.
        wanted: what was said of models when they were loaded by name.
    """
    return FetchOptions.of(settings, chooser(uri, settings, {} if wanted is None else wanted))


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
        options = options_for(uri, settings)
        status = fetch(uri, options, verify=True)
        is_held = CacheEntry.of(options.cache, uri).is_filled
    except (BadUri, StoreError) as error:
        raise StartupError(f"{show_uri(uri)}: {error}") from None
    if not is_held:
        raise StartupError(f"{status.uri}: {status.reason}")
    if not status.is_ok:
        _log.error("%s: %s: %s", status.uri, _what_is_served(status), status.reason)
    return status


def _what_is_served(status: SourceStatus) -> str:
    if not status.held_back:
        return "what was fetched before is served on"
    return f"held back, the rest is up to date: {', '.join(one.path for one in status.held_back)}"


def _tell_end(task: asyncio.Task[None]) -> None:
    """Log what ended a watch that nobody ended."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.error("a URI is not looked at any more: unexpected error", exc_info=error)


class SourceWatch:
    """Looks at the URIs of a service now and then, each in a thread of its own.

    Args:
        settings: of the service.
        metrics: where failures are counted.
        wanted: what was said of models when they were loaded by name.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, wanted: Mapping[str, VersionPolicy]
    ) -> None:
        self._settings = settings
        self._wanted = wanted
        self._metrics = metrics
        self._statuses: dict[str, SourceStatus] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def statuses(self) -> list[SourceStatus]:
        """What came of the last look at each."""
        return list(self._statuses.values())

    @property
    def held_back_models(self) -> set[str]:
        """The models in repositories of which something is held back."""
        paths = [one.path for status in self.statuses for one in status.held_back]
        names = {path.partition("/")[0] for path in paths}
        return {name for name in names - {".", SERVING_FILE} if not is_version(name)}

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
            for task in self._tasks:
                task.add_done_callback(_tell_end)

    def stop(self) -> None:
        """Look no more; a thread that waits for a store is left to it."""
        for task in self._tasks:
            task.cancel()

    async def fetch_versions(self, model: ModelFolder, wanted: VersionPolicy) -> str:
        """Fetch what is wanted of a model that is behind a URI, where the cache may lack it.

        Returns:
            Why some of it could not be had, if so.
        """
        held = {int(location.version) for location in model.versions}
        is_held = wanted.live in (None, "latest") or (
            wanted.live != "all" and held >= {*wanted.live}
        )
        if is_held or self._settings.offline:
            return ""
        cache = FetchOptions.of(self._settings).cache
        for uri in uris_of(self._settings):
            link = CacheEntry.of(cache, uri).link
            if link in (model.folder, model.folder.parent):
                return await self._fetch_wanted(uri, model, wanted)
        return ""

    async def _fetch_wanted(self, uri: str, model: ModelFolder, wanted: VersionPolicy) -> str:
        by_name = chooser(uri, self._settings, {**self._wanted, model.name: wanted})
        mistakes: list[str] = []

        def choose(folder: str, path: Path | None, found: Collection[int]) -> Collection[int]:
            try:
                return by_name(folder, path, found)
            except StartupError as error:
                as_before = chooser(uri, self._settings, self._wanted)(folder, path, found)
                # A mistake of who asks is no fault of the source.
                mistakes.append(str(error))
                return as_before

        options = replace(FetchOptions.of(self._settings), choose=choose)
        status = await self._look(uri, options)
        if mistakes or not status.held_back:
            return mistakes[0] if mistakes else status.reason
        inside = "" if CacheEntry.of(options.cache, uri).link == model.folder else f"{model.name}/"
        own = [one.reason for one in status.held_back if f"{one.path}/".startswith(inside)]
        return "; ".join(own)

    async def _watch(self, uri: str, seconds: float) -> None:
        options = options_for(uri, self._settings, self._wanted)
        while True:
            await asyncio.sleep(seconds)
            await self._look(uri, options, max_age_seconds=_SHARE_OF_WATCH * seconds)

    async def _look(
        self, uri: str, options: FetchOptions, max_age_seconds: float = 0.0
    ) -> SourceStatus:
        try:
            status = await run_in_dedicated_thread(
                lambda: fetch(uri, options, max_age_seconds=max_age_seconds)
            )
        except (BadUri, StoreError, RuntimeError) as error:  # the disk, or no thread
            status = self._statuses[uri].failed(str(error))
        except Exception as error:
            _log.error("%s: unexpected error", show_uri(uri), exc_info=error)
            reason = f"unexpected error, see the log: {type(error).__name__}"
            status = self._statuses[uri].failed(reason)
        self._take(uri, status)
        return status

    def _take(self, uri: str, status: SourceStatus) -> None:
        former = self._statuses.get(uri)
        if former is not None and not former.is_ok and not status.is_ok:
            # A cache that cannot be written keeps no time.
            status = replace(status, since=min(former.since, status.since))
        self._statuses[uri] = status
        shown = status.uri
        self._metrics.source_success.labels(shown).set(status.succeeded)
        failures = self._metrics.source_failures.labels(shown)
        if not status.is_ok:
            failures.inc()
            if former is not None and former.reason != status.reason:
                _log.error("%s: %s: %s", shown, _what_is_served(status), status.reason)
        elif former is not None and not former.is_ok:
            _log.info("%s: it can be fetched again", shown)
