"""Several calls at a time, in threads that nobody need wait for when the process ends."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_parallel(items: Iterable[_T], call: Callable[[_T], _R], at_once: int) -> list[_R]:
    """Make a call for each item, and wait for all of them.

    Args:
        items: what the calls are made with, begun in this order.
        call: made in another thread.
        at_once: how many are made at a time, at most.

    Returns:
        Their results, in the order of the items.

    Raises:
        Exception: the first that a call raised; none is begun after it.
    """
    waiting = deque(enumerate(items))
    results: dict[int, _R] = {}
    errors: list[Exception] = []

    def work() -> None:
        while waiting and not errors:
            try:
                number, item = waiting.popleft()
            except IndexError:  # another thread took the last
                return
            try:
                results[number] = call(item)
            except Exception as error:
                errors.append(error)

    threads = [
        threading.Thread(target=work, name="store", daemon=True)
        for _ in range(min(at_once, len(waiting)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in sorted(results)]
