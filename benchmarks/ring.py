"""The ring alone: publishing and reading in one process, records built beforehand.

Peers copy the same bytes: numpy's structured assignment, without any protocol that another process could rely on, and
a pipe, which has one reader only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from benchmarks.figures import Figure, Options, Report, cost
from benchmarks.measuring import Measured, once, pin, repeat
from feeds.decoding import STAGED
from feeds.records import DEFAULT_CAPACITY, DTYPES, Kind
from ringbuf.connection import ConnectionWriter
from ringbuf.reader import RingReader
from ringbuf.writer import RingWriter

TITLE: Final = "publish and read in shared memory, nothing else"

#: The issue's: ns a record in batches, and us for one by itself.
_BATCH_TARGET: Final = 3.0
_SINGLE_TARGET: Final = 0.6

_QUOTE: Final = DTYPES[Kind.QUOTE]
_LEVEL: Final = DTYPES[Kind.LEVEL]
_LARGE: Final = DEFAULT_CAPACITY[Kind.QUOTE]
_SMALL: Final = DEFAULT_CAPACITY[Kind.LEVEL]

_OURS: Final = f"publish {STAGED} records of 128 bytes, 2^17 slots"


def run(options: Options) -> Report:
    """Measure writer, reader and peers."""
    pinned = pin(1)
    runs, batches = (2, 300) if options.quick else (15, 4000)
    figures = [*_publishing(runs, batches), *_reading(runs, batches // 10), *_peers(runs, batches)]
    notes = [
        "2^17 slots of 128 bytes are 16 MiB, eight times the level-2 cache here; the small rings fit it or nearly do",
        "first lap: every page is touched for the first time; a ring's life has one",
        "32 KiB a batch is bound by caches: a busy neighbour shows in CPU time too, and the best run shows the code",
        "peer numpy: array[a:b] = batch; peer pipe: write() of the same bytes, `cat` at its other end, one reader",
        "one process" + (", kept on one core" if pinned else ""),
    ]
    return Report("ring", TITLE, figures, notes)


@contextmanager
def _ring(dtype: np.dtype[np.void], capacity: int) -> Iterator[tuple[RingWriter, ConnectionWriter]]:
    with ConnectionWriter("ring") as connection:
        try:
            yield connection.ring("level", dtype, capacity), connection
        finally:
            shutil.rmtree(connection.directory)


def _publishing(runs: int, batches: int) -> Iterator[Figure]:
    first_lap = Measured()
    for name, dtype, capacity in (
        (_OURS, _QUOTE, _LARGE),
        (f"publish {STAGED} records of 128 bytes, 2^14 slots", _QUOTE, _SMALL),
        (f"publish {STAGED} records of 64 bytes, 2^17 slots", _LEVEL, _LARGE),
    ):
        with _ring(dtype, capacity) as (writer, _):
            records = memoryview(bytearray(STAGED * dtype.itemsize))
            lap = capacity // STAGED
            once(first_lap, lap * STAGED, _publish(writer, records, STAGED, lap))
            measured = repeat(runs, batches * STAGED, _publish(writer, records, STAGED, batches))
            yield cost(name, "ns/record", measured, target=_BATCH_TARGET)
            if capacity == _LARGE and dtype is _QUOTE:
                one = records[: dtype.itemsize]
                single = repeat(runs, 5 * batches, _publish(writer, one, 1, 5 * batches))
                yield cost("publish one record of 128 bytes", "µs", single, scale=1e6, target=_SINGLE_TARGET)
                yield cost("the same, first lap of a new ring", "ns/record", first_lap)


def _publish(writer: RingWriter, records: memoryview, count: int, times: int) -> Callable[[], None]:
    def work() -> None:
        publish = writer.publish
        for _ in range(times):
            publish(records, count)

    return work


def _reading(runs: int, reads: int) -> Iterator[Figure]:
    records = memoryview(bytearray(STAGED * _QUOTE.itemsize))
    with _ring(_QUOTE, _LARGE) as (writer, connection):
        _publish(writer, records, STAGED, _LARGE // STAGED)()
        with RingReader(connection.directory, "level", start="newest") as reader:
            for count in (1, 64, STAGED):
                measured = Measured()
                # Published beforehand, and never as much as the writer could overtake.
                times = min(reads, _LARGE // 2 // count)
                for _ in range(runs):
                    _publish(writer, records, count, times)()
                    once(measured, times, _read(reader, count, times))
                yield cost(f"read {count} record{'s' * (count > 1)} of 128 bytes", "µs/read", measured, scale=1e6)
            empty = repeat(runs, reads, _read(reader, 1, reads))
            yield cost("read when there is nothing", "µs/read", empty, scale=1e6)
            assert reader.lost == 0, "the reader was to lose nothing here"


def _read(reader: RingReader, limit: int, times: int) -> Callable[[], None]:
    def work() -> None:
        read = reader.read
        for _ in range(times):
            read(limit)

    return work


def _peers(runs: int, batches: int) -> Iterator[Figure]:
    batch = np.zeros(STAGED, _QUOTE)
    table = np.zeros(_LARGE, _QUOTE)

    def assign() -> None:
        at = 0
        for _ in range(batches):
            table[at : at + STAGED] = batch
            at = (at + STAGED) % _LARGE

    assign()
    yield cost("peer: numpy, structured assignment", "ns/record", repeat(runs, batches * STAGED, assign), peer_of=_OURS)
    yield cost("peer: pipe, one reader", "ns/record", _through_a_pipe(runs, batches // 4, batch), peer_of=_OURS)


def _through_a_pipe(runs: int, batches: int, batch: np.ndarray[tuple[int], np.dtype[np.void]]) -> Measured:
    payload = batch.tobytes()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as drain:
        pin(0, drain.pid)
        assert drain.stdin is not None
        descriptor = drain.stdin.fileno()

        def work() -> None:
            for _ in range(batches):
                left = memoryview(payload)
                while left:
                    left = left[os.write(descriptor, left) :]

        return repeat(runs, batches * STAGED, work)
