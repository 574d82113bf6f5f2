"""The data rings of one connection, read as one stream of JSON texts.

Every kind has its ring; rings appear with their first record, change files, and go away with their connection::

    trade.ring --- RingReader ---+
    quote.ring --- RingReader ---+-- merge by (received, kind, seq) --- lines --->
    (candle.ring: not there yet) +

Within a ring the order of `seq` always holds. Across rings records are merged by the time they were received. A read
takes of every ring what it held at one moment; where a limit cuts a ring short, records of other rings that are
younger than the cut are held back until that ring has caught up.

Where reading begins: at the newest record of a ring that is there when reading begins, at the oldest of one that
appears later, because all its records are younger. What a ring lost, and a file that cannot be read, is told beside
the lines; nothing here raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from feeds.encoding import lines
from feeds.records import DATA_KINDS, DTYPES, KIND_NUMBER, Kind
from ringbuf.directory import connection_directory
from ringbuf.errors import RingCorrupt, RingError, RingNotFound
from ringbuf.reader import RingReader, Start
from ringbuf.records import Records

#: How often rings that are not there yet are looked for, in seconds: a kind's first record is late by this at most.
SCAN: Final = 0.1

Integers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Missed:
    """Records of one ring that were not read."""

    kind: str
    first: int
    #: How many; 0 where that cannot be known.
    count: int
    reason: str


@dataclass(frozen=True)
class Part:
    """Records read from one ring, and whether the ring held no more of them at the moment of the read."""

    kind: Kind
    records: Records
    complete: bool


@dataclass(frozen=True)
class Read:
    """What one look at all rings gave."""

    lines: list[bytes]
    missed: list[Missed]
    #: There is more to read at once.
    behind: bool


def _ages(records: Records) -> Integers:
    """`received` as it sorts: never falling within a ring, so that merging keeps the order of seq."""
    ages: Integers = np.maximum.accumulate(records["received"].view("<i8"))
    return ages


def split(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Cut parts into what can be sent now and what must wait for a ring that was cut short.

    At least one part is sent whole, so that reading always makes progress.
    """
    cuts = [(int(_ages(part.records)[-1]), KIND_NUMBER[part.kind]) for part in parts if not part.complete]
    if not cuts:
        return list(parts), []
    age, kind = min(cuts)
    ready, held = [], []
    for part in parts:
        before = KIND_NUMBER[part.kind] <= kind  # of records equally old, those of earlier kinds come first
        at = int(np.searchsorted(_ages(part.records), age, side="right" if before else "left"))
        if at:
            ready.append(_slice(part, 0, at))
        if at < len(part.records):
            held.append(_slice(part, at, len(part.records)))
    return ready, held


def _slice(part: Part, start: int, stop: int) -> Part:
    old = part.records
    return Part(part.kind, Records(old.array[start:stop], old.connection, old.kind, old.names), part.complete)


def order(parts: Sequence[Part]) -> list[int] | None:
    """Give the merged order of the parts' records laid end to end; None if they are in order already."""
    if len(parts) < 2:
        return None
    ages = np.concatenate([_ages(part.records) for part in parts])
    kinds = np.concatenate([np.full(len(part.records), KIND_NUMBER[part.kind]) for part in parts])
    merged: list[int] = np.lexsort((kinds, ages)).tolist()  # stable: seq decides the rest
    return merged


class MergedRings:
    """Reads one connection's data rings. For one thread; its readers exist from `attach` to `detach`."""

    def __init__(self, connection: str, tell: Callable[[str], None]) -> None:
        """Prepare for a connection; `tell` gets a line for people when a ring cannot be read, once per cause."""
        self.connection = connection
        self._tell = tell
        self._told: set[str] = set()
        self._readers: dict[Kind, RingReader] = {}
        self._held: dict[Kind, Part] = {}
        self._missed: list[Missed] = []
        # Rings that became unreadable while read: what they hold now was partly read before.
        self._spoilt: set[Kind] = set()
        self._scanned = float("-inf")
        self.attached = False

    def attach(self, now: float) -> None:
        """Begin with the newest records of the rings that are there."""
        self.attached = True
        self._scan("newest")
        self._scanned = now

    def detach(self) -> None:
        """Stop reading and let the rings go."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._held.clear()
        self._missed.clear()
        self._spoilt.clear()
        self.attached = False

    def read(self, limit: int, now: float, *, scan: bool = False) -> Read:
        """Give the next records of all rings, at most `limit` of each, and what was missed before them.

        New rings are looked for every tenth of a second, and now if `scan` is set.
        """
        scanning = scan or now - self._scanned >= SCAN
        if scanning:
            self._scanned = now
            self._scan("oldest")
        parts = self._take(limit, scanning=scanning)
        ready, held = split(parts)
        self._held = {part.kind: part for part in held}
        behind = bool(held) or not all(part.complete for part in parts)
        encoded = [(part, texts) for part in ready if (texts := self._encode(part))]
        texts = [text for _, own in encoded for text in own]
        merged = order([part for part, _ in encoded])
        missed, self._missed = self._missed, []
        return Read(texts if merged is None else [texts[index] for index in merged], missed, behind)

    def _scan(self, start: Start) -> None:
        missing = [kind for kind in DATA_KINDS if kind not in self._readers]
        try:
            directory = connection_directory(self.connection) if missing else None
        except RingNotFound:
            return
        except RingError as error:
            self._tell_once(error)
            return
        for kind in missing:
            if directory is None or not (directory / f"{kind}.ring").exists():
                continue
            try:
                reader = RingReader(directory, kind, "newest" if kind in self._spoilt else start)
            except RingNotFound:
                continue
            except RingError as error:
                self._tell_once(error)
                continue
            self._begin(kind, reader, start)

    def _begin(self, kind: Kind, reader: RingReader, start: Start) -> None:
        if reader.header.dtype != DTYPES[kind]:
            reader.close()
            self._tell_once(
                RingCorrupt(
                    f"the {kind} ring of {self.connection} has records of another layout and is not sent to "
                    "listeners: restart the connection."
                )
            )
            return
        self._readers[kind] = reader
        if kind in self._spoilt:
            self._spoilt.discard(kind)
            self._missed.append(Missed(kind, reader.start, 0, "unreadable"))
        elif start == "oldest" and reader.start:
            # It appeared and went round between two looks.
            self._missed.append(Missed(kind, 0, reader.start, "overwritten"))

    def _take(self, limit: int, *, scanning: bool) -> list[Part]:
        # A provider publishes its kinds in their order: looked at backwards, no record is seen before an older one
        # of another kind.
        tails = {kind: self._readers[kind].tail for kind in reversed(DATA_KINDS) if kind in self._readers}
        parts: list[Part] = []
        for kind, tail in tails.items():
            reader = self._readers[kind]
            held = self._held.get(kind)
            if held is not None:
                parts.append(Part(kind, held.records, reader.cursor >= tail))
                continue
            wanted = min(limit, tail - reader.cursor)
            if wanted > 0 or scanning:  # an empty read is how a reader notices that its file was replaced or removed
                records = self._read_ring(kind, reader, max(1, wanted))
                if records is not None and len(records):
                    parts.append(Part(kind, records, reader.cursor >= tail))
        return parts

    def _read_ring(self, kind: Kind, reader: RingReader, limit: int) -> Records | None:
        try:
            records = reader.read(limit)
        except RingError as error:
            del self._readers[kind]
            reader.close()
            if not isinstance(error, RingNotFound):  # that one only says that the connection was removed
                self._spoilt.add(kind)
                self._tell_once(error)
            return None
        self._missed += [Missed(kind, gap.first, gap.count, gap.reason.value) for gap in records.gaps]
        return records

    def _encode(self, part: Part) -> list[bytes]:
        try:
            return lines(part.records)
        except RingError as error:  # the names that their ids stand for cannot be read
            count = len(part.records)
            self._missed.append(Missed(part.kind, int(part.records["seq"][0]), count, "unreadable"))
            self._tell_once(error)
            return []

    def _tell_once(self, error: RingError) -> None:
        text = str(error)
        if text not in self._told:
            self._told.add(text)
            self._tell(text)
