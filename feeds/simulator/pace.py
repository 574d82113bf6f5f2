"""When a frame is due: a pure schedule over captured times or a steady rate. No clock, no sleep.

Frames are numbered from 0 over all laps for ever; a schedule maps elapsed nanoseconds to "how many are due" and a
frame's number to "when". Both are exact (integers and fractions), so that a week of replay drifts by nothing. Full
speed has no schedule: a frame is due when the client has room for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final, Protocol

import numpy as np

from ringbuf.errors import ParameterError

_SECOND: Final = 1_000_000_000

#: A speed is a factor, or None for full speed.
Speed = float | None


class Schedule(Protocol):
    """Which frames are due."""

    def due(self, elapsed_ns: int) -> int:
        """How many frames are due `elapsed_ns` after the start: frames 0 to that number less one."""

    def when(self, number: int) -> int:
        """Nanoseconds after the start at which frame `number` is due."""


def parse_speed(text: str) -> Speed:
    """Read ``1``, ``10``, ``2.5x`` or ``full``.

    Raises:
        ParameterError: Anything else, or a factor that is not above 0.
    """
    if text == "full":
        return None
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise ParameterError(
            f"the speed {text!r} cannot be used: give a factor above 0, such as 1, 10 or 0.5, or 'full'"
        )
    return factor


class CapturedTimes:
    """Frames at the distances of their capture, `factor` times as fast, lap after lap.

    A time that lies before its predecessor (several sockets, a clock that stepped) counts as its predecessor's. The
    next lap begins one mean distance after the last frame.
    """

    def __init__(self, times_ns: Sequence[int], factor: float = 1.0) -> None:
        if not times_ns:
            raise ParameterError("a schedule needs at least one captured time")
        times = np.maximum.accumulate(np.array(times_ns, np.int64))
        self._at = times - times[0]
        span = int(self._at[-1])
        self._lap_ns = max(1, span + span // max(1, len(times) - 1))
        self._factor = Fraction(factor)

    def due(self, elapsed_ns: int) -> int:
        """See `Schedule`."""
        lap, within = divmod(int(elapsed_ns * self._factor), self._lap_ns)
        return lap * len(self._at) + int(np.searchsorted(self._at, within, "right"))

    def when(self, number: int) -> int:
        """See `Schedule`."""
        lap, frame = divmod(number, len(self._at))
        return -int(-(lap * self._lap_ns + int(self._at[frame])) // self._factor)


class SteadyRate:
    """`rate` frames a second, evenly; the first at once."""

    def __init__(self, rate: float) -> None:
        if not 0 < rate < float("inf"):
            raise ParameterError(f"a rate is a number of events a second above 0, not {rate}")
        self._rate = Fraction(rate) / _SECOND

    def due(self, elapsed_ns: int) -> int:
        """See `Schedule`."""
        return int(elapsed_ns * self._rate) + 1

    def when(self, number: int) -> int:
        """See `Schedule`."""
        return -int(-number // self._rate)
