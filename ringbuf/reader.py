"""Reading: copy, validate, count.

A reader owns nothing in the ring. It has a cursor, the seq of the next record it wants, and copies what lies between
the cursor and `tail`. Only after the copy does it look at `intent` again: what has come below `intent - capacity`
meanwhile may have been overwritten during the copy, so exactly that prefix is dropped, and the rest is whole (slots
have one size, so the test is exact).

A cursor that is already out of reach when a read begins jumps a quarter of the ring ahead of the oldest record: the
oldest itself would be overwritten before it could be read.

Every record is either returned, or counted in `lost` and told as a `Gap` beside the data::

    start + received + lost == cursor          and cursor == tail when all has been read

When another file takes the ring's name (a new layout, a larger capacity), the reader first reads the old one to its
end, then goes on at the oldest record of the new one, and tells a gap of unknown size. `received` and `lost` go on
counting; `start` is set to what keeps the line above true in the new ring's numbers, and may be negative then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np

from ringbuf import layout, ordering
from ringbuf.directory import check_name, connection_directory
from ringbuf.errors import ParameterError, RingCorrupt, RingNotFound
from ringbuf.layout import State
from ringbuf.mapping import RingMapping
from ringbuf.process import is_alive
from ringbuf.records import Gap, Loss, RecordArray, Records
from ringbuf.symbols import SymbolTable
from ringbuf.waiting import Backoff, WaitStrategy

#: An overwritten cursor goes on this part of the ring ahead of the oldest record (measured: see DESIGN, rings).
JUMP_FRACTION: Final = 4

#: A reader that begins with the oldest record of a ring that is being written leaves out this part of it: twice what a
#: writer at 1 M records/s overwrites while the first quarter of a default ring is copied (measured: 2 ms).
HEAD_START_FRACTION: Final = 32

#: How often a reader with nothing to read looks whether the name still means its file, in seconds.
NAME_CHECK: Final = 0.5

Start = Literal["oldest", "newest"] | int


class RingReader:
    """One reader of one ring. For one thread; any number of readers in any number of processes do not disturb anyone.

    Reading never blocks the writer, and never raises for lost records: see `Records.gaps` and `lost`.
    """

    def __init__(
        self,
        directory: Path,
        kind: str,
        start: Start = "oldest",
        waiting: WaitStrategy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Attach to the ring of a kind in a connection's directory. Most callers want `attach`.

        Args:
            directory: the connection's directory.
            kind: the ring's kind.
            start: where to begin: "oldest" for what the ring holds (while it is being written and has gone round, less
                the 32nd part that is overwritten next), "newest" for only what comes from now on, or a seq; one that
                is gone already is told as a gap by the first `read`.
            waiting: how to wait for records; `Backoff` if left out.
            clock: gives seconds that never go back; injected by tests.

        Raises:
            RingNotFound, RingCorrupt, RingVersionError, UnsafePath: see `RingMapping` and `SlotFile`.
            UnsupportedProcessor: see `ordering`.
            ParameterError: `start` is negative or beyond the newest record.
        """
        ordering.require_ordered_processor()
        self._kind = kind
        self._path = directory / f"{kind}.ring"
        self._waiting = Backoff() if waiting is None else waiting
        self._clock = clock
        self._name_checked = clock()
        self._open()
        try:
            self._cursor = self._first(start)
        except BaseException:
            self.close()
            raise
        #: Where reading began, as a seq of the ring now attached (see the module about a replaced ring).
        self.start = self._cursor
        #: Records returned so far, over all rings that had the name.
        self.received = 0
        #: Records that were published but not returned: overwritten or void.
        self.lost = 0

    def _open(self) -> None:
        """Map the ring that has the name now, and the names beside it; keep what was mapped if either fails."""
        mapping = RingMapping(self._path)
        try:
            if mapping.header.kind != self._kind:
                raise RingCorrupt(f"{self._path}: its kind is {mapping.header.kind!r}: a foreign file. Remove it.")
            # After the ring, so that its names are there: a connection's names are older than its rings.
            symbols = SymbolTable(self._path.parent)
        except BaseException:
            mapping.close()
            raise
        self._mapping, self._symbols = mapping, symbols
        self._words = mapping.words
        self._capacity = mapping.header.capacity
        self._slot = mapping.header.dtype.itemsize
        self._nothing: RecordArray = np.empty(0, mapping.header.dtype)

    def _first(self, start: Start) -> int:
        tail, low = self._words[layout.TAIL], self._low()
        if start == "newest":
            return tail
        if start == "oldest":
            if low <= 0:
                return 0
            # The very oldest would be overwritten before it is read, unless nobody writes.
            live = self._words[layout.STATE] == State.LIVE
            return min(low + (self._capacity // HEAD_START_FRACTION if live else 0), tail)
        if not 0 <= start <= tail:
            raise ParameterError(f"{self._path.name} cannot be read from seq {start}: its newest record is {tail - 1}.")
        return start

    def _low(self) -> int:
        """The oldest seq that cannot have been overwritten yet; negative while the ring has not gone round."""
        return self._words[layout.INTENT] - self._capacity

    @property
    def header(self) -> layout.Header:
        """What the ring says of itself: ring_id, connection, kind, dtype, capacity."""
        return self._mapping.header

    @property
    def ring_id(self) -> str:
        """The ring's identity in hex; a cursor is only meaningful together with it."""
        return self._mapping.header.ring_id.hex()

    @property
    def cursor(self) -> int:
        """The seq of the next record."""
        return self._cursor

    @property
    def published(self) -> int:
        """How many records there have been: the seq after the newest one."""
        return self._words[layout.TAIL]

    @property
    def lag(self) -> int:
        """How many records the reader is behind."""
        return self._words[layout.TAIL] - self._cursor

    @property
    def epoch(self) -> int:
        """How many writers the ring has had."""
        return self._words[layout.EPOCH]

    @property
    def writer_alive(self) -> bool:
        """Whether the ring has a writer whose process runs."""
        words = self._words
        return words[layout.STATE] == State.LIVE and is_alive(words[layout.WRITER_PID], words[layout.WRITER_START])

    def read(self, limit: int | None = None, timeout: float | None = 0.0) -> Records:
        """Give the next records, oldest first; empty if none came in time.

        Args:
            limit: at most so many; at most a quarter of the ring in any case.
            timeout: how long to wait for the first one, in seconds; None waits for ever.

        Raises:
            RingNotFound: all has been read and the ring's name is gone: the connection was removed.
            RingCorrupt: the live words contradict each other.
        """
        if limit is not None and limit <= 0:
            raise ParameterError(f"limit must be at least 1, not {limit}.")
        end = None if timeout is None else self._clock() + timeout
        while True:
            records = self._take(limit)
            if len(records) or records.gaps:
                self._waiting.reset()
                return records
            now = self._clock()
            if now - self._name_checked >= NAME_CHECK or self._words[layout.STATE] == State.SUPERSEDED:
                self._name_checked = now
                replaced = self._follow_name()
                if replaced is not None:
                    return self._records(self._nothing, (replaced,))
            if end is not None and now >= end:
                return records
            self._waiting.pause(None if end is None else end - now)

    def _take(self, limit: int | None) -> Records:
        tail = self._words[layout.TAIL]
        ordering.after_tail()
        if tail == self._cursor:
            return self._records(self._nothing, ())
        gaps: list[Gap] = []
        low = self._low()
        if not self._cursor < tail <= low + self._capacity:
            raise RingCorrupt(
                f"{self._path}: tail is {tail}, which is not between the cursor {self._cursor} and intent "
                f"{low + self._capacity}. Restart its connection."
            )
        if self._cursor < low:
            self._skip(min(low + self._capacity // JUMP_FRACTION, tail), gaps)
        count = min(tail - self._cursor, self._capacity // JUMP_FRACTION, limit or tail)
        array, overwritten = self._copy(self._cursor, count)
        if overwritten:
            self._skip(self._cursor + overwritten, gaps)
        if self._cursor < self._words[layout.VOID_END]:
            array = self._without_voids(array, gaps)
        else:
            self._cursor += len(array)
        self.received += len(array)
        return self._records(array, tuple(gaps))

    def _copy(self, start: int, count: int) -> tuple[RecordArray, int]:
        """Copy [start, start + count) and give what was whole, and how many at the front were not."""
        slot, capacity, slots = self._slot, self._capacity, self._mapping.slots
        at = start & (capacity - 1)
        copied = bytearray(slots[at * slot : min(at + count, capacity) * slot])
        if at + count > capacity:
            copied += slots[: (at + count - capacity) * slot]
        overwritten = self._overwritten(start, count)
        return np.frombuffer(copied, self._mapping.header.dtype)[overwritten:], overwritten

    def _overwritten(self, start: int, count: int) -> int:
        """How many records at the front of a copy just made may have been overwritten during it."""
        ordering.before_validation()
        return min(max(self._low() - start, 0), count)

    def _skip(self, to: int, gaps: list[Gap]) -> None:
        """Move the cursor over records that are gone."""
        gaps.append(Gap(self._cursor, to - self._cursor, Loss.OVERWRITTEN))
        self.lost += to - self._cursor
        self._cursor = to

    def _without_voids(self, array: RecordArray, gaps: list[Gap]) -> RecordArray:
        void = array["seq"] == layout.VOID
        # Each writer that died left a stretch of its own: 1 where one begins, -1 after its end.
        edges = np.diff(void.astype(np.int8), prepend=0, append=0)
        for first, end in zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True):
            gaps.append(Gap(self._cursor + first, end - first, Loss.VOID))
            self.lost += end - first
        self._cursor += len(array)
        real: RecordArray = array[~void]
        return real

    def _follow_name(self) -> Gap | None:
        """Attach to the file that has taken the ring's name, if one has."""
        try:
            found = self._path.lstat()
        except FileNotFoundError as error:
            if self.lag:
                return None
            raise RingNotFound(
                f"the {self.header.kind} ring of {self.header.connection} is gone: its connection was removed."
            ) from error
        if (found.st_dev, found.st_ino) == self._mapping.identity or self.lag:
            # With a new file the old one has its last record, but perhaps only since we looked: read that first.
            return None
        mapping, symbols = self._mapping, self._symbols
        self._open()
        mapping.close()
        symbols.close()
        # Accounting goes on: what was read stays read, and the new ring's part begins where it begins.
        self._cursor = self._first("oldest")
        self.start = self._cursor - self.received - self.lost
        return Gap(self._cursor, 0, Loss.REPLACED)

    def tail(self, count: int) -> Records:
        """Give the newest `count` records, or fewer if the ring holds fewer; the cursor stays where it is.

        Void records are left out, and so are those that the writer overwrites during the copy.
        """
        if count <= 0:
            raise ParameterError(f"count must be at least 1, not {count}.")
        tail = self._words[layout.TAIL]
        ordering.after_tail()
        # The writer may have gone round since `tail` was loaded: then nothing below that `tail` is left.
        start = min(max(tail - count, self._low(), 0), tail)
        array, _ = self._copy(start, tail - start)
        if start < self._words[layout.VOID_END]:
            array = array[array["seq"] != layout.VOID]
        return self._records(array, ())

    def _records(self, array: RecordArray, gaps: tuple[Gap, ...]) -> Records:
        header = self._mapping.header
        return Records(array, header.connection, header.kind, self._symbols.names, gaps)

    @property
    def symbols(self) -> SymbolTable:
        """The connection's names."""
        return self._symbols

    def __iter__(self) -> Iterator[Records]:
        """Give batches for ever, waiting for each. Ends with RingNotFound when the connection is removed."""
        while True:
            yield self.read(timeout=None)

    def close(self) -> None:
        """Detach; doing so twice is harmless. Records already read stay valid."""
        self._mapping.close()
        self._symbols.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attach(
    connection: str,
    kind: str,
    *,
    start: Start = "oldest",
    wait: float = 0.0,
    waiting: WaitStrategy | None = None,
) -> RingReader:
    """Attach to a connection's ring, from any process of the same user, waiting for one that is not there yet.

    Args:
        connection: the connection's name.
        kind: what the records are; any name, because rings do not know kinds.
        start: see `RingReader`.
        wait: how long to wait, in seconds, for a ring that is not there yet (it appears with its first record).
        waiting: how `read` waits; `Backoff` if left out.

    Raises:
        RingNotFound: there is no such ring, not even after `wait` seconds.
        ParameterError: a name that cannot be one.
        RingCorrupt, RingVersionError, UnsafePath: the ring cannot be used.
    """
    end = time.monotonic() + wait
    patience = Backoff()
    while True:
        try:
            return RingReader(connection_directory(connection), check_name(kind, "kind"), start, waiting)
        except RingNotFound as error:
            if time.monotonic() >= end:
                raise RingNotFound(
                    f"connection {connection!r} has no {kind} ring (yet): it appears with the first {kind} record. "
                    "See `tickring status` for what runs, or wait longer."
                ) from error
        patience.pause(max(0.0, end - time.monotonic()))
