"""What was read from a connection's rings, and the one order it is in. Pure.

Per kind, records and misses stand in one list, in the ring's order. So whatever is taken from the front of it, the
cursor that belongs to it is exact::

    trade   [ Batch 0..99 ][ Miss 100..149 ][ Batch 150..180 ]      cursor: trade 181
    quote   [ Batch 7..9 ]                                          cursor: quote 10
                   |
                   +--> merged by (received, kind, seq) --> JSON texts
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from feeds.encoding import lines
from feeds.records import DATA_KINDS, KIND_NUMBER, Kind
from ringbuf.records import Loss, RecordArray, Records

_Integers: TypeAlias = np.ndarray[tuple[int], np.dtype[Any]]


@dataclass(frozen=True)
class Cursor:
    """The next record to read of a ring; the seq means nothing without the ring's identity, in hex."""

    ring_id: str
    seq: int


@dataclass(frozen=True)
class Miss:
    """Records [first, first + count) of a ring that were published but could not be read.

    With `Loss.REPLACED` they are what the new ring had overwritten already, and what the old one held at last beyond
    the cursor is unknown; `count` may be 0 then. "unreadable" are records whose names cannot be read.
    """

    kind: Kind
    ring_id: str
    first: int
    count: int
    reason: Loss | Literal["unreadable"]


@dataclass(frozen=True)
class Batch:
    """Records of one read, with the identity of their ring."""

    kind: Kind
    ring_id: str
    records: Records

    def __len__(self) -> int:
        return len(self.records)

    @property
    def received(self) -> _Integers:
        """When each record came, in ns."""
        return self.records["received"].view("<i8")

    def part(self, chosen: slice | _Integers) -> Batch:
        """Give some of the records."""
        array: RecordArray = self.records.array[chosen]
        return replace(self, records=Records(array, self.records.connection, self.records.kind, self.records.names))


@dataclass
class Gathered:
    """What has been read of every kind, oldest first, and the cursors behind it."""

    streams: dict[Kind, list[Batch | Miss]] = field(default_factory=dict)
    #: Data records that were read, but not kept because of the limit.
    dropped: int = 0
    cursors: dict[Kind, Cursor] = field(default_factory=dict)

    @property
    def data(self) -> list[Batch]:
        """The data records."""
        return [batch for kind in DATA_KINDS for batch in self.batches(kind)]

    @property
    def count(self) -> int:
        """How many data records were read."""
        return self.dropped + sum(map(len, self.data))

    @property
    def misses(self) -> list[Miss]:
        """What is missing."""
        return [item for stream in self.streams.values() for item in stream if isinstance(item, Miss)]

    def batches(self, kind: Kind) -> list[Batch]:
        """The records of a kind."""
        return [item for item in self.streams.get(kind, ()) if isinstance(item, Batch)]

    def waiting(self, kind: Kind) -> int:
        """How many records of a kind there are."""
        return sum(map(len, self.batches(kind)))


def merged(batches: list[Batch], limit: int | None = None) -> list[bytes]:
    """Encode records of several kinds in the order (received, kind, seq), keeping each ring's own order.

    Args:
        batches: per kind oldest first.
        limit: encode only the newest so many.
    """
    if limit is None or limit >= sum(map(len, batches)):
        texts = [text for batch in batches for text in lines(batch.records)]
        return texts if len(batches) < 2 else [texts[place] for place in _order(batches).tolist()]
    keep = _order(batches)[-limit:]
    chosen = np.sort(keep)
    texts, first = [], 0
    for batch in batches:
        low, high = np.searchsorted(chosen, (first, first + len(batch)))
        texts += lines(batch.part(chosen[low:high] - first).records)
        first += len(batch)
    return [texts[place] for place in np.searchsorted(chosen, keep).tolist()]


def ages(batches: Iterable[Batch]) -> list[_Integers]:
    """Give when each record counts as received: no earlier than those before it in its ring.

    So a clock that was set back turns no ring's own order round.

    Args:
        batches: per kind oldest first.
    """
    latest = dict.fromkeys(Kind, np.iinfo(np.int64).min)
    times: list[_Integers] = []
    for batch in batches:
        times.append(np.maximum.accumulate(np.maximum(batch.received, latest[batch.kind])))
        latest[batch.kind] = int(times[-1][-1])
    return times


def _order(batches: list[Batch]) -> _Integers:
    """Give the places of all records, batch after batch, in merged order."""
    numbers = np.repeat([KIND_NUMBER[batch.kind] for batch in batches], [len(batch) for batch in batches])
    # The sort is stable, so that within a kind equal times stay in the order of seq.
    return np.lexsort((numbers, np.concatenate(ages(batches))))
