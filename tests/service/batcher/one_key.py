"""The fair queue as it was before keys took turns: what it must still be where there is but one."""

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.fair_queue import LONG_SHARE, SHORT_SHARE


class OneKeyQueue:
    """Two lists of entries, short and long."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.short_rows = max(1, int(max_rows * SHORT_SHARE))
        self.short: list[QueueEntry] = []
        self.long: list[QueueEntry] = []
        self.credit = 0.0

    @property
    def rows(self) -> int:
        return sum(entry.waiting for entry in self.short + self.long)

    def add(self, entry: QueueEntry) -> None:
        (self.short if entry.total <= self.short_rows else self.long).append(entry)

    def discard(self, entry: QueueEntry) -> None:
        for queue in (self.short, self.long):
            if entry in queue:
                queue.remove(entry)
        entry.taken = entry.total

    def shrink(self, max_rows: int) -> None:
        self.max_rows = max_rows
        for entry in self.long:
            entry.turn = min(entry.turn, max_rows - 1)

    def take(self, most: int) -> list[EntrySlice]:
        parts: list[EntrySlice] = []
        size = min(most, self.max_rows)
        self.credit = (
            min(self.credit + size * LONG_SHARE, float(self.max_rows)) if self.long else 0.0
        )
        room = claimed = min(int(self.credit), size)
        left = size - claimed
        while left and self.short:
            left -= self._cut(self.short[0], left, parts)
            if not self.short[0].waiting:
                del self.short[0]
        room = before = room + left
        while room and self.long:
            entry = self.long[0]
            count = self._cut(entry, min(room, self.max_rows - entry.turn), parts)
            room -= count
            entry.turn += count
            if not entry.waiting:
                del self.long[0]
            elif entry.turn == self.max_rows:
                entry.turn = 0
                self.long.append(self.long.pop(0))
        self.credit = max(0.0, self.credit - (before - room))
        return parts

    def _cut(self, entry: QueueEntry, most: int, parts: list[EntrySlice]) -> int:
        start = entry.taken
        entry.taken = min(entry.total, start + most)
        parts.append(EntrySlice(entry, start, entry.taken))
        return entry.taken - start
