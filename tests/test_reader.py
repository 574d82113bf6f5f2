"""Reading: cursors, gaps, limits, time-outs and the moments in which the writer comes in between."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from processes.stream import count_torn, is_exactly, stream_bytes, stream_dtype

from ringbuf import Backoff, ConnectionWriter, RingReader, RingWriter, attach, layout, ordering
from ringbuf.directory import connection_directory
from ringbuf.errors import (
    ParameterError,
    RingCorrupt,
    RingNotFound,
    RingVersionError,
    UnsafePath,
    UnsupportedProcessor,
)
from ringbuf.reader import Start
from ringbuf.records import Gap, Loss
from ringbuf.waiting import WaitStrategy

CAPACITY = 64
QUARTER = CAPACITY // 4
DTYPE = stream_dtype()


class Ring:
    """A connection with one ring, and readers of it."""

    def __init__(self) -> None:
        self.connection = ConnectionWriter("venue")
        self.writer: RingWriter = self.connection.ring("trade", DTYPE, CAPACITY)
        self.directory = self.connection.directory
        self.path = self.directory / "trade.ring"
        self._readers: list[RingReader] = []

    def publish(self, count: int) -> None:
        self.writer.publish(stream_bytes(self.writer.tail, count), count)

    def reader(
        self,
        start: Start = "oldest",
        waiting: WaitStrategy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> RingReader:
        reader = RingReader(self.directory, "trade", start, waiting, clock)
        self._readers.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        self.connection.close()


@pytest.fixture
def ring(runtime: Path) -> Iterator[Ring]:
    ring = Ring()
    yield ring
    ring.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class FakeTime:
    """A clock that only sleeping moves on, and what is done at a given time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.plan: list[tuple[float, Callable[[], None]]] = []
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        while self.plan and self.plan[0][0] <= self.now:
            self.plan.pop(0)[1]()

    def strategy(self) -> WaitStrategy:
        return Backoff(first=0.01, longest=0.1, sleep=self.sleep)


def test_what_is_published_is_read_once_and_in_order(ring: Ring) -> None:
    reader = ring.reader()
    assert len(reader.read()) == 0
    ring.publish(5)
    assert reader.lag == 5
    records = reader.read()
    assert records["seq"].tolist() == [0, 1, 2, 3, 4]
    assert count_torn(records.array) == 0
    assert (records.connection, records.kind, records.gaps, records.lost) == ("venue", "trade", (), 0)
    assert (reader.cursor, reader.published, reader.lag, reader.received, reader.lost) == (5, 5, 0, 5, 0)
    assert len(reader.read()) == 0
    ring.publish(2)
    assert reader.read()["seq"].tolist() == [5, 6]


def test_records_are_a_private_copy(ring: Ring) -> None:
    reader = ring.reader()
    ring.publish(8)
    records = reader.read()
    before = records.array.tobytes()
    for _ in range(20):
        ring.publish(8)
    assert records.array.tobytes() == before
    records.array["w1"] = 0  # and the reader's own to change
    ring.publish(1)
    assert count_torn(reader.tail(CAPACITY).array) == 0


def test_a_read_over_the_end_of_the_ring_is_one_piece(ring: Ring) -> None:
    reader = ring.reader()
    ring.publish(60)
    while reader.lag:
        reader.read()
    ring.publish(10)
    records = reader.read()
    assert records["seq"].tolist() == list(range(60, 70))
    assert count_torn(records.array) == 0


def test_a_read_gives_at_most_its_limit_and_at_most_a_quarter_of_the_ring(ring: Ring) -> None:
    reader = ring.reader()
    ring.publish(CAPACITY)
    assert reader.read(limit=3)["seq"].tolist() == [0, 1, 2]
    assert reader.read(limit=1)["seq"].tolist() == [3]
    assert len(reader.read()) == QUARTER
    assert len(reader.read(limit=1000)) == QUARTER
    assert reader.cursor == 4 + 2 * QUARTER


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(ring: Ring, limit: int) -> None:
    with pytest.raises(ParameterError, match="limit must be at least 1"):
        ring.reader().read(limit=limit)
    with pytest.raises(ParameterError, match="count must be at least 1"):
        ring.reader().tail(limit)


def test_without_a_timeout_an_empty_read_does_not_wait(ring: Ring) -> None:
    clock = FakeTime()
    assert len(ring.reader(waiting=clock.strategy(), clock=clock.clock).read()) == 0
    assert clock.slept == []


def test_a_read_waits_no_longer_than_its_timeout(ring: Ring) -> None:
    clock = FakeTime()
    reader = ring.reader(waiting=clock.strategy(), clock=clock.clock)
    assert len(reader.read(timeout=1.0)) == 0
    assert clock.now == pytest.approx(1.0)
    assert clock.slept[:5] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.1])


@pytest.mark.parametrize("timeout", [1.0, None])
def test_a_waiting_read_gives_the_first_records_that_come(ring: Ring, timeout: float | None) -> None:
    clock = FakeTime()
    clock.plan = [(0.3, lambda: ring.publish(2))]
    reader = ring.reader(waiting=clock.strategy(), clock=clock.clock)
    assert reader.read(timeout=timeout)["seq"].tolist() == [0, 1]
    assert 0.3 <= clock.now < 0.5
    clock.plan = [(clock.now + 0.005, lambda: ring.publish(1))]
    reader.read(timeout=timeout)
    assert clock.slept[-1] == 0.01  # quick again after a record


def test_iterating_gives_batches_for_ever(ring: Ring) -> None:
    clock = FakeTime()
    clock.plan = [(0.1, lambda: ring.publish(2)), (0.7, lambda: ring.publish(3))]
    batches = iter(ring.reader(waiting=clock.strategy(), clock=clock.clock))
    assert [next(batches)["seq"].tolist() for _ in range(2)] == [[0, 1], [2, 3, 4]]


@pytest.mark.parametrize(
    ("published", "start", "cursor"),
    [
        (0, "oldest", 0),
        (0, "newest", 0),
        (0, 0, 0),
        (40, "oldest", 0),
        (40, "newest", 40),
        (40, 7, 7),
        (40, 40, 40),
        (CAPACITY - 1, "oldest", 0),
        (100, "oldest", 100 - CAPACITY + CAPACITY // 32),  # what will be overwritten first is left out
        (100, "newest", 100),
        (100, 50, 50),
    ],
)
def test_reading_starts_where_it_is_told(ring: Ring, published: int, start: Start, cursor: int) -> None:
    ring.publish(published)
    reader = ring.reader(start=start)
    assert (reader.start, reader.cursor, reader.lag) == (cursor, cursor, published - cursor)
    ring.publish(1)
    records = reader.read()
    assert records["seq"][0] == cursor
    assert records.gaps == ()


def test_a_start_that_is_gone_is_a_gap_and_one_that_has_not_come_is_refused(ring: Ring) -> None:
    ring.publish(100)
    reader = ring.reader(start=10)
    records = reader.read(limit=1)
    assert records.gaps == (Gap(10, 100 - CAPACITY + QUARTER - 10, Loss.OVERWRITTEN),)
    assert records["seq"].tolist() == [100 - CAPACITY + QUARTER]
    for start in (101, -1):
        with pytest.raises(ParameterError, match=f"cannot be read from seq {start}: its newest record is 99"):
            ring.reader(start=start)


def test_a_reader_that_was_lapped_jumps_a_quarter_ring_ahead_and_tells_what_it_lost(ring: Ring) -> None:
    reader = ring.reader()
    ring.publish(10)
    reader.read(limit=4)
    ring.publish(190)
    records = reader.read()
    low = 200 - CAPACITY
    assert records.gaps == (Gap(4, low + QUARTER - 4, Loss.OVERWRITTEN),)
    assert records.lost == reader.lost == low + QUARTER - 4
    assert records["seq"].tolist() == list(range(low + QUARTER, low + 2 * QUARTER))
    while reader.lag:
        assert reader.read().gaps == ()
    assert reader.start + reader.received + reader.lost == reader.cursor == reader.published == 200
    assert "lost before" in repr(records)


@pytest.mark.parametrize("published", [40, 60, 64, 65, 80, 100, 127, 200])
def test_a_writer_that_laps_between_the_load_of_tail_and_the_copy_gives_no_false_record(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    """The first of two places where the writer may come in between; here it does so for certain."""
    reader = ring.reader()
    ring.publish(40)
    with monkeypatch.context() as patched:
        patched.setattr(ordering, "after_tail", lambda: ring.publish(published))
        records = reader.read()
    assert count_torn(records.array) == 0
    assert is_exactly(records.array, 0, reader.cursor, records.gaps)
    read_the_rest(reader)


@pytest.mark.parametrize("published", [1, 8, 24, 25, 30, 39, 40, 41, 64, 200])
def test_what_is_overwritten_during_the_copy_is_dropped_and_the_rest_kept(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    """The second one: between the copy and the validation. Slots have one size, so exactly a prefix is suspect."""
    reader = ring.reader()
    ring.publish(40)
    with monkeypatch.context() as patched:
        patched.setattr(ordering, "before_validation", lambda: ring.publish(published))
        records = reader.read()
    overwritten = min(max(40 + published - CAPACITY, 0), QUARTER)
    assert records["seq"].tolist() == list(range(overwritten, QUARTER))
    assert records.gaps == ((Gap(0, overwritten, Loss.OVERWRITTEN),) if overwritten else ())
    read_the_rest(reader)


def test_records_that_an_intent_announces_are_not_trusted_even_before_they_are_written(ring: Ring) -> None:
    """The writer stands between `intent` and `tail`: what it is about to overwrite is whole, but for how long."""
    ring.publish(CAPACITY)
    reader = ring.reader()
    ring.writer._words[layout.INTENT] = CAPACITY + 8
    assert ring.reader().start == 8 + CAPACITY // 32
    records = reader.read()
    assert records.gaps == (Gap(0, 8 + QUARTER, Loss.OVERWRITTEN),)
    assert reader.tail(CAPACITY)["seq"].tolist() == list(range(8, CAPACITY))


def read_the_rest(reader: RingReader) -> None:
    while reader.lag:
        before = reader.cursor
        records = reader.read()
        assert count_torn(records.array) == 0
        assert is_exactly(records.array, before, reader.cursor, records.gaps)
    assert reader.start + reader.received + reader.lost == reader.cursor == reader.published


def test_readers_do_not_disturb_each_other(ring: Ring) -> None:
    first, second = ring.reader(), ring.reader()
    ring.publish(10)
    assert len(first.read()) == 10
    assert (second.cursor, second.lag) == (0, 10)
    ring.publish(100)
    late = ring.reader(start="newest")
    for reader in (first, second, late):
        read_the_rest(reader)
    assert (first.received + first.lost, second.received + second.lost, late.received + late.lost) == (110, 110, 0)


@pytest.mark.parametrize(
    ("published", "count", "expected"),
    [(0, 5, range(0)), (3, 5, range(3)), (40, 5, range(35, 40)), (70, 10, range(60, 70)), (200, 999, range(136, 200))],
)
def test_the_newest_records_are_given_without_moving_the_cursor(
    ring: Ring, published: int, count: int, expected: range
) -> None:
    reader = ring.reader()
    ring.publish(published)
    records = reader.tail(count)
    assert records["seq"].tolist() == list(expected)
    assert count_torn(records.array) == 0
    assert (reader.cursor, reader.received, reader.lost) == (0, 0, 0)


@pytest.mark.parametrize("point", ["after_tail", "before_validation"])
@pytest.mark.parametrize("published", [1, 30, 64, 65, 97, 200])
def test_the_newest_records_are_whole_even_when_the_writer_laps_the_copy(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, point: str, published: int
) -> None:
    ring.publish(100)
    reader = ring.reader()
    with monkeypatch.context() as patched:
        patched.setattr(ordering, point, lambda: ring.publish(published))
        records = reader.tail(40)
    assert count_torn(records.array) == 0
    assert records["seq"].tolist() == list(range(max(60, 100 + published - CAPACITY), 100))


def test_a_reader_may_look_at_what_the_ring_says_of_itself(ring: Ring) -> None:
    reader = ring.reader()
    assert reader.header.connection == "venue"
    assert reader.header.dtype == DTYPE
    assert reader.ring_id == ring.writer.header.ring_id.hex()
    assert reader.epoch == 1
    assert reader.writer_alive
    ring.connection.close()
    assert [reader.writer_alive, reader.epoch] == [False, 1]


def test_a_process_that_later_got_the_writers_pid_is_not_taken_for_it(ring: Ring) -> None:
    reader = ring.reader()
    words = ring.writer._words
    words[layout.WRITER_START] -= 5_000_000_000
    assert not reader.writer_alive
    words[layout.WRITER_START] += 5_000_000_000
    words[layout.WRITER_PID] = 2**22 + 1  # beyond the kernel's largest
    assert not reader.writer_alive


def test_a_reader_cannot_change_the_ring(ring: Ring) -> None:
    reader = ring.reader()
    with pytest.raises(TypeError, match="read-only"):
        reader._words[layout.TAIL] = 5
    with pytest.raises(ValueError, match="read-only"):
        reader._mapping.records["seq"] = 1


def test_attaching_finds_a_connection_by_its_name(ring: Ring) -> None:
    ring.publish(5)
    with attach("venue", "trade", start=2) as reader:
        assert reader.read()["seq"].tolist() == [2, 3, 4]


@pytest.mark.parametrize("connection", ["venue", "elsewhere"])
def test_attaching_to_what_is_not_there_says_so(ring: Ring, connection: str) -> None:
    with pytest.raises(RingNotFound, match=f"connection '{connection}' has no quote ring") as caught:
        attach(connection, "quote")
    assert "tickring status" in str(caught.value)


@pytest.mark.parametrize(("connection", "kind"), [("../venue", "trade"), ("venue", "../trade"), ("", "trade")])
def test_attaching_to_an_impossible_name_is_refused(ring: Ring, connection: str, kind: str) -> None:
    with pytest.raises(ParameterError, match="cannot name"):
        attach(connection, kind)


def test_attaching_waits_for_a_writer_that_is_not_there_yet(runtime: Path) -> None:
    attached: list[RingReader] = []
    thread = threading.Thread(target=lambda: attached.append(attach("venue", "trade", wait=20)))
    thread.start()
    ring = Ring()
    thread.join()
    ring.publish(3)
    assert attached[0].read(timeout=20)["seq"].tolist() == [0, 1, 2]
    attached[0].close()
    ring.close()


def test_attaching_gives_up_after_the_wait(runtime: Path) -> None:
    with pytest.raises(RingNotFound, match="no trade ring"):
        attach("venue", "trade", wait=0.01)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("offset", "damage", "error", "field"),
    [
        (0, b"NORINGAT", RingCorrupt, "magic"),
        (8, struct.pack("<I", 0), RingVersionError, "version 0"),
        (12, struct.pack("<I", 1), RingCorrupt, "header_size"),
        (16, bytes(16), RingCorrupt, "ring_id"),
        (32, struct.pack("<I", 1), RingCorrupt, "slot_size"),
        (36, struct.pack("<I", 1), RingCorrupt, "dtype"),
        (40, struct.pack("<Q", 128), RingCorrupt, "truncated or foreign"),
        (72, struct.pack("<Q", 99), RingCorrupt, "tail is 99, beyond intent"),
        (128, struct.pack("<Q", 2**64 - 1), RingCorrupt, "epoch"),
        (256, b"\xff", RingCorrupt, "connection"),
        (384, b"quote", RingCorrupt, "kind"),
    ],
)
def test_a_damaged_ring_is_refused_by_the_name_of_its_field_and_nothing_stays_open(
    ring: Ring, offset: int, damage: bytes, error: type[Exception], field: str
) -> None:
    ring.publish(5)
    with ring.path.open("r+b") as file:
        file.seek(offset)
        file.write(damage)
    before = open_descriptors()
    with pytest.raises(error, match=field) as caught:
        ring.reader()
    assert str(ring.path) in str(caught.value)
    assert open_descriptors() == before


@pytest.mark.fault
@pytest.mark.parametrize("size", [0, 100, 4096, 5000])
def test_a_truncated_ring_is_refused(runtime: Path, size: int) -> None:
    ring = Ring()
    ring.close()
    os.truncate(ring.path, size)
    with pytest.raises(RingCorrupt, match=f"{size} bytes"):
        ring.reader()


@pytest.mark.fault
def test_a_failed_attach_keeps_nothing_open(ring: Ring) -> None:
    """The error, and with it every frame of the constructor, lives on while the descriptors are counted."""
    ring.publish(5)
    before = open_descriptors()
    with pytest.raises(ParameterError) as bad_start:
        ring.reader(start=6)
    (ring.directory / "symbols").rename(ring.directory / "away")
    with pytest.raises(RingNotFound) as no_symbols:
        ring.reader()
    assert open_descriptors() == before
    del bad_start, no_symbols


@pytest.mark.fault
def test_a_ring_file_that_is_a_link_or_open_to_others_is_refused(ring: Ring) -> None:
    ring.path.chmod(0o620)
    with pytest.raises(UnsafePath, match="can be written by others"):
        ring.reader()
    ring.path.rename(ring.directory / "moved")
    ring.path.symlink_to(ring.directory / "moved")
    with pytest.raises(UnsafePath, match="is a link"):
        ring.reader()


@pytest.mark.fault
@pytest.mark.parametrize(("word", "value"), [(layout.TAIL, 3), (layout.TAIL, 10**6)])
def test_live_words_that_contradict_each_other_are_an_error_not_records(ring: Ring, word: int, value: int) -> None:
    reader = ring.reader()
    ring.publish(5)
    reader.read()
    ring.writer._words[word] = value
    with pytest.raises(RingCorrupt, match=f"tail is {value}"):
        reader.read()


def test_no_ring_is_read_on_another_processor(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnsupportedProcessor):
        ring.reader()


def test_a_writer_of_any_number_of_laps_gives_the_same_bytes(ring: Ring) -> None:
    """Every place in the ring, every size of a batch and of a read, in step: nothing is lost, nothing repeated."""
    reader = ring.reader()
    dice = np.random.default_rng(1)
    while ring.writer.tail < 50 * CAPACITY:
        ring.publish(int(dice.integers(1, 30)))
        while reader.lag:
            before = reader.cursor
            records = reader.read(limit=int(dice.integers(1, 30)))
            assert records.gaps == ()
            assert records.array.tobytes() == bytes(stream_bytes(before, len(records)))
    assert (reader.received, reader.lost) == (ring.writer.tail, 0)


def test_a_closed_reader_says_so_and_its_records_stay(ring: Ring) -> None:
    reader = ring.reader()
    ring.publish(5)
    records = reader.read()
    reader.close()
    reader.close()
    assert records["seq"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="released"):
        reader.read()


def test_a_view_that_somebody_still_holds_does_not_keep_a_reader_from_closing(ring: Ring) -> None:
    reader = ring.reader()
    ring.publish(5)
    view = reader._mapping.records
    reader.close()
    assert view["seq"][:5].tolist() == [0, 1, 2, 3, 4]
    del view


def test_the_reader_is_where_the_front_door_says(ring: Ring) -> None:
    assert connection_directory("venue") == ring.directory
