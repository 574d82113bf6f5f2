"""The contract between the session and whatever holds its sockets.

A transport hands over frames in batches, at the end of each socket read or after 256 of them, stamped with the time of
that read. It answers pings itself (a pong must not wait for anyone), and never lets an exception out of a callback:
what goes wrong in the receiver is the receiver's to count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit


@dataclass(frozen=True)
class ConnectOptions:
    """How to connect; made anew for each attempt, since tokens expire."""

    headers: dict[str, str] = field(default_factory=dict)
    #: Seconds for TCP, TLS and the upgrade together.
    timeout: float = 10.0


class Receiver(Protocol):
    """Who gets what a socket receives."""

    def on_batch(self, frames: list[bytes], received_ns: int) -> None:
        """Take whole messages, oldest first. The list is the receiver's to keep."""

    def on_disconnected(self, code: int, reason: str) -> None:
        """The socket is gone; called once. 1006 when no close frame came."""


class Socket(Protocol):
    """One open websocket."""

    def send(self, message: bytes) -> None:
        """Send a text message; nothing happens if the socket is gone."""

    async def close(self, code: int = 1000) -> None:
        """Say good-bye, wait a moment for the answer, and be gone."""


class Transport(Protocol):
    """Opens sockets."""

    async def connect(self, url: str, options: ConnectOptions, receiver: Receiver) -> Socket:
        """Open a websocket.

        Raises:
            VenueUnreachable: it did not come about; the message says why and names the URL without its query.
            UnauthorizedError: the venue answered 401 or 403.
        """


def redacted(url: str) -> str:
    """Give a URL without its user and query, where keys and tokens stand."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that is none"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
