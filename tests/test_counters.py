"""What a provider counts, as another process reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ringbuf import Counter, Counters, TopicState, read_counters
from ringbuf.counters import LAG_BOUNDS, LAG_BUCKETS, TopicStatus
from ringbuf.errors import RingNotFound


def test_numbers_are_added_set_and_read(runtime: Path) -> None:
    counters = Counters(runtime)
    counters.add(Counter.FRAMES)
    counters.add(Counter.FRAMES, 41)
    counters.set(Counter.LAST_FRAME, 1_700_000_000_000_000_000)
    snapshot = read_counters(runtime)
    expected = dict.fromkeys(Counter, 0) | {Counter.FRAMES: 42, Counter.LAST_FRAME: 1_700_000_000_000_000_000}
    assert snapshot.values == expected
    assert snapshot.topics == []
    counters.close()


def test_the_numbers_words_are_where_the_drawing_says(runtime: Path) -> None:
    counters = Counters(runtime)
    for counter in Counter:
        counters.set(counter, 1000 + counter)
    counters.add_lags(np.array([-1], dtype=np.int64))
    counters.topic("btcusdt@trade", TopicState.SENT, 77, "why")
    counters.topic_data("btcusdt@trade", 88, 99)
    counters.close()
    content = (runtime / "counters").read_bytes()[64:]
    assert np.frombuffer(content[:256], "<u8").tolist() == [1000 + i for i in range(len(Counter))] + [0] * (
        32 - len(Counter)
    )
    assert np.frombuffer(content[256:512], "<u8").tolist() == [1] + [0] * 31
    topic = content[512:768]
    assert topic[:65] == b"btcusdt@trade".ljust(64, b"\0") + b"\x02"
    assert np.frombuffer(topic[72:96], "<u8").tolist() == [77, 88, 99]
    assert topic[96:] == b"why".ljust(160, b"\0")


def test_counters_go_on_after_a_restart(runtime: Path) -> None:
    for restart in range(3):
        counters = Counters(runtime)
        counters.add(Counter.RECORDS, 10)
        counters.topic("btcusdt@trade", TopicState.REQUESTED, restart)
        counters.topic(f"{restart}@trade", TopicState.REQUESTED, restart)
        counters.close()
    snapshot = read_counters(runtime)
    assert snapshot.values[Counter.RECORDS] == 30
    assert [topic.native for topic in snapshot.topics] == ["btcusdt@trade", "0@trade", "1@trade", "2@trade"]
    assert snapshot.topics[0].since == 2


def test_a_topic_moves_through_its_states_and_keeps_its_data(runtime: Path) -> None:
    counters = Counters(runtime)
    counters.topic("btcusdt@trade", TopicState.REQUESTED, 1)
    counters.topic("ethusdt@trade", TopicState.REFUSED, 2, "unknown symbol")
    counters.topic("btcusdt@trade", TopicState.LIVE, 3)
    counters.topic_data("btcusdt@trade", 4, 5)
    counters.topic("btcusdt@trade", TopicState.STALE, 6, "silent for 30 s")
    assert read_counters(runtime).topics == [
        TopicStatus("btcusdt@trade", TopicState.STALE, 6, 4, 5, "silent for 30 s"),
        TopicStatus("ethusdt@trade", TopicState.REFUSED, 2, 0, 0, "unknown symbol"),
    ]
    counters.topic("btcusdt@trade", TopicState.LIVE, 7)
    assert read_counters(runtime).topics[0].reason == ""
    counters.close()


def test_a_long_reason_is_cut_and_a_cut_character_does_no_harm(runtime: Path) -> None:
    counters = Counters(runtime)
    counters.topic("a", TopicState.REFUSED, 1, "x" * 159 + "é")
    counters.topic("b", TopicState.REFUSED, 1, "y" * 300)
    counters.close()
    assert [topic.reason for topic in read_counters(runtime).topics] == [
        "x" * 159 + "\N{REPLACEMENT CHARACTER}",
        "y" * 160,
    ]


def test_many_topics_make_the_file_grow_and_the_numbers_go_on(runtime: Path) -> None:
    counters = Counters(runtime)
    for i in range(2500):
        counters.topic(f"topic-{i}", TopicState.SENT, i)
        counters.add(Counter.CONTROL)
        counters.add_lags(np.array([50_000], dtype=np.int64))
        counters.topic_data("topic-0", i, i)
    snapshot = read_counters(runtime)
    assert [topic.native for topic in snapshot.topics] == [f"topic-{i}" for i in range(2500)]
    assert [topic.since for topic in snapshot.topics] == list(range(2500))
    assert snapshot.topics[0].records == 2499
    assert snapshot.values[Counter.CONTROL] == 2500
    assert int(snapshot.lag_histogram.sum()) == 2500
    counters.close()


def test_lags_are_counted_in_doubling_buckets(runtime: Path) -> None:
    bounds = LAG_BOUNDS.tolist()
    assert bounds[:4] == [0, 100_000, 200_000, 400_000]
    assert len(bounds) == LAG_BUCKETS - 1
    counters = Counters(runtime)
    counters.add_lags(np.array([-5, -1, 0, 99_999, 100_000, 199_999, 200_000, bounds[-1], 2**62], dtype=np.int64))
    counters.add_lags(np.array([], dtype=np.int64))
    counters.close()
    histogram = read_counters(runtime).lag_histogram.tolist()
    assert histogram[:4] == [2, 2, 2, 1]
    assert histogram[-1] == 2
    assert sum(histogram) == 9


def test_a_quantile_of_the_lags_is_the_upper_bound_of_its_bucket(runtime: Path) -> None:
    counters = Counters(runtime)
    assert read_counters(runtime).lag(0.5) is None
    counters.add_lags(np.array([50_000] * 90 + [3_000_000] * 10, dtype=np.int64))
    snapshot = read_counters(runtime)
    assert [snapshot.lag(quantile) for quantile in (0.5, 0.9, 0.91, 1.0)] == [100_000, 100_000, 3_200_000, 3_200_000]
    counters.close()


def test_a_connection_that_never_ran_has_no_counters(runtime: Path) -> None:
    with pytest.raises(RingNotFound):
        read_counters(runtime)
