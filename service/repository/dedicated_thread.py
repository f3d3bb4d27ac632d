"""A dedicated thread for one call, which nobody need wait for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


async def run_in_dedicated_thread(call: Callable[[], _Result]) -> _Result:
    """Run a call that may never end.

    Threads of a pool are few, and are waited for when the process ends; this one is neither.
    Cancelling does not stop the thread.

    Returns:
        The call's result.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def finish(result: _Result | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=work, name="load", daemon=True).start()
    return await future
