"""Publishing by batch, continuing a ring, and what makes a writer replace one."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes.stream import count_torn, stream, stream_bytes, stream_dtype

from ringbuf import RingWriter, SymbolTable, layout, ordering
from ringbuf.errors import UnsafePath, UnsupportedProcessor
from ringbuf.layout import State
from ringbuf.process import process_start
from ringbuf.reader import RingReader

CAPACITY = 64
DTYPE = stream_dtype()


@pytest.fixture
def path(runtime: Path) -> Path:
    SymbolTable(runtime, write=True).close()
    return runtime / "trade.ring"


@pytest.fixture
def ring(path: Path) -> Iterator[RingWriter]:
    writer = open_ring(path)
    yield writer
    writer.close()


def open_ring(path: Path, capacity: int = CAPACITY, dtype: np.dtype[np.void] = DTYPE) -> RingWriter:
    return RingWriter(path, "venue", "trade", dtype, capacity)


def word(path: Path, index: int) -> int:
    return int.from_bytes(path.read_bytes()[index * 8 : index * 8 + 8], "little")


def slots(path: Path, dtype: np.dtype[np.void] = DTYPE) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return np.frombuffer(path.read_bytes()[layout.HEADER_SIZE :], dtype)


def test_a_new_ring_has_a_writer_and_nothing_in_it(ring: RingWriter, path: Path) -> None:
    assert (ring.tail, ring.epoch, ring.voided, ring.continued, ring.replaced) == (0, 1, 0, False, "")
    assert word(path, layout.INTENT) == word(path, layout.TAIL) == 0
    assert word(path, layout.STATE) == State.LIVE
    assert word(path, layout.WRITER_PID) == os.getpid()
    assert word(path, layout.WRITER_START) == process_start(os.getpid()) > 0
    assert path.stat().st_size == 4096 + CAPACITY * 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert ring.header.capacity == CAPACITY
    assert any(ring.header.ring_id)


def test_two_rings_have_different_ids(ring: RingWriter, runtime: Path) -> None:
    other = RingWriter(runtime / "quote.ring", "venue", "quote", DTYPE, CAPACITY)
    assert other.header.ring_id != ring.header.ring_id
    other.close()


def test_records_land_in_their_slots_and_the_words_say_so(ring: RingWriter, path: Path) -> None:
    ring.publish(stream_bytes(0, 5), 5)
    assert word(path, layout.INTENT) == word(path, layout.TAIL) == ring.tail == 5
    assert slots(path)[:5].tobytes() == stream(0, 5).tobytes()
    assert not slots(path)[5:]["seq"].any()


def test_a_batch_that_reaches_over_the_end_goes_on_at_the_beginning(ring: RingWriter, path: Path) -> None:
    ring.publish(stream_bytes(0, 60), 60)
    ring.publish(stream_bytes(60, 7), 7)
    assert slots(path)["seq"].tolist() == [64, 65, 66, *range(3, 64)]
    assert count_torn(slots(path)) == 0


@pytest.mark.parametrize("first", [0, 56, 60, 63])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 64, 200])
def test_any_batch_at_any_place_leaves_the_newest_records_whole(
    ring: RingWriter, path: Path, first: int, count: int
) -> None:
    for seq in range(first):
        ring.publish(stream_bytes(seq, 1), 1)
    ring.publish(stream_bytes(first, count), count)
    assert ring.tail == first + count
    held = np.sort(slots(path)["seq"])[-min(ring.tail, CAPACITY) :] if ring.tail else np.zeros(0, "<u8")
    assert held.tolist() == list(range(max(0, ring.tail - CAPACITY), ring.tail))
    assert count_torn(slots(path)[: ring.tail]) == 0


def test_no_publish_covers_more_than_an_eighth_of_the_ring(
    ring: RingWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(
        ordering, "after_intent", lambda: steps.append((word(path, layout.TAIL), word(path, layout.INTENT)))
    )
    ring.publish(stream_bytes(0, 20), 20)
    assert ring.max_batch == 8
    assert steps == [(0, 8), (8, 16), (16, 20)]


def test_the_order_of_stores_is_intent_then_records_then_tail(
    ring: RingWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring.publish(stream_bytes(0, 64), 64)
    seen: list[tuple[str, int, int, int]] = []

    def note(point: str) -> None:
        seen.append((point, word(path, layout.INTENT), word(path, layout.TAIL), int(slots(path)[2]["seq"])))

    monkeypatch.setattr(ordering, "after_intent", lambda: note("after intent"))
    monkeypatch.setattr(ordering, "before_tail", lambda: note("before tail"))
    ring.publish(stream_bytes(64, 3), 3)
    note("done")
    assert seen == [("after intent", 67, 64, 2), ("before tail", 67, 64, 66), ("done", 67, 67, 66)]


def test_a_longer_view_is_cut_and_a_shorter_one_refused_with_nothing_published(ring: RingWriter, path: Path) -> None:
    ring.publish(stream_bytes(0, 10), 3)
    assert ring.tail == 3
    for records, count in ((stream_bytes(3, 2), 3), (memoryview(bytes(512)).cast("Q"), 8), (stream_bytes(3, 2), -1)):
        with pytest.raises(ValueError, match="are not"):
            ring.publish(records, count)
    assert word(path, layout.INTENT) == word(path, layout.TAIL) == 3


def test_a_publish_interrupted_in_its_middle_never_lowers_intent_later(
    ring: RingWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C raises between any two bytecodes; what was half written then must stay covered by `intent`."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ordering, "before_tail", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ring.publish(stream_bytes(0, 8), 8)
    intents = []
    for seq in range(10):
        ring.publish(stream_bytes(seq, 1), 1)
        intents.append(word(path, layout.INTENT))
    assert intents == [8] * 8 + [9, 10]
    assert ring.tail == 10


def test_a_successor_goes_on_with_the_seq_and_raises_the_epoch(path: Path) -> None:
    for generation in range(1, 4):
        ring = open_ring(path)
        assert (ring.tail, ring.epoch, ring.continued) == (10 * (generation - 1), generation, generation > 1)
        ring.publish(stream_bytes(ring.tail, 10), 10)
        ring.close()
        ring.close()
        assert word(path, layout.STATE) == State.CLOSED
        assert word(path, layout.WRITER_PID) == 0


@pytest.mark.parametrize("tail", [0, 5, 60, 1000])
def test_a_torn_stretch_is_published_as_void_records_and_intent_stays(path: Path, tail: int) -> None:
    ring = open_ring(path)
    for first in range(0, tail, 5):
        ring.publish(stream_bytes(first, 5), 5)
    ring._words[layout.INTENT] = tail + 8
    ring.close()
    ring = open_ring(path)
    assert (ring.voided, ring.tail, ring.epoch) == (8, tail + 8, 2)
    assert word(path, layout.INTENT) == word(path, layout.TAIL) == word(path, layout.VOID_END) == tail + 8
    held = slots(path)
    void = [held[seq % CAPACITY] for seq in range(tail, tail + 8)]
    assert {int(record["seq"]) for record in void} == {layout.VOID}
    assert {bytes(record.tobytes()[8:]) for record in void} == {bytes(56)}
    assert count_torn(held[held["seq"] != layout.VOID][: min(tail, CAPACITY - 8)]) == 0
    ring.publish(stream_bytes(tail + 8, 1), 1)
    ring.close()
    assert open_and_close(path).voided == 0


def open_and_close(path: Path) -> RingWriter:
    ring = open_ring(path)
    ring.close()
    return ring


@pytest.mark.fault
@pytest.mark.parametrize(
    ("offset", "damage", "reason"),
    [
        (0, b"NORINGAT", "magic"),
        (8, struct.pack("<I", 7), "ring layout version 7, this tickring reads version 1"),
        (12, struct.pack("<I", 1), "header_size"),
        (16, bytes(16), "ring_id"),
        (32, struct.pack("<I", 1), "slot_size"),
        (36, struct.pack("<I", 1), "dtype"),
        (40, struct.pack("<Q", 128), "truncated or foreign"),
        (64, struct.pack("<Q", 9), "tail is 10, beyond intent"),
        (64, struct.pack("<Q", 2**63), "intent"),
        (64, struct.pack("<Q", 19), "intent is 19, more than one publish beyond its tail, which is 10"),
        (128, struct.pack("<Q", 2**64 - 1), "epoch"),
        (256, b"other", "ring of other"),
        (384, b"quote", "not the trade ring of venue"),
    ],
)
def test_a_ring_that_cannot_be_continued_is_replaced_and_the_reason_is_told(
    path: Path, offset: int, damage: bytes, reason: str
) -> None:
    ring = open_ring(path)
    ring.publish(stream_bytes(0, 10), 10)
    ring.close()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(damage)
    ring = open_ring(path)
    assert reason in ring.replaced
    assert str(path) in ring.replaced
    assert (ring.continued, ring.tail, ring.epoch) == (False, 0, 1)
    ring.publish(stream_bytes(0, 3), 3)
    ring.close()
    with RingReader(path.parent, "trade") as reader:
        assert reader.read()["seq"].tolist() == [0, 1, 2]
    assert sorted(file.name for file in path.parent.iterdir()) == ["symbols", "trade.ring"]


@pytest.mark.fault
@pytest.mark.parametrize("size", [0, 100, 4096, 5000])
def test_a_truncated_ring_is_replaced(path: Path, size: int) -> None:
    open_and_close(path)
    os.truncate(path, size)
    ring = open_and_close(path)
    assert f"{size} bytes" in ring.replaced
    assert path.stat().st_size == 4096 + CAPACITY * 64


@pytest.mark.parametrize(
    ("capacity", "dtype", "reason"), [(128, DTYPE, "capacity is 64, not 128"), (64, stream_dtype(16), "record layout")]
)
def test_another_shape_replaces_the_ring_and_marks_the_old_one(
    path: Path, capacity: int, dtype: np.dtype[np.void], reason: str
) -> None:
    open_and_close(path)
    with RingReader(path.parent, "trade") as reader:
        ring = open_ring(path, capacity, dtype)
        assert reason in ring.replaced
        assert reader._words[layout.STATE] == State.SUPERSEDED
        assert ring.header.ring_id != reader.header.ring_id
        ring.close()


@pytest.mark.fault
def test_a_link_under_the_rings_name_is_refused_not_replaced(path: Path, runtime: Path) -> None:
    (runtime / "precious").write_text("mine")
    path.symlink_to(runtime / "precious")
    with pytest.raises(UnsafePath, match="is a link"):
        open_ring(path)
    assert (runtime / "precious").read_text() == "mine"
    assert path.is_symlink()


def test_a_shape_that_the_layout_does_not_allow_leaves_no_file(path: Path) -> None:
    with pytest.raises(ValueError, match="power of two"):
        open_ring(path, capacity=100)
    assert [file.name for file in path.parent.iterdir()] == ["symbols"]


def test_no_ring_is_written_on_another_processor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnsupportedProcessor):
        open_ring(path)
    assert not path.exists()


def test_recent_gives_what_was_published_since(ring: RingWriter) -> None:
    for first in range(0, 100, 5):
        assert ring.recent(first)["seq"].tolist() == []
        ring.publish(stream_bytes(first, 5), 5)
        assert ring.recent(first).tobytes() == stream(first, 5).tobytes()
        assert ring.recent(first - 1)["seq"].tolist()[-5:] == list(range(first, first + 5))
        assert ring.recent(first + 99)["seq"].tolist() == []
    assert ring.recent(0)["seq"].tolist() == list(range(100 - CAPACITY // 2, 100))
    assert ring.recent(-5)["seq"].tolist() == list(range(100 - CAPACITY // 2, 100))
    assert count_torn(ring.recent(0)) == 0


def test_a_view_that_somebody_still_holds_does_not_keep_a_ring_from_closing(path: Path) -> None:
    ring = open_ring(path)
    ring.publish(stream_bytes(0, 5), 5)
    recent = ring.recent(0)
    ring.close()
    assert word(path, layout.STATE) == State.CLOSED
    assert recent["seq"].tolist() == [0, 1, 2, 3, 4]
    del recent


def test_a_heartbeat_is_stored(ring: RingWriter, path: Path) -> None:
    assert word(path, layout.HEARTBEAT) > 0
    ring.heartbeat(123)
    assert word(path, layout.HEARTBEAT) == 123
