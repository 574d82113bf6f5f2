"""From staging buffers to rings: everything a provider process writes goes through here.

`publish` is called at the end of a socket read, after 256 frames, or before a disconnect, whichever is first. It copies
what is staged, kind by kind, with one publish each, and gives every buffer the seq it continues with.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Final

from feeds.decoding import Sink, Staging
from feeds.records import DEFAULT_CAPACITY, DTYPES, KIND_NUMBER, EventCode, Kind
from ringbuf.connection import ConnectionWriter
from ringbuf.counters import Counter
from ringbuf.errors import SharedMemoryFull
from ringbuf.writer import RingWriter

# seq date received symbol exchange flags | value at_seq code at_kind socket text
_pack_event = struct.Struct("<QqqIHHqQHHI72s").pack_into
_TEXT: Final = 72

# Looked up once: until Python 3.12 naming an enum's member costs more than using it.
_EVENT: Final = Kind.EVENT
_RECORDS: Final = Counter.RECORDS


class Publisher:
    """The one writer of a connection's rings. For one thread."""

    def __init__(self, connection: ConnectionWriter) -> None:
        """Continue the rings that exist, so that their numbering goes on; a kind without one gets it when needed."""
        self._connection = connection
        self.sink = Sink()
        for kind, staging in self.sink.stagings.items():
            if (connection.directory / f"{kind}.ring").exists():
                staging.base_seq = self._ring(kind).tail

    def _ring(self, kind: Kind) -> RingWriter:
        ring = self._connection.rings.get(kind)
        return ring or self._connection.ring(kind, DTYPES[kind], DEFAULT_CAPACITY[kind])

    @property
    def rings(self) -> dict[str, RingWriter]:
        """The rings opened so far, by kind."""
        return self._connection.rings

    def require_room(self, kinds: Iterable[Kind]) -> None:
        """Find out now, and not at the first record, whether the rings of these kinds can be made.

        Raises:
            SharedMemoryFull: there is no room for those that do not exist yet.
        """
        missing = [kind for kind in kinds if kind not in self.rings]
        needed = sum(DEFAULT_CAPACITY[kind] * DTYPES[kind].itemsize for kind in missing)
        found = os.statvfs(self._connection.directory)
        free = found.f_bavail * found.f_frsize
        if needed > free:
            raise SharedMemoryFull(
                f"the rings of {self._connection.name} need {needed / 2**20:.0f} MiB in "
                f"{self._connection.directory}, but only {free / 2**20:.0f} MiB are free there. "
                "Give /dev/shm more room (in a container: --shm-size)."
            )

    def publish(self) -> None:
        """Publish all that is staged. Raises SharedMemoryFull if a kind's first ring cannot be made."""
        for staging in self.sink.stagings.values():
            if staging.count:
                self._publish(staging)

    def _publish(self, staging: Staging) -> None:
        kind, count = staging.kind, staging.count
        ring = self._connection.rings.get(kind) or self._ring(kind)
        ring.publish(staging.view, count)
        if kind is not _EVENT:
            self._connection.counters.add(_RECORDS, count)
        staging.count = 0
        staging.base_seq = ring.tail

    def event(
        self,
        code: EventCode,
        received_ns: int,
        *,
        symbol: int = 0,
        value: int = 0,
        at: tuple[Kind, int] | None = None,
        socket: int = 0,
        text: str = "",
    ) -> None:
        """Stage an event record.

        Args:
            code: what happened.
            received_ns: when, ns since 1970.
            symbol: whose symbol's id, if one's.
            value: a number that belongs to it: how many are missing, how many ns, which close code.
            at: the kind and seq of the record it stands before.
            socket: which of the provider's sockets.
            text: a short text; cut at 72 bytes of utf-8.
        """
        staging = self.sink[Kind.EVENT]
        if staging.count == staging.capacity:
            self._publish(staging)
        kind_number, at_seq = (KIND_NUMBER[at[0]] + 1, at[1]) if at else (0, 0)
        encoded = text.encode()[:_TEXT].decode(errors="ignore").encode()
        _pack_event(
            staging.buffer, staging.count * staging.slot, staging.base_seq + staging.count, received_ns, received_ns,
            symbol, 0, 0, value, at_seq, code, kind_number, socket, encoded,
        )  # fmt: skip
        staging.count += 1

    @property
    def next_seq(self) -> dict[Kind, int]:
        """The seq that each kind's next record will have."""
        return {kind: staging.base_seq + staging.count for kind, staging in self.sink.stagings.items()}
