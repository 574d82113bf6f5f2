"""Topics between the user's wishes and the venue's answers: the live side of the table in `reconcile`.

::

    subscribe(symbols) --> table --> (the session sends) --> acknowledged, refused, data --> answers, per topic
                             |
                             +--> counters (every state, for anyone to read), events, routes of the decoder

Whoever asks for something waits here until the venue has answered, or until it may no longer take longer. The session
is woken by `wake` whenever it should look at the table again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from feeds.clock import Clock
from feeds.contract import Parameters, Provider
from feeds.intake import Intake
from feeds.logs import get_logger
from feeds.messages import TopicAnswer
from feeds.reconcile import Entry, TopicTable
from feeds.records import EventCode
from ringbuf.connection import ConnectionWriter
from ringbuf.counters import TopicState
from ringbuf.errors import ParameterError, SubscriptionRefused

_log = get_logger()

#: DESIGN: reconcile on every change and every second.
RECONCILE_EVERY: Final = 1.0
_SETTLING = (TopicState.REQUESTED, TopicState.SENT)
_TOLD: Final = {
    TopicState.ACKNOWLEDGED: EventCode.SUBSCRIBED,
    TopicState.REFUSED: EventCode.REJECTED,
    TopicState.REMOVED: EventCode.UNSUBSCRIBED,
}


class Topics:
    """The topics of one connection. For one event loop; any number of tasks may ask at the same time."""

    def __init__(
        self,
        provider: Provider[Parameters],
        parameters: Parameters,
        connection: ConnectionWriter,
        intake: Intake,
        clock: Clock,
    ) -> None:
        """Begin with none; see `Session` for the parts."""
        self._provider = provider
        self._parameters = parameters
        self._connection = connection
        self._intake = intake
        self._clock = clock
        self.table = TopicTable(parameters.stale_after, provider.declaration.deadlines.acknowledge)
        #: Set whenever the session should look again: a wish, an answer, a disconnect.
        self.wake = asyncio.Event()
        self._changed = asyncio.Event()

    async def subscribe(self, symbols: Sequence[str], *, patient: bool = False) -> list[TopicAnswer]:
        """Want symbols, and give per topic what the venue said (or that it has not said anything yet).

        Args:
            symbols: as the user spells them.
            patient: wait until the venue has answered for at least one, however long it cannot be reached.

        Raises:
            ParameterError: a symbol the venue's rules do not allow, or more topics than one connection may hold.
                Nothing has changed then.
            SymbolError, SharedMemoryFull: a symbol's name cannot be stored. Nothing is asked for then.
        """
        topics = self._provider.topics(self._parameters, symbols)
        limit = self._provider.declaration.limits.topics_per_connection
        total = {topic.native for topic in (*self.table.desired(), *topics)}
        if len(total) > limit:
            raise ParameterError(
                f"{len(total)} topics are more than the {limit} that {self._provider.declaration.title} allows on one "
                "connection: make another connection for the rest."
            )
        for topic in topics:
            self._intake.route(topic)
        entries = self.table.want(topics, self._clock.monotonic())
        self.look_again(entries)
        await self._settled(entries)
        while patient and all(map(self._pending, entries)):
            await self._settled(entries)
        return [_answer(entry) for entry in entries]

    async def unsubscribe(self, symbols: Sequence[str]) -> list[TopicAnswer]:
        """Want symbols no more, and give per topic what became of it.

        Raises:
            ParameterError: a symbol that the venue's rules do not allow, or that is not subscribed.
        """
        topics = self._provider.topics(self._parameters, symbols)
        # Refused topics too: of a symbol's several feeds the venue may have refused one.
        held = {native for native, entry in self.table.entries.items() if entry.state is not TopicState.REMOVED}
        unknown = sorted({topic.symbol for topic in topics if topic.native not in held})
        if unknown:
            raise ParameterError(f"{self._connection.name} is not subscribed to {', '.join(unknown)}.")
        entries = self.table.unwant([topic.native for topic in topics], self._clock.monotonic())
        self.look_again(entries)
        await self._settled(entries)
        return [_answer(entry) for entry in entries]

    async def _settled(self, entries: list[Entry]) -> None:
        """Wait until the venue has answered for all of these, at most as long as it may take plus one round."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.table.acknowledge_within + RECONCILE_EVERY):
                while any(self._pending(entry) for entry in entries):
                    self._changed.clear()
                    await self._changed.wait()

    def _pending(self, entry: Entry) -> bool:
        if entry.state is TopicState.REMOVED:
            return self.table.entries.get(entry.topic.native) is entry  # another has its place if it is wanted again
        return entry.state in _SETTLING

    def look_again(self, entries: Sequence[Entry] = ()) -> None:
        """Write changed states where everyone can see them, and wake whoever waits for a change."""
        now = self._clock.now()
        for entry in entries:
            self._connection.counters.topic(entry.topic.native, entry.state, now, entry.reason)
            if entry.topic.native not in self.table.entries:
                self._intake.unroute(entry.topic)
        self.wake.set()
        self._changed.set()

    def acknowledged(self, request: int) -> None:
        """The venue accepted a request."""
        self._answered(self.table.acknowledged(request, self._clock.monotonic()))

    def refused(self, request: int | None, reason: str) -> None:
        """The venue refused a request, or whatever is under way if it does not say which."""
        self._answered(self.table.refused(request, reason, self._clock.monotonic()))

    def _answered(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.state in _TOLD:
                text = f"{entry.topic.native} {entry.reason}".strip()
                self.event(_TOLD[entry.state], symbol=entry.topic.symbol, text=text)
        self.look_again(entries)

    def disconnected(self) -> None:
        """The connection is gone; all that is wanted is to be asked for again."""
        self.look_again(self.table.disconnected(self._clock.monotonic()))

    def judge(self) -> None:
        """Find the topics that have been silent for too long."""
        stale = self.table.overdue(self._clock.monotonic())
        for entry in stale:
            self.event(EventCode.STALE, symbol=entry.topic.symbol, text=entry.topic.native)
            _log.warning("topic is stale", topic=entry.topic.native, reason=entry.reason)
        if stale:
            self.look_again(stale)

    def data(self, native: str, now: float) -> None:
        """Data of a topic came."""
        entry = self.table.data(native, now)
        if entry is not None:
            self.event(EventCode.LIVE, symbol=entry.topic.symbol, text=native)
            self.look_again([entry])

    def event(self, code: EventCode, *, symbol: str = "", value: int = 0, text: str = "") -> None:
        """Publish an event record."""
        number = self._connection.symbols.intern(symbol) if symbol else 0
        self._intake.publisher.event(code, self._clock.now(), symbol=number, value=value, text=text)
        self._intake.publisher.publish()


def _answer(entry: Entry) -> TopicAnswer:
    return TopicAnswer(entry.topic.symbol, entry.topic.native, entry.state.name.lower(), entry.reason)


def refusal(answers: Sequence[TopicAnswer]) -> SubscriptionRefused | None:
    """Give the error that a first subscription amounts to when the venue refused all of it."""
    if answers and all(answer.state == "refused" for answer in answers):
        words = "; ".join(f"{answer.topic}: {answer.reason}" for answer in answers)
        return SubscriptionRefused(f"the venue refused {words}")
    return None
