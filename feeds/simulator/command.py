"""The simulator as a process: options in, one line of JSON out when it listens, a clean end on a signal.

Used by ``python -m feeds.simulator`` and by the command line's ``simulate``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from feeds.simulator.binance import BinanceSpot
from feeds.simulator.pace import Speed
from feeds.simulator.profile import VenueProfile
from feeds.simulator.source import DEFAULT_RATE, CaptureSource, MarketSource, Source
from feeds.simulator.venue import DEFAULT_BUFFER_LIMIT, SimulatedVenue, VenueStats
from ringbuf.errors import ParameterError

#: The venues that can be simulated; a profile is made with the intervals of its pings.
VENUES: Final[dict[str, Callable[[float, float], VenueProfile]]] = {BinanceSpot.name: BinanceSpot}

#: Seconds between two looks at a venue's counts: as often as a person reads a number.
_STATS_EVERY: Final = 1.0


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """What the simulator's process is asked to do; see `SimulatedVenue`, `CaptureSource` and `MarketSource`.

    Attributes:
        venue: A name of `VENUES`.
        host: Where to listen.
        port: Where to listen; 0 takes a free one.
        capture: The capture to replay; None makes a market.
        speed: A factor, or None for full speed.
        symbols: Of the market.
        rate: Events a second of the market, or of a capture without times.
        seed: Of the market.
        loop: How often a capture is replayed; None for ever.
        start_after: Subscriptions that start a client's replay.
        close_at_end: Close a connection when its replay is over.
        refuse_unknown: Refuse streams that there are not.
        ping_interval: Seconds between pings; 0 for none.
        pong_deadline: Seconds a client has to answer.
        buffer_limit: Unread bytes at which a client is cut off.
        until_eof: End when standard input ends, so that the simulator never outlives what started it.
    """

    venue: str = "binance"
    host: str = "127.0.0.1"
    port: int = 0
    capture: Path | None = None
    speed: Speed = 1.0
    symbols: int = 200
    rate: float = DEFAULT_RATE
    seed: int = 1
    loop: int | None = 1
    start_after: int = 1
    close_at_end: bool = False
    refuse_unknown: bool = False
    ping_interval: float = 20.0
    pong_deadline: float = 60.0
    buffer_limit: int = DEFAULT_BUFFER_LIMIT
    until_eof: bool = False


class Listening(msgspec.Struct, frozen=True):
    """The line that says where the simulator listens.

    Attributes:
        url: Where a client connects.
        port: The port of it.
        venue: The venue simulated.
        pid: This process.
        streams: The streams it has.
    """

    url: str
    port: int
    venue: str
    pid: int
    streams: int


def write_line(listening: Listening) -> None:
    """Write the line to standard output at once."""
    sys.stdout.write(msgspec.json.encode(listening).decode() + "\n")
    sys.stdout.flush()


async def run_simulator(
    options: SimulatorOptions,
    announce: Callable[[Listening], None] = write_line,
    on_stats: Callable[[VenueStats], None] | None = None,
) -> None:
    """Simulate a venue until SIGTERM, SIGINT or, if asked, the end of standard input. Call in the main thread.

    Args:
        options: What to simulate.
        announce: Told once, when clients may connect.
        on_stats: Told every second what the venue has counted.

    Raises:
        ParameterError: An unknown venue or an option out of range.
        CaptureError: The capture cannot be used.
        AddressInUse: The port cannot be bound.
    """
    make = VENUES.get(options.venue)
    if make is None:
        raise ParameterError(
            f"there is no simulated venue {options.venue!r}: choose one of {', '.join(sorted(VENUES))}"
        )
    venue = SimulatedVenue(
        make(options.ping_interval, options.pong_deadline),
        _source(options),
        host=options.host,
        port=options.port,
        speed=options.speed,
        start_after=options.start_after,
        close_at_end=options.close_at_end,
        refuse_unknown=options.refuse_unknown,
        buffer_limit=options.buffer_limit,
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if options.until_eof:
        threading.Thread(target=_wait_for_eof, args=(loop, ended), daemon=True).start()
    try:
        async with venue:
            announce(Listening(venue.url, venue.port, options.venue, os.getpid(), len(venue.streams)))
            while on_stats is not None and not ended.is_set():
                on_stats(venue.stats)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), _STATS_EVERY)
            await ended.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _source(options: SimulatorOptions) -> Source:
    if options.capture is not None:
        return CaptureSource(options.capture, laps=options.loop, rate=options.rate)
    return MarketSource(options.symbols, options.seed, options.rate)


def _wait_for_eof(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Read standard input to its end, in a thread: files and terminals have no place in an event loop."""
    while os.read(0, 4096):
        pass
    try:
        loop.call_soon_threadsafe(ended.set)
    except RuntimeError:
        return  # the loop has closed: the simulator ended for another reason
