"""The right to write a results file: a lock beside it.

`lockf`, because the kernel frees it when the process dies, even by SIGKILL. On ``results.db-writer``, a file of its
own, because on the database it would get into the way of SQLite's own locks: those fall when any descriptor of the
database is closed. The file is removed in good order; one that a killed process left is taken over.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from ringbuf.errors import ResultsFileError

_held: set[Path] = set()


class FileLock:
    """The right to write one results file. Held until `release` or the process's end, however that comes."""

    def __init__(self, path: Path) -> None:
        """Take the lock of the results file at `path`.

        Raises:
            ResultsFileError: someone holds it, or its directory cannot be written.
        """
        self._path = path.with_name(f"{path.name}-writer")
        if self._path in _held:
            raise ResultsFileError(f"{path} is still open here. Try again.")
        while True:
            self._descriptor = self._lock(path)
            with suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(self._descriptor).st_ino:
                    break
            os.close(self._descriptor)  # its last holder removed it between our open and our lock: take the new one
        _held.add(self._path)

    def _lock(self, path: Path) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ResultsFileError(
                f"{path} cannot be written: {self._path}: {error.strerror}. Choose another results_file, or give "
                "yourself the right to write there."
            ) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ResultsFileError(
                f"another recorder writes {path}. Choose another results_file, or end the connection there."
            ) from error
        return descriptor

    def release(self) -> None:
        """Give the lock up; doing so twice is harmless."""
        if self._path in _held:
            _held.discard(self._path)
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
