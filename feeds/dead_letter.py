r"""Frames that could not be used are kept, a bounded number of them, so that somebody can find out why.

One JSON object a line: ``{"received": ns, "reason": "...", "frame": "...", "size": n}``; the frame is cut at 4 KiB and
shown as text, bytes that are no utf-8 as \\xNN. At 1 MiB the file starts anew and the previous one stays beside it as
``.1``: a feed that goes wrong for a night leaves 2 MiB, not a full disk. Of one reason, a thousand an hour are kept.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Final

import orjson

#: Two of them are all that is ever kept.
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
        #: The hour in which the disk did not take a letter.
        self._failed = -1

    def keep(self, frame: bytes, reason: str, received_ns: int) -> None:
        """Keep a frame. A full or unwritable disk loses the letter, never the feed: the frame has been counted."""
        if self._path is None or not self._may_keep(reason, received_ns):
            return
        text = frame[:_LONGEST_FRAME].decode(errors="backslashreplace")
        line = orjson.dumps({"received": received_ns, "reason": reason, "frame": text, "size": len(frame)}) + b"\n"
        try:
            self._write(self._path, line)
        except OSError:
            # Nor is every following letter to cost an attempt: the next hour is early enough.
            self._failed = self._hour

    @staticmethod
    def _write(path: Path, line: bytes) -> None:
        if path.exists() and path.stat().st_size + len(line) > LARGEST_FILE:
            path.replace(path.with_name(path.name + ".1"))
        # 0600 from the first moment: a venue's frames may be a paying customer's own.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "ab") as file:
            file.write(line)

    def _may_keep(self, reason: str, received_ns: int) -> bool:
        hour = received_ns // _HOUR
        if hour != self._hour:
            self._hour = hour
            self._kept.clear()
        if hour == self._failed:
            return False
        # Reasons may quote the frame; their first words are enough to tell them apart, and bound the table.
        key = reason[:40]
        if len(self._kept) >= _PER_REASON and key not in self._kept:
            return False
        self._kept[key] += 1
        return self._kept[key] <= _PER_REASON
