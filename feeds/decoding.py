"""The decode contract: between the bytes of a socket and the rings.

A decoder is pure and synchronous. It gets a batch of frames, stages records into buffers that somebody else publishes,
and reports everything else as control. It touches no ring, clock, topic or event loop, so it can be a compiled one::

    frames, start, received_ns --> decode --> (next, control)
                                     |
                                     v
                            Sink: per kind a contiguous buffer with capacity, count and base_seq

* A frame's records are staged wholly or not at all.
* A decoder that finds no room for a frame's records returns that frame's index as `next`; it is called again with it
  once the buffers have been published. It always has room for one frame of at most `STAGED` records.
* A frame that is no record is control: an acknowledgement, a refusal, a reply to send, a notice, or `Rejected`, which
  is a frame that could not be used, with the reason. Nothing is dropped without one of these.
* Native names resolve through a table from bytes to numbers that the session fills; the table is plain data, so that
  a compiled decoder can take a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from feeds.records import DTYPES, Kind

#: Frames in a batch, and records staged per kind: DESIGN's publish unit, at most an eighth of the smallest ring.
STAGED: Final = 256


class Staging:
    """Records of one kind that wait to be published: the bytes of whole slots, back to back."""

    __slots__ = ("base_seq", "buffer", "capacity", "count", "kind", "slot", "view")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.slot = DTYPES[kind].itemsize
        #: Room, in records.
        self.capacity = STAGED
        #: Records staged so far; the decoder raises it.
        self.count = 0
        #: The seq of record 0; the decoder writes `base_seq + i` into record i.
        self.base_seq = 0
        #: Where the decoder writes record i: at i * slot. Reserved bytes are zero and stay so.
        self.buffer = bytearray(self.capacity * self.slot)
        self.view = memoryview(self.buffer)


class Sink:
    """A staging buffer for every kind."""

    __slots__ = ("stagings",)

    def __init__(self) -> None:
        self.stagings: dict[Kind, Staging] = {kind: Staging(kind) for kind in Kind}

    def __getitem__(self, kind: Kind) -> Staging:
        return self.stagings[kind]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The venue accepted request `request`."""

    request: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The venue refused request `request`, or said something is wrong without naming one (None)."""

    request: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The venue expects this message back."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """The venue tells something that is neither data nor an answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Frame `index` of the batch gave no record, and why."""

    index: int
    reason: str


Control: TypeAlias = Acknowledged | Refused | Reply | Notice | Rejected


class Decoder(Protocol):
    """One connection's decoder."""

    def decode(self, frames: Sequence[bytes], start: int, received_ns: int, sink: Sink) -> tuple[int, list[Control]]:
        """Decode frames from index `start` on; see the module's text.

        Args:
            frames: at most 256 websocket messages, oldest first.
            start: where to begin.
            received_ns: when the batch was read from the socket, ns since 1970.
            sink: where records go.

        Returns:
            The index of the first frame not dealt with (len(frames) when all were), and the control of the others.
        """

    def route(self, native: str, symbol: int, exchange: int) -> None:
        """From now on frames of this native topic carry these ids."""

    def unroute(self, native: str) -> None:
        """Forget a native topic: frames of it are rejected from now on."""
