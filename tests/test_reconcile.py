"""The topic table: every transition, and random histories against a venue that is modelled in a few lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from feeds.binance import TRADE
from feeds.contract import Topic
from feeds.reconcile import Delta, Entry, TopicTable
from ringbuf.counters import TopicState

S = TopicState
ACKNOWLEDGE = 10.0
SILENCE = 60.0


def topic(name: str) -> Topic:
    return Topic(f"{name}@trade", name.upper(), TRADE)


A, B, C = topic("a"), topic("b"), topic("c")


def table() -> TopicTable:
    return TopicTable(acknowledge_within=ACKNOWLEDGE)


def only(changed: list[Entry]) -> Entry:
    (entry,) = changed
    return entry


# ---- the table, walked ----------------------------------------------------------------------------------------------

REQUEST = 1


def brought_to(state: TopicState) -> TopicTable:
    """A table whose one topic, A, has come to this state at time 0."""
    made = table()
    made.want([A], 0.0)
    if state is S.REQUESTED:
        return made
    made.sent([A], REQUEST, 0.0)
    if state is S.REFUSED:
        made.refused(REQUEST, "no such stream", 0.0)
    if state in (S.ACKNOWLEDGED, S.LIVE, S.STALE, S.REMOVED):
        made.acknowledged(REQUEST, 0.0)
    if state is S.LIVE:
        made.data(A.native, 0.0)
    if state is S.STALE:
        made.overdue(SILENCE)
    if state is S.REMOVED:
        made.unwant([A.native], 0.0)
    assert made.entries[A.native].state is state
    return made


Step = Callable[[TopicTable], object]
STEPS: dict[str, Step] = {
    "want": lambda t: t.want([A], 1.0),
    "unwant": lambda t: t.unwant([A.native], 1.0),
    "acknowledged": lambda t: t.acknowledged(REQUEST, 1.0),
    "refused": lambda t: t.refused(REQUEST, "no", 1.0),
    "refused, naming none": lambda t: t.refused(None, "no", 1.0),
    "data": lambda t: t.data(A.native, 1.0),
    "silence": lambda t: t.overdue(1.0 + SILENCE),
    "disconnected": lambda t: t.disconnected(1.0),
}
#: Where a step leads; what is not here stays as it is. None: the topic leaves the table.
LEADS: dict[tuple[TopicState, str], TopicState | None] = {
    (S.REQUESTED, "unwant"): None,
    (S.SENT, "unwant"): S.REMOVED,
    (S.SENT, "acknowledged"): S.ACKNOWLEDGED,
    (S.SENT, "refused"): S.REFUSED,
    (S.SENT, "refused, naming none"): S.REFUSED,
    (S.SENT, "data"): S.LIVE,
    (S.SENT, "disconnected"): S.REQUESTED,
    (S.ACKNOWLEDGED, "unwant"): S.REMOVED,
    (S.ACKNOWLEDGED, "data"): S.LIVE,
    (S.ACKNOWLEDGED, "silence"): S.STALE,
    (S.ACKNOWLEDGED, "disconnected"): S.REQUESTED,
    (S.LIVE, "unwant"): S.REMOVED,
    (S.LIVE, "silence"): S.STALE,
    (S.LIVE, "disconnected"): S.REQUESTED,
    (S.STALE, "unwant"): S.REMOVED,
    (S.STALE, "data"): S.LIVE,
    (S.STALE, "disconnected"): S.REQUESTED,
    (S.REFUSED, "want"): S.REQUESTED,
    (S.REFUSED, "unwant"): None,
    (S.REMOVED, "want"): S.REQUESTED,
    (S.REMOVED, "disconnected"): None,
}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("step", STEPS)
def test_every_step_from_every_state_leads_where_it_is_drawn(state: TopicState, step: str) -> None:
    made = brought_to(state)
    STEPS[step](made)
    entry = made.entries.get(A.native)
    assert (entry.state if entry else None) == LEADS.get((state, step), state)


def test_every_state_but_those_that_wait_for_nothing_has_a_deadline() -> None:
    for state in S:
        made = brought_to(state)
        delta = made.delta()
        if state in (S.REQUESTED, S.REMOVED):
            assert delta.subscribe or delta.unsubscribe  # to be sent at once
            made.sent([A], 2, 0.0)
        later = ACKNOWLEDGE + SILENCE
        stuck = not made.unanswered(later) and not made.overdue(later)
        assert stuck == (state in (S.REFUSED, S.STALE)), state


# ---- wishes and messages --------------------------------------------------------------------------------------------


def test_what_is_told_the_venue_is_sorted_and_told_once() -> None:
    made = table()
    made.want([C, A, B], 0.0)
    assert made.delta() == Delta([], [A, B, C])
    made.sent([A, B], 1, 0.0)
    assert made.delta() == Delta([], [C])
    made.sent([C], 2, 0.0)
    made.unwant([B.native], 0.0)
    assert made.delta() == Delta([B], [])
    made.sent([B], 3, 0.0)
    assert made.delta() == Delta([], [])
    assert made.desired() == [A, C]


def test_wanting_again_what_is_wanted_changes_nothing() -> None:
    made = brought_to(S.LIVE)
    entry = made.entries[A.native]
    assert only(made.want([A], 5.0)) is entry
    assert (entry.state, entry.since) == (S.LIVE, 0.0)


def test_a_topic_wanted_again_while_its_removal_is_under_way_is_asked_for_after_it() -> None:
    made = brought_to(S.REMOVED)
    made.sent([A], 2, 1.0)
    made.want([A], 1.5)
    assert made.delta() == Delta([], [A])
    made.sent([A], 3, 2.0)
    assert made.acknowledged(2, 2.1) == []  # the removal's answer is not the wish's
    assert made.entries[A.native].state is S.SENT
    assert only(made.acknowledged(3, 2.2)).state is S.ACKNOWLEDGED


def test_a_removal_ends_with_the_venues_yes_or_no() -> None:
    for yes in (True, False):
        made = brought_to(S.REMOVED)
        made.sent([A], 2, 0.0)
        changed = made.acknowledged(2, 1.0) if yes else made.refused(2, "not subscribed", 1.0)
        assert only(changed).state is S.REMOVED
        assert made.entries == {}


def test_a_refused_topic_is_reported_with_the_venues_words_and_not_asked_for_again() -> None:
    made = brought_to(S.REFUSED)
    assert made.entries[A.native].reason == "no such stream"
    assert made.desired() == []
    assert made.delta() == Delta([], [])
    assert made.disconnected(5.0) == []
    assert made.delta() == Delta([], [])
    assert only(made.want([A], 6.0)).reason == ""
    assert made.delta() == Delta([], [A])


def test_a_request_that_is_refused_as_a_whole_is_asked_for_again_in_halves_until_each_topic_has_its_answer() -> None:
    made = table()
    topics = [topic(name) for name in "abcdefgh"]
    made.want(topics, 0.0)
    bad, asked, request = {"d@trade"}, [], 0
    while wanted := made.delta().subscribe:
        request += 1
        together = made.next_request(wanted, 200)
        made.sent(together, request, 0.0)
        asked.append("".join(t.native[0] for t in together))
        if bad & {t.native for t in together}:
            made.refused(request, "no such stream", 0.0)
        else:
            made.acknowledged(request, 0.0)
    assert asked == ["abcdefgh", "abcd", "ab", "cd", "c", "d", "efgh"]
    assert {n for n, entry in made.entries.items() if entry.state is S.REFUSED} == bad
    assert made.entries["d@trade"].reason == "no such stream"
    assert {entry.state for n, entry in made.entries.items() if n not in bad} == {S.ACKNOWLEDGED}


def test_a_refusal_that_names_no_request_means_all_that_are_under_way() -> None:
    made = table()
    made.want([A, B, C], 0.0)
    made.sent([A], 1, 0.0)
    made.acknowledged(1, 0.0)
    made.sent([B], 2, 0.0)
    assert [entry.topic for entry in made.refused(None, "no", 0.0)] == [B]
    assert [made.entries[t.native].state for t in (A, B, C)] == [S.ACKNOWLEDGED, S.REFUSED, S.REQUESTED]


def test_a_lost_connection_gives_what_is_to_be_asked_again_and_what_has_left() -> None:
    made = brought_to(S.REMOVED)
    made.want([B], 0.0)
    made.sent([B], 2, 0.0)
    assert {(entry.topic, entry.state) for entry in made.disconnected(1.0)} == {(A, S.REMOVED), (B, S.REQUESTED)}
    assert list(made.entries) == [B.native]
    assert made.delta() == Delta([], [B])


def test_answers_and_data_of_topics_that_nobody_knows_are_harmless() -> None:
    made = table()
    assert made.acknowledged(9, 0.0) == []
    assert made.refused(9, "no", 0.0) == []
    assert made.data("x@trade", 0.0) is None
    assert made.unwant(["x@trade"], 0.0) == []


# ---- deadlines ------------------------------------------------------------------------------------------------------


def test_a_request_without_an_answer_is_told_at_its_deadline() -> None:
    made = table()
    made.want([A], 0.0)
    assert not made.unanswered(1000.0)  # nothing was asked
    made.sent([A], 1, 5.0)
    assert not made.unanswered(5.0 + ACKNOWLEDGE - 0.001)
    assert made.unanswered(5.0 + ACKNOWLEDGE)
    made.acknowledged(1, 5.0 + ACKNOWLEDGE)
    assert not made.unanswered(1000.0)


def test_a_removal_without_an_answer_is_told_at_its_deadline() -> None:
    made = brought_to(S.REMOVED)
    made.sent([A], 2, 7.0)
    assert not made.unanswered(7.0 + ACKNOWLEDGE - 0.001)
    assert made.unanswered(7.0 + ACKNOWLEDGE)


def test_data_without_an_acknowledgement_is_answer_enough() -> None:
    """Else a venue that gives data and never acknowledges would be left every ten seconds, for ever."""
    made = brought_to(S.SENT)
    assert made.data(A.native, 1.0) is made.entries[A.native]
    assert not made.unanswered(1000.0)
    made.overdue(1000.0)
    assert not made.unanswered(2000.0)
    assert only(made.acknowledged(REQUEST, 2001.0)).state is S.STALE


@pytest.mark.parametrize(("stale_after", "silence"), [(None, SILENCE), (2.5, 2.5)])
def test_silence_is_judged_from_the_last_data_or_the_acknowledgement(stale_after: float | None, silence: float) -> None:
    made = TopicTable(stale_after, ACKNOWLEDGE)
    made.want([A, B], 0.0)
    made.sent([A, B], 1, 0.0)
    made.acknowledged(1, 3.0)
    made.data(A.native, 4.0)
    assert made.overdue(3.0 + silence - 0.001) == []
    assert only(made.overdue(3.0 + silence)).topic == B
    assert made.overdue(4.0 + silence - 0.001) == []
    stale = only(made.overdue(4.0 + silence))
    assert (stale.topic, stale.reason) == (A, f"no data for {silence:g} s")
    assert made.overdue(1000.0) == []  # told once
    revived = made.data(A.native, 1000.0)
    assert revived is not None
    assert (revived.state, revived.reason) == (S.LIVE, "")
    assert only(made.overdue(1000.0 + silence)).topic == A


def test_data_of_the_last_connection_does_not_keep_a_topic_live_on_the_next() -> None:
    made = brought_to(S.LIVE)
    made.disconnected(1.0)
    made.sent([A], 2, 2.0)
    made.acknowledged(2, 3.0)
    assert made.overdue(3.0 + SILENCE - 0.001) == []
    assert only(made.overdue(3.0 + SILENCE)).state is S.STALE


# ---- random histories -----------------------------------------------------------------------------------------------

NAMES = st.sampled_from([topic(name) for name in "abcd"])


class Histories(RuleBasedStateMachine):
    """A session's use of the table, with a venue that answers requests in order, says yes or no, and goes away.

    The model: what the user wants, what the venue holds, and which requests are on their way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.table = TopicTable(None, ACKNOWLEDGE)
        self.wanted: set[str] = set()
        self.refused: set[str] = set()
        self.held: set[str] = set()
        #: (request, whether it subscribes, natives), oldest first.
        self.on_the_way: list[tuple[int, bool, list[str]]] = []
        self.requests = 0

    @rule(seconds=st.floats(0.01, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(topics=st.lists(NAMES, min_size=1, max_size=3, unique=True))
    def want(self, topics: list[Topic]) -> None:
        entries = self.table.want(topics, self.now)
        assert [entry.topic for entry in entries] == topics
        self.wanted |= {t.native for t in topics}
        self.refused -= self.wanted & {t.native for t in topics}

    @rule(topics=st.lists(NAMES, min_size=1, max_size=3, unique=True))
    def unwant(self, topics: list[Topic]) -> None:
        natives = {t.native for t in topics}
        assert {entry.topic.native for entry in self.table.unwant(natives, self.now)} == natives & self.wanted
        self.wanted -= natives
        self.refused -= natives

    @rule(most=st.integers(1, 3))
    def send_what_is_to_be_sent(self, most: int) -> None:
        """As the session does: unsubscribes first, a few names a request."""
        delta = self.table.delta()
        topics = self.table.next_request(delta.unsubscribe or delta.subscribe, most)
        if not topics:
            return
        subscribes = not delta.unsubscribe
        for t in topics:
            assert (t.native in self.wanted) == subscribes, "the venue is asked for what nobody wants"
        self.requests += 1
        self.table.sent(topics, self.requests, self.now)
        self.on_the_way.append((self.requests, subscribes, [t.native for t in topics]))

    @precondition(lambda self: bool(self.on_the_way))
    @rule()
    def the_venue_says_yes(self) -> None:
        request, subscribes, natives = self.on_the_way.pop(0)
        self.held = self.held | set(natives) if subscribes else self.held - set(natives)
        self.table.acknowledged(request, self.now)

    @precondition(lambda self: bool(self.on_the_way))
    @rule()
    def the_venue_says_no(self) -> None:
        request, subscribes, _ = self.on_the_way.pop(0)
        changed = self.table.refused(request, "no", self.now)
        if subscribes:
            self.refused |= {entry.topic.native for entry in changed if entry.state is S.REFUSED}

    @rule(name=NAMES)
    def data_comes(self, name: Topic) -> None:
        if name.native in self.held:
            self.table.data(name.native, self.now)

    @rule()
    def silence_is_judged(self) -> None:
        for entry in self.table.overdue(self.now):
            quiet_since = max(entry.last_data or 0.0, 0.0)
            assert self.now - quiet_since >= SILENCE or entry.last_data is None

    @rule()
    def the_connection_is_lost(self) -> None:
        self.table.disconnected(self.now)
        self.held.clear()
        self.on_the_way.clear()

    @precondition(lambda self: self.table.unanswered(self.now))
    @rule()
    def the_venue_is_left_when_it_does_not_answer(self) -> None:
        assert self.on_the_way, "everything has been answered"
        self.the_connection_is_lost()

    @invariant()
    def desired_is_what_is_wanted_and_not_refused(self) -> None:
        assert {t.native for t in self.table.desired()} == self.wanted - self.refused

    @invariant()
    def no_topic_is_stuck(self) -> None:
        """Whatever is not settled is to be sent, or waits for a request that is on its way or that data overtook."""
        delta = self.table.delta()
        to_send = {t.native for t in (*delta.unsubscribe, *delta.subscribe)}
        under_way = {number for number, _, _ in self.on_the_way}
        for native, entry in self.table.entries.items():
            if entry.state in (S.REQUESTED, S.SENT, S.REMOVED):
                assert native in to_send or entry.request in under_way, entry
            assert entry.request is None or entry.request in under_way, entry
            assert entry.since <= self.now

    @invariant()
    def when_all_is_answered_the_venue_holds_what_is_desired(self) -> None:
        delta = self.table.delta()
        if not self.on_the_way and not delta.subscribe and not delta.unsubscribe:
            assert self.wanted - self.refused <= self.held | {
                n for n, e in self.table.entries.items() if e.state is S.LIVE
            }
            # A refused removal is the venue's own doing; what it still sends then is rejected by name.


Histories.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestRandomHistories = Histories.TestCase
