"""A connection's rings read as one stream: what recorder, readers of results and broadcaster have in common.

::

    trade.ring --.                            +--> data, to be merged by (received, kind, seq): `gathered.merged`
    quote.ring --+-- RingStream: one reader --+--> events
    event.ring --'   and cursor a kind        +--> misses: what could not be read, with numbers where they are known
                                              +--> cursors: where to go on

A ring appears with the first record of its kind, so `attach` is called again and again. Where reading begins::

    a cursor of this ring                there; what has gone since is a miss
    a cursor of another ring             at the oldest record, and the change is a miss
    none, there at the first `attach`    as `begin` says; what went by before is no miss, for nobody had asked for it
    none, appeared later                 at the oldest record; what is gone already is a miss

A ring that cannot be read (damaged, foreign, of another layout) is a trouble, told once; the others are read on, and
it too, from its cursor, when it is well again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from feeds.records import DTYPES, KIND_NUMBER, Kind
from ringbuf.directory import connection_directory
from ringbuf.errors import ParameterError, RingCorrupt, RingError, RingNotFound, RingVersionError
from ringbuf.reader import JUMP_FRACTION, RingReader
from ringbuf.records import Loss
from supervisor.gathered import Batch, Cursor, Gathered, Miss, ages

#: Records of one kind that wait at most where all are kept: a quarter of a default ring, 4 MiB, 0.1 s of work.
BATCH: Final = 2**15

#: Where a stream begins that goes on for no other.
Begin: TypeAlias = Literal["oldest", "newest"]


class RingStream:
    """The rings of one connection as one source. For one thread."""

    def __init__(
        self,
        connection: str,
        cursors: Mapping[Kind, Cursor],
        *,
        begin: Begin | None = None,
        limit: int | None = None,
        kinds: Iterable[Kind] = Kind,
        batch: int = BATCH,
    ) -> None:
        """Set where to begin; nothing is opened before `attach`.

        Args:
            connection: whose rings.
            cursors: where to resume, per kind.
            begin: with which record the rings that exist at the first `attach` begin, without a miss. None for a
                stream that goes on for an earlier one: what it knew no cursor of has all been missed.
            limit: only the newest so many data records of each kind are kept waiting; None keeps all, and then at
                most `batch` of a kind are read before they are taken.
            kinds: which rings.
            batch: see `limit`.
        """
        self._connection = connection
        self._cursors = dict(cursors)
        self._begin = begin
        self._limit = limit
        self._kinds = tuple(kinds)
        self._batch = batch
        self._readers: dict[Kind, RingReader] = {}
        self._gathered = Gathered()
        self._behind: set[Kind] = set()
        # By kind; "" for the directory.
        self._troubles: dict[str, RingError] = {}
        self._told: dict[str, type[RingError]] = {}
        self._attached = False
        #: How far the last `gather` went: the most quarters of its ring that any kind advanced.
        self.quarters = 0.0

    def attach(self) -> None:
        """Open the rings that have appeared, and let the next `gather` see which have been replaced or removed."""
        try:
            directory = connection_directory(self._connection)
            self._well("")
        except RingNotFound:
            pass
        except RingError as error:
            self._troubles[""] = error
        else:
            for kind in self._kinds:
                if kind not in self._readers and (directory / f"{kind}.ring").exists():
                    self._attach(directory, kind)
        self._begin = None
        self._attached = True

    def _attach(self, directory: Path, kind: Kind) -> None:
        cursor = self._cursors.get(kind)
        try:
            reader = self._open(directory, kind, cursor)
            self._check(kind, reader)
        except RingNotFound:  # removed since we looked
            return
        except RingError as error:
            self._troubles[kind] = error
            return
        if cursor is not None and cursor.ring_id != reader.ring_id:
            self._keep(Miss(kind, reader.ring_id, 0, reader.cursor, Loss.REPLACED))
        elif cursor is None and self._begin is None and reader.cursor:
            self._keep(Miss(kind, reader.ring_id, 0, reader.cursor, Loss.OVERWRITTEN))
        self._readers[kind] = reader
        self._cursors[kind] = Cursor(reader.ring_id, reader.cursor)

    def _open(self, directory: Path, kind: Kind, cursor: Cursor | None) -> RingReader:
        if cursor is None:
            return RingReader(directory, kind, self._begin or "oldest")
        with suppress(ParameterError):  # the cursor is beyond this ring's newest record
            reader = RingReader(directory, kind, cursor.seq)
            if reader.ring_id == cursor.ring_id:
                return reader
            reader.close()
        reader = RingReader(directory, kind, "oldest")
        if reader.ring_id == cursor.ring_id:
            reader.close()
            raise RingCorrupt(
                f"the {kind} ring of {self._connection} does not hold record {cursor.seq - 1} any more, which was read "
                "from it, nor a newer one. Restart the connection."
            )
        return reader

    def _check(self, kind: Kind, reader: RingReader) -> None:
        """Let a ring go whose records this version does not know."""
        if reader.header.dtype != DTYPES[kind]:
            reader.close()
            raise RingVersionError(
                f"the {kind} ring of {self._connection} has records of another version: restart the connection."
            )

    def _well(self, key: str) -> None:
        self._troubles.pop(key, None)
        self._told.pop(key, None)

    def tails(self) -> dict[Kind, int]:
        """Give the seq after the newest record of every ring, all looked at together."""
        # Backwards, because a provider publishes kinds in their order: so nothing is seen before what it came after.
        return {kind: self._readers[kind].published for kind in reversed(Kind) if kind in self._readers}

    def gather(self, tails: Mapping[Kind, int]) -> bool:
        """Read every ring up to its tail in `tails`, and tell whether something is left because a batch is full."""
        self._behind.clear()
        self.quarters = 0.0
        for kind, reader in list(self._readers.items()):
            # Looked at in a ring that has been replaced since, a tail can be any number.
            tail = min(tails.get(kind, 0), reader.published)
            if tail <= reader.cursor and not self._attached:
                continue
            try:
                self._read(kind, reader, tail)
                self._well(kind)
            except RingError as error:
                self._readers.pop(kind).close()
                if not isinstance(error, RingNotFound):  # that one only says that the connection was removed
                    self._troubles[kind] = error
            # What was read before an error is kept too, so the cursor must tell of it.
            self._cursors[kind] = Cursor(reader.ring_id, reader.cursor)
        self._attached = False
        return bool(self._behind)

    def _read(self, kind: Kind, reader: RingReader, tail: int) -> None:
        ring_id, start = reader.ring_id, reader.cursor
        room = self._batch - (self._gathered.waiting(kind) if self._limit is None else 0)
        while room > 0:
            # Perhaps with nothing new, because it is the read that sees when another ring has taken the name.
            records = reader.read(limit=min(room, max(tail - reader.cursor, 1)))
            for gap in records.gaps:
                first, count = (0, gap.first) if gap.reason is Loss.REPLACED else (gap.first, gap.count)
                self._keep(Miss(kind, reader.ring_id, first, count, gap.reason))
            if reader.ring_id != ring_id:
                self._check(kind, reader)
                return
            if len(records):
                self._keep(Batch(kind, ring_id, records))
            if self._limit is None:
                room -= len(records)
            if reader.cursor >= tail:
                break
        self.quarters = max(self.quarters, (reader.cursor - start) * JUMP_FRACTION / reader.header.capacity)
        if reader.cursor < tail:
            self._behind.add(kind)

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
        behind = [(batches, KIND_NUMBER[kind]) for kind in self._behind if (batches := taken.batches(kind))]
        if behind:
            # The kind that is furthest behind is taken whole, so that taking always makes progress.
            reached = min((int(ages(batches)[-1][-1]), number) for batches, number in behind)
            for kind in taken.streams:
                self._hold_back(taken, kind, *reached)
        return taken

    def _hold_back(self, taken: Gathered, kind: Kind, age: int, number: int) -> None:
        """Take back what comes after the records of this age and kind."""
        batches, stream = taken.batches(kind), taken.streams[kind]
        for batch, own in zip(batches, ages(batches), strict=True):
            # Of records equally old, those of earlier kinds come first.
            first = int(np.searchsorted(own, age, "right" if KIND_NUMBER[kind] <= number else "left"))
            if first == len(batch):
                continue
            place = stream.index(batch)
            rest = batch.part(slice(first, None))
            self._gathered.streams[kind] = [rest, *stream[place + 1 :]]
            stream[place:] = [batch.part(slice(first))] if first else []
            taken.cursors[kind] = Cursor(batch.ring_id, int(rest.records["seq"][0]))
            return

    def new_troubles(self) -> list[str]:
        """Give what is wrong with rings that cannot be read, each once until it is well again."""
        # By class: a text may have numbers in it that change with every look.
        new = [str(error) for key, error in self._troubles.items() if self._told.get(key) is not type(error)]
        self._told = {key: type(error) for key, error in self._troubles.items()}
        return new

    def close(self) -> None:
        """Detach from all rings; what was gathered stays."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
