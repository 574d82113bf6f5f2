"""A simulated venue: a websocket server on loopback that plays a source in a profile's words.

::

    async with SimulatedVenue(BinanceSpot(), CaptureSource("btcusdt.gz"), speed=None) as venue:
        ...                                    # connect a client to venue.url
        venue.drop_all()                       # and see what it does

A client hears a capture from the beginning when it has subscribed to `start_after` streams; its replay is its own. The
market is one for all. A finite replay that is over leaves the connection open and silent; `close_at_end` closes it.

Everything runs on the event loop that entered the venue; nothing here may be called from another thread. Memory is
bounded: the tape, a copy of the selected frames for each different set of subscriptions in use, and per client no more
than `buffer_limit` of unread bytes (paced; at full speed 64 KiB).

The switches at the end of the class are what a rehearsal turns: refuse, garbage, drop, silence, close. A language for
scenarios is to be built on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from weakref import WeakValueDictionary

from picows import WSUpgradeRequest, ws_create_server

from feeds.simulator.connection import ClientConnection
from feeds.simulator.pace import Speed
from feeds.simulator.playback import Playback
from feeds.simulator.profile import Subscriptions, VenueProfile
from feeds.simulator.source import Source
from feeds.simulator.tape import Tape, server_frame
from ringbuf.errors import AddressInUse

#: Unread bytes of one client in this process. The kernel holds as much again on loopback (measured: 3.9 MB), so a
#: client is 50,000 frames behind when it is cut off.
DEFAULT_BUFFER_LIMIT: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class VenueStats:
    """What a venue counted since it began."""

    connections: int = 0
    open: int = 0
    requests: int = 0
    refusals: int = 0
    frames_sent: int = 0
    bytes_sent: int = 0
    writes: int = 0
    pings_sent: int = 0
    pongs_received: int = 0
    pongs_unsolicited: int = 0
    replays_over: int = 0
    closed_too_slow: int = 0
    closed_too_many_requests: int = 0
    closed_without_pong: int = 0


class SimulatedVenue:
    """A venue on loopback; enter it to listen, leave it to close everything.

    Args:
        profile: The venue's words, such as `BinanceSpot()`.
        source: `CaptureSource` or `MarketSource`.
        host: Where to listen.
        port: Where to listen; 0 takes a free one.
        speed: 1.0 as captured or at the market's rate, another factor, or None for full speed.
        start_after: A replay begins when the client has this many subscriptions; 1 unless it asks for its streams one
            by one and must not miss the beginning.
        close_at_end: Close (1000) when a finite replay is over.
        refuse_unknown: Refuse streams that the source does not have; the real venue acknowledges and stays silent.
        buffer_limit: Unread bytes at which a client is cut off when paced.
        clock: Monotonic nanoseconds, for the pace.
        wall_clock: Nanoseconds since 1970, for the times that a market's frames carry.

    Raises:
        CaptureError: On entering: the capture cannot be used.
        AddressInUse: On entering: the port cannot be bound.
    """

    def __init__(
        self,
        profile: VenueProfile,
        source: Source,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: Speed = 1.0,
        start_after: int = 1,
        close_at_end: bool = False,
        refuse_unknown: bool = False,
        buffer_limit: int = DEFAULT_BUFFER_LIMIT,
        clock: Callable[[], int] = time.monotonic_ns,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.profile = profile
        self.host = host
        self.port = port
        self.stats = VenueStats()
        self.close_at_end = close_at_end
        self.buffer_limit = buffer_limit
        self.refusal = ""
        self._source = source
        self._speed = speed
        self._start_after = start_after
        self._refuse_unknown = refuse_unknown
        self._clock = clock
        self._wall_clock = wall_clock
        self._connections: set[ClientConnection] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._playbacks: dict[Playback, asyncio.Task[None]] = {}
        self._quiet = False
        self._selections: WeakValueDictionary[tuple[bool, frozenset[str]], Tape] = WeakValueDictionary()

    @property
    def url(self) -> str:
        """Where a client connects."""
        return f"ws://{self.host}:{self.port}{self.profile.path}"

    @property
    def streams(self) -> frozenset[str]:
        """The streams that there are."""
        return self._streams

    @property
    def known_streams(self) -> frozenset[str] | None:
        """The streams outside which subscriptions are refused; None refuses none."""
        return self._streams if self._refuse_unknown else None

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def time_ms(self) -> int:
        """The venue's own time, ms since 1970."""
        return self._wall_clock() // 1_000_000

    # Life.

    async def __aenter__(self) -> Self:
        self._frames = self._source.frames(self.profile)
        self._wrapped = self._source.tape(self._frames)
        self._unwrapped: Tape | None = None
        self._streams = frozenset(self._wrapped.streams)
        self._schedule = self._source.schedule(self._speed)
        try:
            self._server = await ws_create_server(
                self._accept, self.host, self.port, enable_auto_pong=False, max_frame_size=1 << 20, reuse_address=True
            )
        except OSError as error:
            raise AddressInUse(
                f"the simulated venue cannot listen on {self.host}:{self.port} ({error.strerror or error}): "
                "choose another port, or 0 for a free one"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        if self._source.shared:
            self._market = self._start_playback()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._playbacks.values()):
            task.cancel()
        self.drop_all()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._playbacks.values(), return_exceptions=True)
        await self._server.wait_closed()
        await self._nobody.wait()

    def _accept(self, request: WSUpgradeRequest) -> ClientConnection | None:
        subscriptions = self.profile.connect(request.path.decode("latin-1"))
        return None if subscriptions is None else ClientConnection(self, subscriptions)

    def _start_playback(self) -> Playback:
        laps = [laps for laps in (self._source.laps, self._wrapped.laps) if laps is not None]
        playback = Playback(
            self._wrapped.lap, min(laps, default=None), self._schedule, shared=self._source.shared, clock=self._clock
        )
        playback.quiet = self._quiet
        task = asyncio.get_running_loop().create_task(playback.run())
        task.add_done_callback(_report)
        self._playbacks[playback] = task
        return playback

    # What connections call.

    def tape(self, subscriptions: Subscriptions) -> Tape:
        """Give the tape of a client's streams; clients with the same streams share one."""
        key = subscriptions.wrapped, frozenset(subscriptions.streams) & self._streams
        tape = self._selections.get(key)
        if tape is None:
            tape = (self._wrapped if subscriptions.wrapped else self._without_wrapping()).select(key[1])
            self._selections[key] = tape
        return tape

    def _without_wrapping(self) -> Tape:
        if self._unwrapped is None:
            unwrapped = self.profile.unwrapped
            self._unwrapped = self._source.tape([f._replace(payload=unwrapped(f.payload)) for f in self._frames])
        return self._unwrapped

    def joined(self, connection: ClientConnection) -> None:
        """Count a client, and let it hear what it asked for in its URL."""
        self._connections.add(connection)
        self._nobody.clear()
        self.stats.connections += 1
        self.stats.open += 1
        self.subscribed(connection)

    def subscribed(self, connection: ClientConnection) -> None:
        """Let a client hear what it is subscribed to now."""
        if connection.playback is None:
            if len(connection.subscriptions.streams) < self._start_after:
                return
            connection.playback = self._market if self._source.shared else self._start_playback()
            connection.playback.hearers.append(connection)
        connection.playback.changed()

    def left(self, connection: ClientConnection) -> None:
        """Forget a client that is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._nobody.set()
        self.stats.open -= 1
        playback = connection.playback
        if playback is not None:
            playback.hearers.remove(connection)
            playback.changed()
            if not self._source.shared:
                self._playbacks.pop(playback).cancel()

    # Switches for rehearsals.

    def refuse_subscriptions(self, words: str) -> None:
        """Refuse every SUBSCRIBE with these words from now on; empty words accept again."""
        self.refusal = words

    def send_to_all(self, payload: bytes) -> None:
        """Send one text message to every client that is subscribed to something: garbage, a notice, anything."""
        self.write_to_all(server_frame(payload))

    def write_to_all(self, wire: bytes) -> None:
        """Write bytes to every subscribed client's socket as they are: a truncated or illegal websocket frame."""
        for connection in list(self._connections):
            if connection.subscriptions.streams:
                connection.write(wire)

    def go_silent(self) -> None:
        """Send no more market data; requests and pings are still answered. See `playback` for what resumes."""
        self._set_quiet(True)

    def speak(self) -> None:
        """End a silence."""
        self._set_quiet(False)

    def _set_quiet(self, quiet: bool) -> None:
        self._quiet = quiet
        for playback in self._playbacks:
            playback.quiet = quiet

    def drop_all(self) -> None:
        """Cut every connection without a close frame."""
        for connection in list(self._connections):
            connection.abort()

    def close_all(self, code: int, reason: str = "") -> None:
        """Close every connection with this code."""
        for connection in list(self._connections):
            connection.close(code, reason)


def _report(task: asyncio.Task[None]) -> None:
    """Hand a failed playback to the loop's exception handler at once: its clients would only see silence."""
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": "the simulated venue's playback failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)
