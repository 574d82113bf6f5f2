"""A reader in a process of its own: ``python -m processes.ring_reader CONNECTION KIND EPOCH HOW``.

It checks every record that it gets, ends when the writer of that epoch has left in good order and all is read, and
prints what it saw as JSON. HOW is ``plain``, the reader as it is; ``slow``, the same over slots that take long to
copy; or ``unvalidated``, which is ``slow`` without the look at `intent` after the copy, and ends as soon as it has got
a torn record.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import cast

import msgspec

from processes.stream import count_torn, is_exactly
from ringbuf import RingReader, layout
from ringbuf.directory import connection_directory


class Seen(msgspec.Struct):
    """What a reader saw."""

    start: int = 0
    received: int = 0
    lost: int = 0
    tail: int = 0
    epoch: int = 0
    #: Records with fields that do not belong together.
    torn: int = 0
    #: Reads whose records are not exactly those between the cursors less the gaps.
    inexact: int = 0
    #: Whether `intent` or `epoch` were ever seen to fall.
    fell: bool = False
    reads: int = 0
    reasons: set[str] = msgspec.field(default_factory=set)


class Impatient:
    """Only give the processor away: a reader that sleeps would find a tiny ring overwritten every time."""

    def pause(self, remaining: float | None) -> None:  # noqa: ARG002 - the protocol's
        time.sleep(0)

    def reset(self) -> None:
        """Nothing to forget."""


class SlowSlots:
    """Slots whose copying is interrupted half way.

    A copy is one call of some microseconds, and whether the writer gets into the middle of it is up to the kernel:
    with two free processors one read in a thousand, with a single one hardly ever. This makes it happen in nearly
    every read, as if the kernel had taken the processor away there.
    """

    def __init__(self, slots: memoryview) -> None:
        self._slots = slots
        self.release = slots.release

    def __getitem__(self, part: slice) -> bytes:
        half = (part.start or 0) + ((part.stop or 0) - (part.start or 0)) // 2
        first = bytes(self._slots[part.start : half])
        time.sleep(1e-5)
        return first + bytes(self._slots[half : part.stop])


class Unvalidated(RingReader):
    """The reader without its validation: what was copied is taken for whole."""

    def _overwritten(self, start: int, count: int) -> int:  # noqa: ARG002 - the method it replaces has them
        return 0


@dataclass
class Watch:
    """The two words that must never fall."""

    reader: RingReader
    intent: int = 0
    epoch: int = 0

    def fell(self) -> bool:
        """Whether one has fallen since the last look."""
        intent, epoch = self.reader._words[layout.INTENT], self.reader._words[layout.EPOCH]
        fell = intent < self.intent or epoch < self.epoch
        self.intent, self.epoch = intent, epoch
        return fell


def ended(reader: RingReader, epoch: int) -> bool:
    """Whether the last writer has left and all is read; asked in this order, because a closed ring's tail stays."""
    return reader.epoch >= epoch and reader._words[layout.STATE] == layout.State.CLOSED and reader.lag == 0


def main() -> None:
    """See the module."""
    connection, kind, epoch, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    test = os.getppid()  # without which it does not go on
    variant = Unvalidated if how == "unvalidated" else RingReader
    with variant(connection_directory(connection), kind, waiting=Impatient()) as reader:
        if how != "plain":
            reader._mapping.slots = cast("memoryview", SlowSlots(reader._mapping.slots))
        sys.stdout.write("attached\n")
        sys.stdout.flush()
        seen, watch = Seen(start=reader.start), Watch(reader)
        while not (ended(reader, epoch) or (how == "unvalidated" and seen.torn) or os.getppid() != test):
            before = reader.cursor
            records = reader.read(timeout=1.0)
            seen.reads += 1
            seen.torn += count_torn(records.array)
            seen.inexact += not is_exactly(records.array, before, reader.cursor, records.gaps)
            seen.reasons.update(gap.reason.value for gap in records.gaps)
            seen.fell |= watch.fell()
        seen.received, seen.lost = reader.received, reader.lost
        seen.tail, seen.epoch = reader.published, reader.epoch
    sys.stdout.write(msgspec.json.encode(seen).decode() + "\n")


if __name__ == "__main__":
    main()
