"""The session: keeps one connection to a venue alive and its topics as the user wants them.

Written once for all providers. It reconciles what is wanted with what the venue holds (`reconcile`), on every change
and every second; hands frames to the intake; judges the silence of every topic; and connects again, with growing and
jittered pauses, when the connection ends::

            connect                           disconnected, unanswered
    +--> ----------> [connected: reconcile, judge, every second or on change] ----+
    |    failed                                                                   |
    +----<------------------- pause: back-off with full jitter <------------------+

The pause grows until a connection has given data: a venue that accepts and then closes is not stormed. All that is
wanted is asked for again after every connect.

Loss cannot hide here: a disconnect is an event with its code, the next connect one with how long nobody listened, and
the venue's own numbering shows what is missing (`housekeeping`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from feeds.backoff import Backoff
from feeds.clock import Clock
from feeds.contract import Parameters, Provider, Topic
from feeds.decoding import Acknowledged, Control, Notice, Refused, Reply
from feeds.housekeeping import INTERVAL
from feeds.intake import Intake
from feeds.messages import TopicAnswer
from feeds.rate_limit import RateLimit
from feeds.reconcile import Entry, TopicTable
from feeds.records import EventCode
from feeds.transport import ConnectOptions, Socket, Transport, redacted
from ringbuf.connection import ConnectionWriter
from ringbuf.counters import Counter, TopicState
from ringbuf.errors import (
    ParameterError,
    ProviderError,
    SharedMemoryFull,
    SubscriptionRefused,
    UnauthorizedError,
    VenueUnreachable,
)

_log = structlog.get_logger()

#: DESIGN: reconcile on every change and every second.
RECONCILE_EVERY: Final = 1.0
_SETTLING = (TopicState.REQUESTED, TopicState.SENT)


class Session:
    """One connection's life. For one event loop; make it, `run` it in a task, `close` it."""

    def __init__(
        self,
        provider: Provider[Parameters],
        parameters: Parameters,
        connection: ConnectionWriter,
        transport: Transport,
        intake: Intake,
        clock: Clock,
        *,
        backoff: Backoff | None = None,
        on_problem: Callable[[ProviderError], None] | None = None,
        on_info: Callable[[str], None] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            provider: the venue.
            parameters: what the user asked for; its `symbol` is the first wish.
            connection: the directory written.
            transport: what opens sockets.
            intake: what takes frames.
            clock: time for deadlines and records.
            backoff: the pauses between attempts; DESIGN's if left out.
            on_problem: told of every connect that failed.
            on_info: given lines for people.
        """
        self._provider = provider
        self._parameters = parameters
        self._connection = connection
        self._transport = transport
        self._intake = intake
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._on_problem = on_problem or (lambda _: None)
        self._info = on_info or (lambda _: None)
        self.table = TopicTable(parameters.stale_after, provider.declaration.deadlines.acknowledge)
        self._rate = RateLimit(provider.declaration.limits.messages_per_second, clock.monotonic())
        self._socket: Socket | None = None
        self._closing = False
        self._requests = 0
        #: Set whenever somebody should look again: a wish, an answer, a disconnect.
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._useful = False
        self._lost_at: int | None = None
        #: Why the last socket ended; empty while it has not.
        self._ended = ""
        #: What ended the session for good, if anything did.
        self.fatal: SharedMemoryFull | None = None

    # ---- wishes -----------------------------------------------------------------------------------------------------

    async def subscribe(self, symbols: Sequence[str]) -> list[TopicAnswer]:
        """Want symbols, and give per topic what the venue said (or that it has not said anything yet).

        Raises:
            ParameterError: a symbol the venue's rules do not allow, or more topics than one connection may hold.
                Nothing has changed then.
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
        self._look_again(entries)
        await self._settled(entries)
        return [_answer(entry) for entry in entries]

    async def unsubscribe(self, symbols: Sequence[str]) -> list[TopicAnswer]:
        """Want symbols no more, and give per topic what became of it.

        Raises:
            ParameterError: a symbol that the venue's rules do not allow, or that is not subscribed.
        """
        topics = self._provider.topics(self._parameters, symbols)
        held = {topic.native for topic in self.table.desired()}
        unknown = sorted({topic.symbol for topic in topics if topic.native not in held})
        if unknown:
            raise ParameterError(f"{self._connection.name} is not subscribed to {', '.join(unknown)}.")
        entries = self.table.unwant([topic.native for topic in topics], self._clock.monotonic())
        self._look_again(entries)
        await self._settled(entries)
        for entry in entries:
            if entry.topic.native not in self.table.entries:  # else somebody has asked for it again meanwhile
                self._intake.unroute(entry.topic)
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
            return entry.topic.native in self.table.entries
        return entry.state in _SETTLING

    def _look_again(self, entries: Sequence[Entry] = ()) -> None:
        """Write changed states where everyone can see them, and wake whoever waits for a change."""
        now = self._clock.now()
        for entry in entries:
            self._connection.counters.topic(entry.topic.native, entry.state, now, entry.reason)
        self._wake.set()
        self._changed.set()

    # ---- the connection ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, keep, and connect again until `close`. Gives up only for what `fatal` then holds.

        Raises:
            UnauthorizedError: the venue does not want these credentials; trying again cannot help.
        """
        ticker = asyncio.create_task(self._tick())
        failures = 0
        try:
            while not self._closing:
                self._useful = False
                if await self._connect():
                    await self._keep()
                failures = 0 if self._useful else failures + 1
                if not self._closing:
                    await self._pause(self._backoff.delay(failures))
        finally:
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker

    async def _connect(self) -> bool:
        url = self._provider.url(self._parameters, self.table.desired())
        options = ConnectOptions(timeout=self._provider.declaration.deadlines.connect)
        self._ended = ""
        try:
            socket = await self._transport.connect(url, options, self)
            if self._ended:  # it closed before we could hold it: accepted, then sent away
                raise VenueUnreachable(f"{redacted(url)} accepted the connection and closed it: {self._ended}.")
        except UnauthorizedError:
            raise
        except ProviderError as error:
            _log.warning("not connected", error=str(error))
            self._on_problem(error)
            return False
        self._socket = socket
        counters, now = self._connection.counters, self._clock.now()
        counters.add(Counter.CONNECTS)
        counters.set(Counter.CONNECTED_SINCE, now)
        if self._lost_at is None:
            self._event(EventCode.CONNECTED)
        else:
            self._event(EventCode.RECONNECTED, value=now - self._lost_at)
        self._info("WebSocket connection established.")
        return True

    async def _keep(self) -> None:
        """Stay with an open socket until it ends."""
        while self._socket is not None and not self._closing:
            self._wake.clear()
            await self._reconcile()
            if self.table.unanswered(self._clock.monotonic()):
                _log.warning("the venue does not answer requests: connecting again")
                await self._hang_up()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(RECONCILE_EVERY):
                    await self._wake.wait()

    async def _reconcile(self) -> None:
        delta = self.table.delta()
        at_once = self._provider.declaration.limits.topics_per_request
        for build, topics in (
            (self._provider.unsubscribe, delta.unsubscribe),
            (self._provider.subscribe, delta.subscribe),
        ):
            for start in range(0, len(topics), at_once):
                await self._ask(build, topics[start : start + at_once])

    async def _ask(self, build: Callable[[Sequence[Topic], int], bytes], topics: list[Topic]) -> None:
        socket = self._socket
        await asyncio.sleep(self._rate.wait(self._clock.monotonic()))
        # What was true before the wait need not be true any more; the next round sees it.
        still = [topic for topic in topics if topic.native in self.table.entries]
        if socket is None or socket is not self._socket or not still:
            return
        self._requests += 1
        now = self._clock.monotonic()
        self._rate.take(now)
        socket.send(build(still, self._requests))
        self.table.sent(still, self._requests, now)
        self._look_again([self.table.entries[topic.native] for topic in still])

    async def _pause(self, delay: float) -> None:
        end = self._clock.monotonic() + delay
        while not self._closing and (left := end - self._clock.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    self._wake.clear()
                    await self._wake.wait()

    async def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def close(self) -> None:
        """End the session: close 1000, publish the rest."""
        self._closing = True
        self._look_again()
        await self._hang_up()
        self._intake.housekeep(self._on_data)

    # ---- what the socket says (Receiver) ----------------------------------------------------------------------------

    def on_batch(self, frames: list[bytes], received_ns: int) -> None:
        """See `Receiver.on_batch`."""
        try:
            for control in self._intake.receive(frames, received_ns):
                self._on_control(control)
            if self._intake.housekeeping_due():
                self._intake.housekeep(self._on_data)
        except SharedMemoryFull as error:
            self.fatal = error
            self._closing = True
            self._look_again()

    def _on_control(self, control: Control) -> None:
        now = self._clock.monotonic()
        match control:
            case Acknowledged(request):
                self._answered(self.table.acknowledged(request, now))
            case Refused(request, reason):
                _log.warning("refused by the venue", reason=reason)
                self._answered(self.table.refused(request, reason, now))
            case Reply(payload):
                if self._socket is not None:
                    self._socket.send(payload)
            case Notice(text):
                _log.info("notice from the venue", text=text)

    def _answered(self, entries: list[Entry]) -> None:
        codes = {
            TopicState.ACKNOWLEDGED: EventCode.SUBSCRIBED,
            TopicState.REFUSED: EventCode.REJECTED,
            TopicState.REMOVED: EventCode.UNSUBSCRIBED,
        }
        for entry in entries:
            if entry.state in codes:
                text = f"{entry.topic.native} {entry.reason}".strip()
                self._event(codes[entry.state], symbol=entry.topic.symbol, text=text)
        self._look_again(entries)

    def on_disconnected(self, code: int, reason: str) -> None:
        """See `Receiver.on_disconnected`."""
        self._intake.housekeep(self._on_data)
        asked_for = self._socket is None
        self._socket = None
        self._ended = f"{code} {reason}".strip()
        self._lost_at = self._clock.now()
        counters = self._connection.counters
        counters.set(Counter.CONNECTED_SINCE, 0)
        if not self._closing:
            counters.add(Counter.DISCONNECTS)
            if not asked_for:
                _log.warning("disconnected", code=code, reason=reason)
            self._info(f"WebSocket connection lost ({code}). Connecting again.")
        self._event(EventCode.DISCONNECTED, value=code, text=reason)
        self._look_again(self.table.disconnected(self._clock.monotonic()))

    # ---- the passing of time ----------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Housekeeping every 50 ms; once a second, silence and the clock."""
        ticks = 0
        while True:
            await asyncio.sleep(INTERVAL)
            self._intake.housekeep(self._on_data)
            ticks += 1
            if ticks % round(RECONCILE_EVERY / INTERVAL) == 0:
                self._judge()

    def _judge(self) -> None:
        step = self._clock.check()
        if step:
            self._event(EventCode.CLOCK_STEP, value=step)
        stale = self.table.overdue(self._clock.monotonic())
        for entry in stale:
            self._event(EventCode.STALE, symbol=entry.topic.symbol, text=entry.topic.native)
            _log.warning("topic is stale", topic=entry.topic.native, reason=entry.reason)
        if stale:
            self._look_again(stale)

    def _on_data(self, native: str) -> None:
        self._useful = True
        entry = self.table.data(native, self._clock.monotonic())
        if entry is not None:
            self._event(EventCode.LIVE, symbol=entry.topic.symbol, text=native)
            self._look_again([entry])

    def _event(self, code: EventCode, *, symbol: str = "", value: int = 0, text: str = "") -> None:
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
