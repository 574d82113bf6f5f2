"""The restart policy: the table as drawn, and what holds on every path through it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.backoff import Backoff
from supervisor import policy
from supervisor.policy import HEALTHY_AFTER, Event, Policy, ProviderState, death

#: The table as it is in the code; the tests read it, for it is what the docstring draws.
TABLE = policy._TABLE

_COLUMNS = {
    "start": Event.START,
    "ready": Event.READY,
    "died, passing": Event.DIED,
    "died, permanent": Event.GAVE_UP,
    "time is up": Event.TIME_UP,
    "stop": Event.STOP,
}


def drawn() -> dict[tuple[ProviderState, Event], ProviderState]:
    """Read the table that the module's docstring draws: fields stand under the corners of its rule."""
    lines = (policy.__doc__ or "").splitlines()
    rule = next(number for number, line in enumerate(lines) if line.strip().startswith("---"))
    corners = [-1, *(place for place, letter in enumerate(lines[rule]) if letter == "+"), None]
    cut = [(low + 1 if low is not None else None, high) for low, high in itertools.pairwise(corners)]

    def fields(line: str) -> list[str]:
        return [line[low:high].strip(" |") for low, high in cut]

    heads = fields(lines[rule - 1])
    assert heads[1:] == list(_COLUMNS)
    table = {}
    for line in lines[rule + 1 :]:
        if "|" not in line:
            break
        state, *targets = fields(line)
        for head, target in zip(heads[1:], targets, strict=True):
            if target:
                table[ProviderState(state), _COLUMNS[head]] = ProviderState(target)
    return table


def changes() -> dict[tuple[ProviderState, Event], ProviderState]:
    """The drawn table without the fields that say in words that the state stays."""
    return {key: target for key, target in drawn().items() if target is not key[0]}


def test_the_drawn_table_is_the_table() -> None:
    assert changes() == TABLE
    assert {state for state, _ in drawn()} == set(ProviderState)


@pytest.mark.parametrize("state", ProviderState)
@pytest.mark.parametrize("event", Event)
def test_every_field_of_the_table_does_what_it_says(state: ProviderState, event: Event) -> None:
    before = Policy(Backoff(draw=lambda: 0.5), state, since=10.0, failures=1, restarts=2, due=12.0)
    after = before.after(event, 20.0)
    if (state, event) not in changes():
        assert after is before
        return
    assert after.state is changes()[state, event]
    assert after.since == 20.0


def test_only_a_configuration_error_is_permanent() -> None:
    assert {code for code in range(-64, 256) if death(code) is Event.GAVE_UP} == {78}


def run(found: Policy, *events: tuple[Event, float]) -> Policy:
    for event, now in events:
        found = found.after(event, now)
    return found


def test_pauses_double_from_half_a_second_to_half_a_minute() -> None:
    found = Policy(Backoff(draw=lambda: 1.0))
    pauses = []
    for now in range(0, 1000, 100):
        found = run(found, (Event.START, now), (Event.DIED, now + 1))
        pauses.append(found.due - (now + 1))
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]


@pytest.mark.parametrize(("ready_for", "pause"), [(HEALTHY_AFTER - 0.1, 1.0), (HEALTHY_AFTER, 0.5)])
def test_a_minute_spent_ready_forgives_earlier_failures(ready_for: float, pause: float) -> None:
    found = run(Policy(Backoff(draw=lambda: 1.0)), (Event.START, 0), (Event.DIED, 0), (Event.TIME_UP, 1))
    found = run(found, (Event.READY, 50.0), (Event.DIED, 50.0 + ready_for))
    assert found.due - (50.0 + ready_for) == pytest.approx(pause)


def test_a_minute_spent_starting_forgives_nothing() -> None:
    found = run(Policy(Backoff(draw=lambda: 1.0)), (Event.START, 0), (Event.DIED, 0), (Event.TIME_UP, 1))
    assert found.after(Event.DIED, 500.0).due == pytest.approx(501.0)


def test_restarts_are_starts_after_deaths_and_nothing_else() -> None:
    found = run(Policy(), (Event.START, 0), (Event.DIED, 1))
    assert found.restarts == 0
    assert found.after(Event.STOP, 2).restarts == 0
    assert found.after(Event.TIME_UP, 2).restarts == 1
    assert found.after(Event.START, 2).restarts == 1


def test_stopping_forgets_the_failures() -> None:
    found = run(Policy(), (Event.START, 0), (Event.DIED, 1), (Event.STOP, 2))
    assert (found.state, found.failures) == (ProviderState.STOPPED, 0)


STEPS = st.lists(st.tuples(st.sampled_from(Event), st.floats(-1e6, 1e6), st.floats(0, 1, exclude_max=True)))


@given(STEPS)
def test_whatever_happens_pauses_are_bounded_and_counts_only_grow(steps: list[tuple[Event, float, float]]) -> None:
    """Times are drawn anew for every event: a clock that goes backwards is among them."""
    found = Policy()
    for event, now, draw in steps:
        before, found = found, replace(found, backoff=Backoff(draw=partial(float, draw))).after(event, now)
        assert found.restarts >= before.restarts
        assert found.failures >= 0
        if found.state is ProviderState.BACKOFF and before.state is not ProviderState.BACKOFF:
            tolerance = 1e-6
            assert 0.1 - tolerance <= found.due - now <= 30.0 + tolerance
        if before.state is ProviderState.FAILED and event not in (Event.START, Event.STOP):
            assert found.state is ProviderState.FAILED


@given(STEPS)
def test_from_everywhere_a_stop_leads_to_stopped_and_a_start_to_starting(
    steps: list[tuple[Event, float, float]],
) -> None:
    found = Policy()
    for event, now, _ in steps:
        found = found.after(event, now)
    stopped = run(found, (Event.STOP, 0), (Event.DIED, 0))
    assert stopped.state is ProviderState.STOPPED
    assert stopped.after(Event.START, 0).state is ProviderState.STARTING


@given(STEPS)
def test_after_a_permanent_failure_nothing_but_people_starts_it(steps: list[tuple[Event, float, float]]) -> None:
    found = Policy(state=ProviderState.READY).after(Event.GAVE_UP, 0)
    for event, now, _ in steps:
        if event not in (Event.START, Event.STOP):
            found = found.after(event, now)
    assert found.state is ProviderState.FAILED
    assert found.restarts == 0
