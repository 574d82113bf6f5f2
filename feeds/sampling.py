"""Which of many equal happenings are worth a line: a venue gone mad must fill neither the log nor the event ring.

Pure; time is given. Of one reason one line in ten seconds; of all reasons together at most a hundred in ten seconds,
because a reason may quote what the venue sent, and then no two are equal.
"""

from __future__ import annotations

from typing import Final

_EVERY: Final = 10_000_000_000
_MOST: Final = 100
#: Where reasons differ after this many characters, they quote something.
_TOLD_APART_BY: Final = 40


class Sampler:
    """Remembers what was told lately. For one thread."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def takes(self, reason: str, now: int) -> bool:
        """Whether this one is to be told.

        Args:
            reason: what kind of happening it is; its first 40 characters tell it from others.
            now: ns. A clock that was set back begins anew.
        """
        reason = reason[:_TOLD_APART_BY]
        last = self._told.get(reason)
        if last is not None and 0 <= now - last < _EVERY:
            return False
        if last is None and len(self._told) >= _MOST:
            self._told = {told: at for told, at in self._told.items() if 0 <= now - at < _EVERY}
            if len(self._told) >= _MOST:
                return False
        self._told[reason] = now
        return True
