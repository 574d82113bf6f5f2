"""What must be known of the records but is too dear to find out for each: done for many at once, afterwards.

Every 50 ms, or every 4,096 records of a kind, the provider looks at what it has published since the last time, as
columns of its own ring:

* which topics had data, when last, and how many records;
* holes and disorder in the venue's own numbering, which become events at the record where they show;
* how late the records came.

A topic's records are told apart by their symbol and by whether they are aggregates: `key = 2 * symbol + aggregate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from feeds.contract import Numbering
from feeds.records import Flag, Kind
from ringbuf.records import RecordArray

#: A number that falls back further than this begins a new count (a venue that restarted); less is disorder. Beyond what
#: any venue repeats after a reconnect (some resend their last 1,000 trades).
REORDER: Final = 4096

#: No hole is told larger than this, either way: a number that is garbage must not make the counts garbage too.
FARTHEST: Final = 2**32

#: DESIGN's intervals, in seconds and records.
INTERVAL: Final = 0.05
RECORDS: Final = 4096

Keys: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
Integers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]

_GROWTH: Final = 1024


@dataclass(frozen=True)
class Hole:
    """A place where the venue's numbering did not go on as it should."""

    key: int
    seq: int
    #: How many numbers are missing; 0 or less: how far the number lies behind the highest (0 is a repetition). Never
    #: more than `FARTHEST`.
    missing: int


class KindHousekeeping:
    """The running knowledge of one kind's records. Pure: fed with records, asked for findings."""

    def __init__(self, kind: Kind, numbering: Numbering | None) -> None:
        self.kind = kind
        self._numbering = numbering
        self._highest: np.ndarray[tuple[int], np.dtype[np.uint64]] = np.zeros(_GROWTH, np.uint64)
        #: Per key: ns of the newest record, and how many there have been.
        self.last_received: Integers = np.zeros(_GROWTH, np.int64)
        self.counts: Integers = np.zeros(_GROWTH, np.int64)
        #: Keys that had records in the last pass.
        self.seen: list[int] = []
        #: The last pass's lags in ns.
        self.lags: Integers = np.zeros(0, np.int64)

    def forget(self, key: int) -> None:
        """Begin a topic's numbering anew: what it missed while nobody wanted it is no loss."""
        if key < len(self._highest):
            self._highest[key] = 0

    def look(self, records: RecordArray) -> list[Hole]:
        """Take in records, oldest first, and give the holes in their numbering."""
        flags = records["flags"]
        keys: Keys = records["symbol"].astype(np.int64) * 2
        keys += (flags & int(Flag.AGGREGATE)) != 0
        received: Integers = records["received"].view("<i8")
        self._grow(int(keys.max()) + 1)
        self.last_received[keys] = received  # of equal keys the last one stays, which is the newest
        counts = np.bincount(keys)
        self.counts[: len(counts)] += counts
        self.seen = np.flatnonzero(counts).tolist()
        self.lags = self._lags(records, received, flags)
        return self._holes(records, keys) if self._numbering else []

    def _grow(self, size: int) -> None:
        while size > len(self.counts):
            self._highest = np.concatenate((self._highest, np.zeros_like(self._highest)))
            self.last_received = np.concatenate((self.last_received, np.zeros_like(self.last_received)))
            self.counts = np.concatenate((self.counts, np.zeros_like(self.counts)))

    @staticmethod
    def _lags(records: RecordArray, received: Integers, flags: Integers) -> Integers:
        """How much later than sent (or dated) each record came; none for records without a time of the venue's."""
        sent = records["published"].view("<i8") if "published" in (records.dtype.names or ()) else None
        dated = (flags & int(Flag.DATE_IS_RECEIVED)) == 0
        if sent is None:
            sent = records["date"].view("<i8")
        else:
            unsent = sent == np.iinfo(np.int64).min
            sent = np.where(unsent, records["date"].view("<i8"), sent)
            dated |= ~unsent
        lags: Integers = (received - sent)[dated]
        return lags

    def _holes(self, records: RecordArray, keys: Keys) -> list[Hole]:
        """Check the numbering. Nearly always every topic goes on by one step, which columns show at once."""
        assert self._numbering is not None  # noqa: S101 - the caller has looked
        numbers = records[self._numbering.field]
        one_topic = keys[0] == keys[-1] and keys.min() == keys.max()  # then they are in order already
        order: slice | Integers = slice(None) if one_topic else np.argsort(keys, kind="stable")
        keys, numbers, seqs = keys[order], numbers[order], records["seq"][order]
        first = np.empty(len(keys), bool)
        first[0] = True
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        previous = np.empty_like(numbers)
        previous[1:] = numbers[:-1]
        previous[first] = self._highest[keys[first]]
        odd = (numbers - previous != 1) if self._numbering.consecutive else (numbers <= previous)
        odd &= previous != 0
        odd_keys = sorted(set(keys[odd].tolist()))  # np.unique would import numpy.ma first: 7 ms in the hot path
        last = np.append(first[1:], True) & ~np.isin(keys, odd_keys)
        self._highest[keys[last]] = numbers[last]
        holes = []
        for key in odd_keys:
            of_key = keys == key
            holes += self._walk(key, numbers[of_key].tolist(), seqs[of_key].tolist())
        return holes

    def _walk(self, key: int, numbers: list[int], seqs: list[int]) -> list[Hole]:
        """Follow one topic's numbers one by one, where something in them is odd."""
        assert self._numbering is not None  # noqa: S101 - as above
        holes = []
        highest = int(self._highest[key])
        for number, seq in zip(numbers, seqs, strict=True):
            if number == 0:
                continue
            if number > highest:
                if self._numbering.consecutive and highest and number > highest + 1:
                    holes.append(Hole(key, seq, min(number - highest - 1, FARTHEST)))
                highest = number
            else:
                holes.append(Hole(key, seq, max(number - highest, -FARTHEST)))
                if highest - number > REORDER:
                    highest = number
        self._highest[key] = highest
        return holes
