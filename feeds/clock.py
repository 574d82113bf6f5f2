"""Time for records: wall time that never jumps within a session.

`received` must be comparable between records even when somebody sets the machine's clock, so it is the monotonic clock
plus an anchor, the difference between wall and monotonic time. `check` compares the anchor with the truth now and
then; a step becomes the new anchor, and an event tells the reader where it happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: A difference below this is drift and rounding, not a step: NTP slews at most 500 us a second.
STEP: Final = 50_000_000

#: The two clocks cannot be read at one instant. A pair whose readings lie further apart is read again, a few times: a
#: process that was put aside between them must not take that for a step.
_CLOSE: Final = 1_000_000
_ATTEMPTS: Final = 5


class Clock:
    """Wall time in ns, anchored to the monotonic clock. For one thread."""

    def __init__(
        self, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Set what gives the wall and the monotonic time, both in ns."""
        self._wall = wall
        self._monotonic = monotonic
        self._anchor = self._difference()

    def _difference(self) -> int:
        """Wall less monotonic time, from readings as close together as they can be had."""
        closest: tuple[int, int] | None = None
        for _ in range(_ATTEMPTS):
            before = self._monotonic()
            wall = self._wall()
            apart = self._monotonic() - before
            found = apart, wall - before - apart // 2
            closest = found if closest is None else min(closest, found)
            if apart <= _CLOSE:
                break
        assert closest is not None  # noqa: S101 - there is at least one attempt
        return closest[1]

    def now(self) -> int:
        """Ns since 1970 in UTC, by the anchor."""
        return self._anchor + self._monotonic()

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines."""
        return self._monotonic() / 1e9

    def monotonic_ns(self) -> int:
        """The same in ns, for signs of life."""
        return self._monotonic()

    def check(self) -> int:
        """Anchor anew, and give how far the wall clock has stepped in ns; 0 if it has not."""
        anchor = self._difference()
        step = anchor - self._anchor
        if abs(step) < STEP:
            # Drift is followed in silence: a record's time stays within 50 ms of the machine's clock.
            self._anchor = anchor
            return 0
        self._anchor = anchor
        return step
