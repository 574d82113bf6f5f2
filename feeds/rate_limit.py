"""How fast we may send to a venue: a token bucket. Pure; time is given."""

from __future__ import annotations


class RateLimit:
    """At most `per_second` messages in any second: the bucket holds one second's worth and starts full."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._tokens = per_second
        self._at = now

    def _fill(self, now: float) -> None:
        self._tokens = min(self._per_second, self._tokens + (now - self._at) * self._per_second)
        self._at = now

    def wait(self, now: float) -> float:
        """Give the seconds until a message may be sent; 0 if it may now."""
        self._fill(now)
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._per_second

    def take(self, now: float) -> None:
        """A message is being sent."""
        self._fill(now)
        self._tokens -= 1
