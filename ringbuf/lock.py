"""One writer per connection: a POSIX lock on a sidecar file.

`lockf` and not `flock`: the kernel frees it when the process dies, even by SIGKILL and even if a child it forked
lives on. Its weakness is that closing *any* descriptor of the file in the same process drops it, so the file is
opened here and nowhere else; and that it does not exclude the same process twice, so `_held` does. It knows files by
what they are, not by path: two spellings of one path would open the file twice, and the first close drop both locks.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ringbuf.directory import open_file
from ringbuf.errors import WriterActive

_held: set[tuple[int, int]] = set()


class WriterLock:
    """The right to write one connection's rings. Held from construction until `release` or the process's end."""

    def __init__(self, directory: Path) -> None:
        """Take the lock of `directory`.

        Raises:
            WriterActive: another process, or this one, holds it.
        """
        path = directory / "writer.lock"
        if _identity(path) in _held:
            raise WriterActive(f"this process already writes {directory.name}. Close the first writer.")
        self._descriptor = open_file(path, write=True, create=True)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise WriterActive(
                f"another process writes {directory.name} ({directory}). Stop it first, or use another name."
            ) from error
        found = os.fstat(self._descriptor)
        self._key = (found.st_dev, found.st_ino)
        _held.add(self._key)
        self._released = False

    def release(self) -> None:
        """Give the lock up; doing so twice is harmless."""
        if not self._released:
            self._released = True
            _held.discard(self._key)
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file this is, found without opening it."""
    try:
        found = path.lstat()
    except OSError:
        return None  # `open_file` will say what is wrong with it
    return found.st_dev, found.st_ino
