"""How long a session and the supervisor wait before they try again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feeds.backoff import Backoff


def test_bounds_double_from_half_a_second_to_thirty() -> None:
    widest = Backoff(draw=lambda: 1.0)
    assert [widest.delay(failures) for failures in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_jitter_is_full_above_the_floor() -> None:
    assert Backoff(draw=lambda: 0.0).delay(9) == 0.1
    assert Backoff(draw=lambda: 0.5).delay(2) == 1.0


@given(failures=st.integers(0, 10**9), drawn=st.floats(0, 1, exclude_max=True))
def test_no_delay_leaves_its_bounds_however_long_a_venue_is_down(failures: int, drawn: float) -> None:
    assert 0.1 <= Backoff(draw=lambda: drawn).delay(failures) <= 30.0


def test_the_default_draws_differ() -> None:
    assert len({Backoff().delay(6) for _ in range(20)}) > 10
