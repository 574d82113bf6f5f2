"""A connection fed as its session feeds it, without socket or loop: intake, ring, housekeeping."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from feeds.binance import Binance
from feeds.clock import Clock
from feeds.contract import Topic
from feeds.decoding import STAGED
from feeds.intake import Intake
from ringbuf.connection import ConnectionWriter
from ringbuf.counters import Counter, TopicState
from ringbuf.errors import TickringError


class Feed:
    """One connection's intake and its topics."""

    def __init__(self, connection: ConnectionWriter) -> None:
        venue = Binance()
        self._clock = Clock()
        self._counters = connection.counters
        self._intake = Intake(venue.declaration, venue.decoder(), connection, self._clock)
        parameters = venue.parameters(symbol="btcusdt", feed="trade,quote")
        self._topics: list[Topic] = venue.topics(parameters, ["btcusdt"])
        for topic in self._topics:
            self._counters.topic(topic.native, TopicState.LIVE, self._clock.now())

    def lap(self, batches: list[list[bytes]]) -> None:
        """Take a whole capture once more; as if subscribed anew, so that its numbers may begin again."""
        for topic in self._topics:
            self._intake.unroute(topic)
            self._intake.route(topic)
        intake, now = self._intake, self._clock.now
        for batch in batches:
            intake.receive(batch, now())
            if intake.housekeeping_due():
                intake.housekeep(_no_one)
        intake.housekeep(_no_one)

    def check(self, records: int) -> None:
        """Make sure that every frame became a record and nothing else was found."""
        words = self._counters.words
        found = {name: words[name] for name in (Counter.RECORDS, Counter.REJECTED, Counter.OUT_OF_ORDER, Counter.GAPS)}
        if found != {Counter.RECORDS: records, Counter.REJECTED: 0, Counter.OUT_OF_ORDER: 0, Counter.GAPS: 0}:
            raise TickringError(f"{records} frames were to give as many records and no findings, but gave {found}.")


def _no_one(_: str) -> None:
    """Nobody waits to hear of data."""


@contextmanager
def feed(name: str) -> Iterator[Feed]:
    """Give a feed with rings of its own, removed afterwards."""
    with ConnectionWriter(name) as connection:
        try:
            yield Feed(connection)
        finally:
            shutil.rmtree(connection.directory)


def batches_of(frames: list[bytes], size: int = STAGED) -> list[list[bytes]]:
    """Cut frames into batches."""
    return [frames[first : first + size] for first in range(0, len(frames), size)]
