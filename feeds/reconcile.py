"""What is wanted, what the venue has been asked for, and what it has given: one table, no clock, no socket.

Every topic walks through these states, each with a deadline::

                    subscribe sent        acknowledged           first data
      REQUESTED ------------------> SENT ---------------> ACKNOWLEDGED --------> LIVE <----+
          ^                          |                         |                  |        | data
          |  refused with others     |  refused alone          | no data in time  |        |
          |<-------------------------+----------> REFUSED      +-------> STALE <--+--------+
          |
          +---- from every state but REFUSED when the connection is lost: all that is wanted is asked for again

A request that is not answered in time costs the connection, not the topic: SENT and REMOVED end with it. Data is an
answer too: a venue that gives it without an acknowledgement has accepted.

REMOVED is a topic that nobody wants any more. It stays in the table until the venue has confirmed, because its frames
may still be on their way. A refused topic is not asked for again by itself; asking for it anew is.

Liveness is judged on data alone, per topic: heartbeats, pongs and other topics' data never count. The time of the last
data comes from housekeeping, so a step to LIVE may be one housekeeping interval late, never early.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from feeds.contract import Topic
from ringbuf.counters import TopicState

#: States in which the venue holds the topic as subscribed, as far as we know.
_HELD = frozenset({TopicState.SENT, TopicState.ACKNOWLEDGED, TopicState.LIVE, TopicState.STALE})


@dataclass
class Entry:
    """One topic's place in the table. Times are monotonic seconds."""

    topic: Topic
    silence: float
    state: TopicState = TopicState.REQUESTED
    since: float = 0.0
    #: The request that is under way for it, if any.
    request: int | None = None
    #: How many topics that request names, and how many the next one may name.
    together: int = 1
    at_most: int | None = None
    #: When data came last; None before the first on this connection.
    last_data: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Delta:
    """What to tell the venue, unsubscribes first."""

    unsubscribe: list[Topic]
    subscribe: list[Topic]


@dataclass
class TopicTable:
    """All topics of one connection. For one thread."""

    #: Overrides every channel's own silence, in seconds.
    stale_after: float | None = None
    #: How long an answer may take, in seconds.
    acknowledge_within: float = 10.0
    entries: dict[str, Entry] = field(default_factory=dict)

    def want(self, topics: Iterable[Topic], now: float) -> list[Entry]:
        """Ask for topics; those already wanted stay as they are. Gives the entries of all of them."""
        wanted = []
        for topic in topics:
            entry = self.entries.get(topic.native)
            if entry is None:
                entry = Entry(topic, topic.channel.silence if self.stale_after is None else self.stale_after)
                self.entries[topic.native] = entry
                self._move(entry, TopicState.REQUESTED, now)
            elif entry.state in (TopicState.REFUSED, TopicState.REMOVED):
                # A removal still under way is overtaken: the venue answers requests in order.
                entry.request = None
                self._move(entry, TopicState.REQUESTED, now)
            wanted.append(entry)
        return wanted

    def unwant(self, natives: Iterable[str], now: float) -> list[Entry]:
        """Want topics no more. Gives the entries of those that were wanted."""
        removed = []
        for native in natives:
            entry = self.entries.get(native)
            if entry is None or entry.state is TopicState.REMOVED:
                continue
            known_to_venue = entry.state in _HELD
            entry.request = None
            self._move(entry, TopicState.REMOVED, now)
            removed.append(entry)
            if not known_to_venue:
                del self.entries[native]
        return removed

    def desired(self) -> list[Topic]:
        """What is wanted, canonically sorted; refused topics are not."""
        wanted = (TopicState.REFUSED, TopicState.REMOVED)
        return sorted((e.topic for e in self.entries.values() if e.state not in wanted), key=lambda t: t.native)

    def delta(self) -> Delta:
        """What the venue must be told now: sorted, so that the same wishes give the same messages."""
        waiting = [e for e in self.entries.values() if e.request is None]
        remove = sorted((e.topic for e in waiting if e.state is TopicState.REMOVED), key=lambda t: t.native)
        add = sorted((e.topic for e in waiting if e.state is TopicState.REQUESTED), key=lambda t: t.native)
        return Delta(remove, add)

    def sent(self, topics: Sequence[Topic], request: int, now: float) -> None:
        """A request for these topics has been sent."""
        for topic in topics:
            entry = self.entries[topic.native]
            entry.request = request
            entry.together = len(topics)
            if entry.state is TopicState.REQUESTED:
                self._move(entry, TopicState.SENT, now)
            else:
                entry.since = now

    def acknowledged(self, request: int, now: float) -> list[Entry]:
        """The venue accepted a request. Gives the entries that changed; removed topics leave the table."""
        changed = self._of(request)
        for entry in changed:
            entry.request = None
            if entry.state is TopicState.REMOVED:
                del self.entries[entry.topic.native]
            elif entry.state is TopicState.SENT:
                entry.at_most = None
                self._move(entry, TopicState.ACKNOWLEDGED, now)
        return changed

    def refused(self, request: int | None, reason: str, now: float) -> list[Entry]:
        """The venue refused a request; None means that it did not say which, so all that are under way are meant.

        Some venues refuse a whole request for one name in it, so a subscription to several topics is asked for again
        in halves, until each has its own yes or no. A refused removal leaves the table: nothing more can be done
        about it.
        """
        changed = self._of(request)
        for entry in changed:
            entry.request = None
            if entry.state is TopicState.REMOVED:
                del self.entries[entry.topic.native]
            elif entry.state is TopicState.SENT and entry.together > 1:
                entry.at_most = entry.together // 2
                self._move(entry, TopicState.REQUESTED, now)
            elif entry.state is TopicState.SENT:
                entry.reason = reason
                self._move(entry, TopicState.REFUSED, now)
        return changed

    def next_request(self, topics: Sequence[Topic], limit: int) -> list[Topic]:
        """Give the first of these topics that go together: `limit` at most, fewer where more were refused together."""
        taken: list[Topic] = []
        for topic in topics:
            limit = min(limit, self.entries[topic.native].at_most or limit)
            if len(taken) >= limit:
                break
            taken.append(topic)
        return taken

    def _of(self, request: int | None) -> list[Entry]:
        return [
            entry
            for entry in self.entries.values()
            if entry.request is not None and (request is None or entry.request == request)
        ]

    def data(self, native: str, when: float) -> Entry | None:
        """Data of a topic came. Gives the entry if that made it live."""
        entry = self.entries.get(native)
        if entry is None:
            return None
        entry.last_data = when
        # Data may overtake the acknowledgement; it is proof enough that the venue accepted.
        if entry.state in (TopicState.SENT, TopicState.ACKNOWLEDGED, TopicState.STALE):
            self._move(entry, TopicState.LIVE, when)
            return entry
        return None

    def overdue(self, now: float) -> list[Entry]:
        """Judge the silence of every topic. Gives the entries that became stale now."""
        stale = []
        for entry in self.entries.values():
            if entry.state not in (TopicState.ACKNOWLEDGED, TopicState.LIVE):
                continue
            quiet_since = entry.since if entry.last_data is None else max(entry.last_data, entry.since)
            if now - quiet_since >= entry.silence:
                self._move(entry, TopicState.STALE, now)
                entry.reason = f"no data for {entry.silence:g} s"
                stale.append(entry)
        return stale

    def unanswered(self, now: float) -> bool:
        """Whether a request has waited longer than it may: the connection is not to be trusted any more."""
        return any(
            entry.request is not None
            and entry.state in (TopicState.SENT, TopicState.REMOVED)
            and now - entry.since >= self.acknowledge_within
            for entry in self.entries.values()
        )

    def disconnected(self, now: float) -> list[Entry]:
        """The connection is gone: everything wanted is to be asked for again.

        Gives the entries that changed, among them those that were to be removed and have left the table now.
        """
        changed = []
        for native, entry in list(self.entries.items()):
            entry.request = None
            if entry.state is TopicState.REMOVED:
                del self.entries[native]
                changed.append(entry)
            elif entry.state is not TopicState.REFUSED:
                entry.last_data = None
                self._move(entry, TopicState.REQUESTED, now)
                changed.append(entry)
        return changed

    @staticmethod
    def _move(entry: Entry, state: TopicState, now: float) -> None:
        entry.state = state
        entry.since = now
        if state is not TopicState.REFUSED:
            entry.reason = ""
