"""A reader in a process of its own: ``python -m benchmarks.reading CONNECTION KIND[,KIND] [--unchecked]``.

It says ``attached``, reads everything, and on the line ``finish`` reads what is left and prints, per kind, what it
found. It ends when its standard input does, and after two minutes in any case.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from typing import Final

import msgspec
import numpy as np

from ringbuf.reader import RingReader, attach
from ringbuf.waiting import Backoff

_LONGEST: Final = 120.0
#: How long the ring of a feed that has just begun may take to appear, in seconds.
_APPEARS: Final = 20.0


class Found(msgspec.Struct, frozen=True):
    """What a reader found in one ring."""

    kind: str
    start: int
    received: int
    lost: int
    tail: int
    #: Records whose seq did not follow the one before, where no gap was told.
    out_of_line: int

    @property
    def exact(self) -> bool:
        """Whether every record is accounted for: the ring's identity, and no seq out of line."""
        return self.start + self.received + self.lost == self.tail and self.out_of_line == 0


class _Watched:
    """A ring, its records' seq checked."""

    def __init__(self, connection: str, kind: str, *, checked: bool) -> None:
        self.reader: RingReader = attach(connection, kind, wait=_APPEARS)
        self._checked = checked
        self._out_of_line = 0

    def read(self) -> int:
        """Read what there is; give how many."""
        expected = self.reader.cursor
        records = self.reader.read()
        if self._checked and len(records):
            seq = records["seq"]
            # What was lost lay before the first record; within one read the rest is in one piece.
            self._out_of_line += int((np.diff(seq) != 1).sum()) + int(seq[0] != expected + records.lost)
        return len(records)

    def found(self) -> Found:
        """Say what came of it."""
        reader = self.reader
        return Found(
            reader.header.kind, reader.start, reader.received, reader.lost, reader.published, self._out_of_line
        )


def main() -> None:
    """Read until told to finish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("connection")
    parser.add_argument("kinds")
    parser.add_argument("--unchecked", action="store_true", help="the records have no seq")
    arguments = parser.parse_args()
    rings = [
        _Watched(arguments.connection, kind, checked=not arguments.unchecked) for kind in arguments.kinds.split(",")
    ]
    sys.stdout.write("attached\n")
    sys.stdout.flush()
    _read_until_told(rings)
    while any(ring.read() for ring in rings):
        pass
    sys.stdout.buffer.write(msgspec.json.encode([ring.found() for ring in rings]) + b"\n")
    sys.stdout.flush()


def _read_until_told(rings: list[_Watched]) -> None:
    waiting, end, looked = Backoff(), time.monotonic() + _LONGEST, 0.0
    while (now := time.monotonic()) < end:
        if now - looked > 0.05:  # looking costs a system call, the clock does not
            looked = now
            if select.select([0], [], [], 0)[0]:
                if not os.read(0, 100):
                    sys.exit(0)  # whoever wanted to know has gone
                return
        if sum(ring.read() for ring in rings):
            waiting.reset()
        else:
            waiting.pause(None)


if __name__ == "__main__":
    main()
