"""Frames into real rings: every frame accounted for, holes told, and nothing that a frame holds ends the feed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from feeds.binance import AGGREGATE_TRADE, DECLARATION, QUOTE, TRADE, BinanceDecoder
from feeds.clock import Clock
from feeds.contract import Topic
from feeds.decoding import Acknowledged, Control, Refused, Sink
from feeds.housekeeping import RECORDS
from feeds.intake import Intake
from feeds.records import EventCode, Kind
from ringbuf import ConnectionWriter, attach
from ringbuf.counters import Counter, CountersSnapshot, TopicState, read_counters
from ringbuf.errors import SymbolError
from ringbuf.records import Records

NAME = "crypto"
SECOND = 1_000_000_000
TRADES = Topic("btcusdt@trade", "BTCUSDT", TRADE)
AGGREGATES = Topic("btcusdt@aggTrade", "BTCUSDT", AGGREGATE_TRADE)
QUOTES = Topic("btcusdt@bookTicker", "BTCUSDT", QUOTE)


class Times:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000 * SECOND

    def read(self) -> int:
        return self.ns


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def connection(runtime: Path) -> Iterator[ConnectionWriter]:
    with ConnectionWriter(NAME) as writer:
        yield writer


@pytest.fixture
def intake(connection: ConnectionWriter, times: Times) -> Intake:
    return make(connection, times)


def make(connection: ConnectionWriter, times: Times, letters: Path | None = None) -> Intake:
    made = Intake(DECLARATION, BinanceDecoder(), connection, Clock(times.read, times.read), letters)
    for topic in (TRADES, AGGREGATES, QUOTES):
        connection.counters.topic(topic.native, TopicState.SENT, times.ns)
        made.route(topic)
    return made


def trade(number: int, *, ms: int = 1_700_000_000_000, aggregate: bool = False) -> bytes:
    stream, key = ("aggTrade", "a") if aggregate else ("trade", "t")
    data = {"E": ms, key: number, "p": "2.5", "q": "1", "T": ms, "m": False}
    return json.dumps({"stream": f"btcusdt@{stream}", "data": data}, separators=(",", ":")).encode()


def quote(number: int) -> bytes:
    data = {"u": number, "b": "1", "B": "2", "a": "3", "A": "4"}
    return json.dumps({"stream": "btcusdt@bookTicker", "data": data}, separators=(",", ":")).encode()


def counters(connection: ConnectionWriter) -> CountersSnapshot:
    return read_counters(connection.directory)


def values(connection: ConnectionWriter) -> dict[Counter, int]:
    return counters(connection).values


def events() -> Records:
    with attach(NAME, Kind.EVENT) as ring:
        return ring.tail(20_000)


def told(*codes: EventCode) -> list[tuple[int, int, int, int]]:
    """(code, value, at_kind, at_seq) of the events of these codes."""
    found = events()
    columns = (found[name].tolist() for name in ("code", "value", "at_kind", "at_seq"))
    return [row for row in zip(*columns, strict=True) if row[0] in codes]


# ---- accounts -------------------------------------------------------------------------------------------------------


def test_every_frame_is_a_record_or_control_or_rejected(intake: Intake, connection: ConnectionWriter) -> None:
    frames = [
        trade(1),
        b'{"id":4,"result":null}',
        b"{",
        quote(1),
        b'{"error":{"code":1,"msg":"x"},"id":2}',
        trade(2),
        b"",
    ]
    control = intake.receive(frames, 77)
    assert control == [Acknowledged(4), Refused(2, "x (code 1)")]
    found = values(connection)
    assert (found[Counter.RECORDS], found[Counter.CONTROL], found[Counter.REJECTED]) == (3, 2, 2)
    assert found[Counter.FRAMES] == 7
    assert found[Counter.BYTES] == sum(map(len, frames))
    assert found[Counter.LAST_FRAME] == 77


def test_a_batch_larger_than_the_staging_buffers_is_published_whole_and_in_order(intake: Intake) -> None:
    intake.receive([trade(number) for number in range(1, 1001)], 0)
    with attach(NAME, Kind.TRADE) as ring:
        trades = ring.tail(5000)
    assert trades["trade_id"].tolist() == list(range(1, 1001))
    assert trades["seq"].tolist() == list(range(1000))


def test_rejects_are_told_once_per_reason_in_ten_seconds_but_all_are_counted(
    intake: Intake, connection: ConnectionWriter, tmp_path: Path
) -> None:
    with capture_logs() as lines:
        for second in range(12):
            intake.receive([b"{"] * 50, second * SECOND)
    assert len([line for line in lines if line["event"] == "frame rejected"]) == 2
    assert len(told(EventCode.DECODE_ERROR)) == 2
    assert values(connection)[Counter.REJECTED] == 600


def test_garbage_that_is_different_every_time_floods_neither_log_nor_events(intake: Intake) -> None:
    with capture_logs() as lines:
        for i in range(30):
            intake.receive([b'{"stream":"%d@x"}' % (100 * i + j) for j in range(100)], 5)
    assert len(lines) == 100
    assert len(told(EventCode.DECODE_ERROR)) == 100


def test_rejected_frames_are_kept_for_whoever_wants_to_know(
    connection: ConnectionWriter, times: Times, tmp_path: Path
) -> None:
    letters = tmp_path / "crypto.jsonl"
    make(connection, times, letters).receive([trade(1), b'{"broken', trade(2)], 5)
    (letter,) = map(json.loads, letters.read_text().splitlines())
    assert (letter["frame"], letter["received"], letter["size"]) == ('{"broken', 5, 8)


def test_a_name_that_no_table_can_hold_is_one_clear_error(intake: Intake) -> None:
    with pytest.raises(SymbolError, match="1 to 62 bytes"):
        intake.route(Topic("x@trade", "X" * 63, TRADE))
    intake.receive([trade(1)], 0)


# ---- a decoder with a fault -----------------------------------------------------------------------------------------


class Faulty(BinanceDecoder):
    """A decoder that raises on some frames, or stands still, as a compiled one under development may."""

    def decode(self, frames: Sequence[bytes], start: int, received_ns: int, sink: Sink) -> tuple[int, list[Control]]:
        if b"crash" in frames[start:]:
            super().decode(frames[: frames.index(b"crash", start)], start, received_ns, sink)
            raise ZeroDivisionError
        if frames[start] == b"stand still":
            return start, []
        stop = frames.index(b"stand still", start) if b"stand still" in frames[start:] else len(frames)
        return super().decode(frames[:stop], start, received_ns, sink)


@pytest.mark.parametrize("fault", [b"crash", b"stand still"])
def test_a_decoder_that_fails_costs_the_one_frame_that_shows_it(
    connection: ConnectionWriter, times: Times, fault: bytes
) -> None:
    intake = Intake(DECLARATION, Faulty(), connection, Clock(times.read, times.read))
    intake.route(TRADES)
    with capture_logs() as lines:
        intake.receive([trade(1), trade(2), fault, trade(3), fault, trade(4)], 0)
    assert values(connection)[Counter.REJECTED] == 2
    assert any("decoder" in str(line.get("reason", "")) for line in lines)
    with attach(NAME, Kind.TRADE) as ring:
        trades = ring.tail(10)
    assert trades["trade_id"].tolist() == [1, 2, 3, 4]
    assert trades["seq"].tolist() == [0, 1, 2, 3]


# ---- housekeeping ---------------------------------------------------------------------------------------------------


def test_topics_that_had_data_are_told_once_a_look_with_their_counts(
    intake: Intake, connection: ConnectionWriter
) -> None:
    seen: list[str] = []
    intake.housekeep(seen.append)
    assert seen == []
    intake.receive([trade(1), trade(2), quote(1)], 55)
    intake.receive([trade(5, aggregate=True)], 66)
    intake.housekeep(seen.append)
    assert sorted(seen) == sorted([TRADES.native, AGGREGATES.native, QUOTES.native])
    intake.housekeep(seen.append)
    assert len(seen) == 3
    topics = {topic.native: (topic.records, topic.last_data) for topic in counters(connection).topics}
    assert topics == {TRADES.native: (2, 55), AGGREGATES.native: (1, 66), QUOTES.native: (1, 55)}
    assert values(connection)[Counter.LAST_RECORD] in (55, 66)


def test_a_gap_is_an_event_at_its_record_and_a_count(
    intake: Intake, connection: ConnectionWriter, times: Times
) -> None:
    intake.receive([trade(10), trade(11), trade(15), trade(15), quote(5), quote(4)], 0)
    intake.housekeep(lambda _: None)
    assert told(EventCode.GAP) == [(EventCode.GAP, 3, 1, 2)]
    assert told(EventCode.OUT_OF_ORDER) == [(EventCode.OUT_OF_ORDER, 0, 1, 3), (EventCode.OUT_OF_ORDER, -1, 2, 1)]
    found = events()
    assert set(found.symbols()) == {"BTCUSDT"}
    assert [text.decode() for text in found["text"].tolist()] == [TRADES.native, TRADES.native, QUOTES.native]
    counted = values(connection)
    assert (counted[Counter.GAPS], counted[Counter.MISSED], counted[Counter.OUT_OF_ORDER]) == (1, 3, 2)


def test_an_id_that_is_garbage_ends_nothing(intake: Intake, connection: ConnectionWriter) -> None:
    """The largest u64 fits no event's value and would overflow the count of what was missed."""
    for _ in range(3):
        intake.receive([trade(10), trade(2**64 - 1)], 0)
        intake.housekeep(lambda _: None)
    intake.receive([trade(11)], 0)
    intake.housekeep(lambda _: None)
    assert values(connection)[Counter.RECORDS] == 7
    assert values(connection)[Counter.GAPS] == 3


def test_what_is_missed_while_unsubscribed_is_no_gap_even_if_the_last_records_were_not_looked_at(
    intake: Intake,
) -> None:
    intake.receive([trade(10)], 0)
    intake.unroute(TRADES)
    intake.housekeep(lambda _: None)  # only now is record 10 looked at
    intake.route(TRADES)
    intake.receive([trade(500), trade(502)], 0)
    intake.housekeep(lambda _: None)
    assert [value for _, value, *_ in told(EventCode.GAP)] == [1]


def test_what_is_missed_while_disconnected_is_a_gap(intake: Intake) -> None:
    intake.receive([trade(10)], 0)
    intake.housekeep(lambda _: None)
    intake.route(TRADES)  # asked for again by somebody else: it has not been gone
    intake.receive([trade(500)], 0)
    intake.housekeep(lambda _: None)
    assert [value for _, value, *_ in told(EventCode.GAP)] == [489]


def test_looking_is_due_after_4096_records_of_a_kind_and_not_because_of_events(intake: Intake) -> None:
    for first in range(1, RECORDS, 256):
        assert not intake.housekeeping_due()
        intake.receive([trade(number) for number in range(first, first + 256)], 0)
    assert intake.housekeeping_due()
    intake.housekeep(lambda _: None)
    assert not intake.housekeeping_due()
    for i in range(RECORDS + 1):
        intake.publisher.event(EventCode.GAP, i)
    intake.publisher.publish()
    assert not intake.housekeeping_due()


def test_lags_are_counted_from_the_venues_sending(intake: Intake, connection: ConnectionWriter) -> None:
    intake.receive([trade(1, ms=1_700_000_000_000)], 1_700_000_000_000 * 1_000_000 + 350_000)
    intake.receive([trade(2, ms=1_700_000_000_100), quote(1)], 1_700_000_000_000 * 1_000_000)
    intake.housekeep(lambda _: None)
    histogram = counters(connection).lag_histogram.tolist()
    assert histogram[0] == 1  # the venue's clock is ahead
    assert histogram[3] == 1  # below 400 microseconds
    assert sum(histogram) == 2  # a quote has no time of its own


def test_all_is_well_over_many_laps_of_the_ring(intake: Intake, connection: ConnectionWriter) -> None:
    """The columns wrap around the end of the ring; nothing of that may look like a hole."""
    number = 0
    total = 3 * 2**17 + 1000
    frames = [trade(0)] * 256
    while number < total:
        text = b'"t":%d,'
        frames = [
            b'{"stream":"btcusdt@trade","data":{"E":0,' + text % (number + i) + b'"p":"1","q":"1","T":0,"m":true}}'
            for i in range(1, 257)
        ]
        intake.receive(frames, 0)
        number += 256
        if intake.housekeeping_due():
            intake.housekeep(lambda _: None)
    intake.housekeep(lambda _: None)
    found = values(connection)
    assert (found[Counter.RECORDS], found[Counter.GAPS], found[Counter.OUT_OF_ORDER]) == (number, 0, 0)
    assert counters(connection).topics[0].records == number


# ---- a successor ----------------------------------------------------------------------------------------------------


def test_a_successor_says_that_it_writes_now_and_keeps_the_counts(runtime: Path, times: Times) -> None:
    with ConnectionWriter(NAME) as connection:
        intake = make(connection, times)
        intake.receive([trade(1), trade(2), quote(1)], 0)
        intake.housekeep(lambda _: None)
        connection.counters.set(Counter.CONNECTED_SINCE, 5)
        assert not (connection.directory / "event.ring").exists()
    with ConnectionWriter(NAME) as connection:
        intake = Intake(DECLARATION, BinanceDecoder(), connection, Clock(times.read, times.read))
        assert sorted(told(EventCode.WRITER_REPLACED)) == [
            (EventCode.WRITER_REPLACED, 0, 1, 2),
            (EventCode.WRITER_REPLACED, 0, 2, 1),
        ]
        assert values(connection)[Counter.CONNECTED_SINCE] == 0
        # Until they are asked for again nobody holds these topics, whatever was true when the last writer died.
        assert {topic.state for topic in counters(connection).topics} == {TopicState.REMOVED}
        intake.route(TRADES)
        connection.counters.topic(TRADES.native, TopicState.SENT, 0)
        intake.receive([trade(3)], 9)
        intake.housekeep(lambda _: None)
        topics = {topic.native: (topic.state, topic.records) for topic in counters(connection).topics}
        assert topics[TRADES.native] == (TopicState.SENT, 3)
        assert topics[QUOTES.native] == (TopicState.REMOVED, 1)


def test_closing_is_possible_whatever_was_looked_at(runtime: Path, times: Times) -> None:
    """Views of the ring that housekeeping took must be gone, or unmapping fails."""
    for _ in range(3):
        with ConnectionWriter(NAME) as connection:
            intake = make(connection, times)
            intake.receive([trade(1), quote(1)], 0)
            intake.housekeep(lambda _: None)
