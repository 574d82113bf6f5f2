"""How fast we may send to a venue. Pure; time is given.

Messages are spaced evenly. A bucket that lets a second's worth go at once sends nearly twice the limit within a second,
because it refills meanwhile; and messages that a busy network bunches on their way break a limit that was kept here.
Even spacing costs a large subscription nothing: its last message leaves when a bucket's would.
"""

from __future__ import annotations


class RateLimit:
    """At most one message every `1 / per_second` seconds; the first at once."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        #: When the next message may be sent.
        self._free = float("-inf")

    def wait(self, now: float) -> float:
        """Give the seconds until a message may be sent; 0 if it may now."""
        return max(0.0, self._free - now)

    def take(self, now: float) -> None:
        """A message is being sent."""
        self._free = now + self._gap
