"""One connection's stream, stepped by hand: when it looks, when it sends, and what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes.broadcaster_running import Feed
from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

from feeds.encoding import lines
from feeds.records import Kind
from ringbuf import RingReader
from supervisor.frame_log import FrameLog
from supervisor.listeners import Limits, Listener
from supervisor.stream import Stream


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
def stream(runtime: Path, clock: Time) -> Iterator[Stream]:
    made = Stream("c", Limits(), pytest.fail, clock)
    yield made
    made._rings.detach()


def _records(feed: Feed) -> list[bytes]:
    with RingReader(feed.writer.directory, Kind.TRADE) as reader:
        return lines(reader.tail_records(10_000))


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
            assert stream._rings.attached
            stream.leave(taker)
            await _until(lambda: not stream._rings.attached, clock)
            feed.publish(Kind.TRADE, 100)
            again = Taker(stream, clock)
            feed.publish(Kind.TRADE, 2)
            await _until(lambda: bool(again.writes), clock)
            assert again.texts() == _records(feed)[-2:]
            task.cancel()
            await asyncio.wait([task])
            assert not stream._rings.attached

    asyncio.run(session())


def test_a_flush_sends_what_was_published_last_even_by_a_ring_that_is_new(stream: Stream, clock: Time) -> None:
    taker = Taker(stream, clock)
    stream.step(clock.now)
    with Feed("c") as feed:
        feed.publish(Kind.TRADE, 3)
        stream.flush()
        assert taker.texts() == _records(feed)
