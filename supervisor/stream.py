"""One connection's stream: rings in, one encoded log, one write per listener per tick.

::

    rings --- RingStream --- lines --- frames ---> FrameLog --- tick ---> listener, listener, ...
              (one order)    (once)    (once)      (bounded)    (20 ms)   (a position each)

The system call is what a listener costs, not the record. So a write collects what came within a tick; when the last
write is older than that, a record goes out at once. Between records the rings are looked at after 1, 2, 4, ... ms, at
most every tick. Without listeners the stream lets the rings go: nothing is read, nothing encoded.

A listener begins "from now on": `place` fixes where that is, before the listener's handshake is answered, so that it
gets every record published after it sees the connection open. What the rings lost, and records whose names cannot be
read, listeners are told by a notice; people are told once of every ring or table of names that cannot be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from feeds.records import DATA_KINDS
from ringbuf.errors import RingError
from supervisor.frame_log import FrameLog, gap_notice
from supervisor.frames import TextFrames
from supervisor.gathered import Batch, Gathered, Miss, merged
from supervisor.listeners import Limits, Listener
from supervisor.ring_stream import RingStream

#: How often rings that are not there yet are looked for, in seconds: a kind's first record is late by this at most.
SCAN: Final = 0.1
#: The first pause after a look that found nothing, in seconds: what idle readers begin with too.
FIRST_PAUSE: Final = 1e-3
#: Records of one ring taken in one go: some 12 ms of encoding, so that listeners and control are not kept waiting.
READ_LIMIT: Final = 4096
#: Records of one batch: some 64 KiB of JSON, so that positions are fine enough for the limit of a write.
BATCH: Final = 256
#: How often listeners are judged when nothing is to be sent, in seconds: deadlines are seconds.
REVIEW: Final = 0.25


class Outlet(Protocol):
    """A listener's connection, as the stream sees it."""

    def turn(self, now: float, log: FrameLog) -> bool:
        """Write what it can take now; tell whether it should be asked again next tick."""


class Stream:
    """Serves one connection's records. For one thread, on an event loop."""

    def __init__(
        self, connection: str, limits: Limits, tell: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        """Prepare to serve a connection; `tell` gets lines for people."""
        self.connection = connection
        self._limits = limits
        self._clock = clock
        self._tell = tell
        self._told: set[str] = set()
        self._rings: RingStream | None = None
        self._scanned = float("-inf")
        self._texts = TextFrames()
        self._log = FrameLog(limits.log)
        self._outlets: dict[Outlet, None] = {}
        self._awaited = asyncio.Event()
        self._sent_up_to = 0
        self._delivered = self._reviewed = float("-inf")
        self._lagging = False
        self._pause = FIRST_PAUSE

    def place(self) -> Listener:
        """Give an account that begins with the next record to be published.

        While reading is behind it begins earlier, by what the rings hold beyond one read.
        """
        now = self._clock()
        if self._rings is None:
            self._attach(now)
        else:
            self._read(now)
        self._awaited.set()
        return Listener(self._log, now, self._limits)

    def join(self, outlet: Outlet) -> None:
        """Serve a listener from the place it was given."""
        self._outlets[outlet] = None
        self._awaited.set()

    def leave(self, outlet: Outlet) -> None:
        """Serve it no more."""
        self._outlets.pop(outlet, None)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            while True:
                await self._awaited.wait()
                if self._outlets:
                    await asyncio.sleep(self.step(self._clock()))
                else:
                    self._awaited.clear()
                    self.detach()
                    self._log.clear()
        finally:
            self.detach()

    def _attach(self, now: float) -> RingStream:
        self._rings = RingStream(self.connection, {}, begin="newest", kinds=DATA_KINDS, batch=READ_LIMIT)
        self._rings.attach()
        self._scanned = now
        return self._rings

    def detach(self) -> None:
        """Let the rings go; the next listener begins with what is published then."""
        if self._rings is not None:
            self._rings.close()
            self._rings = None

    def flush(self) -> None:
        """Send what the rings hold now, as far as one write goes: the last act before the listeners are closed."""
        if self._outlets:
            now = self._clock()
            self._read(now, scan=True)
            self._deliver(now)

    def step(self, now: float) -> float:
        """Look at the rings, send what is due, and give how long to pause, in seconds."""
        behind = self._read(now)
        waiting = self._log.head > self._sent_up_to or self._lagging
        # A timer may fire up to its resolution of 1 ms early.
        due = now - self._delivered >= self._limits.tick - 1e-3
        if waiting and due:
            self._delivered = now
            self._deliver(now)
        elif not waiting and now - self._reviewed >= REVIEW:
            self._deliver(now)
        if behind:
            return 0.0
        if waiting:
            self._pause = FIRST_PAUSE
            return max(FIRST_PAUSE, self._delivered + self._limits.tick - now)
        pause, self._pause = self._pause, min(2 * self._pause, self._limits.tick)
        return pause

    def _read(self, now: float, *, scan: bool = False) -> bool:
        """Take what the rings have, and tell whether there is more to take at once."""
        rings = self._rings or self._attach(now)
        if scan or now - self._scanned >= SCAN:
            self._scanned = now
            rings.attach()
        behind = rings.gather(rings.tails())
        for trouble in rings.new_troubles():
            self._tell_once(trouble)
        gathered = rings.take()
        if gathered.streams:
            self._append(gathered)
        return behind

    def _append(self, gathered: Gathered) -> None:
        texts, unreadable = self._encode(gathered.data)
        misses = gathered.misses + unreadable
        if misses:
            self._log.append(
                self._texts.join(map(self._notice, misses)),
                records=0,
                notices=len(misses),
                lost=sum(miss.count for miss in misses),
            )
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            self._log.append(self._texts.join(batch), records=len(batch))

    def _encode(self, batches: list[Batch]) -> tuple[list[bytes], list[Miss]]:
        try:
            return merged(batches), []
        except RingError as error:  # the names that ids stand for cannot be read; one table has those of all kinds
            self._tell_once(str(error))
        return [], [
            Miss(batch.kind, batch.ring_id, int(batch.records["seq"][0]), len(batch), "unreadable") for batch in batches
        ]

    def _tell_once(self, trouble: str) -> None:
        if trouble not in self._told:
            self._told.add(trouble)
            self._tell(f"not sent to listeners: {trouble}")

    def _notice(self, miss: Miss) -> bytes:
        return gap_notice(self.connection, miss.count, miss.reason, miss.kind, miss.first)

    def _deliver(self, now: float) -> None:
        self._reviewed = now
        self._sent_up_to = self._log.head
        self._lagging = False
        for outlet in list(self._outlets):
            if outlet.turn(now, self._log):
                self._lagging = True
