"""Publishing: one writer, batches, and taking over from a writer that died.

The protocol is Agrona's broadcast buffer with fixed slots. Two words only ever rise: `intent` says how far the writer
may have written, `tail` how far it has::

        tail - capacity                       tail         intent
             |   readable                      |  being     |
    ---------+---------------------------------+  written --+----------->  seq
             |                                              |
             +-- what lies below intent - capacity may already be overwritten

Publishing n records: `intent += n`; copy the records into their slots; `tail += n`. A reader copies, reads `intent`
again and drops what had come into reach meanwhile. The writer never waits and never looks at a reader.

Taking over. A writer killed inside a publish leaves `intent > tail` and slots [tail, intent) half written, over records
that readers may hold to be old but whole. Its successor must never lower `intent`: a reader that validated against the
lowered value would accept torn bytes. It writes the stretch as void records (`seq` = VOID), publishes them, and raises
`epoch`. Readers skip voids and count them as lost. A successor that dies here too leaves the same state, and the next
one does the same again.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Final

import numpy as np

from ringbuf import layout, ordering
from ringbuf.directory import create_file
from ringbuf.errors import RingCorrupt, RingNotFound, RingVersionError
from ringbuf.layout import Header, State
from ringbuf.mapping import RingMapping
from ringbuf.process import process_start

#: A publish takes at most this fraction of the ring, so that a reader near the head survives it (Agrona's rule).
BATCH_FRACTION: Final = 8


class RingWriter:
    """The one writer of one ring. For one thread; the caller holds the connection's `WriterLock`."""

    def __init__(self, path: Path, connection: str, kind: str, dtype: np.dtype[np.void], capacity: int) -> None:
        """Take over the ring at `path`, or make a new one where there is none that fits.

        Args:
            path: the ring file, in the connection's checked directory.
            connection: the connection's name, kept in the header.
            kind: what the records are, kept in the header.
            dtype: the record: `seq` u64 first, no holes.
            capacity: slots; a power of two.

        Raises:
            SharedMemoryFull: a new ring could not be reserved.
            UnsafePath: the path is a link, or not ours.
            UnsupportedProcessor: see `ordering`.
            ValueError: a dtype or capacity that the layout does not allow; nothing was touched.
        """
        ordering.require_ordered_processor()
        wanted = Header(secrets.token_bytes(16), connection, kind, dtype, capacity, time.time_ns())
        page = layout.encode(wanted)
        #: Records of a predecessor that died inside a publish, made void now.
        self.voided = 0
        found, reason = _predecessor(path, wanted)
        #: Why an existing file was replaced, for the log; empty if none was.
        self.replaced = reason
        #: Whether a ring of a predecessor was continued (its `seq` goes on) or a new one made (it starts at 0).
        self.continued = found is not None and not reason
        if found is None or reason:
            _replace(path, wanted.file_size, page, found)
            found = RingMapping(path, write=True)
        self._mapping = found
        try:
            self._take_over()
        except BaseException:
            found.close()
            raise

    def _take_over(self) -> None:
        header, words = self._mapping.header, self._mapping.words
        self.header = header
        self._capacity = header.capacity
        self._slot = header.dtype.itemsize
        #: The most records of one publish; longer batches are published in parts.
        self.max_batch = header.capacity // BATCH_FRACTION
        self._words = words
        self._slots = self._mapping.slots
        self._tail = words[layout.TAIL]
        self._intent = words[layout.INTENT]
        if self._intent > self._tail:
            self._void(self._tail, self._intent)
        words[layout.EPOCH] += 1
        words[layout.WRITER_PID] = os.getpid()
        words[layout.WRITER_START] = process_start(os.getpid())
        words[layout.STATE] = State.LIVE
        self.heartbeat(time.monotonic_ns())

    def _void(self, start: int, stop: int) -> None:
        """Publish [start, stop) as void records. `intent` already covers them."""
        void = np.zeros(1, self.header.dtype)
        void["seq"] = layout.VOID
        record = void.tobytes()
        for seq in range(start, stop):
            at = (seq % self._capacity) * self._slot
            self._slots[at : at + self._slot] = record
        self._words[layout.VOID_END] = stop
        ordering.before_tail()
        self._words[layout.TAIL] = self._tail = stop
        self.voided = stop - start

    @property
    def tail(self) -> int:
        """The `seq` of the next record."""
        return self._tail

    @property
    def epoch(self) -> int:
        """How many writers this ring has had."""
        return self._words[layout.EPOCH]

    def publish(self, records: memoryview, count: int) -> None:
        """Publish `count` records.

        Args:
            records: their bytes, contiguous; record i must carry `seq` = `tail` + i. Longer views are cut.
            count: how many; more than `max_batch` are published in parts.

        Raises:
            ValueError: `records` are no plain bytes, or fewer than `count`; nothing was published.
        """
        # In one piece, no function of its own for the batch: at a batch of one the calls are most of the cost.
        slot, capacity, tail, words = self._slot, self._capacity, self._tail, self._words
        size = count * slot
        if size != len(records):
            if not 0 <= size < len(records):
                raise ValueError(f"{len(records)} bytes are not {count} records of {slot} bytes")
            records = records[:size]
        if count > self.max_batch:
            self._publish_in_parts(records, count)
            return
        end = tail + count
        if end > self._intent:  # else a publish was interrupted (Ctrl-C) here: `intent` is never lowered
            words[layout.INTENT] = self._intent = end
        ordering.after_intent()
        at = (tail & (capacity - 1)) * slot
        fits = capacity * slot - at
        if size <= fits:
            self._slots[at : at + size] = records
        else:
            self._slots[at:] = records[:fits]
            self._slots[: size - fits] = records[fits:]
        ordering.before_tail()
        words[layout.TAIL] = self._tail = end

    def _publish_in_parts(self, records: memoryview, count: int) -> None:
        slot, most = self._slot, self.max_batch
        for first in range(0, count, most):
            self.publish(records[first * slot : (first + most) * slot], min(most, count - first))

    def heartbeat(self, monotonic_ns: int) -> None:
        """Write a sign of life."""
        self._words[layout.HEARTBEAT] = monotonic_ns

    def recent(self, start: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """Give the published records from seq `start` on, for the writer's own housekeeping.

        A view where they lie in one piece, else a copy; valid until the next publish. At most half a ring back. Void
        records (see above) are among them, with `seq` = VOID.
        """
        capacity = self._capacity
        start = min(max(start, self._tail - capacity // 2, 0), self._tail)
        low, high = start & (capacity - 1), self._tail & (capacity - 1)
        if low < high or start == self._tail:
            return self._mapping.records[low:high]
        return np.concatenate((self._mapping.records[low:], self._mapping.records[:high]))

    def close(self) -> None:
        """Leave in good order: readers see that the writer has gone. The file stays. Doing so twice is harmless."""
        if not self._mapping.closed:
            self._words[layout.WRITER_PID] = 0
            self._words[layout.STATE] = State.CLOSED
            del self._words, self._slots
            self._mapping.close()


def _predecessor(path: Path, wanted: Header) -> tuple[RingMapping | None, str]:
    """Give the ring that has the name, if it can be mapped, and why it cannot be continued, if it cannot."""
    try:
        found = RingMapping(path, write=True)
    except RingNotFound:
        return None, ""
    except (RingCorrupt, RingVersionError) as error:
        return None, str(error)
    tail, intent = found.words[layout.TAIL], found.words[layout.INTENT]
    difference = found.header.difference(wanted)
    if not difference and intent - tail > found.header.capacity // BATCH_FRACTION:
        difference = f"its intent is {intent}, more than one publish beyond its tail, which is {tail}"
    return found, f"{path} could not be continued: {difference}." if difference else ""


def _replace(path: Path, size: int, page: bytes, old: RingMapping | None) -> None:
    """Give the name to a new ring, and then tell the readers of the old one."""
    try:
        create_file(path, size, page)
        if old is not None:
            old.words[layout.STATE] = State.SUPERSEDED
    finally:
        if old is not None:
            old.close()
