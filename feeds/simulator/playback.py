"""Push a tape to the clients that hear it: at the pace of a schedule, or as fast as they read.

A playback has one position, a frame's number over all laps, and any number of hearers: a capture has a playback for
each client, the market one for all. Each hearer has its own selection of the lap on its own tape.

**Paced.** What is due goes out in one write per hearer (64 KiB at most a write), at least a millisecond apart: frames
that fall due together travel together, as from a real venue. A hearer that reads too slowly fills the server's buffer;
above the venue's limit it is disconnected, as real venues do. After a stop of the machine everything due is sent.

**Full speed.** The next 64 KiB go out when every hearer has taken the last, so that nothing is dropped and nothing
piles up. One hearer of a capture may take for ever; among several hearers of the market, one that takes no byte for
`STALL_SECONDS` is disconnected, for it holds up the others.

Silence (`quiet`): paced, the market goes on unheard, and a replay stands still and resumes where it stood.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from feeds.simulator.pace import Schedule
from feeds.simulator.tape import Tape

#: As venues coalesce: one write holds some 400 frames, and a larger one is no cheaper.
WRITE_BYTES: Final = 64 * 1024
#: Writes of one hearer are at least this far apart when paced; an event loop's timer is no finer.
_TICK_NS: Final = 1_000_000
#: nats-server's write deadline.
STALL_SECONDS: Final = 10.0


class Hearer(Protocol):
    """What a playback needs of a client."""

    @property
    def tape(self) -> Tape:
        """The frames of the lap that the client subscribed to."""

    def play(self, first: int, stop: int, lap: int) -> bool:
        """Write the frames at these places of its tape; False if the client is gone or was disconnected as too slow."""

    async def drained(self) -> None:
        """Wait until the client has taken what was written, or is gone."""

    def too_slow(self) -> None:
        """Disconnect the client."""

    def replay_over(self) -> None:
        """The last frame was written."""


class Playback:
    """One position on a tape and those who hear it; `run` is its life.

    Args:
        lap: Frames in a lap.
        laps: How many laps; None for ever.
        schedule: When frames are due; None at full speed.
        shared: Whether the time goes on while nobody hears it.
        clock: Monotonic nanoseconds.
    """

    def __init__(
        self, lap: int, laps: int | None, schedule: Schedule | None, *, shared: bool, clock: Callable[[], int]
    ) -> None:
        self.position = 0
        self.hearers: list[Hearer] = []
        self._quiet = False
        self._lap = lap
        self._end = None if laps is None else lap * laps
        self._schedule = schedule
        self._shared = shared
        self._clock = clock
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Tell that a hearer came, left or has another tape."""
        self._changed.set()

    @property
    def quiet(self) -> bool:
        """Whether nothing is sent."""
        return self._quiet

    @quiet.setter
    def quiet(self, quiet: bool) -> None:
        self._quiet = quiet
        self._changed.set()

    async def run(self) -> None:
        """Play until the last lap ends; cancel to stop."""
        if self._schedule is None:
            while self._end is None or self.position < self._end:
                await self._push()
        else:
            await self._keep_pace(self._schedule)
        for hearer in list(self.hearers):
            hearer.replay_over()

    async def _push(self) -> None:
        """Full speed: wait for room with everyone, then write up to 64 KiB to each."""
        self._changed.clear()
        hearers = [hearer for hearer in self.hearers if hearer.tape.count]
        if self._quiet or not hearers:
            await self._changed.wait()
            return
        for hearer in hearers:
            await self._room(hearer)
        if self._changed.is_set():
            return  # someone came, left or subscribed meanwhile: look again
        lap, frame = divmod(self.position, self._lap)
        stop = min(hearer.tape.reach(hearer.tape.find(frame), WRITE_BYTES) for hearer in hearers)
        for hearer in hearers:
            hearer.play(hearer.tape.find(frame), hearer.tape.find(stop), lap)
        self.position = lap * self._lap + stop
        await asyncio.sleep(0)  # requests, pings and other replays get their turn

    async def _room(self, hearer: Hearer) -> None:
        if not self._shared:
            await hearer.drained()
            return
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await hearer.drained()
        except TimeoutError:
            hearer.too_slow()

    async def _keep_pace(self, schedule: Schedule) -> None:
        start = self._clock()
        while self._end is None or self.position < self._end:
            elapsed = self._clock() - start
            due = schedule.due(elapsed)
            due = due if self._end is None else min(due, self._end)
            if self._quiet and not self._shared:
                start += max(0, elapsed - schedule.when(self.position))  # the replay's time stands still
            elif due > self.position:
                if not self._quiet:
                    self._send(due)
                self.position = due
            wait = max(_TICK_NS, schedule.when(self.position) - (self._clock() - start))
            await asyncio.sleep(wait / 1e9)

    def _send(self, due: int) -> None:
        """Write the frames from the position up to `due` to every hearer, lap by lap, 64 KiB at a time."""
        for hearer in list(self.hearers):
            position = self.position
            while position < due:
                lap, frame = divmod(position, self._lap)
                tape, last = hearer.tape, min(due - lap * self._lap, self._lap)
                place = tape.find(frame)
                stop = min(tape.reach(place, WRITE_BYTES), last)
                if not hearer.play(place, tape.find(stop), lap):
                    break
                position = lap * self._lap + stop
