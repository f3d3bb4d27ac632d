"""Turns between keys whose entries wait in one queue: each gets rows by its weight.

Reference: Goyal, Vin and Cheng, Start-time Fair Queueing, SIGCOMM 1996.
"""

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count

from service.batcher.entry import QueueEntry
from service.contracts import QueueShare


class KeyEntries:
    """The entries of one key, in order.

    rows: of them that wait. weight: of the key. started: how many rows by weight had been computed
    when its next ones begin. is_in_turn: whether the turns know it.
    """

    __slots__ = ("entries", "is_in_turn", "rows", "started", "weight")

    def __init__(self) -> None:
        # An ordered dictionary used as a queue: taking any entry out is one step.
        self.entries: OrderedDict[QueueEntry, None] = OrderedDict()
        self.rows = 0
        self.weight = 1.0
        self.started = 0.0
        self.is_in_turn = False


class KeyTurns:
    """Entries that wait, first come first served within a key, and by turns between keys.

    Next is always the key that has had the fewest rows for its weight; one that comes anew begins
    where the others are: it has nothing to catch up on. So of keys that wait all the time each gets
    its share, and a key waits for no more than an entry of each of the others. Requests without a
    key are those of one. Where there is but one key, that is first in, first out.
    """

    def __init__(self) -> None:
        self._keys: dict[str | None, KeyEntries] = {}
        # By `started`, then by when they came; some have no entries left.
        self._turns: list[tuple[float, int, KeyEntries]] = []
        self._serials = count()
        self._now = 0.0
        self._entries = 0

    def __len__(self) -> int:
        """How many entries wait."""
        return self._entries

    def __iter__(self) -> Iterator[QueueEntry]:
        """All entries, key by key."""
        for key in self._keys.values():
            yield from key.entries

    def __contains__(self, entry: QueueEntry) -> bool:
        key = self._keys.get(_name(entry.share))
        return key is not None and entry in key.entries

    def add(self, entry: QueueEntry) -> None:
        """Put an entry behind the others of its key."""
        share = entry.share
        name = _name(share)
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = KeyEntries()
        if share is not None:
            key.weight = share.weight
        key.entries[entry] = None
        key.rows += entry.waiting
        self._entries += 1
        if not key.is_in_turn:
            key.is_in_turn = True
            key.started = max(key.started, self._now)
            heappush(self._turns, (key.started, next(self._serials), key))

    def front(self) -> QueueEntry:
        """The entry whose turn it is; at least one waits."""
        turns = self._turns
        while not turns[0][2].entries:
            heappop(turns)[2].is_in_turn = False
        return next(iter(turns[0][2].entries))

    def advance(self, rows: int, *, is_last: bool = False) -> None:
        """Note that rows of the entry in `front` were taken.

        Args:
            rows: how many; the entry goes when none of it waits any more.
            is_last: whether it goes behind the others of its key.
        """
        self._now, _, key = self._turns[0]
        entry = next(iter(key.entries))
        key.rows -= rows
        key.started += rows / key.weight
        if not entry.waiting:
            self._remove(key, entry)
        elif is_last:
            key.entries.move_to_end(entry)
        if key.entries:
            heapreplace(self._turns, (key.started, next(self._serials), key))
        elif key.is_in_turn:
            heappop(self._turns)
            key.is_in_turn = False

    def discard(self, entry: QueueEntry) -> None:
        """Take an entry out, if it is here."""
        key = self._keys.get(_name(entry.share))
        if key is not None and entry in key.entries:
            key.rows -= entry.waiting
            self._remove(key, entry)

    def drop_row(self, entry: QueueEntry) -> None:
        """Note that an entry has a row less."""
        self._keys[_name(entry.share)].rows -= 1

    def oldest(self) -> float | None:
        """When the entry that waits longest arrived; None where none waits."""
        fronts = [next(iter(key.entries)).arrived for key in self._keys.values() if key.entries]
        return min(fronts, default=None)

    def rows_of(self, share: QueueShare | None) -> int:
        """How many rows of a key wait."""
        key = self._keys.get(_name(share))
        return 0 if key is None else key.rows

    def weights(self) -> dict[str | None, float]:
        """The weights of the keys of which rows wait."""
        return {name: key.weight for name, key in list(self._keys.items()) if key.rows}

    def ahead_of(self, rows: int, share: QueueShare | None) -> int:
        """About how many waiting rows `rows` more of a key would see computed first."""
        name, keys = _name(share), list(self._keys.items())
        if len(keys) == 1 and keys[0][0] == name:
            return keys[0][1].rows
        own, weight = self.rows_of(share), 1.0 if share is None else share.weight
        others = (
            min(key.rows, (own + rows) * key.weight / weight)
            for other, key in keys
            if other != name
        )
        return own + int(sum(others))

    def _remove(self, key: KeyEntries, entry: QueueEntry) -> None:
        del key.entries[entry]
        self._entries -= 1
        if not self._entries and len(self._keys) > 1:
            # Who comes now has nobody to share with; keys that are gone for good are forgotten.
            for other in self._keys.values():
                other.is_in_turn = False
            self._keys.clear()
            self._turns.clear()
            self._now = 0.0


def _name(share: QueueShare | None) -> str | None:
    return None if share is None else share.name
