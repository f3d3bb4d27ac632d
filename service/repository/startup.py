"""The loading of all models at the start: one bad model ends it, or is skipped."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from service.launch.exits import StartupError
from service.repository.folders import ModelLocation, stamp
from service.repository.loading import LoadedModel

_log = logging.getLogger(__name__)


async def load_all(
    locations: Iterable[ModelLocation],
    load: Callable[[ModelLocation], Awaitable[LoadedModel]],
    skip: Callable[[ModelLocation, str], None] | None,
) -> list[LoadedModel]:
    """Load models side by side, as many as `load` allows: much of it is not Python.

    Args:
        locations: of the models.
        load: loads one.
        skip: takes each that cannot be loaded, with the reason; None where none may be bad.

    Returns:
        Those that could be loaded.

    Raises:
        StartupError: of the first that cannot be loaded, the others are given up; or, with `skip`,
            none can be loaded.
    """
    reasons: list[str] = []

    async def one(location: ModelLocation) -> LoadedModel | None:
        try:
            return await load(location)
        except Exception as error:
            if skip is None:
                raise
            reasons.append(reason_of(location, error))
            skip(location, reasons[-1])
            return None

    # The largest first: no core is idle while the last of them is loaded.
    largest_first = sorted(locations, key=_bytes, reverse=True)
    loading = [asyncio.create_task(one(location)) for location in largest_first]
    try:
        found = [loaded for loaded in await asyncio.gather(*loading) if loaded is not None]
    except BaseException:
        for task in loading:
            task.cancel()
        for ended in await asyncio.gather(*loading, return_exceptions=True):
            if isinstance(ended, LoadedModel):
                ended.abort("the service does not start")
        raise
    if not found:
        others = f" (none of {len(reasons)} models can be served)" if len(reasons) > 1 else ""
        raise StartupError(reasons[0] + others)
    return found


def _bytes(location: ModelLocation) -> int:
    return sum(size for _, _, size, _ in stamp(location))


def reason_of(location: ModelLocation, error: Exception) -> str:
    """Say why a model cannot be loaded; what no one foresaw goes to the log with its traceback."""
    if isinstance(error, StartupError):
        return str(error)
    _log.error("%s %s: unexpected error", location.name, location.version, exc_info=error)
    return "unexpected error, see the log"
