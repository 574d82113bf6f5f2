"""What a ring file holds, byte by byte.

A ring file is one page of header and then `capacity` slots of one fixed size. All integers are little-endian; every
word that is written while others read it is an aligned 8-byte word within one cache line, stored by one 8-byte store.

::

    offset  size  field          written
    ------  ----  -------------  ---------------------------------------------------------------
         0     8  magic          once: b"TICKRING"
         8     4  version        once: the version of this layout
        12     4  header_size    once: where the slots begin
        16    16  ring_id        once: random; `seq` never restarts while it stays the same
        32     4  slot_size      once: bytes of a record
        36     4  dtype_size     once: bytes of the dtype's text at 576
        40     8  capacity       once: slots, a power of two
        48     8  created        once: ns since 1970, UTC
    ------  ----  the writer's line, touched by every publish
        64     8  intent         first: everything below `intent - capacity` may be overwritten from now on
        72     8  tail           last: everything below is published
    ------  ----  the writer's state, touched rarely
       128     8  epoch          rises when a writer takes over
       136     8  writer_pid     0 without a writer
       144     8  writer_start   ns since 1970 of that process's start: tells a reused pid apart
       152     8  heartbeat      CLOCK_MONOTONIC ns of the writer's last sign of life
       160     8  state          see State
       168     8  void_end       one past the newest void record; 0 when there never was one
    ------  ----  reserved for the futex that wakes sleeping readers
       192    64  zeros
    ------  ----  names
       256   128  connection     utf-8, zero-padded
       384    64  kind           utf-8, zero-padded
       576  3520  dtype          JSON of numpy's `dtype.descr`: [["seq", "<u8"], ...]
      4096        slot 0: the record with seq 0, capacity, 2 * capacity, ...

A record's own `seq` is its first 8 bytes; a void record (see `writer`) has VOID there.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np

from ringbuf.errors import RingCorrupt, RingVersionError

MAGIC: Final = b"TICKRING"
VERSION: Final = 1
HEADER_SIZE: Final = 4096  # one page, so that the slots begin on a page

#: `seq` of a record that was never finished: larger than any real number.
VOID: Final = 2**64 - 1

# Indices of the live words in the header seen as u64.
INTENT: Final = 64 // 8
TAIL: Final = 72 // 8
EPOCH: Final = 128 // 8
WRITER_PID: Final = 136 // 8
WRITER_START: Final = 144 // 8
HEARTBEAT: Final = 152 // 8
STATE: Final = 160 // 8
VOID_END: Final = 168 // 8

_FIXED = struct.Struct("<8sII16sIIQQ")
_CONNECTION = slice(256, 384)
_KIND = slice(384, 448)
_DTYPE_AT = 576

#: The smallest ring: an eighth of it must be at least one record.
MIN_CAPACITY: Final = 8


class State(IntEnum):
    """What the header says of its writer."""

    #: No writer yet, or one that was killed and has no successor.
    IDLE = 0
    #: A writer is attached.
    LIVE = 1
    #: The last writer left in good order.
    CLOSED = 2
    #: Another file has taken this one's name; attached readers should attach again.
    SUPERSEDED = 3


@dataclass(frozen=True)
class Header:
    """The part of a ring's header that never changes."""

    ring_id: bytes
    connection: str
    kind: str
    dtype: np.dtype[np.void]
    capacity: int
    created: int

    @property
    def file_size(self) -> int:
        """Bytes of the whole file."""
        return HEADER_SIZE + self.capacity * self.dtype.itemsize

    def difference(self, other: Header) -> str:
        """Say why a writer that wants `other` cannot go on with this ring; empty if it can."""
        if (self.connection, self.kind) != (other.connection, other.kind):
            return f"it is the {self.kind} ring of {self.connection}, not the {other.kind} ring of {other.connection}"
        if self.dtype != other.dtype:
            return "it has another record layout"
        return "" if self.capacity == other.capacity else f"its capacity is {self.capacity}, not {other.capacity}"


def encode(header: Header) -> bytes:
    """Give the header page of a new ring, its live words zero.

    Raises:
        ValueError: the dtype or the capacity does not fit the layout; this is a fault of the caller.
    """
    dtype = header.dtype
    if dtype.names is None or dtype.names[0] != "seq" or dtype.fields is None or dtype["seq"] != np.dtype("<u8"):
        raise ValueError("a record's first field must be seq, u64")
    if any(dtype[name].shape or dtype[name].names for name in dtype.names):
        raise ValueError("a record's fields must be plain numbers, times, text or reserved bytes")
    if dtype.itemsize != sum(dtype[name].itemsize for name in dtype.names):
        raise ValueError("a record must have no holes: declare reserved bytes as a field")
    if header.capacity < MIN_CAPACITY or header.capacity & (header.capacity - 1):
        raise ValueError(f"capacity must be a power of two of at least {MIN_CAPACITY}, not {header.capacity}")
    text = json.dumps(dtype.descr).encode()
    page = bytearray(HEADER_SIZE)
    _FIXED.pack_into(
        page, 0, MAGIC, VERSION, HEADER_SIZE, header.ring_id, dtype.itemsize, len(text), header.capacity, header.created
    )
    for place, name in ((_CONNECTION, header.connection), (_KIND, header.kind)):
        encoded = name.encode()
        if len(encoded) > place.stop - place.start:
            raise ValueError(f"{name!r} is longer than {place.stop - place.start} bytes")
        page[place.start : place.start + len(encoded)] = encoded
    page[_DTYPE_AT : _DTYPE_AT + len(text)] = text
    if len(page) != HEADER_SIZE:
        raise ValueError(f"a dtype of {len(text)} bytes does not fit the header")
    return bytes(page)


def decode(page: bytes, size: int, path: Path) -> Header:
    """Read and check the header of a ring file of `size` bytes.

    Every field is held against the others before anything is mapped, so that no later arithmetic can leave the file.

    Raises:
        RingCorrupt: it is no ring file, or a field contradicts the file; the message names the field.
        RingVersionError: the file has another layout version.
    """
    if len(page) < HEADER_SIZE:
        raise _corrupt(path, f"it has {len(page)} bytes, less than a header")
    magic, version, header_size, ring_id, slot_size, dtype_size, capacity, created = _FIXED.unpack_from(page)
    if magic != MAGIC:
        raise _corrupt(path, f"magic is {magic!r}, not {MAGIC!r}: this is no ring file")
    if version != VERSION:
        raise RingVersionError(
            f"{path} has ring layout version {version}, this tickring reads version {VERSION}. "
            "Restart the connection with this version, or read it with the one that wrote it."
        )
    if header_size != HEADER_SIZE:
        raise _corrupt(path, f"header_size is {header_size}, not {HEADER_SIZE}")
    if not any(ring_id):
        raise _corrupt(path, "ring_id is zero")
    if capacity < MIN_CAPACITY or capacity & (capacity - 1):
        raise _corrupt(path, f"capacity is {capacity}, not a power of two")
    if dtype_size > HEADER_SIZE - _DTYPE_AT:
        raise _corrupt(path, f"dtype_size is {dtype_size}, more than the header has room for")
    dtype = _decode_dtype(page[_DTYPE_AT : _DTYPE_AT + dtype_size], path)
    if slot_size != dtype.itemsize:
        raise _corrupt(path, f"slot_size is {slot_size}, the dtype has {dtype.itemsize} bytes")
    connection, kind = _text(page, _CONNECTION, "connection", path), _text(page, _KIND, "kind", path)
    header = Header(ring_id, connection, kind, dtype, capacity, created)
    if size != header.file_size:
        raise _corrupt(path, f"it has {size} bytes where its header asks for {header.file_size}: truncated or foreign")
    return header


def check_words(tail: int, intent: int, epoch: int, path: Path) -> None:
    """Hold the live words against each other; `tail` must have been loaded before `intent`, which only rises.

    Raises:
        RingCorrupt: no writer can have left them so.
    """
    if tail > intent:
        raise _corrupt(path, f"tail is {tail}, beyond intent, which is {intent}")
    # No ring lives long enough to count so far; the bound keeps all sums with these words within 8 bytes.
    for field, value in (("intent", intent), ("epoch", epoch)):
        if value >= 2**63:
            raise _corrupt(path, f"{field} is {value}, which cannot be")


def _decode_dtype(text: bytes, path: Path) -> np.dtype[np.void]:
    try:
        dtype = np.dtype([(str(name), str(code)) for name, code in json.loads(text)])
    except (ValueError, TypeError, RecursionError) as error:
        raise _corrupt(path, f"its dtype cannot be read ({error})") from error
    if not dtype.names or dtype.names[0] != "seq" or dtype["seq"] != np.dtype("<u8") or dtype.hasobject:
        raise _corrupt(path, "its dtype does not begin with seq, u64")
    return dtype


def _text(page: bytes, place: slice, field: str, path: Path) -> str:
    try:
        return page[place].rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise _corrupt(path, f"{field} is not utf-8") from error


def _corrupt(path: Path, what: str) -> RingCorrupt:
    return RingCorrupt(f"{path} cannot be used as a ring: {what}. Remove it; its writer makes a new one.")
