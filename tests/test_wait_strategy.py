"""The pauses of a waiting reader, with a sleep that only takes notes."""

from __future__ import annotations

import pytest

from ringbuf import Backoff


def test_pauses_double_from_50_microseconds_to_a_millisecond() -> None:
    slept: list[float] = []
    backoff = Backoff(sleep=slept.append)
    for _ in range(7):
        backoff.pause(None)
    assert slept == pytest.approx([50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1e-3, 1e-3])


def test_after_a_record_the_first_pause_is_short_again() -> None:
    slept: list[float] = []
    backoff = Backoff(first=0.1, longest=1.0, sleep=slept.append)
    for _ in range(3):
        backoff.pause(None)
    backoff.reset()
    backoff.pause(None)
    assert slept == [0.1, 0.2, 0.4, 0.1]


def test_no_pause_is_longer_than_what_remains() -> None:
    slept: list[float] = []
    backoff = Backoff(first=0.1, longest=1.0, sleep=slept.append)
    for remaining in (0.03, 5.0, 0.0, -1.0):
        backoff.pause(remaining)
    assert slept == [0.03, 0.2, 0.0, 0.0]
