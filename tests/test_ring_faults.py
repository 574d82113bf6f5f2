"""What the ring survives: killed writers, removed and replaced files, full memory, a second writer."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import msgspec
import pytest
from processes.ring_reader import Seen
from processes.running import go, line, running
from processes.stream import count_torn, is_exactly, stream_bytes, stream_dtype
from waiting import wait_until

from ringbuf import ConnectionWriter, Counter, RingReader, TopicState, attach, layout, read_counters
from ringbuf.directory import connection_directory
from ringbuf.errors import RingNotFound, SharedMemoryFull, WriterActive
from ringbuf.records import Gap, Loss

CAPACITY = 64
BATCH = CAPACITY // 8

pytestmark = pytest.mark.fault


def run(task: str, until: int = 0, *, words: int = 8, capacity: int = CAPACITY) -> None:
    """Run one writer process to its end, whatever its end is."""
    with running("ring_writer", "venue", "trade", words, capacity, task, until) as process:
        if task == "publish":
            assert line(process).startswith("ready")
            go(process)
        assert process.wait() == (0 if task == "publish" else -9)


def words_of(reader: RingReader) -> tuple[int, int, int]:
    """Intent, tail and epoch as they stand."""
    words = reader._words
    return words[layout.INTENT], words[layout.TAIL], words[layout.EPOCH]


def read_all(reader: RingReader) -> list[Gap]:
    """Read to the end, checking every record, and give the gaps, those that one read ended within joined again."""
    gaps: list[Gap] = []
    while reader.lag:
        cursor = reader.cursor
        records = reader.read()
        assert count_torn(records.array) == 0
        assert is_exactly(records.array, cursor, reader.cursor, records.gaps)
        for gap in records.gaps:
            before = gaps.pop() if gaps and gaps[-1].first + gaps[-1].count == gap.first else None
            gaps.append(Gap(before.first, before.count + gap.count, gap.reason) if before else gap)
    assert reader.start + reader.received + reader.lost == reader.cursor == reader.published
    return gaps


@pytest.mark.parametrize("published", [20, 60, 1000])  # before the ring has gone round, over its end, after many laps
def test_a_writer_killed_inside_a_publish_leaves_records_that_are_void_and_count_as_lost(
    runtime: Path, published: int
) -> None:
    run("die_in_publish", published)
    with attach("venue", "trade", start="newest") as reader:
        assert words_of(reader) == (published + BATCH, published, 1)
        assert reader.read().gaps == ()
        assert not reader.writer_alive
        run("publish", published + BATCH + 3)
        assert words_of(reader) == (published + BATCH + 3, published + BATCH + 3, 2)
        assert read_all(reader) == [Gap(published, BATCH, Loss.VOID)]
        assert (reader.received, reader.lost) == (3, BATCH)


def test_a_reader_that_attaches_after_the_recovery_gets_no_void_record_either(runtime: Path) -> None:
    run("die_in_publish", 60)
    run("publish", 60 + BATCH + 3)
    with attach("venue", "trade", start=50) as reader:
        newest = reader.tail(BATCH + 4)
        assert newest["seq"].tolist() == [59, 68, 69, 70]
        assert read_all(reader) == [Gap(60, BATCH, Loss.VOID)]


def test_a_reader_in_the_middle_of_old_records_drops_those_that_the_dead_writer_was_overwriting(runtime: Path) -> None:
    run("die_in_publish", 1000)
    with attach("venue", "trade", start=1000 - CAPACITY) as reader:
        gaps = read_all(reader)
    # The first 8 records of the lap may be overwritten already; a jump leads a quarter ring ahead of them.
    assert gaps == [Gap(1000 - CAPACITY, BATCH + CAPACITY // 4, Loss.OVERWRITTEN)]


def test_a_successor_that_dies_in_the_recovery_leaves_the_same_work_to_the_next_one(runtime: Path) -> None:
    run("die_in_publish", 60)
    with attach("venue", "trade", start="newest") as reader:
        for _ in range(2):
            run("die_in_recovery")
            assert words_of(reader) == (60 + BATCH, 60, 1)
            assert len(reader.read()) == 0
        run("publish", 60 + BATCH + 1)
        assert words_of(reader) == (60 + BATCH + 1, 60 + BATCH + 1, 2)
        assert read_all(reader) == [Gap(60, BATCH, Loss.VOID)]


def test_two_writers_that_died_leave_two_gaps_not_one_long_one(runtime: Path) -> None:
    run("die_in_publish", 0)
    run("die_in_publish", BATCH + 2)
    run("publish", 3 * BATCH)
    with attach("venue", "trade", start=0) as reader:
        assert reader.epoch == 3
        gaps = read_all(reader)
    assert gaps == [Gap(0, BATCH, Loss.VOID), Gap(BATCH + 2, BATCH, Loss.VOID)]


def test_a_writer_killed_while_it_builds_a_ring_leaves_nothing_that_stays(runtime: Path) -> None:
    run("publish")
    directory = connection_directory("venue")
    (directory / "trade.ring").unlink()
    run("die_in_creation")
    assert [path.name for path in directory.iterdir() if path.name.startswith(".")]
    assert not (directory / "trade.ring").exists()
    run("publish", 5)
    assert sorted(path.name for path in directory.iterdir()) == ["counters", "symbols", "trade.ring", "writer.lock"]


@pytest.mark.stress
def test_readers_live_through_writers_killed_at_random_points(runtime: Path) -> None:
    """Large records and batches, so that a writer is often inside a publish: about every fifth one dies there.

    Which ones do is chance, so nothing is said of it here; dying there for certain is tested above.
    """
    shape, capacity, killed = 64, 1024, 6
    dice = random.Random(7)
    with ExitStack() as stack:
        run("publish", 1, words=shape, capacity=capacity)
        mine = stack.enter_context(attach("venue", "trade", start="newest"))
        readers = [
            stack.enter_context(running("ring_reader", "venue", "trade", killed + 2, how)) for how in ("plain", "slow")
        ]
        assert [line(reader) for reader in readers] == ["attached", "attached"]
        for _ in range(killed):
            with running("ring_writer", "venue", "trade", shape, capacity, "endless") as process:
                assert line(process).startswith("ready")
                goal = mine.published + 2 * capacity
                wait_until(partial(tail_is_at, mine, goal), "two laps of the ring")
                time.sleep(dice.random() / 100)
        run("publish", words_of(mine)[0] + 10, words=shape, capacity=capacity)
        seen = [msgspec.json.decode(line(reader), type=Seen) for reader in readers]
        read_all(mine)
        assert mine.epoch == killed + 2
        for one in seen:
            assert (one.torn, one.inexact, one.fell) == (0, 0, False)
            assert one.start + one.received + one.lost == one.tail == mine.published
            assert one.received > 0


def tail_is_at(reader: RingReader, goal: int) -> bool:
    return reader.published >= goal


def test_a_ring_made_anew_with_another_capacity_is_followed(runtime: Path) -> None:
    run("publish", 40)
    with attach("venue", "trade") as reader:
        assert len(reader.read(limit=5)) == 5
        run("publish", 30, capacity=2 * CAPACITY)
        read = [*reader.read()["seq"].tolist()]
        while reader.header.capacity == CAPACITY:
            before = reader.cursor
            records = reader.read(timeout=1.0)
            read += records["seq"].tolist()
        # The old ring was read to its end first; then the gap of unknown size, with no records of the old layout.
        assert (read, before) == ([*range(5, 40)], 40)
        assert records.gaps == (Gap(0, 0, Loss.REPLACED),)
        assert len(records) == 0
        assert read_all(reader) == []
        assert (reader.received, reader.lost, reader.cursor) == (70, 0, 30)


def test_a_record_published_while_the_reader_looks_at_the_name_is_read_before_the_name_is_followed(
    runtime: Path,
) -> None:
    """The race between "nothing to read" and "another file has the name", made certain by the clock in between."""
    with ExitStack() as stack:
        first = stack.enter_context(ConnectionWriter("venue"))
        ring = first.ring("trade", stream_dtype(), CAPACITY)
        ring.publish(stream_bytes(0, 1), 1)
        calls = count()

        def clock() -> float:
            call = next(calls)
            if call == READ_STARTS + 1:  # the reader has looked at the ring, and found nothing
                ring.publish(stream_bytes(1, 1), 1)
                first.close()
                stack.enter_context(ConnectionWriter("venue")).ring("trade", stream_dtype(), 2 * CAPACITY)
            return float(call)

        READ_STARTS = 2  # noqa: N806 - the clock's third call: after one by the constructor, one by the first read
        reader = stack.enter_context(RingReader(first.directory, "trade", clock=clock))
        assert reader.read()["seq"].tolist() == [0]
        records = reader.read()
        assert (len(records), records.gaps) == (0, ())
        assert reader.read()["seq"].tolist() == [1]
        assert reader.read().gaps == (Gap(0, 0, Loss.REPLACED),)


def test_a_reader_of_a_replaced_connection_gets_the_new_names(runtime: Path) -> None:
    """Whoever removes a directory and starts the connection again gives the same ids to other names."""
    with ConnectionWriter("venue") as writer:
        writer.symbols.intern("OLD")
        writer.ring("trade", stream_dtype(), CAPACITY).publish(stream_bytes(0, 1), 1)
    with attach("venue", "trade") as reader:
        old = reader.read()
        shutil.rmtree(writer.directory)
        with ConnectionWriter("venue") as writer:
            writer.symbols.intern("NEW")
            writer.ring("trade", stream_dtype(), CAPACITY).publish(stream_bytes(0, 1), 1)
        assert [gap.reason for gap in reader.read(timeout=2.0).gaps] == [Loss.REPLACED]
        new = reader.read()
        assert (old.names(), new.names()) == (["", "OLD"], ["", "NEW"])


def test_a_reader_whose_connection_is_removed_reads_what_there_is_and_is_told(runtime: Path) -> None:
    run("publish", 40)
    with attach("venue", "trade", start=0) as reader:
        shutil.rmtree(connection_directory("venue"))
        assert len(read_all(reader)) == 0
        with pytest.raises(RingNotFound, match="trade ring of venue is gone"):
            reader.read(timeout=None)
        with pytest.raises(RingNotFound):
            next(iter(reader))
        assert reader.received == 40


def test_a_second_writer_is_refused_whether_in_this_process_or_another(runtime: Path) -> None:
    with running("ring_writer", "venue", "trade", 8, CAPACITY, "hold") as process:
        assert line(process) == "ready 0"
        with pytest.raises(WriterActive, match="another process writes venue"):
            ConnectionWriter("venue")
        go(process)
        assert process.wait() == 0
    with ConnectionWriter("venue"), pytest.raises(WriterActive, match="this process already writes venue"):
        ConnectionWriter("venue")
    ConnectionWriter("venue").close()


def test_the_lock_of_a_killed_writer_is_free_at_once(runtime: Path) -> None:
    with running("ring_writer", "venue", "trade", 8, CAPACITY, "endless") as process:
        assert line(process) == "ready 0"
        with attach("venue", "trade") as reader:
            assert reader.writer_alive
            process.kill()
            # Nobody has waited for it yet: a zombie is no writer.
            wait_until(lambda: not reader.writer_alive, "the writer's end is seen")
        assert process.wait() == -9
        with ConnectionWriter("venue") as writer:
            assert writer.ring("trade", stream_dtype(), CAPACITY).continued


def reserve_in_a_process(*arguments: object) -> str:
    """Give what the program said; it must have ended by itself, not by SIGBUS or SIGXFSZ."""
    with running("ring_reservation", *arguments) as process:
        said, _ = process.communicate()
        assert process.returncode == 0
    return said


def test_a_ring_beyond_the_limit_of_file_sizes_is_refused_in_words(runtime: Path) -> None:
    said = reserve_in_a_process(2**20)
    assert "trade.ring needs 4.0 MiB" in said
    assert "File too large" in said
    assert "smaller capacity" in said
    assert sorted(path.name for path in connection_directory("venue").iterdir()) == [
        "counters", "symbols", "writer.lock",
    ]  # fmt: skip


@pytest.fixture
def small_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A shared memory of 1 MiB, mounted for this test."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small shared memory")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(tmp_path)]
    mount = subprocess.run(command, check=False, capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"no small shared memory could be mounted: {mount.stderr.strip()}")
    monkeypatch.setenv("TICKRING_RUNTIME_DIR", str(tmp_path))
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_full_shared_memory_is_one_clear_error_and_everything_else_goes_on(small_memory: Path) -> None:
    assert "trade.ring needs 4.0 MiB" in reserve_in_a_process()
    with ConnectionWriter("venue") as writer:
        quotes = writer.ring("quote", stream_dtype(), 1024)
        with pytest.raises(SharedMemoryFull) as caught:
            writer.ring("trade", stream_dtype(), 2**16)
        for words in ("trade.ring needs 4.0 MiB", "MiB are free", "--shm-size", "smaller capacity"):
            assert words in str(caught.value)
        assert sorted(path.name for path in writer.directory.iterdir()) == [
            "counters", "quote.ring", "symbols", "writer.lock",
        ]  # fmt: skip
        quotes.publish(stream_bytes(0, 100), 100)
        with attach("venue", "quote") as reader:
            assert read_all(reader) == []
            assert reader.received == 100
        assert len(writer.ring("trade", stream_dtype(), 1024).header.ring_id) == 16


def test_an_old_ring_stays_in_use_when_there_is_no_room_for_a_larger_one(small_memory: Path) -> None:
    with ConnectionWriter("venue") as writer:
        writer.ring("trade", stream_dtype(), 1024).publish(stream_bytes(0, 100), 100)
    with attach("venue", "trade") as reader:
        with ConnectionWriter("venue") as writer, pytest.raises(SharedMemoryFull):
            writer.ring("trade", stream_dtype(), 2**16)
        assert read_all(reader) == []
        assert reader._words[layout.STATE] == layout.State.CLOSED
        with ConnectionWriter("venue") as writer:
            assert writer.ring("trade", stream_dtype(), 1024).continued


def test_names_and_topics_that_find_no_room_are_refused_and_the_others_stay(small_memory: Path) -> None:
    with ConnectionWriter("venue") as writer:
        left = os.statvfs(small_memory)
        (small_memory / "filler").write_bytes(bytes(left.f_bavail * left.f_frsize))
        for i in range(1024):
            writer.symbols.intern(f"S{i}")
        for i in range(1022):
            writer.counters.topic(f"t{i}", TopicState.LIVE, i)
        with pytest.raises(SharedMemoryFull):
            writer.symbols.intern("ONE TOO MANY")
        with pytest.raises(SharedMemoryFull):
            writer.counters.topic("one too many", TopicState.LIVE, 1)
        writer.counters.add(Counter.FRAMES)
        writer.counters.topic("t5", TopicState.STALE, 99, "quiet")
        assert writer.symbols.intern("S1023") == 1024
        snapshot = read_counters(writer.directory)
        assert snapshot.values[Counter.FRAMES] == 1
        assert len(snapshot.topics) == 1022
        (small_memory / "filler").unlink()
        assert writer.symbols.intern("ONE MORE") == 1025
