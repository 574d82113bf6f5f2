"""Schedules: which frames are due, exactly, for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.simulator.pace import CapturedTimes, Schedule, SteadyRate, parse_speed
from ringbuf.errors import ParameterError

SECOND = 1_000_000_000
START = 1_723_161_253_937_085_768


def test_captured_times_are_kept_at_speed_one() -> None:
    schedule = CapturedTimes([START, START + 10, START + 10, START + 30])
    assert [schedule.due(elapsed) for elapsed in (0, 9, 10, 29, 30, 39)] == [1, 1, 3, 3, 4, 4]
    assert [schedule.when(number) for number in range(4)] == [0, 10, 10, 30]


def test_ten_times_the_speed_takes_a_tenth_of_the_time() -> None:
    schedule = CapturedTimes([START, START + 1_000, START + 3_000], factor=10)
    assert [schedule.when(number) for number in range(3)] == [0, 100, 300]
    assert [schedule.due(elapsed) for elapsed in (99, 100, 299, 300)] == [1, 2, 2, 3]


def test_the_next_lap_begins_one_mean_distance_after_the_last_frame() -> None:
    schedule = CapturedTimes([START, START + 10, START + 20])
    assert schedule.when(3) == 30
    assert schedule.when(4) == 40
    assert schedule.due(30) == 4
    assert schedule.due(300 * 30) == 901


def test_a_clock_that_stepped_back_in_the_capture_holds_nothing_up() -> None:
    schedule = CapturedTimes([START, START + 50, START + 20, START + 60])
    assert [schedule.when(number) for number in range(4)] == [0, 50, 50, 60]


def test_a_single_frame_and_equal_times_are_schedules_too() -> None:
    assert CapturedTimes([START]).due(0) == 1
    assert CapturedTimes([START, START]).due(0) == 2


def test_a_steady_rate_never_drifts() -> None:
    schedule = SteadyRate(3)
    week = 7 * 86_400
    assert schedule.due(week * SECOND) == 3 * week + 1
    assert schedule.when(3 * week) == week * SECOND
    assert schedule.when(1) == 333_333_334


@pytest.mark.parametrize(
    "schedule",
    [SteadyRate(2_000), SteadyRate(0.3), SteadyRate(77_777.7), CapturedTimes([5, 9, 9, 100], 3.7)],
    ids=["2000/s", "0.3/s", "77777.7/s", "captured"],
)
@given(number=st.integers(0, 10**9))
def test_a_frame_is_due_from_its_time_on_and_not_before(schedule: Schedule, number: int) -> None:
    when = schedule.when(number)
    assert schedule.due(when) > number
    if when:
        assert schedule.due(when - 1) <= number


def test_speeds_are_factors_or_full() -> None:
    assert [parse_speed(text) for text in ("1", "10", "2.5x", "full")] == [1.0, 10.0, 2.5, None]
    for text in ("0", "-1", "fast", "", "nan", "inf", "x"):
        with pytest.raises(ParameterError, match="give a factor above 0"):
            parse_speed(text)


def test_rates_that_are_none_are_refused() -> None:
    for rate in (0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="events a second"):
            SteadyRate(rate)
    with pytest.raises(ParameterError, match="at least one"):
        CapturedTimes([])
