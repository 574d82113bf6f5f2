"""One connection's stream, stepped by hand: when it looks, when it sends, and what."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from processes.broadcaster_running import Feed
from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

from feeds.encoding import lines
from feeds.records import Kind
from ringbuf import ConnectionWriter, RingReader
from ringbuf.directory import connection_directory
from supervisor.frame_log import FrameLog
from supervisor.listeners import Limits, Listener
from supervisor.stream import SCAN, Stream


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Taker:
    """A listener that takes everything at once: every write is kept, with its time."""

    def __init__(self, stream: Stream, clock: Time) -> None:
        self._account: Listener = stream.place()
        self._clock = clock
        self.turns = 0
        self.writes: list[tuple[float, bytes]] = []
        stream.join(self)

    def turn(self, now: float, log: FrameLog) -> bool:
        self.turns += 1
        piece = self._account.next_piece(log)
        if piece is not None:
            self.writes.append((now, piece.data))
        return self._account.position < log.head

    def texts(self) -> list[bytes]:
        client = Protocol(Side.CLIENT, state=State.OPEN)
        client.receive_data(b"".join(data for _, data in self.writes))
        return [bytes(frame.data) for frame in client.events_received() if isinstance(frame, Frame)]


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def stream(runtime: Path, clock: Time, told: list[str]) -> Iterator[Stream]:
    made = Stream("c", Limits(), told.append, clock)
    yield made
    made.detach()


def _records(feed: Feed) -> list[bytes]:
    with RingReader(feed.writer.directory, Kind.TRADE) as reader:
        return lines(reader.tail(10_000))


def test_a_record_goes_out_at_once_when_the_last_write_is_old(stream: Stream, clock: Time) -> None:
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 1)
        taker = Taker(stream, clock)
        stream.step(clock.now)
        clock.now += 0.5
        feed.publish(Kind.TRADE, 2)
        stream.step(clock.now)
        assert taker.texts() == _records(feed)[1:]
        assert [at for at, _ in taker.writes] == [clock.now]


def test_records_within_a_tick_go_out_in_one_write_at_its_end(stream: Stream, clock: Time) -> None:
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 1)
        taker = Taker(stream, clock)
        feed.publish(Kind.TRADE, 1)
        start = clock.now
        assert stream.step(start) == pytest.approx(0.02)
        for part in (0.004, 0.008, 0.012):
            feed.publish(Kind.TRADE, 3)
            pause = stream.step(start + part)
            assert part + pause == pytest.approx(0.02)
        stream.step(start + 0.02)
        assert [at for at, _ in taker.writes] == [start, start + 0.02]
        assert taker.texts() == _records(feed)[1:]


def test_an_idle_stream_looks_ever_more_rarely_up_to_a_tick(stream: Stream, clock: Time) -> None:
    Taker(stream, clock)
    pauses = [stream.step(clock.now) for _ in range(7)]
    assert pauses == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.016, 0.02, 0.02])
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 1)
        stream.step(clock.now + 1.0)
        assert stream.step(clock.now + 1.02) == pytest.approx(0.001)


def test_a_quiet_stream_still_reviews_its_listeners(stream: Stream, clock: Time) -> None:
    taker = Taker(stream, clock)
    for _ in range(101):
        stream.step(clock.now)
        clock.now += 0.01
    assert 4 <= taker.turns <= 6


def test_all_listeners_get_the_same_bytes_and_a_later_one_only_what_is_later(stream: Stream, clock: Time) -> None:
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 1)
        first, second = Taker(stream, clock), Taker(stream, clock)
        feed.publish(Kind.TRADE, 5)
        third = Taker(stream, clock)
        feed.publish(Kind.TRADE, 5)
        for _ in range(3):
            clock.now += 0.02
            stream.step(clock.now)
        everything = _records(feed)
        assert first.texts() == second.texts() == everything[1:]
        assert third.texts() == everything[6:]
        assert first.writes[0][1] is second.writes[0][1]  # joined once


def test_what_the_ring_lost_is_told_before_what_follows(stream: Stream, clock: Time) -> None:
    with Feed("c", capacity=64) as feed:
        feed.publish(Kind.TRADE, 1)
        taker = Taker(stream, clock)
        feed.publish(Kind.TRADE, 500)
        for _ in range(10):
            clock.now += 0.02
            stream.step(clock.now)
        notice, *texts = taker.texts()
        lost = 500 - len(texts)
        assert notice == (
            b'{"type":"gap","connection":"c","lost":%d,"reason":"overwritten","kind":"trade","first":1}' % lost
        )
        assert texts == _records(feed)[-len(texts) :]


def test_more_than_one_read_takes_is_read_on_at_once(stream: Stream, clock: Time) -> None:
    with Feed("c", capacity=2**16) as feed:
        feed.publish(Kind.TRADE, 1)
        taker = Taker(stream, clock)
        feed.publish(Kind.TRADE, 5000)
        assert stream.step(clock.now) == 0.0
        for _ in range(10):  # a write has a limit, so that it takes some ticks
            clock.now += 0.02
            stream.step(clock.now)
        assert len(taker.texts()) == 5000


def _collect(stream: Stream, clock: Time, taker: Taker) -> list[tuple[str, int]]:
    """Let some looks pass, and give the type and first seq of every text that came."""
    taker.writes.clear()
    for _ in range(4):
        clock.now += 2 * SCAN
        stream.step(clock.now)
    texts = map(orjson.loads, taker.texts())
    return [(text["type"], text["first"] if text["type"] == "gap" else text["seq"]) for text in texts]


def test_a_ring_that_takes_the_name_is_followed_and_told(stream: Stream, clock: Time, told: list[str]) -> None:
    taker = Taker(stream, clock)
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 5)
        assert len(_collect(stream, clock, taker)) == 5
        feed.publish(Kind.TRADE, 2)
    with Feed("c", capacity=64) as feed:
        feed.publish(Kind.TRADE, 3)
        came = _collect(stream, clock, taker)
    assert came == [("trade", 5), ("trade", 6), ("gap", 0), ("trade", 0), ("trade", 1), ("trade", 2)]
    assert b'{"type":"gap","connection":"c","lost":0,"reason":"replaced","kind":"trade","first":0}' in taker.texts()
    assert told == []


def test_a_connection_that_is_removed_and_made_again_is_read_from_its_first_record(
    stream: Stream, clock: Time, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringbuf.reader.NAME_CHECK", 0.0)
    taker = Taker(stream, clock)
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 5)
        assert len(_collect(stream, clock, taker)) == 5
    shutil.rmtree(connection_directory("c"))
    assert _collect(stream, clock, taker) == []
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 3)
        assert _collect(stream, clock, taker) == [("gap", 0), ("trade", 0), ("trade", 1), ("trade", 2)]
    assert told == []


def test_a_ring_of_another_layout_is_told_once_and_hurts_no_other(stream: Stream, clock: Time, told: list[str]) -> None:
    taker = Taker(stream, clock)
    with Feed("c") as feed:
        feed.writer.ring("quote", np.dtype([("seq", "<u8"), ("older", "<u8")]), 64)
        feed.publish(Kind.TRADE, 5)
        assert len(_collect(stream, clock, taker)) == 5
        assert len(_collect(stream, clock, taker)) == 0
    (text,) = told
    assert "quote" in text
    assert "restart the connection" in text


def test_a_file_that_is_no_ring_is_told_once_and_its_successor_is_read(
    stream: Stream, clock: Time, told: list[str]
) -> None:
    taker = Taker(stream, clock)
    with ConnectionWriter("c") as writer:
        (writer.directory / "trade.ring").write_bytes(b"nonsense")
        assert (_collect(stream, clock, taker), _collect(stream, clock, taker)) == ([], [])
        stream.detach()  # the next listener comes
        assert _collect(stream, clock, taker) == []
        (text,) = told
        assert "trade.ring" in text
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 2)
        assert len(_collect(stream, clock, taker)) == 2


def test_records_whose_names_cannot_be_read_are_counted_as_missed_and_told_once(
    stream: Stream, clock: Time, told: list[str]
) -> None:
    taker = Taker(stream, clock)
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 1)
        assert len(_collect(stream, clock, taker)) == 1
        feed.writer.symbols.intern("BROKEN")
        with (feed.writer.directory / "symbols").open("r+b") as names:
            names.seek(64 + 2 * 64)  # its slot
            names.write(bytes(64))
        for first in (1, 4):
            feed.publish(Kind.TRADE, 3)
            assert _collect(stream, clock, taker) == [("gap", first)]
            notice = b'{"type":"gap","connection":"c","lost":3,"reason":"unreadable","kind":"trade","first":%d}'
            assert taker.texts() == [notice % first]
    (text,) = told
    assert "is no name" in text


async def _until(condition: Callable[[], bool], clock: Time) -> None:
    """Let the stream run until something holds; the test's own time limit bounds the wait."""
    while not condition():
        clock.now += 0.01
        await asyncio.sleep(0.001)


def test_without_listeners_nothing_is_read(stream: Stream, clock: Time) -> None:
    async def session() -> None:
        with Feed("c") as feed:
            feed.publish(Kind.TRADE, 1)
            task = asyncio.ensure_future(stream.run())
            taker = Taker(stream, clock)
            await asyncio.sleep(0)
            assert stream._rings is not None
            stream.leave(taker)
            await _until(lambda: stream._rings is None, clock)
            feed.publish(Kind.TRADE, 100)
            again = Taker(stream, clock)
            feed.publish(Kind.TRADE, 2)
            await _until(lambda: bool(again.writes), clock)
            assert again.texts() == _records(feed)[-2:]
            task.cancel()
            await asyncio.wait([task])
            assert stream._rings is None

    asyncio.run(session())


def test_a_flush_sends_what_was_published_last_even_by_a_ring_that_is_new(stream: Stream, clock: Time) -> None:
    taker = Taker(stream, clock)
    stream.step(clock.now)
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 3)
        stream.flush()
        assert taker.texts() == _records(feed)
