"""A ring file in memory: the checked header, the live words, the slots.

Readers map it read-only, so that a fault of theirs can never reach the feed.

A mapped file must keep its size: whoever cuts a ring file short under an attached process (only its owner can) makes
that process's next touch a SIGBUS, which Python cannot turn into an error; no check before a copy could rule it out,
because the cut may come after it. tickring itself never shortens a file: it replaces it by rename, or unlinks it, and
both leave the mapped memory as it is.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from ringbuf import layout
from ringbuf.directory import open_file


class RingMapping:
    """One ring file, mapped. The mapping keeps the file alive, and a descriptor of its own with it."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """Open, check and map a ring file.

        Raises:
            RingNotFound, UnsafePath: see `directory.open_file`.
            RingCorrupt, RingVersionError: see `layout.decode` and `layout.check_words`.
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
        tail, intent = self.words[layout.TAIL], self.words[layout.INTENT]
        try:
            layout.check_words(tail, intent, self.words[layout.EPOCH], path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unmap; doing so twice is harmless. Where a view of `records` lives on, the memory goes with the last one."""
        if not self.closed:
            self.closed = True
            self.words.release()
            del self.records
            # A view that is still held somewhere, perhaps by a traceback, must not fail the closing of everything else:
            # then we only let go, and the memory is unmapped with that view.
            with suppress(BufferError):
                self.slots.release()
                self._bytes.release()
                self._mapped.close()
            del self.slots, self._bytes, self._mapped
