"""A listener's account: bounds, positions, and the count of what it did not get."""

from __future__ import annotations

import random

import pytest

from supervisor.frame_log import FrameLog
from supervisor.frames import TextFrames
from supervisor.listeners import Limits, Listener, Verdict

_LIMITS = Limits()
_RECORD = TextFrames().join([b"x" * 98])  # 100 bytes with its head


def _publish(log: FrameLog, records: int, lost: int = 0) -> None:
    if lost:
        log.append(TextFrames().join([b"gap"]), records=0, notices=1, lost=lost)
    log.append(_RECORD * records, records=records)


def test_a_listener_begins_at_the_newest_record() -> None:
    log = FrameLog(10**6)
    _publish(log, 5)
    listener = Listener(log, 0.0, _LIMITS)
    assert listener.next_piece(log) is None
    _publish(log, 2)
    piece = listener.next_piece(log)
    assert piece is not None
    assert piece.data == _RECORD * 2
    assert listener.next_piece(log) is None


@pytest.mark.parametrize(
    ("buffered", "verdict"),
    [(0, Verdict.SEND), (64 * 1024, Verdict.SEND), (64 * 1024 + 1, Verdict.WAIT), (2**20 + 1, Verdict.SLOW)],
)
def test_the_unsent_bytes_decide_whether_it_gets_more(buffered: int, verdict: Verdict) -> None:
    listener = Listener(FrameLog(1), 0.0, _LIMITS)
    listener.wrote(2**21)
    assert listener.judge(0.0, buffered) is verdict


def test_a_write_beside_the_soft_limit_stays_below_the_hard_one() -> None:
    assert _LIMITS.soft + _LIMITS.write < _LIMITS.hard


def test_a_listener_that_takes_nothing_for_ten_seconds_is_slow() -> None:
    listener = Listener(FrameLog(1), 0.0, _LIMITS)
    listener.wrote(5000)
    assert listener.judge(100.0, 0) is Verdict.SEND  # nothing waits for it: it is not stalled
    listener.wrote(5000)
    assert listener.judge(109.9, 5000) is Verdict.SEND
    assert listener.judge(110.0, 5000) is Verdict.SLOW


def test_every_byte_that_is_taken_gives_it_another_ten_seconds() -> None:
    listener = Listener(FrameLog(1), 0.0, _LIMITS)
    listener.wrote(5000)
    for second, buffered in enumerate(range(4999, 4900, -1)):
        assert listener.judge(second * 9.0, buffered) is Verdict.SEND


def test_a_silent_listener_is_pinged_once_and_given_up_when_nothing_comes() -> None:
    listener = Listener(FrameLog(1), 0.0, _LIMITS)
    assert not listener.wants_ping(19.9)
    assert listener.wants_ping(20.0)
    assert not listener.wants_ping(30.0)
    assert listener.judge(39.9, 0) is Verdict.SEND
    assert listener.judge(40.0, 0) is Verdict.SILENT


def test_whatever_it_sends_is_a_sign_of_life() -> None:
    listener = Listener(FrameLog(1), 0.0, _LIMITS)
    assert listener.wants_ping(20.0)
    listener.heard(39.0)
    assert listener.judge(40.0, 0) is Verdict.SEND
    assert not listener.wants_ping(58.9)
    assert listener.wants_ping(59.0)


def test_a_listener_that_fell_out_of_the_log_loses_all_up_to_the_newest_and_is_told_how_many() -> None:
    log = FrameLog(1000)
    listener = Listener(log, 0.0, _LIMITS)
    for _ in range(10):
        _publish(log, 3, lost=1)
    assert listener.fell_out(log)
    assert listener.skip(log) == 40
    assert listener.lost == 40
    assert not listener.fell_out(log)
    assert listener.next_piece(log) is None


def test_what_a_closed_listener_did_not_get_is_counted_to_the_record() -> None:
    log = FrameLog(10**6)
    listener = Listener(log, 0.0, _LIMITS)
    _publish(log, 10)
    _publish(log, 10, lost=4)
    listener.next_piece(log)
    notice = len(TextFrames().join([b"gap"]))
    whole = 20 * 100 + notice
    # buffered -> records whose frames were not taken whole, and the four that the rings lost
    for buffered, missing in ((whole, 24), (1000 + notice, 14), (1000, 14), (101, 6), (100, 5), (1, 5), (0, 4)):
        assert listener.undelivered(buffered) == missing
    _publish(log, 7)
    assert listener.skip(log) == 7
    assert listener.undelivered(0) == 4 + 7


@pytest.mark.parametrize("seed", range(20))
def test_received_and_lost_are_always_all_that_was_published(seed: int) -> None:
    chance = random.Random(seed)
    log = FrameLog(20_000)
    _publish(log, 5)
    listener = Listener(log, 0.0, Limits(write=2000))
    joined, received, told = log.published, 0, 0
    for _ in range(300):
        _publish(log, chance.randrange(1, 20), lost=chance.choice([0, 0, 0, 9]))
        while chance.random() < 0.45:
            if listener.fell_out(log):
                told += listener.skip(log)
            elif (piece := listener.next_piece(log)) is not None:
                received += piece.records
                told += sum(batch.lost for batch in piece.batches)
    while (piece := None if listener.fell_out(log) else listener.next_piece(log)) is not None:
        received += piece.records
        told += sum(batch.lost for batch in piece.batches)
    told += listener.skip(log)
    assert received + told == log.published - joined
    assert listener.undelivered(0) == told
