"""What a venue's profile is: everything about a venue that the simulator must know, as data and pure functions.

A profile turns a URL into a client's first subscriptions, a client's request into the venue's answer, and market events
or captured frames into the venue's streams. It knows no socket and no clock. Add a venue: one module with a class that
fits `VenueProfile`, and its name in `command.VENUES`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from feeds.simulator.market import MarketLap
from feeds.simulator.tape import TapeFrame


@dataclass(slots=True)
class Subscriptions:
    """What one client is subscribed to, in the order asked for.

    Attributes:
        streams: Stream names; the values mean nothing.
        wrapped: Messages are wrapped with their stream's name (Binance: combined).
    """

    streams: dict[str, None] = field(default_factory=dict)
    wrapped: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The venue's answer to one request.

    Attributes:
        reply: The message to send; empty for none.
        subscriptions: What the client has from now on; None leaves it as it is.
        refused: The venue said no.
    """

    reply: bytes
    subscriptions: Subscriptions | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The venue's limits on one client.

    Attributes:
        requests_per_second: Messages, pings and pongs that a client may send in a second.
        ping_interval: Seconds between the venue's pings; 0 for none.
        pong_deadline: Seconds within which a ping's payload must come back.
    """

    requests_per_second: int
    ping_interval: float
    pong_deadline: float


class VenueProfile(Protocol):
    """One venue."""

    @property
    def name(self) -> str:
        """The venue's name, as the provider's."""

    @property
    def path(self) -> str:
        """The path that a client connects to unless it knows better."""

    @property
    def limits(self) -> Limits:
        """The venue's limits."""

    def connect(self, path: str) -> Subscriptions | None:
        """Give the first subscriptions of a client that asked for this path with its query; None: there is no such."""

    def answer(self, request: bytes, current: Subscriptions, known: Collection[str] | None, refusal: str) -> Answer:
        """Answer a request.

        Args:
            request: The client's message.
            current: What the client has; not changed.
            known: Streams outside which a subscription is refused; None accepts what is well formed.
            refusal: Refuse every subscription with these words; empty does not.

        Returns:
            The answer. Garbage gets the venue's error.
        """

    def ping_payload(self, time_ms: int) -> bytes:
        """Give the payload of a ping."""

    def stream_of(self, payload: bytes) -> str | None:
        """Name the stream of a captured message; None if it belongs to none."""

    def unwrapped(self, payload: bytes) -> bytes:
        """Take the wrapping with the stream's name off a message of a stream."""

    def encode(self, lap: MarketLap) -> list[TapeFrame]:
        """Put a market's events into the venue's messages, wrapped, one each, in order."""


class RequestLimit:
    """At most `most` requests in any second: a sliding window, times given by the caller in seconds."""

    def __init__(self, most: int) -> None:
        self._times: deque[float] = deque(maxlen=most)

    def allows(self, now: float) -> bool:
        """Count a request at `now`; False if it is one too many."""
        full = len(self._times) == self._times.maxlen
        allowed = not full or now - self._times[0] >= 1.0
        self._times.append(now)
        return allowed
