"""A connection's rings read as one stream: what the recorder and the readers of results have in common.

::

    trade.ring --.                        +--> data, merged by (received, kind, seq) --> JSON texts
    quote.ring --+-- Intake: one reader --+--> events
    event.ring --'   and cursor a kind    +--> misses: what the rings did not hold any more
                                          +--> cursors: where to go on, to be stored with the rest

A ring appears with the first record of its kind, so `attach` is called again and again. Reading resumes at the cursors
given: (ring_id, seq) of every kind. A ring of another identity is read from the oldest record that it holds, and the
change is told as a miss. What went by before an intake that begins `fresh` is no miss: nobody had asked for it.

A ring that cannot be read (damaged, foreign, of another layout) is a trouble, told once; the others are read on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from feeds.records import DATA_KINDS, DTYPES, Kind
from ringbuf.directory import connection_directory
from ringbuf.errors import ParameterError, RingError, RingNotFound, RingVersionError
from ringbuf.reader import JUMP_FRACTION, RingReader
from ringbuf.records import Loss
from supervisor.gathered import Batch, Cursor, Gathered, Miss, merged

#: Records of one kind that wait at most where all are kept: a quarter of a default ring, 4 MiB, 0.1 s of work.
BATCH: Final = 2**15


class Intake:
    """The rings of one connection as one source. For one thread."""

    def __init__(
        self,
        connection: str,
        cursors: Mapping[Kind, Cursor],
        *,
        fresh: bool = False,
        limit: int | None = None,
        kinds: Iterable[Kind] = Kind,
        batch: int = BATCH,
    ) -> None:
        """Set where to resume; nothing is opened before `attach`.

        Args:
            connection: whose rings.
            cursors: where to resume, per kind.
            fresh: the rings that exist at the first `attach` begin without a miss.
            limit: only the newest so many data records of each kind are kept waiting; None keeps all, and then at
                most `batch` of a kind are read before they are taken.
            kinds: which rings.
            batch: see `limit`.
        """
        self._connection = connection
        self._cursors = dict(cursors)
        self._fresh = fresh
        self._limit = limit
        self._kinds = tuple(kinds)
        self._batch = batch
        self._readers: dict[Kind, RingReader] = {}
        self._gathered = Gathered()
        self._behind: set[Kind] = set()
        self._troubles: dict[str, str] = {}
        self._told: dict[str, str] = {}
        #: How far the last `gather` went: the most quarters of its ring that any kind advanced.
        self.quarters = 0.0

    def attach(self) -> None:
        """Open the rings that have appeared."""
        try:
            directory = connection_directory(self._connection)
            self._well("")
        except RingNotFound:
            pass
        except RingError as error:
            self._troubles[""] = str(error)
        else:
            for kind in self._kinds:
                if kind not in self._readers and (directory / f"{kind}.ring").exists():
                    self._attach(directory, kind)
        self._fresh = False

    def _attach(self, directory: Path, kind: Kind) -> None:
        try:
            reader = self._readers[kind] = self._open(directory, kind)
        except RingNotFound:
            return
        except RingError as error:
            self._troubles[kind] = str(error)
            return
        if self._usable(kind, reader):
            self._cursors[kind] = Cursor(reader.ring_id, reader.cursor)

    def _open(self, directory: Path, kind: Kind) -> RingReader:
        cursor = self._cursors.get(kind)
        if cursor is not None:
            with suppress(ParameterError):  # the cursor is beyond this ring's newest record: it is another ring
                reader = RingReader(directory, kind, cursor.seq)
                if reader.ring_id == cursor.ring_id:
                    return reader
                reader.close()
        reader = RingReader(directory, kind, "oldest")
        if cursor is not None:
            self._keep(Miss(kind, reader.ring_id, 0, reader.cursor, Loss.REPLACED))
        elif reader.cursor and not self._fresh:
            self._keep(Miss(kind, reader.ring_id, 0, reader.cursor, Loss.OVERWRITTEN))
        return reader

    def _usable(self, kind: Kind, reader: RingReader) -> bool:
        """Tell whether the ring has the records that this version knows; let it go if not."""
        if reader.header.dtype == DTYPES[kind]:
            self._well(kind)
            return True
        text = f"the {kind} ring of {self._connection} has records of another version. Restart the connection."
        self._drop(kind, RingVersionError(text))
        return False

    def _well(self, key: str) -> None:
        self._troubles.pop(key, None)
        self._told.pop(key, None)

    def _drop(self, kind: Kind, error: RingError) -> None:
        self._readers.pop(kind).close()
        if not isinstance(error, RingNotFound):
            self._troubles[kind] = str(error)

    def tails(self) -> dict[Kind, int]:
        """Give the seq after the newest record of every ring, all looked at together."""
        # Backwards, because a provider publishes kinds in their order: so nothing is seen before what it came after.
        return {kind: self._readers[kind].tail for kind in reversed(Kind) if kind in self._readers}

    def gather(self, tails: Mapping[Kind, int]) -> bool:
        """Read every ring up to its tail in `tails`, and tell whether something is left because a batch is full."""
        self._behind.clear()
        self.quarters = 0.0
        for kind, reader in list(self._readers.items()):
            start, ring_id, tail = reader.cursor, reader.ring_id, tails.get(kind, 0)
            try:
                self._read(kind, reader, tail)
            except RingError as error:
                # What was read before it is kept, so the cursor must tell of it.
                self._cursors[kind] = Cursor(reader.ring_id, reader.cursor)
                self._drop(kind, error)
                continue
            if reader.ring_id == ring_id:
                self.quarters = max(self.quarters, (reader.cursor - start) * JUMP_FRACTION / reader.header.capacity)
                if reader.cursor < tail:
                    self._behind.add(kind)
            elif not self._usable(kind, reader):
                continue
            self._cursors[kind] = Cursor(reader.ring_id, reader.cursor)
        return bool(self._behind)

    def _read(self, kind: Kind, reader: RingReader, tail: int) -> None:
        ring_id = reader.ring_id
        room = self._batch - (self._gathered.waiting(kind) if self._limit is None else 0)
        while room > 0:
            # Once even with nothing new, because it is the read that sees when another ring has taken the name.
            records = reader.read(limit=room)
            for gap in records.gaps:
                first, count = (0, gap.first) if gap.reason is Loss.REPLACED else (gap.first, gap.count)
                self._keep(Miss(kind, reader.ring_id, first, count, gap.reason))
            if len(records):
                self._keep(Batch(kind, reader.ring_id, records))
            if self._limit is None:
                room -= len(records)
            idle = not len(records) and not records.gaps
            if idle or reader.ring_id != ring_id or reader.cursor >= tail:
                break

    def _keep(self, item: Batch | Miss) -> None:
        stream = self._gathered.streams.setdefault(item.kind, [])
        stream.append(item)
        if self._limit is None or item.kind is Kind.EVENT:
            return
        batches = self._gathered.batches(item.kind)
        waiting = sum(map(len, batches))
        for batch in batches:
            waiting -= len(batch)
            if waiting < self._limit:
                break
            stream.remove(batch)
            self._gathered.dropped += len(batch)

    def take(self) -> Gathered:
        """Give what has been read since the last time.

        If a kind is behind, what other kinds have beyond the point that it has reached is held back for the next
        time, so that the merged order holds from one `take` to the next.
        """
        taken, self._gathered = self._gathered, Gathered()
        taken.cursors = dict(self._cursors)
        # Of all batches, not only the last: so the kind that is furthest behind is taken whole, whatever clocks did.
        reached = [
            max(int(batch.received.max()) for batch in batches)
            for kind in self._behind
            if (batches := taken.batches(kind))
        ]
        for stream in taken.streams.values() if reached else ():
            self._hold_back(taken, stream, min(reached))
        return taken

    def _hold_back(self, taken: Gathered, stream: list[Batch | Miss], horizon: int) -> None:
        for place, item in enumerate(stream):
            if isinstance(item, Miss) or item.received.max() <= horizon:
                continue
            first = int(np.argmax(item.received > horizon))
            rest = item.part(slice(first, None))
            self._gathered.streams[item.kind] = [rest, *stream[place + 1 :]]
            stream[place:] = [item.part(slice(first))] if first else []
            taken.cursors[item.kind] = Cursor(item.ring_id, int(rest.records["seq"][0]))
            return

    def new_troubles(self) -> list[str]:
        """Give what is wrong with rings that cannot be read, each once until it is well again."""
        new = [text for key, text in self._troubles.items() if self._told.get(key) != text]
        self._told = dict(self._troubles)
        return new

    def close(self) -> None:
        """Detach from all rings; what was gathered stays."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def beyond(connection: str, cursors: Mapping[Kind, Cursor], limit: int | None) -> list[bytes]:
    """Give the newest data records that the rings of a connection hold beyond the cursors, as JSON.

    No ring is no error; a ring that cannot be read gives nothing, for it is the recorder that tells about it.
    """
    intake = Intake(connection, cursors, fresh=True, limit=limit, kinds=DATA_KINDS, batch=sys.maxsize)
    try:
        intake.attach()
        intake.gather(intake.tails())
        return merged(intake.take().data, limit)
    finally:
        intake.close()
