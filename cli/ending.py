"""The signals that end a long-running command, as something to wait for.

A signal handler that raises would strike anywhere: between a process's start and the line that remembers it, say. So
handlers here only count and wake whoever waits; the command ends at places of its own choosing. For the main thread.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

#: Ctrl-C, a polite request, and the terminal's end.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Takes the ending signals while it is entered, and puts the old handlers back."""

    def __init__(self) -> None:
        #: The first signal that came; 0 while none has.
        self.signal = 0
        #: How many have come: the second one means that somebody is in a hurry.
        self.times = 0

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before = [(number, signal.signal(number, self._take)) for number in _SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a handler
        self.signal = self.signal or number
        self.times += 1
        with suppress(BlockingIOError):  # full of signals that nobody has waited for: the next wait returns at once
            os.write(self._write, b".")

    def wait(self, seconds: float) -> bool:
        """Wait until a signal has come, at most so long; tells whether one has, now or earlier."""
        if not self.signal:
            select.select([self._read], [], [], max(0.0, seconds))
        return bool(self.signal)

    @property
    def exit_code(self) -> int:
        """What a command ends with that was ended so: 130 for Ctrl-C, as shells have it."""
        return 128 + self.signal
