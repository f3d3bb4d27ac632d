"""The watcher of model folders: the kernel reports changes, nothing polls."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from watchfiles import awatch

# What is copied file by file changes often for a while: it is looked at once that is over, and at
# the latest after this long.
_QUIET_MILLISECONDS = 200
_AT_MOST_MILLISECONDS = 2000

_log = logging.getLogger(__name__)


class FolderWatcher:
    """Calls `on_change` some moments after something below the folders has changed."""

    def __init__(self, folders: Iterable[Path], on_change: Callable[[], Awaitable[None]]) -> None:
        self._folders = tuple(folders)
        self._on_change = on_change
        self._end = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin: every change from now on is noticed."""
        self._task = asyncio.create_task(self._run())
        # In its first turn the task asks the kernel.
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """End; a change that is being looked at is finished."""
        self._end.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def _run(self) -> None:
        changes = awatch(
            *self._folders,
            watch_filter=None,
            debounce=_AT_MOST_MILLISECONDS,
            step=_QUIET_MILLISECONDS,
            stop_event=self._end,
        )
        try:
            async for _ in changes:
                await self._on_change()
        except Exception:
            # No watches left, or the folders are gone: what is served is served on.
            _log.exception("model folders are watched no longer: changes need a restart or a load")
