"""How long to wait before trying again: exponential, with full jitter.

Full jitter (a uniform draw below the bound) spreads the clients that lost a venue at the same moment better than a
fixed delay with a little noise. The defaults are DESIGN's: 0.5 s doubling to 30 s, never below 0.1 s.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """The delays before attempt 1, 2, 3, ... after a failure."""

    #: The bound of the first delay, in seconds.
    base: float = 0.5
    #: The bound of every later delay, in seconds.
    cap: float = 30.0
    #: No delay is shorter, so that a draw near zero does not become a storm.
    floor: float = 0.1
    #: Gives a number in [0, 1); injected by tests.
    draw: Callable[[], float] = random.random

    def delay(self, failures: int) -> float:
        """Give the seconds to wait after this many failures in a row, counted from 0."""
        # 2**64 is far beyond any cap, and keeps the float finite however long a venue is down.
        bound = min(self.cap, self.base * 2.0 ** min(failures, 64))
        return max(self.floor, self.draw() * bound)
