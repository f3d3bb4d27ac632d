"""The watcher of model folders: the kernel reports changes of files, names are looked at.

The kernel watches inodes: whoever swaps a link, or moves another folder into a folder's place,
leaves it watching what no name leads to any more. So names are looked at as well, twice a second:

    wait ──> a file changed, or a name leads elsewhere ──> watch anew ──> call `on_change` ──┐
     ^────────────────────────────────────────────────────────────────────────────────────────┘
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TypeVar

from watchfiles import awatch

from service.repository.dedicated_thread import run_in_dedicated_thread

# What is copied file by file changes often for a while: it is looked at once that is over, and at
# the latest after this long.
_QUIET_MILLISECONDS = 200
_AT_MOST_MILLISECONDS = 2000
# How often names are looked at.
_NAMES_MILLISECONDS = 500
# Below a folder of models: that of a model, of its version, and the files there.
_LEVELS = 3

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

# Device and inode that each name leads to; None where it leads nowhere.
Targets = dict[str, tuple[int, int] | None]


class FolderWatcher:
    """Calls `on_change` some moments after something below the folders has changed."""

    def __init__(self, folders: Iterable[Path], on_change: Callable[[], Awaitable[None]]) -> None:
        self._folders = tuple(folders)
        self._on_change = on_change
        self._end = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_by_name_only = False

    async def start(self) -> None:
        """Begin: every change from now on is noticed."""
        self._end.clear()
        is_watching = asyncio.Event()
        self._task = asyncio.create_task(self._run(is_watching))
        await is_watching.wait()

    async def stop(self) -> None:
        """End; a change that is being looked at is finished."""
        self._end.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def _run(self, is_watching: asyncio.Event) -> None:
        while not self._end.is_set():
            # Looked up before the kernel is asked: what is swapped in between is seen as moved.
            targets = await _off_loop(lambda: find_targets(self._folders))
            waiting = asyncio.create_task(self._wait(targets))
            # In its first turn the task asks the kernel.
            await asyncio.sleep(0)
            if is_watching.is_set():
                # After that: what changes once the folders are looked at is a change of its own.
                await self._on_change()
            is_watching.set()
            await waiting

    async def _wait(self, targets: Targets) -> None:
        """Wait for a change, or the end."""
        changes = awatch(
            *self._folders,
            watch_filter=None,
            debounce=_AT_MOST_MILLISECONDS,
            step=_QUIET_MILLISECONDS,
            stop_event=self._end,
            rust_timeout=_NAMES_MILLISECONDS,
            yield_on_timeout=True,
        )
        try:
            async with aclosing(changes):
                async for changed in changes:
                    self._is_by_name_only = False
                    if changed or await _have_moved(targets):
                        return
        except Exception as error:
            # No watches left, or the folders are gone: what is served is served on.
            if not self._is_by_name_only:
                _log.error(
                    "model folders are watched by name only, changes of their files need a restart "
                    "or a load: %s",
                    error,
                )
            self._is_by_name_only = True
            await self._wait_for_names(targets)

    async def _wait_for_names(self, targets: Targets) -> None:
        """Wait until a name leads elsewhere, or the end, without the kernel."""
        while not self._end.is_set() and not await _have_moved(targets):
            with suppress(TimeoutError):
                async with asyncio.timeout(_NAMES_MILLISECONDS / 1000):
                    await self._end.wait()


def find_targets(folders: Iterable[Path]) -> Targets:
    """Look up where the folders lead, and every link that a model may lie behind."""
    names = [name for folder in folders for name in (str(folder), *_links(str(folder), _LEVELS))]
    return {name: _target(name) for name in names}


def _links(folder: str, levels: int) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return  # no folder, or changing at this moment
    for entry in entries:
        if entry.is_symlink():
            yield entry.path
        if levels > 1 and not entry.name.startswith("."):
            yield from _links(entry.path, levels - 1)


def _target(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _have_moved(targets: Targets) -> bool:
    return await _off_loop(lambda: {name: _target(name) for name in targets}) != targets


async def _off_loop(look_up: Callable[[], _Result]) -> _Result:
    """Look files up, which may take for ever where they lie on a network."""
    try:
        return await run_in_dedicated_thread(look_up)
    except RuntimeError:  # no thread can be had
        return look_up()
