"""One listener: its position in the shared log, its bounds, and what is to be done about it.

Pure: the time, and how many bytes its socket has not taken yet, are given. Every tick a listener is judged by what it
took of what was written to it::

    handed ---------------------------------------------+
    |  taken by the kernel            |    buffered     |
    +---------------------------------+-----------------+
                                      |<- > 1 MiB, or nothing taken for 10 s: SLOW, closed with 4008
                                      |<- > 64 KiB: WAIT, it is skipped this tick; its position stays
                                      |<- else: SEND, one write of at most 512 KiB

Nobody waits for a slow listener, and it costs no more memory than what one write may add to the soft limit: its queue
is a position in a log that is kept anyway. When the log has moved past that position, the listener gets one notice with
the number of records it lost and goes on at the newest. The count is exact::

    received + lost == published since it joined

A listener that is silent is asked: a ping every 20 s, answered within 20 s. The deadline is ours, measured from the
moment the ping was written, and needs no drained buffer (a library that first waits for one never notices a listener
that stalls under load).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from supervisor.frame_log import FrameLog, Piece


@dataclass(frozen=True)
class Limits:
    """What a broadcaster's listeners are held to. Sizes in bytes, times in seconds."""

    #: One write a listener a tick: measured, writes cost, not records (20 ms: 1,000 listeners on half a core).
    tick: float = 0.02
    #: The log all listeners of a connection share: about 65,000 records as JSON, half of a default trade ring.
    log: int = 16 * 2**20
    #: A listener with more than this unsent is skipped (the figure measured servers use; 250 records or so).
    soft: int = 64 * 2**10
    #: One write at most: lets a listener that fell behind catch up at 25 MiB/s, and stays below `hard` beside `soft`.
    write: int = 512 * 2**10
    #: A listener with more than this unsent is closed (Centrifugo's limit for the same).
    hard: int = 2**20
    #: A listener that takes nothing for so long is closed (NATS' write deadline).
    stalled: float = 10.0
    #: How long a closing handshake may take before the connection is cut.
    closing: float = 1.0
    #: How long a listener may take to send its token as its first message.
    token: float = 5.0
    #: Silence before a ping, and how long its answer may take (the websockets library's figures).
    ping_interval: float = 20.0
    ping_deadline: float = 20.0


class Verdict(Enum):
    """What to do with a listener now."""

    #: It can take more.
    SEND = auto()
    #: It has enough unsent.
    WAIT = auto()
    #: Close it with 4008.
    SLOW = auto()
    #: Close it: it does not answer pings.
    SILENT = auto()


class Listener:
    """One listener's account."""

    def __init__(self, log: FrameLog, now: float, limits: Limits) -> None:
        """Join at the newest record of `log`."""
        self._limits = limits
        self._joined = self._counted = log.published
        #: The next batch it wants.
        self.position = log.head
        #: Records it lost because the log moved past its position; it has been told of all of them.
        self.lost = 0
        self._handed = 0
        self._taken = 0
        self._progress = now
        # What was written and not yet taken: the value of `handed` after each piece.
        self._unsettled: deque[tuple[int, Piece]] = deque()
        self._settled = 0
        self._heard = now
        self._pinged: float | None = None

    def judge(self, now: float, buffered: int) -> Verdict:
        """Say what to do, given how many bytes its socket has not taken."""
        limits = self._limits
        taken = self._handed - buffered
        if buffered <= 0 or taken > self._taken:
            self._progress = now
        self._settle(taken)
        if buffered > limits.hard or now - self._progress >= limits.stalled:
            return Verdict.SLOW
        if self._pinged is not None and now - self._pinged >= limits.ping_deadline:
            return Verdict.SILENT
        return Verdict.WAIT if buffered > limits.soft else Verdict.SEND

    def _settle(self, taken: int) -> None:
        self._taken = taken
        while self._unsettled and self._unsettled[0][0] <= taken:
            self._settled += self._unsettled.popleft()[1].records

    def fell_out(self, log: FrameLog) -> bool:
        """Tell whether the log no longer holds what it wants next: it must `skip`."""
        return self.position < log.first

    def next_piece(self, log: FrameLog) -> Piece | None:
        """Give what to write next and move on; None when it has everything. It must not have fallen out."""
        if self.position == log.head:
            return None
        piece = log.piece(self.position, self._limits.write)
        self.position, self._counted = piece.position, piece.published
        self.wrote(len(piece.data), piece)
        return piece

    def skip(self, log: FrameLog) -> int:
        """Go on at the newest record and give how many are lost by that, as a notice must tell."""
        lost = log.published - self._counted
        self.position, self._counted = log.head, log.published
        self.lost += lost
        return lost

    def wrote(self, size: int, piece: Piece | None = None) -> None:
        """Count bytes that were handed to its socket."""
        self._handed += size
        if piece is not None:
            self._unsettled.append((self._handed, piece))

    def undelivered(self, buffered: int) -> int:
        """How many of the records counted since it joined its socket has not taken, to the record.

        Args:
            buffered: bytes still unsent.
        """
        taken = self._handed - buffered
        self._settle(taken)
        delivered = self._settled
        if self._unsettled:
            end, piece = self._unsettled[0]
            delivered += piece.records_within(taken - (end - len(piece.data)))
        return self._counted - self._joined - delivered

    def heard(self, now: float) -> None:
        """Something came from it: it lives."""
        self._heard, self._pinged = now, None

    def wants_ping(self, now: float) -> bool:
        """Tell whether a ping is due; if so, its deadline runs from now on."""
        if self._pinged is not None or now - self._heard < self._limits.ping_interval:
            return False
        self._pinged = now
        return True
