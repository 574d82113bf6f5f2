"""What readers cost the writer: ten processes poll a ring, or none does, turn by turn in one run.

The readers are stopped and continued by signals, so that both halves of a pair are measured within a fraction of a
second of each other. Readers never write into the ring; what they can cost is the processor's caches.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import msgspec

from benchmarks.captured import captured_frames
from benchmarks.feeding import batches_of, feed
from benchmarks.figures import Figure, Options, Report, cost
from benchmarks.measuring import Measured, once, pin
from benchmarks.processes import line, started, tell
from benchmarks.reading import Found
from feeds.decoding import STAGED
from feeds.records import DEFAULT_CAPACITY, DTYPES, Kind
from ringbuf.connection import ConnectionWriter
from ringbuf.errors import TickringError

TITLE: Final = "the writer with ten polling readers, against none"

_READERS: Final = 10
#: Percent of the rate without readers, per second of the writer's CPU: the issue's.
_TARGET: Final = 95.0
#: Until a signal has reached everyone, in seconds.
_SETTLES: Final = 0.03


def run(options: Options) -> Report:
    """Measure a whole feed, and the bare ring at full speed, which no feed reaches."""
    pinned = pin(1)
    pairs = 2 if options.quick else 15
    figures = [*_whole_feed(options, pairs), *_bare_ring(pairs, 300 if options.quick else 50_000)]
    where = "the writer on one, all readers together on the other" if pinned else "all on one"
    notes = [
        "the share is the median of pairs: without readers, with them, and so on in turn",
        "feed: decodes captured best bid/ask frames as fast as it can, ring and housekeeping included",
        "bare ring: publishes 256 records at a time, a hundred times faster than any venue; its readers are lapped",
        f"at most two cores used: {where}",
    ]
    return Report("readers", TITLE, figures, notes)


def _whole_feed(options: Options, pairs: int) -> Iterator[Figure]:
    frames = captured_frames(options.captures)[Kind.QUOTE]
    frames = frames[:4096] if options.quick else frames
    batches = batches_of(frames)
    with feed("feed") as fed:
        for _ in range(1 if options.quick else 5):
            fed.lap(batches)
        yield from _compared("feed", "feed", Kind.QUOTE, pairs, 4 * len(frames), lambda: _laps(4, fed.lap, batches))


def _laps(times: int, lap: Callable[[list[list[bytes]]], None], batches: list[list[bytes]]) -> None:
    for _ in range(times):
        lap(batches)


def _bare_ring(pairs: int, times: int) -> Iterator[Figure]:
    kind = Kind.QUOTE
    with ConnectionWriter("bare") as connection:
        try:
            writer = connection.ring(kind, DTYPES[kind], DEFAULT_CAPACITY[kind])
            records = memoryview(bytearray(STAGED * DTYPES[kind].itemsize))

            def work() -> None:
                for _ in range(times):
                    writer.publish(records, STAGED)

            work()
            yield from _compared("bare ring", "bare", kind, pairs, times * STAGED, work, "--unchecked")
        finally:
            shutil.rmtree(connection.directory)


def _compared(
    what: str, connection: str, kind: Kind, pairs: int, units: int, work: Callable[[], None], *arguments: str
) -> Iterator[Figure]:
    alone, read = Measured(), Measured()
    with ExitStack() as stack:
        readers = [
            stack.enter_context(started("benchmarks.reading", connection, kind, *arguments)) for _ in range(_READERS)
        ]
        stack.callback(_signal, readers, signal.SIGCONT)  # a stopped process could not end
        for reader in readers:
            pin(0, reader.pid)
            if line(reader) != "attached":
                raise TickringError("a reader did not attach.")
        for _ in range(pairs):
            for number, measured in ((signal.SIGSTOP, alone), (signal.SIGCONT, read)):
                _signal(readers, number)
                work()  # after the pause the core must wake up and its caches fill
                once(measured, units, work)
        _account(readers, exact=not arguments)
    shares = [100 * a / b for a, b in zip(alone.cpu, read.cpu, strict=True)]
    yield cost(f"{what}, no reader", "ns/record", alone)
    yield cost(f"{what}, {_READERS} readers", "ns/record", read)
    yield Figure(
        f"{what}, rate with readers of rate without", "%", shares, higher_is_better=True,
        wall=[100 * a / b for a, b in zip(alone.wall, read.wall, strict=True)], target=_TARGET,
    )  # fmt: skip


def _signal(readers: list[subprocess.Popen[str]], number: signal.Signals) -> None:
    for reader in readers:
        os.kill(reader.pid, number)
    time.sleep(_SETTLES)


def _account(readers: list[subprocess.Popen[str]], *, exact: bool) -> None:
    """Make sure that every reader accounts for every record."""
    for reader in readers:
        tell(reader, "finish")
    for reader in readers:
        (ring,) = msgspec.json.decode(line(reader), type=list[Found])
        if ring.start + ring.received + ring.lost != ring.tail or (exact and not ring.exact):
            raise TickringError(f"records are not accounted for: {ring}")
