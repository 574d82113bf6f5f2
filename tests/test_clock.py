"""The anchored clock, with times made up by the test."""

from __future__ import annotations

import pytest

from feeds.clock import STEP, Clock

SECOND = 1_000_000_000


class Machine:
    """A machine's two clocks. `waits` are pauses that strike between two readings, in ns, one for each reading."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000 * SECOND
        self.monotonic = 5 * SECOND
        self.waits: list[int] = []

    def pass_time(self, ns: int) -> None:
        self.wall += ns
        self.monotonic += ns

    def _read(self, value: int) -> int:
        if self.waits:
            self.pass_time(self.waits.pop(0))
        return value

    def read_wall(self) -> int:
        return self._read(self.wall)

    def read_monotonic(self) -> int:
        return self._read(self.monotonic)

    def clock(self) -> Clock:
        return Clock(self.read_wall, self.read_monotonic)


def test_now_is_wall_time_and_goes_on_with_the_monotonic_clock() -> None:
    machine = Machine()
    clock = machine.clock()
    assert clock.now() == machine.wall
    machine.pass_time(3 * SECOND + 7)
    assert clock.now() == machine.wall
    assert clock.monotonic() == pytest.approx(8.0)
    assert clock.monotonic_ns() == 8 * SECOND + 7


@pytest.mark.parametrize("step", [3600 * SECOND, -3600 * SECOND, STEP, -STEP])
def test_a_step_of_the_wall_clock_moves_nothing_until_it_is_checked_and_is_told_once(step: int) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    machine.wall += step
    assert clock.now() == before
    assert clock.check() == step
    assert clock.now() == machine.wall
    assert clock.check() == 0


def test_drift_is_followed_in_silence() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(100):  # 40 ms between checks, 4 s in all: more than a step, but never at once
        machine.wall += 40_000_000
        assert clock.check() == 0
        assert clock.now() == machine.wall


def test_a_suspended_machine_is_a_step_forward() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += 8 * 3600 * SECOND  # asleep: the monotonic clock stood still
    assert clock.check() == 8 * 3600 * SECOND


@pytest.mark.parametrize("place", range(3))
def test_a_pause_between_reading_the_two_clocks_is_no_step(place: int) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.waits = [0] * place + [10 * STEP]
    assert clock.check() == 0
    assert clock.now() == machine.wall


def test_a_machine_that_pauses_every_time_gives_its_best_reading() -> None:
    machine = Machine()
    machine.waits = [0, 9_000_000, 0] * 4 + [0, 2_000_000, 0]
    clock = machine.clock()
    machine.waits = []
    assert abs(clock.now() - machine.wall) <= 1_000_000  # half of the closest pair's distance


def test_the_real_clocks_agree() -> None:
    assert Clock().check() == 0
