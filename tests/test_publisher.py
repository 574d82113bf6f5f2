"""From staging buffers to real rings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from feeds.decoding import STAGED
from feeds.publisher import Publisher
from feeds.records import DEFAULT_CAPACITY, DTYPES, EventCode, Kind
from ringbuf import ConnectionWriter, RingReader, attach
from ringbuf.counters import Counter, read_counters
from ringbuf.errors import RingNotFound, SharedMemoryFull

NAME = "crypto"


@pytest.fixture
def connection(runtime: Path) -> Iterator[ConnectionWriter]:
    with ConnectionWriter(NAME) as writer:
        yield writer


def stage(publisher: Publisher, kind: Kind, count: int, value: float = 0.0) -> None:
    """Stage records as a decoder does."""
    staging = publisher.sink[kind]
    records = np.frombuffer(staging.buffer, DTYPES[kind])
    for _ in range(count):
        record = records[staging.count : staging.count + 1]
        record["seq"] = staging.base_seq + staging.count
        record["last_price" if kind is Kind.TRADE else "bid_price"] = value + staging.count
        staging.count += 1


def reader(kind: Kind) -> RingReader:
    return attach(NAME, kind)


def test_a_kind_without_records_has_no_ring(connection: ConnectionWriter) -> None:
    publisher = Publisher(connection)
    publisher.publish()
    assert publisher.rings == {}
    with pytest.raises(RingNotFound):
        attach(NAME, Kind.TRADE, wait=0)


def test_what_is_staged_is_published_in_order_and_numbered_on(connection: ConnectionWriter) -> None:
    publisher = Publisher(connection)
    for count in (1, STAGED, 0, 7):
        stage(publisher, Kind.TRADE, count)
        stage(publisher, Kind.QUOTE, count // 2)
        publisher.publish()
    assert publisher.next_seq[Kind.TRADE] == 1 + STAGED + 7
    with reader(Kind.TRADE) as ring:
        trades = ring.tail(10_000)
        assert trades["seq"].tolist() == list(range(1 + STAGED + 7))
        assert trades["last_price"].tolist() == [0.0, *map(float, range(STAGED)), *map(float, range(7))]
    assert publisher.rings[Kind.QUOTE].tail == STAGED // 2 + 3
    assert read_counters(connection.directory).values[Counter.RECORDS] == 1 + STAGED + 7 + STAGED // 2 + 3


def test_events_are_no_records_in_the_count(connection: ConnectionWriter) -> None:
    publisher = Publisher(connection)
    publisher.event(EventCode.CONNECTED, 5)
    publisher.publish()
    assert publisher.rings[Kind.EVENT].tail == 1
    assert read_counters(connection.directory).values[Counter.RECORDS] == 0


def test_more_events_than_a_buffer_holds_lose_none(connection: ConnectionWriter) -> None:
    publisher = Publisher(connection)
    for i in range(3 * STAGED + 5):
        publisher.event(EventCode.GAP, i, value=i)
    publisher.publish()
    with reader(Kind.EVENT) as ring:
        events = ring.tail(10_000)
        assert events["value"].tolist() == events["seq"].tolist() == list(range(3 * STAGED + 5))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("short", b"short"),
        ("x" * 100, b"x" * 72),
        ("x" * 71 + "é", b"x" * 71),  # never half a character
        ("é" * 40, "é".encode() * 36),
        ("", b""),
    ],
)
def test_a_long_text_is_cut_between_characters(connection: ConnectionWriter, text: str, kept: bytes) -> None:
    publisher = Publisher(connection)
    publisher.event(EventCode.REJECTED, 0, text="something longer, to be written over" * 3)
    publisher.sink[Kind.EVENT].count = 0
    publisher.event(EventCode.REJECTED, 0, text=text)
    record = np.frombuffer(publisher.sink[Kind.EVENT].buffer, DTYPES[Kind.EVENT])[0]
    assert bytes(record["text"]) == kept


def test_an_event_tells_the_kind_and_seq_it_stands_at(connection: ConnectionWriter) -> None:
    publisher = Publisher(connection)
    publisher.event(EventCode.GAP, 0, at=(Kind.TRADE, 41))
    publisher.event(EventCode.GAP, 0, at=(Kind.EVENT, 42))
    publisher.event(EventCode.CONNECTED, 0)
    records = np.frombuffer(publisher.sink[Kind.EVENT].buffer, DTYPES[Kind.EVENT])[:3]
    assert list(zip(records["at_kind"].tolist(), records["at_seq"].tolist(), strict=True)) == [(1, 41), (6, 42), (0, 0)]


def test_a_successor_continues_the_numbers(runtime: Path) -> None:
    for round_ in range(3):
        with ConnectionWriter(NAME) as connection:
            publisher = Publisher(connection)
            assert publisher.next_seq[Kind.TRADE] == 5 * round_
            stage(publisher, Kind.TRADE, 5)
            publisher.publish()
            assert publisher.rings[Kind.TRADE].epoch == round_ + 1
    with reader(Kind.TRADE) as ring:
        assert ring.tail(100)["seq"].tolist() == list(range(15))


def test_room_is_asked_for_before_the_first_record(
    connection: ConnectionWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(connection)
    publisher.require_room(Kind)
    # So many slots fit no machine's shared memory; the sum is what is looked at, so that nothing is reserved.
    monkeypatch.setitem(DEFAULT_CAPACITY, Kind.QUOTE, 2**40)
    with pytest.raises(SharedMemoryFull, match=r"the rings of crypto need \d+ MiB .* --shm-size"):
        publisher.require_room([Kind.TRADE, Kind.QUOTE])
    publisher.require_room([Kind.TRADE])
    assert publisher.rings == {}


def test_a_ring_that_exists_needs_no_more_room(connection: ConnectionWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(connection)
    stage(publisher, Kind.TRADE, 1)
    publisher.publish()
    monkeypatch.setitem(DEFAULT_CAPACITY, Kind.TRADE, 2**40)
    publisher.require_room([Kind.TRADE])
