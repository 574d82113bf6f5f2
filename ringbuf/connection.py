"""One connection's directory, seen by its writer: the lock, the names, the counters, and a ring for every kind."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ringbuf.counters import Counter, Counters
from ringbuf.directory import check_name, connection_directory
from ringbuf.lock import WriterLock
from ringbuf.symbols import SymbolTable
from ringbuf.writer import RingWriter


class ConnectionWriter:
    """Everything one provider process writes. For one thread.

    A ring file appears with `ring`, so a kind that never has a record has no file.
    """

    def __init__(self, name: str) -> None:
        """Take the connection `name`, creating its directory.

        Raises:
            ParameterError: the name cannot be a directory's name.
            WriterActive: another process writes this connection.
            UnsafePath, RingCorrupt, RingVersionError, SharedMemoryFull: see `directory` and `slots`.
        """
        self.name = name
        self.directory: Path = connection_directory(name, create=True)
        # The lock goes in first and so is given up last, whatever fails on the way, here or in `close`.
        with ExitStack() as opened:
            opened.callback(WriterLock(self.directory).release)
            self.symbols = SymbolTable(self.directory, write=True)
            opened.callback(self.symbols.close)
            self.counters = Counters(self.directory)
            opened.callback(self.counters.close)
            self._opened = opened.pop_all()
        self.counters.set(Counter.PID, os.getpid())
        #: The rings opened so far.
        self.rings: dict[str, RingWriter] = {}

    def ring(self, kind: str, dtype: np.dtype[np.void], capacity: int) -> RingWriter:
        """Give the ring of a kind, opening it the first time. Raises as `RingWriter` does."""
        ring = self.rings.get(kind)
        if ring is None:
            path = self.directory / f"{check_name(kind, 'kind')}.ring"
            ring = self.rings[kind] = RingWriter(path, self.name, kind, dtype, capacity)
            self._opened.callback(ring.close)
        return ring

    def close(self) -> None:
        """Leave in good order and free the name for another writer. The files stay for readers.

        Doing so twice is harmless.
        """
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
