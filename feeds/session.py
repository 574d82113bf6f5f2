"""The session: keeps one connection to a venue alive and its topics as the user wants them.

Written once for all providers. It reconciles what is wanted with what the venue holds (`topics`), on every change and
every second; hands frames to the intake; has the silence of every topic judged; and connects again, with growing and
jittered pauses, when the connection ends::

            connect                           disconnected, unanswered
    +--> ----------> [connected: reconcile, judge, every second or on change] ----+
    |    failed                                                                   |
    +----<------------------- pause: back-off with full jitter <------------------+

The pause grows until a connection has given data ten seconds after it was opened: a venue that accepts and then closes,
with or without a record in between, is not stormed. All that is wanted is asked for again after every connect.

The socket's callbacks and the ticker run beside `run`; whatever goes wrong in them that is not the venue's doing (no
room for a ring, a fault of our own) ends `run` with that error: a half-dead session would be a silent stall.

Loss cannot hide here: a disconnect is an event with its code, the next connect one with how long nobody listened, and
the venue's own numbering shows what is missing (`housekeeping`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Final

from feeds.backoff import Backoff
from feeds.clock import Clock
from feeds.contract import Parameters, Provider, Topic
from feeds.decoding import Acknowledged, Control, Notice, Refused, Reply
from feeds.housekeeping import INTERVAL
from feeds.intake import Intake
from feeds.logs import get_logger
from feeds.rate_limit import RateLimit
from feeds.records import EventCode
from feeds.sampling import Sampler
from feeds.topics import RECONCILE_EVERY, Topics
from feeds.transport import ConnectOptions, Socket, Transport, redacted
from ringbuf.connection import ConnectionWriter
from ringbuf.counters import Counter
from ringbuf.errors import (
    ProviderError,
    UnauthorizedError,
    VenueUnreachable,
)

_log = get_logger()

#: How long after its opening a connection must still give data to have been useful. Binance bans above 300 connects in
#: five minutes; one in ten seconds is far below.
USEFUL_AFTER: Final = 10.0


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
        useful_after: float = USEFUL_AFTER,
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
            useful_after: seconds after which data of a connection ends the growth of the pauses.
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
        self._useful_after = useful_after
        self._on_problem = on_problem or (lambda _: None)
        self._info = on_info or (lambda _: None)
        self.topics = Topics(provider, parameters, connection, intake, clock)
        self._rate = RateLimit(provider.declaration.limits.messages_per_second)
        self._sampler = Sampler()
        self._socket: Socket | None = None
        #: Bounds the connect that is under way, so that `close` can end it.
        self._connecting: asyncio.Timeout | None = None
        #: When the newest socket was opened, monotonic seconds; never, while it is being opened.
        self._opened = inf
        self._closing = False
        self._requests = 0
        self._useful = False
        self._lost_at: int | None = None
        #: Why the last socket ended; empty while it has not.
        self._ended = ""
        #: What `run` ends with, if something went wrong beside it.
        self._failure: Exception | None = None

    # ---- the connection ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, keep, and connect again until `close`.

        Raises:
            UnauthorizedError: the venue does not want these credentials; trying again cannot help.
            SharedMemoryFull: there is no room for a ring or a topic.
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
            await self._hang_up()
        if self._failure is not None:
            raise self._failure

    def _give_up(self, error: Exception) -> None:
        """Let `run` end with an error that came up beside it."""
        self._failure = self._failure or error
        self._closing = True
        self.topics.look_again()

    async def _connect(self) -> bool:
        url = self._provider.url(self._parameters, self.topics.table.desired())
        options = ConnectOptions(timeout=self._provider.declaration.deadlines.connect)
        self._ended = ""
        self._opened = inf
        counters = self._connection.counters
        try:
            async with asyncio.timeout(None) as self._connecting:
                socket = await self._transport.connect(url, options, self)
            counters.add(Counter.CONNECTS)
            if self._ended:  # it closed before we could hold it: accepted, then sent away
                raise VenueUnreachable(f"{redacted(url)} accepted the connection and closed it: {self._ended}.")
        except TimeoutError:
            return False  # only `close` sets this deadline
        except UnauthorizedError:
            raise
        except ProviderError as error:
            _log.warning("not connected", error=str(error))
            self._on_problem(error)
            return False
        finally:
            self._connecting = None
        self._socket = socket
        now = self._clock.now()
        self._opened = self._clock.monotonic()
        counters.set(Counter.CONNECTED_SINCE, now)
        if self._lost_at is None:
            self.topics.event(EventCode.CONNECTED)
        else:
            self.topics.event(EventCode.RECONNECTED, value=now - self._lost_at)
        self._info("WebSocket connection established.")
        return True

    async def _keep(self) -> None:
        """Stay with an open socket until it ends."""
        while self._socket is not None and not self._closing:
            self.topics.wake.clear()
            await self._reconcile()
            if self.topics.table.unanswered(self._clock.monotonic()):
                _log.warning("the venue does not answer requests: connecting again")
                await self._hang_up()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(RECONCILE_EVERY):
                    await self.topics.wake.wait()

    async def _reconcile(self) -> None:
        """Tell the venue what has changed: message by message, each from what is true when it may be sent."""
        while (socket := self._socket) is not None and not self._closing:
            delta = self.topics.table.delta()
            if not delta.unsubscribe and not delta.subscribe:
                return
            wait = self._rate.wait(self._clock.monotonic())
            if wait > 0:
                await asyncio.sleep(wait)
            elif delta.unsubscribe:
                self._ask(socket, self._provider.unsubscribe, delta.unsubscribe)
            else:
                self._ask(socket, self._provider.subscribe, delta.subscribe)

    def _ask(self, socket: Socket, build: Callable[[Sequence[Topic], int], bytes], topics: list[Topic]) -> None:
        """Send one request for as many of these topics as one may name."""
        topics = self.topics.table.next_request(topics, self._provider.declaration.limits.topics_per_request)
        self._requests += 1
        now = self._clock.monotonic()
        self._rate.take(now)
        socket.send(build(topics, self._requests))
        self.topics.table.sent(topics, self._requests, now)
        self.topics.look_again([self.topics.table.entries[topic.native] for topic in topics])

    async def _pause(self, delay: float) -> None:
        end = self._clock.monotonic() + delay
        while not self._closing and (left := end - self._clock.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    self.topics.wake.clear()
                    await self.topics.wake.wait()

    async def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def close(self) -> None:
        """End the session: close 1000, publish the rest. A connect that is under way is given up."""
        self._closing = True
        self.topics.look_again()
        if self._connecting is not None:
            self._connecting.reschedule(asyncio.get_running_loop().time())
        await self._hang_up()
        self._housekeep()

    # ---- what the socket says (Receiver) ----------------------------------------------------------------------------

    def on_batch(self, frames: list[bytes], received_ns: int) -> None:
        """See `Receiver.on_batch`."""
        try:
            for control in self._intake.receive(frames, received_ns):
                self._on_control(control)
            if self._intake.housekeeping_due():
                self._intake.housekeep(self._on_data)
        except Exception as error:  # noqa: BLE001 - the transport would swallow it; `run` must end with it
            self._give_up(error)

    def _on_control(self, control: Control) -> None:
        match control:
            case Acknowledged(request):
                self.topics.acknowledged(request)
            case Refused(request, reason):
                if self._sampler.takes(reason, self._clock.now()):
                    _log.warning("refused by the venue", reason=reason)
                self.topics.refused(request, reason)
            case Reply(payload):
                if self._socket is not None:
                    self._socket.send(payload)
            case Notice(text):
                if self._sampler.takes(text, self._clock.now()):
                    _log.info("notice from the venue", text=text)

    def on_disconnected(self, code: int, reason: str) -> None:
        """See `Receiver.on_disconnected`."""
        try:
            self._lost(code, reason)
        except Exception as error:  # noqa: BLE001 - as in `on_batch`
            self._give_up(error)

    def _lost(self, code: int, reason: str) -> None:
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
        self.topics.event(EventCode.DISCONNECTED, value=code, text=reason)
        self.topics.disconnected()

    # ---- the passing of time ----------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Housekeeping every 50 ms; once a second, silence and the clock."""
        ticks = 0
        while self._failure is None:
            await asyncio.sleep(INTERVAL)
            ticks += 1
            self._housekeep(judge=ticks % round(RECONCILE_EVERY / INTERVAL) == 0)

    def _housekeep(self, *, judge: bool = False) -> None:
        try:
            self._intake.housekeep(self._on_data)
            if judge:
                self._judge()
        except Exception as error:  # noqa: BLE001 - it would end the ticker unseen; `run` must end with it
            self._give_up(error)

    def _judge(self) -> None:
        step = self._clock.check()
        if step:
            self.topics.event(EventCode.CLOCK_STEP, value=step)
        self.topics.judge()

    def _on_data(self, native: str) -> None:
        now = self._clock.monotonic()
        if now - self._opened >= self._useful_after:
            self._useful = True
        self.topics.data(native, now)
