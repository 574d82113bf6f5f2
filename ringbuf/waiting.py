"""How a reader waits for the next record.

A strategy is asked to pause once for every empty look at the ring, and told when something came. Only `Backoff` is
here so far; spin and futex take its place behind the same two methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

# Measured: 50 us is the kernel's own timer slack, so less gains nothing; 1 ms keeps an idle reader below 2 % of a core.
FIRST_PAUSE: Final = 50e-6
LONGEST_PAUSE: Final = 1e-3


class WaitStrategy(Protocol):
    """What to do while there is nothing to read."""

    def pause(self, remaining: float | None) -> None:
        """Wait a little, never longer than `remaining` seconds if that is given."""

    def reset(self) -> None:
        """Something came: be quick again."""


class Backoff:
    """Sleep 50 us, doubling to 1 ms; back to 50 us after every record. For one thread."""

    def __init__(
        self,
        first: float = FIRST_PAUSE,
        longest: float = LONGEST_PAUSE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set the bounds, in seconds, and what sleeps."""
        self._first = first
        self._longest = longest
        self._next = first
        self._sleep = sleep

    def pause(self, remaining: float | None) -> None:
        """Sleep for the next pause, or the remaining time if that is shorter."""
        self._sleep(self._next if remaining is None else max(0.0, min(self._next, remaining)))
        self._next = min(2 * self._next, self._longest)

    def reset(self) -> None:
        """Begin with the first pause again."""
        self._next = self._first
