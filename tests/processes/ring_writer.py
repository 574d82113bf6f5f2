"""A writer in a process of its own: ``python -m processes.ring_writer CONNECTION KIND WORDS CAPACITY TASK [UNTIL]``.

Tasks: ``publish`` waits for a line on standard input, publishes up to seq UNTIL and leaves in good order; ``endless``
publishes until it is killed; ``hold`` keeps the connection until standard input ends; ``die_in_publish``,
``die_in_recovery`` and ``die_in_creation`` kill this process by SIGKILL at exactly that point.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from processes.stream import stream_bytes, stream_dtype
from ringbuf import ConnectionWriter, RingWriter, layout, ordering

_BLOCK = 4096
#: The test's process: none of these programs goes on without it.
_TEST = os.getppid()


def say(text: str) -> None:
    """Tell the test where this process stands."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def die() -> None:
    """End as nothing can prevent or clean up after."""
    os.kill(os.getpid(), signal.SIGKILL)


def publish(ring: RingWriter, words: int, until: int) -> None:
    """Publish the stream up to seq `until`, in batches of random sizes."""
    dice = random.Random(ring.epoch)
    slot = ring.header.dtype.itemsize
    while ring.tail < until and os.getppid() == _TEST:
        first = ring.tail
        block = min(_BLOCK, until - first)
        records = stream_bytes(first, block, words)
        while ring.tail < first + block:
            done = ring.tail - first
            count = min(dice.randint(1, ring.max_batch), block - done)
            ring.publish(records[done * slot : (done + count) * slot], count)


def die_in_publish(ring: RingWriter, words: int) -> None:
    """Publish a whole batch, and die when `intent` is stored and half of the records are, the last one cut in two."""
    first, count, slot = ring.tail, ring.max_batch, ring.header.dtype.itemsize
    batch = stream_bytes(first, count, words)

    def die_half_way() -> None:
        for seq in range(first, first + count // 2 + 1):
            at, record = seq % ring.header.capacity * slot, batch[(seq - first) * slot :]
            whole = slot if seq < first + count // 2 else slot // 2
            ring._slots[at : at + whole] = record[:whole]
        die()

    ordering.after_intent = die_half_way
    ring.publish(batch, count)


def die_in_recovery(connection: str, path: Path, words: int, capacity: int) -> None:
    """Take over, and die when half of the void records are written."""

    class Dying(RingWriter):
        def _void(self, start: int, stop: int) -> None:
            ordering.before_tail = die
            self._words[layout.VOID_END] = stop
            super()._void(start, start + (stop - start) // 2)

    Dying(path, connection, path.stem, stream_dtype(words), capacity)


def die_in_creation() -> None:
    """Die when the next file is built, but has not got its name yet."""

    def die_instead(self: Path, target: str | os.PathLike[str]) -> Path:
        die()
        return self

    setattr(Path, "rename", die_instead)  # noqa: B010 - mypy forbids the plain assignment to a method


def main() -> None:
    """See the module."""
    connection, kind, words, capacity, task = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    until = int(sys.argv[6]) if len(sys.argv) > 6 else 0
    with ConnectionWriter(connection) as writer:
        if task == "die_in_creation":
            die_in_creation()
        if task == "die_in_recovery":
            die_in_recovery(connection, writer.directory / f"{kind}.ring", words, capacity)
        ring = writer.ring(kind, stream_dtype(words), capacity)
        say(f"ready {ring.voided}")
        if task in ("publish", "hold"):
            sys.stdin.readline()
        if task == "endless":
            publish(ring, words, 2**62)
        publish(ring, words, until)
        if task == "die_in_publish":
            die_in_publish(ring, words)


if __name__ == "__main__":
    main()
