"""A ring file in memory: the checked header, the live words, the slots.

Readers map it read-only, so that a fault of theirs can never reach the feed.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from ringbuf import layout
from ringbuf.directory import open_file


class RingMapping:
    """One ring file, mapped. The descriptor is closed at once; the mapping keeps the file alive."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """Open, check and map a ring file.

        Raises:
            RingNotFound, UnsafePath: see `directory.open_file`.
            RingCorrupt, RingVersionError: see `layout.decode`.
        """
        descriptor = open_file(path, write=write)
        try:
            found = os.fstat(descriptor)
            page = os.pread(descriptor, layout.HEADER_SIZE, 0)
            self.header = layout.decode(page, found.st_size, path)
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._mapped = mmap.mmap(descriptor, self.header.file_size, access=access)
        finally:
            os.close(descriptor)
        #: Which file this is: differs from the name's file once another has taken the name.
        self.identity = (found.st_dev, found.st_ino)
        self._bytes = memoryview(self._mapped)
        #: The header as u64 words: an item is loaded or stored by one 8-byte move.
        self.words = self._bytes[: layout.HEADER_SIZE].cast("Q")
        #: The slots as bytes.
        self.slots = self._bytes[layout.HEADER_SIZE :]
        #: The slots as a structured array.
        self.records: np.ndarray[tuple[int], np.dtype[np.void]] = np.frombuffer(self.slots, self.header.dtype)
        self.closed = False

    def close(self) -> None:
        """Unmap; doing so twice is harmless. Views of `slots` or `records` must be gone."""
        if not self.closed:
            self.closed = True
            del self.records
            self.words.release()
            self.slots.release()
            self._bytes.release()
            self._mapped.close()
