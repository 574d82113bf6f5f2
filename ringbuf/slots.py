"""A file of fixed-size slots that only grows: one writer appends, anyone reads.

::

    offset  size       field
         0     8       magic       b"TICKSLOT"
         8     4       version
        12     4       slot_size
        16     8       count       slots in use; stored last, so that a slot below it is always whole
        24    40       zeros
        64  slot_size  slot 0 ...

The file is reserved in chunks, so its size says nothing; `count` does. A reader that sees a larger `count` than it has
mapped maps the file again. A writer that is killed in the middle of an append leaves `count` as it was, and the next
one writes over the unfinished slot.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final

from ringbuf import ordering
from ringbuf.directory import create_file, open_file, reserve
from ringbuf.errors import RingCorrupt, RingNotFound, RingVersionError

_MAGIC: Final = b"TICKSLOT"
_VERSION: Final = 1
_HEADER: Final = 64
_FIXED = struct.Struct("<8sII")
_COUNT: Final = 16 // 8

#: Slots reserved at a time: 64 KiB of names, a few venues' worth.
_CHUNK: Final = 1024


class SlotFile:
    """A slot file, mapped. For one thread; any number of processes may read what one writes."""

    def __init__(self, path: Path, slot_size: int, *, write: bool = False) -> None:
        """Open the file, and as its writer create it where it does not exist.

        Raises:
            RingNotFound: as a reader, there is no such file.
            RingCorrupt, RingVersionError, UnsafePath: the file cannot be used.
            SharedMemoryFull: as a writer, there is no room.
        """
        self.path = path
        self.slot_size = slot_size
        self._write = write
        self._descriptor = self._open()
        try:
            self._map()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _open(self) -> int:
        try:
            return open_file(self.path, write=self._write)
        except RingNotFound:
            if not self._write:
                raise
        head = _FIXED.pack(_MAGIC, _VERSION, self.slot_size)
        create_file(self.path, _HEADER + _CHUNK * self.slot_size, head)
        return open_file(self.path, write=True)

    def _map(self) -> None:
        """Map the file as large as it is now, and check it."""
        size = os.fstat(self._descriptor).st_size
        if size < _HEADER:
            raise self._corrupt(f"it has {size} bytes, less than a header")
        access = mmap.ACCESS_WRITE if self._write else mmap.ACCESS_READ
        mapped = mmap.mmap(self._descriptor, size, access=access)
        try:
            self._check(mapped)
        except BaseException:
            mapped.close()
            raise
        self._mapped = mapped
        self._bytes = memoryview(mapped)
        self._words = self._bytes[:_HEADER].cast("Q")
        self._room = (size - _HEADER) // self.slot_size

    def _check(self, mapped: mmap.mmap) -> None:
        magic, version, slot_size = _FIXED.unpack_from(mapped)
        (count,) = struct.unpack_from("<Q", mapped, _COUNT * 8)
        if magic != _MAGIC:
            raise self._corrupt(f"magic is {magic!r}, not {_MAGIC!r}")
        if version != _VERSION:
            raise RingVersionError(
                f"{self.path} has version {version}, this tickring reads version {_VERSION}. Stop the connection, "
                f"remove {self.path.parent} and start it again."
            )
        if slot_size != self.slot_size:
            raise self._corrupt(f"slot_size is {slot_size}, not {self.slot_size}")
        # The file's size is asked again: its writer may have grown it since, and stored the new count.
        if _HEADER + count * slot_size > os.fstat(self._descriptor).st_size:
            raise self._corrupt(f"count is {count}, but the file is too short for so many slots")

    def _corrupt(self, what: str) -> RingCorrupt:
        # The whole directory, because ids in its rings mean nothing without the names they were given from.
        return RingCorrupt(
            f"{self.path} cannot be used: {what}. Stop the connection, remove {self.path.parent} and start it again."
        )

    def _remap(self) -> None:
        self._words.release()
        self._bytes.release()
        self._mapped.close()
        self._map()

    @property
    def count(self) -> int:
        """Slots in use."""
        return self._words[_COUNT]

    def slot(self, index: int) -> memoryview:
        """Give a view of one slot; writable for the writer. It must be dropped before the next append or `close`."""
        if index >= self._room:
            self._remap()
        start = _HEADER + index * self.slot_size
        return self._bytes[start : start + self.slot_size]

    def copy(self, start: int, stop: int) -> bytes:
        """Copy the slots [start, stop), which must be in use."""
        if stop > self._room:
            self._remap()
        return bytes(self._bytes[_HEADER + start * self.slot_size : _HEADER + stop * self.slot_size])

    def append(self, slot: bytes) -> int:
        """Add a slot and give its index. Raises SharedMemoryFull where the file cannot grow."""
        index = self.count
        if index == self._room:
            reserve(self._descriptor, _HEADER + (self._room + max(_CHUNK, self._room)) * self.slot_size, self.path)
            self._remap()
        start = _HEADER + index * self.slot_size
        self._bytes[start : start + self.slot_size] = slot
        ordering.before_tail()
        self._words[_COUNT] = index + 1
        return index

    def close(self) -> None:
        """Unmap the file; doing so twice is harmless."""
        if self._descriptor >= 0:
            self._words.release()
            self._bytes.release()
            self._mapped.close()
            os.close(self._descriptor)
            self._descriptor = -1
