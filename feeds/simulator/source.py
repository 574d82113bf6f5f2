"""Where a simulated venue's frames come from: a capture, or a market of its own.

Both become tapes (`Tape`), one of wrapped messages and, when a client asks for it, one of messages without their
wrapping. What differs is whose time it is:

- a **capture** is replayed for each client from its beginning, once the client has subscribed; laps repeat it with the
  same ids, verbatim;
- the **market** is one for all clients, and a client hears it from its subscription on; ids go on for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from feeds.capture import Direction, read_capture
from feeds.simulator.instruments import instruments
from feeds.simulator.market import DEFAULT_ACTIONS, make_lap
from feeds.simulator.pace import CapturedTimes, Schedule, Speed, SteadyRate
from feeds.simulator.profile import VenueProfile
from feeds.simulator.tape import Tape, TapeFrame
from ringbuf.errors import CaptureError

#: Events a second over all symbols: what 200 symbols of Binance spot make on a quiet day.
DEFAULT_RATE = 2_000.0


class Source(Protocol):
    """What a venue plays."""

    @property
    def shared(self) -> bool:
        """One position for all clients, or each client its own from the beginning."""

    @property
    def laps(self) -> int | None:
        """How often the tape is played; None for ever."""

    def frames(self, profile: VenueProfile) -> list[TapeFrame]:
        """Give one lap of the venue's messages, wrapped."""

    def tape(self, frames: list[TapeFrame]) -> Tape:
        """Put messages on a tape."""

    def schedule(self, speed: Speed) -> Schedule | None:
        """Say when frames are due; None at full speed."""


class CaptureSource:
    """A capture, replayed verbatim. It is held in memory whole: use captures of some hundred MB at most.

    Args:
        path: A capture that `read_capture` reads; what the client sent in it is left out.
        laps: How often it is replayed; None for ever.
        rate: Frames a second where the capture has no times.
    """

    shared = False

    def __init__(self, path: str | Path, *, laps: int | None = 1, rate: float = DEFAULT_RATE) -> None:
        self.laps = laps
        self.path = Path(path)
        self._rate = rate
        self._times: list[int | None] = []
        #: Frames of the capture that belong to no stream, such as a REST snapshot between the lines.
        self.without_stream = 0

    def frames(self, profile: VenueProfile) -> list[TapeFrame]:
        """Give the received frames that belong to a stream of the venue.

        Raises:
            CaptureError: The file cannot be read, or no frame of it is of this venue.
        """
        frames, self._times, self.without_stream = list[TapeFrame](), [], 0
        for frame in read_capture(self.path):
            if frame.direction is Direction.SENT:
                continue
            stream = profile.stream_of(frame.payload)
            if stream is None:
                self.without_stream += 1
                continue
            frames.append(TapeFrame(stream, frame.payload))
            self._times.append(frame.received_ns)
        if not frames:
            raise CaptureError(
                f"no frame of {self.path} belongs to a stream of {profile.name}: give a capture of that venue"
            )
        return frames

    def tape(self, frames: list[TapeFrame]) -> Tape:
        """Put them on a tape as they are."""
        return Tape(frames)

    def schedule(self, speed: Speed) -> Schedule | None:
        """Keep the captured distances, or a steady rate where any time is missing. Call after `frames`."""
        if speed is None:
            return None
        times = [time for time in self._times if time is not None]
        return CapturedTimes(times, speed) if len(times) == len(self._times) else SteadyRate(self._rate * speed)


class MarketSource:
    """A market of the simulator's own.

    Args:
        symbols: How many.
        seed: The same seed gives the same events.
        rate: Events a second at speed 1, all symbols together, whether anybody listens or not.
        actions: The length of a lap; see `make_lap`.
    """

    shared = True
    laps = None

    def __init__(
        self, symbols: int = 200, seed: int = 1, rate: float = DEFAULT_RATE, actions: int = DEFAULT_ACTIONS
    ) -> None:
        self._instruments = instruments(symbols, seed)
        self._seed = seed
        self._rate = rate
        self._actions = actions

    def frames(self, profile: VenueProfile) -> list[TapeFrame]:
        """Make the lap, in the venue's messages."""
        return profile.encode(make_lap(self._instruments, self._seed, self._actions))

    def tape(self, frames: list[TapeFrame]) -> Tape:
        """Put them on a tape that writes ids and times as it plays."""
        return Tape(frames, marked=True)

    def schedule(self, speed: Speed) -> Schedule | None:
        """Keep the rate, `speed` times as fast."""
        return None if speed is None else SteadyRate(self._rate * speed)
