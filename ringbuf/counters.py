"""What a provider counts, and the state of every topic: written by one process, read by anyone.

The file ``counters`` is a slot file (see `slots`) of 256-byte slots. Slot 0 holds the numbers, 32 words of 8 bytes;
slot 1 the lag histogram, 32 words; every further slot one topic, in the order in which topics were first asked for::

    0                64      65     72      80          88         96                     256
    +----------------+-------+------+-------+-----------+----------+----------------------+
    | native, utf-8  | state | zero | since | last_data | records  | reason, utf-8        |
    | 64 bytes       | u8    |      | ns    | ns        | u64      | 160 bytes            |
    +----------------+-------+------+-------+-----------+----------+----------------------+

Each word is stored by one 8-byte store, so a number is never torn; several numbers read together need not belong to
the same instant. A counter only rises, and restarts from zero only with a new file.

The lag of a record is `received - published` (or `date` where the venue publishes no send time): bucket 0 counts less
than 0 (the venue's clock is ahead), bucket k counts lags below 2**(k-1) * 100 microseconds, the last all larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np

from ringbuf.slots import SlotFile

_SLOT: Final = 256
_TOPICS_AT: Final = 2

#: Buckets of the lag histogram, and the upper bounds of all but the last, in ns.
LAG_BUCKETS: Final = 32
LAG_BOUNDS: Final = np.array([0, *(100_000 * 2**k for k in range(LAG_BUCKETS - 2))], dtype=np.int64)

_TOPIC = np.dtype(
    [
        ("native", "S64"), ("state", "u1"), ("_pad", "V7"), ("since", "<i8"), ("last_data", "<i8"), ("records", "<u8"),
        ("reason", "S160"),
    ]
)  # fmt: skip


class Counter(IntEnum):
    """The numbers of slot 0; the value is the word's index."""

    FRAMES = 0  #: websocket messages received
    BYTES = 1  #: bytes of their payloads
    RECORDS = 2  #: records published, over all kinds but events
    REJECTED = 3  #: frames that gave no record because something was wrong with them
    GAPS = 4  #: holes found in the venue's own numbering
    MISSED = 5  #: messages of the venue that those holes say are missing
    OUT_OF_ORDER = 6  #: records whose venue number did not rise
    CONNECTS = 7  #: connections that were accepted
    DISCONNECTS = 8  #: connections that ended without being asked to
    CONTROL = 9  #: frames that were no data: acknowledgements, heartbeats
    LAST_FRAME = 10  #: ns UTC of the newest frame
    LAST_RECORD = 11  #: ns UTC of the newest data record
    HEARTBEAT = 12  #: CLOCK_MONOTONIC ns of the event loop's last sign of life
    PID = 13  #: the writer's process
    CONNECTED_SINCE = 14  #: ns UTC since when a socket is open; 0 while none is


class TopicState(IntEnum):
    """Where a topic stands, from the wish to the data."""

    REQUESTED = 1  #: wanted, not yet sent
    SENT = 2  #: sent, no answer yet
    ACKNOWLEDGED = 3  #: the venue said yes, no data yet
    LIVE = 4  #: data came within the deadline
    STALE = 5  #: no data within the deadline
    REFUSED = 6  #: the venue said no
    REMOVED = 7  #: unsubscribed


@dataclass(frozen=True)
class TopicStatus:
    """One topic as its provider sees it; times are ns UTC, 0 for never."""

    native: str
    state: TopicState
    since: int
    last_data: int
    records: int
    reason: str


@dataclass(frozen=True)
class CountersSnapshot:
    """All numbers of a connection, read at about the same time."""

    values: dict[Counter, int]
    lag_histogram: np.ndarray[tuple[int], np.dtype[np.uint64]]
    topics: list[TopicStatus]

    def lag(self, quantile: float) -> int | None:
        """Give the upper bound in ns of the bucket that holds this quantile of all lags; None before the first."""
        total = int(self.lag_histogram.sum())
        if total == 0:
            return None
        bucket = int(np.searchsorted(np.cumsum(self.lag_histogram), quantile * total))
        return int(LAG_BOUNDS[min(bucket, LAG_BUCKETS - 2)])


class Counters:
    """The writer's side. For one thread of one process."""

    def __init__(self, directory: Path) -> None:
        """Open the connection's counters, creating them where there are none. Raises as `SlotFile` does."""
        self._file = SlotFile(directory / "counters", _SLOT, write=True)
        while self._file.count < _TOPICS_AT:  # room for these is there from the start
            self._file.append(bytes(_SLOT))
        topics = range(_TOPICS_AT, self._file.count)
        self._index = {_native(self._file.copy(i, i + 1)): i for i in topics}
        self._attach()

    def _attach(self) -> None:
        """Take views of the numbers; again after the file has grown, because growing maps it anew."""
        self.words = self._file.slot(0).cast("Q")
        self._lag = self._file.slot(1).cast("Q")

    def _release(self) -> None:
        self.words.release()
        self._lag.release()

    def add(self, counter: Counter, amount: int = 1) -> None:
        """Raise a counter."""
        self.words[counter] += amount

    def set(self, counter: Counter, value: int) -> None:
        """Set a number that is no count: a time, a process."""
        self.words[counter] = value

    def add_lags(self, lags: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Count lags, in ns."""
        buckets = np.bincount(np.searchsorted(LAG_BOUNDS, lags, side="right"), minlength=LAG_BUCKETS)
        for bucket in np.flatnonzero(buckets):
            self._lag[bucket] += int(buckets[bucket])

    def topic(self, native: str, state: TopicState, since: int, reason: str = "") -> None:
        """Write a topic's new state, adding the topic if it is new.

        Raises:
            SharedMemoryFull: it is new, and the file cannot grow; the counters go on without it.
        """
        index = self._index.get(native)
        if index is None:
            self._add_topic(native, state, since, reason)
            return
        with self._file.slot(index) as slot:
            record = np.frombuffer(slot, _TOPIC)
            record["since"] = since
            record["reason"] = reason.encode()[:160]
            record["state"] = state
            del record

    def _add_topic(self, native: str, state: TopicState, since: int, reason: str) -> None:
        record = np.zeros(1, _TOPIC)
        record["native"], record["state"], record["since"] = native.encode()[:64], state, since
        record["reason"] = reason.encode()[:160]
        self._release()
        try:
            self._index[native] = self._file.append(record.tobytes().ljust(_SLOT, b"\0"))
        finally:
            self._attach()

    def topic_data(self, native: str, last_data: int, records: int) -> None:
        """Write when a topic's newest record came and how many there have been."""
        with self._file.slot(self._index[native]) as slot:
            words = slot.cast("Q")
            words[10], words[11] = last_data, records
            words.release()

    def close(self) -> None:
        """Unmap the file."""
        self._release()
        self._file.close()


def _native(slot: bytes) -> str:
    return slot[:64].rstrip(b"\0").decode(errors="replace")


def _status(slot: bytes) -> TopicStatus:
    native, state, _, since, last_data, records, reason = np.frombuffer(slot, _TOPIC)[0].item()
    # A reason cut in the middle of a character, or read while it is written, must not fail a status.
    return TopicStatus(
        native.decode(errors="replace"), TopicState(state or TopicState.REMOVED), since, last_data, records,
        reason.decode(errors="replace"),
    )  # fmt: skip


def read_counters(directory: Path) -> CountersSnapshot:
    """Read everything that the provider of a connection counts.

    Raises:
        RingNotFound: the connection has never run.
        RingCorrupt, RingVersionError, UnsafePath: the file cannot be used.
    """
    file = SlotFile(directory / "counters", _SLOT)
    try:
        count = file.count
        block = file.copy(0, count) if count >= _TOPICS_AT else bytes(_SLOT * _TOPICS_AT)
    finally:
        file.close()
    words = np.frombuffer(block[: 2 * _SLOT], "<u8")
    topics = [_status(block[i : i + _SLOT]) for i in range(_TOPICS_AT * _SLOT, len(block), _SLOT)]
    return CountersSnapshot({counter: int(words[counter]) for counter in Counter}, words[LAG_BUCKETS:].copy(), topics)
