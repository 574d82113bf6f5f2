"""The bounded log of encoded frames that all listeners of a connection share.

A listener's queue is a position in this log, not bytes of its own: what is encoded once is kept once, however many
listeners lag, and the log's bound is the bound of all of them together::

     dropped       first                                     head
    . . . . . . . . +--------+--------+--------+----- - - ----+
                    | batch  | batch  | batch  |              |  next
    . . . . . . . . +--------+--------+--------+----- - - ----+
        ^                ^                                    ^
        a listener that  a listener that lags                 listeners that keep up
        has lost records

Positions are batch numbers; a batch is what one read of the rings gave, at most some tens of KiB. Beside them runs
the count of records: `published` counts every record that the rings gave or lost, so that two values of it, taken when
a listener joined and now, say exactly how many records it should have got.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

from supervisor.frames import count_whole

#: What a batch costs beside its bytes: the objects that hold it (measured with sys.getsizeof, rounded up).
_BATCH_OVERHEAD: Final = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames in the order they are sent: notices first, then one frame per record."""

    data: bytes
    #: Frames at the front that are notices.
    notices: int
    records: int
    #: Records that the rings lost before these, as the notices tell.
    lost: int
    #: `FrameLog.published` after this batch.
    published: int

    def records_within(self, size: int) -> int:
        """How many of the records' frames lie whole within the first `size` bytes."""
        if size >= len(self.data):
            return self.records
        return max(0, count_whole(self.data, size) - self.notices)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one write carries: the frames from a position on."""

    data: bytes
    batches: tuple[Batch, ...]
    #: The position and the count of records after it.
    position: int
    published: int

    @property
    def records(self) -> int:
        """How many records it carries."""
        return sum(batch.records for batch in self.batches)

    def records_within(self, size: int) -> int:
        """How many records' frames lie whole within the first `size` bytes."""
        count = 0
        for batch in self.batches:
            if size <= 0:
                break
            count += batch.records_within(size)
            size -= len(batch.data)
        return count


class FrameLog:
    """The newest batches, up to a bound in bytes. For one thread."""

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` bytes, and always the newest batch."""
        self._limit = limit
        self._batches: dict[int, Batch] = {}
        self._size = 0
        #: The oldest batch held.
        self.first = 0
        #: The next batch's number.
        self.head = 0
        #: Records counted so far: given by the rings, or lost by them.
        self.published = 0
        # Listeners that keep up ask for the same piece one after another: it is joined once.
        self._last: tuple[int, Piece] | None = None

    def append(self, data: bytes, *, records: int, notices: int = 0, lost: int = 0) -> None:
        """Add a batch, dropping the oldest ones that no longer fit."""
        self.published += records + lost
        self._batches[self.head] = Batch(data, notices, records, lost, self.published)
        self.head += 1
        self._size += len(data) + _BATCH_OVERHEAD
        self._last = None
        while self._size > self._limit and self.head - self.first > 1:
            self._size -= len(self._batches.pop(self.first).data) + _BATCH_OVERHEAD
            self.first += 1

    def clear(self) -> None:
        """Forget all batches; positions and counts go on."""
        self._batches.clear()
        self._size, self.first, self._last = 0, self.head, None

    def piece(self, position: int, limit: int) -> Piece:
        """Give the frames from `position` on: whole batches of at most `limit` bytes together, but at least one.

        `position` must lie in [first, head).
        """
        if self._last is not None and self._last[0] == position:
            return self._last[1]
        batches: list[Batch] = []
        size = 0
        for number in range(position, self.head):
            batch = self._batches[number]
            size += len(batch.data)
            if batches and size > limit:
                break
            batches.append(batch)
        data = batches[0].data if len(batches) == 1 else b"".join(batch.data for batch in batches)
        piece = Piece(data, tuple(batches), position + len(batches), batches[-1].published)
        self._last = (position, piece)
        return piece


def gap_notice(connection: str, lost: int, reason: str, kind: str = "", first: int | None = None) -> bytes:
    """Write the notice of records that a listener does not get.

    Args:
        connection: whose records.
        lost: how many; 0 where that cannot be known.
        reason: "slow" for a listener that was left behind, else the ring's: "overwritten", "void", "replaced", or
            "unreadable".
        kind: whose ring lost them; empty for records of all kinds.
        first: the first one's seq in that ring.
    """
    notice: dict[str, str | int] = {"type": "gap", "connection": connection, "lost": lost, "reason": reason}
    if kind:
        notice["kind"] = kind
    if first is not None:
        notice["first"] = first
    return orjson.dumps(notice)
