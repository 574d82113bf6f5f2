"""The shared log: what it keeps, what it drops, and what a write carries."""

from __future__ import annotations

import orjson

from supervisor.frame_log import FrameLog, gap_notice
from supervisor.frames import TextFrames


def _frames(*texts: bytes) -> bytes:
    return TextFrames().join(texts)


def test_a_piece_holds_whole_batches_up_to_the_limit() -> None:
    log = FrameLog(10**6)
    for _ in range(5):
        log.append(bytes(100), records=10)
    piece = log.piece(1, 250)
    assert (len(piece.data), piece.records, piece.position, piece.published) == (200, 20, 3, 30)
    assert log.piece(4, 250).position == 5


def test_a_batch_larger_than_the_limit_is_a_piece_of_its_own() -> None:
    log = FrameLog(10**6)
    log.append(bytes(1000), records=1)
    log.append(bytes(1000), records=1)
    assert log.piece(0, 10).position == 1


def test_listeners_at_one_position_share_the_bytes_and_new_batches_are_seen() -> None:
    log = FrameLog(10**6)
    log.append(b"a", records=1)
    log.append(b"b", records=1)
    assert log.piece(0, 100) is log.piece(0, 100)
    log.append(b"c", records=1)
    assert log.piece(0, 100).data == b"abc"


def test_the_oldest_batches_go_when_the_bound_is_reached_and_the_newest_always_stays() -> None:
    log = FrameLog(10_000)
    for number in range(100):
        log.append(bytes(744), records=1)  # 1000 bytes with what a batch costs
        assert log.head - log.first <= 10
        assert log.head == number + 1
    log.append(bytes(50_000), records=1)
    assert (log.first, log.head, log.published) == (100, 101, 101)


def test_clearing_forgets_the_bytes_and_keeps_the_counts() -> None:
    log = FrameLog(1000)
    log.append(b"x", records=3, lost=4)
    log.clear()
    assert (log.first, log.head, log.published) == (1, 1, 7)
    log.append(b"y", records=1)
    assert log.piece(1, 10).data == b"y"


def test_records_within_a_number_of_bytes_do_not_count_notices() -> None:
    log = FrameLog(10_000)
    notice, record = _frames(b"notice"), _frames(b"record")
    log.append(notice, records=0, notices=1, lost=5)
    log.append(record * 3, records=3)
    piece = log.piece(0, 10_000)
    sizes = [0, len(notice), len(notice) + len(record) - 1, len(notice) + len(record), len(piece.data) - 1]
    assert [piece.records_within(size) for size in sizes] == [0, 0, 0, 1, 2]
    assert piece.records_within(len(piece.data)) == piece.records == 3


def test_a_gap_notice_reads_so() -> None:
    assert gap_notice("c", 7, "slow") == b'{"type":"gap","connection":"c","lost":7,"reason":"slow"}'
    told = orjson.loads(gap_notice("c", 7, "overwritten", "trade", 0))
    assert told == {
        "type": "gap", "connection": "c", "lost": 7, "reason": "overwritten", "kind": "trade", "first": 0
    }  # fmt: skip
