"""Websocket frames: building what a server sends, judging what a client sends (RFC 6455). Pure: no socket, no clock.

::

     0               1               2               ...
    +-+-+-+-+-------+-+-------------+- - - - - - - - +----------------
    |F|R|R|R|opcode |M| length      | 16 or 64 bits  | payload
    |I|S|S|S|4 bits |A| 7 bits      | of length when |
    |N|V|V|V|       |S| or 126, 127 | 126 or 127     |
    | |1|2|3|       |K|             |                |
    +-+-+-+-+-------+-+-------------+- - - - - - - - +----------------

A server's frame is never masked, so the same bytes go to every listener: they are built once. The transport library
parses the heads of clients' frames (masking, lengths, control frames, frames beyond the limit) and hands them on as
they are; what it leaves to us is here: reserved bits, the order of fragments, UTF-8, close codes.

What may come next from a client::

                 fin=0 text or binary                 continuation, fin=0
    between messages ------------------> in a message ----------+
        |  ^                                |   ^               |
        |  +------ continuation, fin=1 -----+   +---------------+
        |
        +-- close ------> closed: everything after it is ignored

    text or binary in a message, continuation between messages, a reserved bit     -> 1002
    a text that is no UTF-8                                                        -> 1007
    a message of more than 64 KiB                                                  -> 1009
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

#: Clients send small control messages only; 64 KiB is far above any of them.
LARGEST_MESSAGE: Final = 64 * 1024
#: RFC 6455, 5.5: a control frame's payload. Two bytes of a close frame's are its code.
_LARGEST_CONTROL: Final = 125

_FIN: Final = 0x80


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """Why a connection is closed; 4000 to 4999 are an application's own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    #: The listener does not take what is sent to it.
    SLOW = 4008
    #: The listener does not answer pings.
    SILENT = 4009


def server_frame(opcode: Opcode, payload: bytes = b"") -> bytes:
    """Build one whole, unmasked frame."""
    return _head(_FIN | opcode, len(payload)) + payload


def _head(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


class TextFrames:
    """Builds text frames in bulk: a record's length repeats, so its frame's head is looked up, not made."""

    def __init__(self) -> None:
        self._heads: dict[int, bytes] = {}

    def join(self, payloads: Iterable[bytes]) -> bytes:
        """Give one text frame per payload, joined."""
        heads = self._heads
        parts: list[bytes] = []
        for payload in payloads:
            length = len(payload)
            head = heads.get(length)
            if head is None:
                head = _head(_FIN | Opcode.TEXT, length)
                if length <= LARGEST_MESSAGE:  # bounds the table; a record is a few hundred bytes
                    heads[length] = head
            parts += (head, payload)
        return b"".join(parts)


def count_whole(frames: bytes, size: int) -> int:
    """Count the frames that end within the first `size` bytes of frames that `server_frame` or `TextFrames` built."""
    count = at = 0
    while at + 2 <= size:
        length, head = frames[at + 1], 2
        if length == 126:
            length, head = int.from_bytes(frames[at + 2 : at + 4], "big"), 4
        elif length == 127:
            length, head = int.from_bytes(frames[at + 2 : at + 10], "big"), 10
        at += head + length
        count += at <= size
    return count


def close_reason(text: str) -> bytes:
    """Cut a close reason to what fits beside the code in a control frame, at a whole character."""
    return text.encode()[: _LARGEST_CONTROL - 2].decode(errors="ignore").encode()


def close_payload(code: int, reason: str = "") -> bytes:
    """Build a close frame's payload."""
    return code.to_bytes(2, "big") + close_reason(reason)


def may_be_sent(code: int) -> bool:
    """Tell whether a peer may send a close code (RFC 6455, 7.4, and IANA's registry): others are answered with 1002."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


@dataclass(frozen=True)
class Message:
    """A whole text or binary message."""

    data: bytes


@dataclass(frozen=True)
class Ping:
    """A ping: its payload goes back in a pong."""

    data: bytes


@dataclass(frozen=True)
class Closing:
    """The client closes; `code` is what to answer."""

    code: int


@dataclass(frozen=True)
class Violation:
    """The client broke the protocol: close with this."""

    code: CloseCode
    reason: str


Received: TypeAlias = Message | Ping | Closing | Violation


class Inbound:
    """Judges one client's frames, in order. Holds at most one message's fragments."""

    def __init__(self, largest: int = LARGEST_MESSAGE) -> None:
        self._largest = largest
        self._parts = bytearray()
        #: What kind of message the fragments held belong to; None between messages.
        self._kind: Opcode | None = None
        self._closed = False

    def take(self, opcode: Opcode, payload: bytes, *, fin: bool = True, reserved: bool = False) -> Received | None:
        """Take one frame, unmasked; give what it completes, or None.

        After `Closing` or a `Violation` everything is ignored.
        """
        if self._closed:
            return None
        received = self._judge(opcode, payload, fin=fin, reserved=reserved)
        self._closed = isinstance(received, Closing | Violation)
        return received

    def _judge(self, opcode: Opcode, payload: bytes, *, fin: bool, reserved: bool) -> Received | None:
        if reserved:
            return Violation(CloseCode.PROTOCOL_ERROR, "a reserved bit is set")
        if opcode is Opcode.CLOSE:
            return _judge_close(payload)
        if opcode is Opcode.PING:
            return Ping(payload)
        if opcode is Opcode.PONG:
            return None
        if opcode is Opcode.CONTINUATION and self._kind is None:
            return Violation(CloseCode.PROTOCOL_ERROR, "a continuation without a start")
        if opcode is not Opcode.CONTINUATION and self._kind is not None:
            return Violation(CloseCode.PROTOCOL_ERROR, "a message starts inside another")
        return self._fragment(opcode, payload, fin=fin)

    def _fragment(self, opcode: Opcode, payload: bytes, *, fin: bool) -> Received | None:
        if len(self._parts) + len(payload) > self._largest:
            return Violation(CloseCode.TOO_BIG, f"a message may have {self._largest} bytes")
        self._parts += payload
        kind = self._kind or opcode
        if not fin:
            self._kind = kind
            return None
        data, self._kind = bytes(self._parts), None
        self._parts.clear()
        if kind is Opcode.TEXT and not _is_utf8(data):
            return Violation(CloseCode.INVALID_TEXT, "a text is not UTF-8")
        return Message(data)


def _judge_close(payload: bytes) -> Received:
    if not payload:
        return Closing(CloseCode.NORMAL)
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not may_be_sent(code):
        return Violation(CloseCode.PROTOCOL_ERROR, "a close code that may not be sent")
    if not _is_utf8(payload[2:]):
        return Violation(CloseCode.INVALID_TEXT, "a close reason is not UTF-8")
    return Closing(code)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
