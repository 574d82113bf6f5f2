"""What a connection's counters say: totals as they stand, rates and lags over the last seconds. Pure.

Counters only rise, so what happened lately is the difference of two looks at them. A gauge keeps the looks of its
window; where nothing was counted in it, lags are those since the beginning.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from ringbuf.counters import Counter, CountersSnapshot, TopicState, TopicStatus


@dataclass(frozen=True)
class TopicFigures:
    """One topic; times are ns UTC, 0 for never."""

    topic: str
    state: str
    since: int
    last_data: int
    records: int
    reason: str


@dataclass(frozen=True)
class Figures:
    """What is counted of one connection. Times are ns UTC, lags ns; None where nothing is known."""

    frames: int
    bytes: int
    records: int
    records_per_second: float | None
    lag_p50: int | None
    lag_p99: int | None
    gaps: int
    missed: int
    out_of_order: int
    rejected: int
    reconnects: int
    connected_since: int | None
    last_record: int | None
    live: int
    stale: list[str]
    refused: list[str]
    topics: list[TopicFigures]


class Gauge:
    """Looks at one connection's counters over a window of time."""

    def __init__(self, window: float = 5.0) -> None:
        """Look back over `window` seconds."""
        self._window = window
        self._looks: deque[tuple[float, CountersSnapshot]] = deque()

    def add(self, at: float, snapshot: CountersSnapshot) -> Figures:
        """Take a look made at monotonic second `at`, and give the figures."""
        looks = self._looks
        if looks and snapshot.values[Counter.RECORDS] < looks[-1][1].values[Counter.RECORDS]:
            looks.clear()  # another file: the connection was made anew
        looks.append((at, snapshot))
        while len(looks) > 2 and looks[1][0] <= at - self._window:
            looks.popleft()
        return self._figures()

    def _figures(self) -> Figures:
        (began, first), (ended, last) = self._looks[0], self._looks[-1]
        values = last.values
        rate = (values[Counter.RECORDS] - first.values[Counter.RECORDS]) / (ended - began) if ended > began else None
        recent = replace(last, lag_histogram=last.lag_histogram - first.lag_histogram)
        lags = recent if recent.lag_histogram.any() else last
        topics = [_topic(topic) for topic in last.topics if topic.state is not TopicState.REMOVED]
        return Figures(
            frames=values[Counter.FRAMES], bytes=values[Counter.BYTES], records=values[Counter.RECORDS],
            records_per_second=rate, lag_p50=lags.lag(0.5), lag_p99=lags.lag(0.99), gaps=values[Counter.GAPS],
            missed=values[Counter.MISSED], out_of_order=values[Counter.OUT_OF_ORDER],
            rejected=values[Counter.REJECTED], reconnects=max(0, values[Counter.CONNECTS] - 1),
            connected_since=values[Counter.CONNECTED_SINCE] or None, last_record=values[Counter.LAST_RECORD] or None,
            live=sum(topic.state == "live" for topic in topics),
            stale=[topic.topic for topic in topics if topic.state == "stale"],
            refused=[topic.topic for topic in topics if topic.state == "refused"],
            topics=topics,
        )  # fmt: skip


def _topic(topic: TopicStatus) -> TopicFigures:
    return TopicFigures(
        topic.native, topic.state.name.lower(), topic.since, topic.last_data, topic.records, topic.reason
    )
