"""How fast a session sends, under made-up time."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from feeds.rate_limit import RateLimit


def sent(limit: RateLimit, wishes: list[float]) -> list[float]:
    """When messages leave that are wished for at these times, by a sender that waits as it is told."""
    left, now = [], 0.0
    for wish in wishes:
        now = max(now, wish)
        now += limit.wait(now)
        limit.take(now)
        left.append(now)
    return left


def test_the_first_message_leaves_at_once_and_a_burst_is_spread_out() -> None:
    assert sent(RateLimit(4.0), [0.0] * 5) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_whoever_has_been_quiet_may_send_at_once() -> None:
    limit = RateLimit(4.0)
    limit.take(10.0)
    assert limit.wait(10.1) > 0
    assert limit.wait(10.25) == 0


def test_a_long_silence_saves_nothing_up() -> None:
    assert sent(RateLimit(2.0), [100.0] * 3) == [100.0, 100.5, 101.0]


@given(
    rate=st.sampled_from([0.5, 1.0, 4.0, 5.0, 100.0]),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=40),
)
def test_no_second_has_more_messages_than_the_rate_and_the_one_at_its_end(rate: float, gaps: list[float]) -> None:
    times = sent(RateLimit(rate), list(itertools.accumulate(gaps)))
    for start in times:
        within = [time for time in times if start <= time < start + 1.0 - 1e-9]
        assert len(within) <= max(1, rate)
