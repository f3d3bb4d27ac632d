"""The order in which waiting rows go into batches: first come first served, and fair.

Short requests wait in one lane and long ones in another, so that a row behind 10,000 others does
not wait for them; the long lane keeps a fixed share of every batch, so that it never starves.
"""

import math
from collections import OrderedDict

from service.batcher.entry import EntrySlice, QueueEntry

# A request up to this part of a batch is short. A quarter: several fit into one batch, and a
# request that fills most of a batch anyway gains nothing from a fast lane.
SHORT_SHARE = 0.25
# What long requests get of every batch while short ones alone could fill it.
LONG_SHARE = 0.25


class FairQueue:
    """Waiting tickets in two lanes, cut into pieces of at most `max_rows` rows a batch.

    Short lane: first in, first out. Long lane: a ticket stays in front until it is done or has had
    `max_rows` rows in its turn, then goes behind the others. So a short request waits for short
    ones only, and a long one for at most one full batch of each long one in front of it.

    Nothing here knows threads or time; the caller guards it.

    rows: that wait. short_rows: how many a request has at most in the short lane.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self.short_rows = max(1, int(max_rows * SHORT_SHARE))
        # Ordered dictionaries used as queues: taking any ticket out is one step.
        self._short: OrderedDict[QueueEntry, None] = OrderedDict()
        self._long: OrderedDict[QueueEntry, None] = OrderedDict()
        self._long_credit = 0.0
        self._rows_in_long = 0
        self.rows = 0

    def ahead_of(self, rows: int) -> int:
        """About how many waiting rows a new request of `rows` rows would see computed first."""
        if rows > self.short_rows or not self._long:
            return self.rows
        return math.ceil((self.rows - self._rows_in_long) / (1 - LONG_SHARE))

    def add(self, ticket: QueueEntry) -> None:
        """Put a ticket at the end of its lane."""
        lane = self._short if ticket.total <= self.short_rows else self._long
        lane[ticket] = None
        self._count(ticket, ticket.total)

    def discard(self, ticket: QueueEntry) -> int:
        """Take a ticket out wherever it is.   -> how many rows will never be computed."""
        dropped = ticket.waiting
        self._short.pop(ticket, None)
        self._long.pop(ticket, None)
        ticket.taken = ticket.total
        self._count(ticket, -dropped)
        return dropped

    def drop(self, ticket: QueueEntry, row: int) -> bool:
        """Take one row out of a short ticket.   -> False where some of its rows are in a batch."""
        if ticket.taken or ticket not in self._short:
            return False
        ticket.drop(row)
        self.rows -= 1
        return True

    def clear(self) -> list[QueueEntry]:
        """Take all tickets out."""
        tickets = [*self._short, *self._long]
        for ticket in tickets:
            self.discard(ticket)
        return tickets

    def oldest(self) -> float | None:
        """When the ticket that waits longest arrived; None where none waits."""
        fronts = [next(iter(lane)).arrived for lane in (self._short, self._long) if lane]
        return min(fronts, default=None)

    def take(self) -> list[EntrySlice]:
        """Cut the next batch: up to `max_rows` rows, empty only if nothing waits."""
        pieces: list[EntrySlice] = []
        claimed = self._claim_of_long()
        shared = self._max_rows - claimed
        room = claimed + self._take_short(shared, pieces)
        left = self._take_long(room, pieces)
        self.rows -= self._max_rows - left
        self._rows_in_long -= room - left
        self._long_credit = max(0.0, self._long_credit - (room - left))
        return pieces

    def _claim_of_long(self) -> int:
        # A credit, not a plain quarter: with max_rows = 1 a quarter of a batch is every fourth.
        if not self._long:
            self._long_credit = 0.0
            return 0
        credit = self._long_credit + self._max_rows * LONG_SHARE
        self._long_credit = min(credit, float(self._max_rows))
        return int(self._long_credit)

    def _take_short(self, room: int, pieces: list[EntrySlice]) -> int:
        """Fill `room` rows from the short lane.   -> the room left."""
        lane = self._short
        while room and lane:
            ticket, _ = lane.popitem(last=False)
            piece = _cut(ticket, room)
            pieces.append(piece)
            room -= piece.stop - piece.start
            if piece.stop < ticket.total:
                lane[ticket] = None
                lane.move_to_end(ticket, last=False)
        return room

    def _take_long(self, room: int, pieces: list[EntrySlice]) -> int:
        """Fill `room` rows from the long lane, turn by turn.   -> the room left."""
        lane = self._long
        while room and lane:
            ticket = next(iter(lane))
            piece = _cut(ticket, min(room, self._max_rows - ticket.turn))
            pieces.append(piece)
            count = piece.stop - piece.start
            room -= count
            ticket.turn += count
            if not ticket.waiting:
                del lane[ticket]
            elif ticket.turn == self._max_rows:
                ticket.turn = 0
                lane.move_to_end(ticket)
        return room

    def _count(self, ticket: QueueEntry, rows: int) -> None:
        self.rows += rows
        if ticket.total > self.short_rows:
            self._rows_in_long += rows


def _cut(ticket: QueueEntry, most: int) -> EntrySlice:
    """Take the next rows of a ticket, `most` at most."""
    start = ticket.taken
    ticket.taken = stop = min(ticket.total, start + most)
    return EntrySlice(ticket, start, stop)
