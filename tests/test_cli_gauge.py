"""Rates and recent lags from looks at counters, with time injected."""

from __future__ import annotations

import numpy as np

from cli.gauge import Gauge
from ringbuf.counters import LAG_BUCKETS, Counter, CountersSnapshot, TopicState, TopicStatus


def snapshot(
    records: int, lags: dict[int, int] | None = None, topics: list[TopicStatus] | None = None, **values: int
) -> CountersSnapshot:
    histogram = np.zeros(LAG_BUCKETS, np.uint64)
    for bucket, count in (lags or {}).items():
        histogram[bucket] = count
    counted = dict.fromkeys(Counter, 0) | {Counter.RECORDS: records}
    counted |= {Counter[name.upper()]: value for name, value in values.items()}
    return CountersSnapshot(counted, histogram, topics or [])


def test_the_first_look_has_totals_and_lags_since_the_beginning_but_no_rate() -> None:
    figures = Gauge().add(100.0, snapshot(50, {1: 99, 5: 1}, frames=60, connects=3, gaps=2, missed=7))
    assert (figures.records, figures.records_per_second, figures.frames) == (50, None, 60)
    assert (figures.gaps, figures.missed, figures.reconnects) == (2, 7, 2)
    assert (figures.lag_p50, figures.lag_p99) == (100_000, 100_000)
    assert (figures.last_record, figures.connected_since) == (None, None)


def test_rates_and_lags_are_those_of_the_window() -> None:
    gauge = Gauge(window=5.0)
    gauge.add(0.0, snapshot(0, {10: 1000}))
    assert gauge.add(2.0, snapshot(200, {10: 1000, 2: 100})).records_per_second == 100.0
    gauge.add(7.0, snapshot(1200, {10: 1000, 2: 100}))
    figures = gauge.add(12.0, snapshot(2200, {10: 1000, 2: 100, 3: 50}))
    assert figures.records_per_second == 200.0
    assert (figures.lag_p50, figures.lag_p99) == (400_000, 400_000), "what is older than the window is forgotten"


def test_where_no_record_came_lately_the_lags_are_those_since_the_beginning() -> None:
    gauge = Gauge()
    gauge.add(0.0, snapshot(10, {4: 10}))
    figures = gauge.add(1.0, snapshot(10, {4: 10}))
    assert (figures.records_per_second, figures.lag_p99) == (0.0, 800_000)


def test_a_connection_that_was_made_anew_has_no_negative_rate() -> None:
    gauge = Gauge()
    gauge.add(0.0, snapshot(1000, {4: 10}))
    assert gauge.add(1.0, snapshot(5, {2: 5})).records_per_second is None
    assert gauge.add(2.0, snapshot(15, {2: 15})).records_per_second == 10.0


def test_topics_are_told_by_state_and_those_that_were_removed_are_not_told() -> None:
    states = [TopicState.LIVE, TopicState.STALE, TopicState.REFUSED, TopicState.REMOVED]
    topics = [TopicStatus(state.name.lower(), state, 1, 2, 3, "why") for state in states]
    figures = Gauge().add(0.0, snapshot(1, topics=topics))
    assert (figures.live, figures.stale, figures.refused) == (1, ["stale"], ["refused"])
    assert [topic.state for topic in figures.topics] == ["live", "stale", "refused"]
