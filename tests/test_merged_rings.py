"""A connection's rings as one stream: order, beginnings, losses, and files that come, go and cannot be read."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from processes.broadcaster_running import Feed
from waiting import wait_until

from feeds.encoding import lines
from feeds.records import KIND_NUMBER, Kind
from ringbuf import ConnectionWriter, RingReader
from ringbuf.directory import connection_directory
from supervisor.merged_rings import SCAN, MergedRings, Missed, Read

_START = 1_731_387_093_000_000_000


class Reading:
    """Merged rings with what they told, and a time that moves on by a scan with every read."""

    def __init__(self, name: str) -> None:
        self.told: list[str] = []
        self.rings = MergedRings(name, self.told.append)
        self._times = itertools.count(1.0, 2 * SCAN)
        self.rings.attach(0.0)

    def read(self, limit: int = 4096) -> Read:
        return self.rings.read(limit, next(self._times))

    def all(self, limit: int = 4096) -> tuple[list[bytes], list[Missed]]:
        """Read until there is no more."""
        texts, missed = [], []
        while (read := self.read(limit)).lines or read.missed or read.behind:
            texts += read.lines
            missed += read.missed
        return texts, missed


@pytest.fixture
def reading(runtime: Path) -> Iterator[Reading]:
    made = Reading("c")
    yield made
    made.rings.detach()


def _expected(feed: Feed, *kinds: Kind) -> list[bytes]:
    """Every record that the rings hold, merged here in another way."""
    keyed: list[tuple[int, int, int, bytes]] = []
    for kind in kinds:
        with RingReader(feed.writer.directory, kind) as reader:
            for records in iter(reader.read, None):
                if not len(records):
                    break
                rows = zip(
                    records["received"].view("<i8").tolist(), records["seq"].tolist(), lines(records), strict=True
                )
                keyed += [(received, KIND_NUMBER[kind], seq, text) for received, seq, text in rows]
    return [text for _, _, _, text in sorted(keyed)]


def test_reading_begins_with_the_next_record(runtime: Path) -> None:
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 10)
        reading = Reading("c")
        assert reading.all() == ([], [])
        feed.publish(Kind.TRADE, 3)
        texts, missed = reading.all()
        assert (texts, missed) == (_expected(feed, Kind.TRADE)[10:], [])
        reading.rings.detach()


def test_a_ring_that_appears_later_is_read_from_its_first_record(reading: Reading) -> None:
    assert reading.all() == ([], [])
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 5)
        assert reading.all()[0] == _expected(feed, Kind.TRADE)
        feed.publish(Kind.QUOTE, 5, received=_START + 10**9)
        assert reading.all()[0] == _expected(feed, Kind.QUOTE)


def test_a_ring_that_appears_and_goes_round_between_two_looks_tells_what_it_lost(reading: Reading) -> None:
    with Feed("c", capacity=64) as feed:
        feed.publish(Kind.TRADE, 200)
        texts, missed = reading.all()
    assert len(texts) + sum(loss.count for loss in missed) == 200
    assert missed == [Missed("trade", 0, 200 - len(texts), "overwritten")]


@pytest.mark.parametrize("limit", [7, 64, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_records_of_all_kinds_come_in_the_order_of_received_kind_and_seq(
    reading: Reading, limit: int, seed: int
) -> None:
    chance = random.Random(seed)
    kinds = [Kind.TRADE, Kind.QUOTE, Kind.PRICE]
    with Feed("c") as feed:
        for kind in kinds:
            received = _START
            for _ in range(chance.randrange(20, 60)):  # equal and unequal times, in and across kinds
                count, step = chance.randrange(1, 12), chance.choice([0, 1000])
                feed.publish(kind, count, received=received, step=step)
                received += count * 1000
        texts, missed = reading.all(limit)
        assert texts == _expected(feed, *kinds)
        assert missed == []


def test_a_ring_s_own_order_holds_when_its_times_fall(reading: Reading) -> None:
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 5, received=_START + 10**9)
        feed.publish(Kind.TRADE, 5, received=_START)
        feed.publish(Kind.QUOTE, 5, received=_START)
        trades = [orjson.loads(text)["seq"] for text in reading.all()[0] if b'"trade"' in text]
    assert trades == list(range(10))


def test_what_a_ring_overwrote_is_told_to_the_record(reading: Reading) -> None:
    with Feed("c", capacity=64) as feed:
        feed.publish(Kind.TRADE, 1)
        assert len(reading.all()[0]) == 1
        feed.publish(Kind.TRADE, 999)
        texts, missed = reading.all()
        assert len(texts) + sum(loss.count for loss in missed) == 999
        assert [(loss.kind, loss.first, loss.reason) for loss in missed] == [("trade", 1, "overwritten")]
        assert texts == _expected(feed, Kind.TRADE)[-len(texts) :]


def test_a_writer_that_restarts_is_followed_without_loss(reading: Reading) -> None:
    for total in (5, 10, 15):
        with Feed("c") as feed:
            feed.publish(Kind.TRADE, 5)
            assert [orjson.loads(text)["seq"] for text in reading.all()[0]] == list(range(total - 5, total))


def test_a_ring_that_takes_the_name_is_followed_and_told(reading: Reading) -> None:
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 5)
        assert len(reading.all()[0]) == 5
        feed.publish(Kind.TRADE, 2)
    with Feed("c", capacity=64) as feed:
        feed.publish(Kind.TRADE, 3)
        texts, missed = reading.all()
    assert [orjson.loads(text)["seq"] for text in texts] == [5, 6, 0, 1, 2]
    assert missed == [Missed("trade", 0, 0, "replaced")]


def test_a_connection_that_is_removed_and_made_again_is_read_from_its_first_record(reading: Reading) -> None:
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 5)
        assert len(reading.all()[0]) == 5
    shutil.rmtree(connection_directory("c"))
    wait_until(lambda: (reading.read(), not reading.rings._readers)[1], "the reader to see that its ring is gone")
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 3)
        assert [orjson.loads(text)["seq"] for text in reading.all()[0]] == [0, 1, 2]
    assert reading.told == []


def test_a_ring_of_another_layout_is_told_once_and_hurts_no_other(reading: Reading) -> None:
    with Feed("c") as feed:
        feed.writer.ring("quote", np.dtype([("seq", "<u8"), ("older", "<u8")]), 64)
        feed.publish(Kind.TRADE, 5)
        assert len(reading.all()[0]) == 5
        assert len(reading.all()[0]) == 0
    (text,) = reading.told
    assert "quote" in text
    assert "restart the connection" in text


def test_a_file_that_is_no_ring_is_told_once_and_its_successor_is_read(reading: Reading) -> None:
    with ConnectionWriter("c") as writer:
        (writer.directory / "trade.ring").write_bytes(b"nonsense")
        assert (reading.all(), reading.all()) == (([], []), ([], []))
        (text,) = reading.told
        assert "trade.ring" in text
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 2)
        assert len(reading.all()[0]) == 2


def test_records_whose_names_cannot_be_read_are_counted_as_missed_and_told_once(reading: Reading) -> None:
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 1)
        assert len(reading.all()[0]) == 1
        feed.writer.symbols.intern("BROKEN")
        with (feed.writer.directory / "symbols").open("r+b") as names:
            names.seek(64 + 2 * 64)  # its slot
            names.write(bytes(64))
        for first in (1, 4):
            feed.publish(Kind.TRADE, 3)
            assert reading.all() == ([], [Missed("trade", first, 3, "unreadable")])
    (text,) = reading.told
    assert "is no name" in text
