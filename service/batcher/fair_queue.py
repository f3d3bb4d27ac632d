"""The order in which waiting rows go into batches: first come first served, and fair.

Short requests wait in one queue and long ones in another, so that a row behind 10,000 others does
not wait for them; the long queue keeps a fixed share of every batch, so that it never starves.
Within both, API keys take turns.
"""

import math

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.key_turns import KeyTurns
from service.contracts import QueueShare

# A request up to this part of a batch is short. A quarter: several fit into one batch, and a
# request that fills most of a batch anyway gains nothing from passing others.
SHORT_SHARE = 0.25
# What long requests get of every batch while short ones alone could fill it.
LONG_SHARE = 0.25


class FairQueue:
    """A fair queue: entries wait as short or long, and are cut into batches of `max_rows` rows.

    Short queue: first in, first out. Long queue: an entry stays in front until it is done or has
    had `max_rows` rows in its turn, then goes behind the others. So a short request waits for short
    ones only, and a long one for at most one full batch of each long one in front of it. That is
    among requests of one API key; keys take turns, see `KeyTurns`.

    Nothing here knows threads or time; the caller guards it.

    max_rows: of a batch. rows: that wait. short_rows: how many a request has at most in the short
    queue.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.short_rows = max(1, int(max_rows * SHORT_SHARE))
        self._short = KeyTurns()
        self._long = KeyTurns()
        self._long_credit = 0.0
        self.rows = 0

    def ahead_of(self, rows: int, share: QueueShare | None = None) -> int:
        """About how many waiting rows a new request of `rows` rows would see computed first.

        Args:
            rows: of the request.
            share: of its key.
        """
        short = self._short.ahead_of(rows, share)
        if not self._long:
            return short
        if rows > self.short_rows:
            return short + self._long.ahead_of(rows, share)
        return math.ceil(short / (1 - LONG_SHARE))

    def fits(self, rows: int, limit: int, share: QueueShare | None) -> bool:
        """Whether rows of a key may wait as well.

        Beyond the limit too as long as the key has not its share of it, where others wait: they
        came first, and have more.

        Args:
            rows: how many more.
            limit: how many may wait at a time.
            share: of the key.
        """
        if self.rows + rows <= limit:
            return True
        name, weight = (None, 1.0) if share is None else share
        weights = self._short.weights() | self._long.weights() | {name: weight}
        own = self._short.rows_of(share) + self._long.rows_of(share)
        return own + rows <= limit * weight / sum(weights.values())

    def add(self, entry: QueueEntry) -> None:
        """Put an entry at the end of its queue."""
        queue = self._short if entry.total <= self.short_rows else self._long
        queue.add(entry)
        self.rows += entry.total

    def discard(self, entry: QueueEntry) -> int:
        """Take an entry out wherever it is.

        Returns:
            How many rows will never be computed.
        """
        dropped = entry.waiting
        self._short.discard(entry)
        self._long.discard(entry)
        entry.taken = entry.total
        self.rows -= dropped
        return dropped

    def drop(self, entry: QueueEntry, row: int) -> bool:
        """Take one row out of a short entry.

        Returns:
            False where it is still in: the entry is long, or some of its rows are in a batch.
        """
        if entry.taken or entry not in self._short:
            return False
        entry.drop(row)
        self._short.drop_row(entry)
        self.rows -= 1
        return True

    def shrink(self, max_rows: int) -> None:
        """Cut smaller batches from now on; who waits as a short request goes on doing so."""
        self.max_rows = max_rows
        for entry in self._long:
            entry.turn = min(entry.turn, max_rows - 1)

    def clear(self) -> None:
        """Take all entries out."""
        for entry in [*self._short, *self._long]:
            self.discard(entry)

    def oldest(self) -> float | None:
        """When the entry that waits longest arrived; None where none waits."""
        fronts = (self._short.oldest(), self._long.oldest())
        return min((front for front in fronts if front is not None), default=None)

    def take(self, most: int | None = None) -> list[EntrySlice]:
        """Cut the next batch: up to `max_rows` rows, or fewer, empty only if nothing waits."""
        parts: list[EntrySlice] = []
        size = self.max_rows if most is None else min(most, self.max_rows)
        claimed = min(self._claim_of_long(size), size)
        room = claimed + self._take_short(size - claimed, parts)
        left = self._take_long(room, parts)
        self.rows -= size - left
        self._long_credit = max(0.0, self._long_credit - (room - left))
        return parts

    def _claim_of_long(self, size: int) -> int:
        # A credit, not a plain quarter: a quarter of a batch of one row is every fourth.
        if not self._long:
            self._long_credit = 0.0
            return 0
        credit = self._long_credit + size * LONG_SHARE
        self._long_credit = min(credit, float(self.max_rows))
        return int(self._long_credit)

    def _take_short(self, room: int, parts: list[EntrySlice]) -> int:
        """Fill `room` rows from the short queue.

        Returns:
            The room left.
        """
        queue = self._short
        while room and queue:
            part = _cut(queue.front(), room)
            parts.append(part)
            count = part.stop - part.start
            room -= count
            queue.advance(count)
        return room

    def _take_long(self, room: int, parts: list[EntrySlice]) -> int:
        """Fill `room` rows from the long queue, turn by turn.

        Returns:
            The room left.
        """
        queue = self._long
        while room and queue:
            entry = queue.front()
            part = _cut(entry, min(room, self.max_rows - entry.turn))
            parts.append(part)
            count = part.stop - part.start
            room -= count
            entry.turn += count
            is_over = entry.turn == self.max_rows
            if is_over:
                entry.turn = 0
            queue.advance(count, is_last=is_over)
        return room


def _cut(entry: QueueEntry, most: int) -> EntrySlice:
    """Take the next rows of an entry, `most` at most."""
    start = entry.taken
    entry.taken = stop = min(entry.total, start + most)
    return EntrySlice(entry, start, stop)
