r"""Frames that could not be used are kept, a bounded number of them, so that somebody can find out why.

One JSON object a line: ``{"received": ns, "reason": "...", "frame": "...", "size": n}``; the frame is cut at 4 KiB and
shown as text, bytes that are no utf-8 as \\xNN. At 1 MiB the file starts anew and the previous one stays beside it as
``.1``: a feed that goes wrong for a night leaves 2 MiB, not a full disk. Of one reason, a thousand an hour are kept.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import orjson

LARGEST_FILE: Final = 2**20
_LONGEST_FRAME: Final = 4096
_PER_REASON: Final = 1000
_HOUR: Final = 3_600_000_000_000


class DeadLetters:
    """Where one provider keeps the frames it could not use. For one thread."""

    def __init__(self, path: Path | None) -> None:
        """Set the file, made at the first letter; None keeps nothing."""
        self._path = path
        self._kept: Counter[str] = Counter()
        self._hour = 0

    def keep(self, frame: bytes, reason: str, received_ns: int) -> None:
        """Keep a frame. A full or unwritable disk loses the letter, never the feed: the frame has been counted."""
        if self._path is None or not self._may_keep(reason, received_ns):
            return
        text = frame[:_LONGEST_FRAME].decode(errors="backslashreplace")
        line = orjson.dumps({"received": received_ns, "reason": reason, "frame": text, "size": len(frame)}) + b"\n"
        try:
            if self._path.exists() and self._path.stat().st_size + len(line) > LARGEST_FILE:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            with self._path.open("ab") as file:
                self._path.chmod(0o600)
                file.write(line)
        except OSError:
            self._path = None

    def _may_keep(self, reason: str, received_ns: int) -> bool:
        hour = received_ns // _HOUR
        if hour != self._hour:
            self._hour = hour
            self._kept.clear()
        # Reasons may quote the frame; their first words are enough to tell them apart, and bound the table.
        key = reason[:40]
        if len(self._kept) >= _PER_REASON and key not in self._kept:
            return False
        self._kept[key] += 1
        return self._kept[key] <= _PER_REASON
