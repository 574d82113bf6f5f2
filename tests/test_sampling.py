"""What of a flood of equal happenings is told."""

from __future__ import annotations

from feeds.sampling import Sampler

SECOND = 1_000_000_000


def test_of_one_reason_one_in_ten_seconds_is_told() -> None:
    sampler = Sampler()
    told = [second for second in range(35) if sampler.takes("truncated", second * SECOND)]
    assert told == [0, 10, 20, 30]


def test_reasons_that_differ_only_in_what_they_quote_are_one() -> None:
    sampler = Sampler()
    words = "the venue's answer is malformed somewhere at byte"
    assert sum(sampler.takes(f"{words} {i}", 0) for i in range(1000)) == 1


def test_of_all_reasons_together_a_hundred_in_ten_seconds_are_told() -> None:
    sampler = Sampler()
    assert sum(sampler.takes(f"unknown {i}", i) for i in range(2_000)) == 100
    assert not sampler.takes("another", 9 * SECOND)
    assert sampler.takes("another", 10 * SECOND + 99)


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    sampler = Sampler()
    assert sampler.takes("truncated", 3600 * SECOND)
    assert sampler.takes("truncated", 0)
