"""Control messages between processes: length-prefixed JSON on a stream socket.

::

    0        4                       4 + length
    +--------+-----------------------+
    | length | JSON, utf-8           |      length is u32, little-endian, at most 16 MiB
    +--------+-----------------------+

The same framing serves the pipe between the supervisor and each child and the UNIX socket between the supervisor and
its clients. Never pickle. Sending never blocks a loop: what the peer does not take is buffered up to a bound, and a
peer that lets the bound be reached is treated as hung and disconnected.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from types import UnionType
from typing import Final, Generic, TypeAlias, TypeVar, cast

import msgspec

from ringbuf.errors import ControlError

#: DESIGN: requests are small; a status with thousands of topics is the largest, far below.
LARGEST: Final = 16 * 2**20
#: What may wait for a peer that does not read.
_BUFFERED: Final = 2 * LARGEST

_LENGTH = struct.Struct("<I")

M = TypeVar("M")

#: What a channel carries: one tagged Struct, or a union of them.
Expected: TypeAlias = type[M] | UnionType


def pack(message: msgspec.Struct) -> bytes:
    """Give a message with its length in front.

    Raises:
        ControlError: it is longer than 16 MiB.
    """
    body = msgspec.json.encode(message)
    if len(body) > LARGEST:
        raise ControlError(f"a control message of {len(body)} bytes is over the limit of {LARGEST}.")
    return _LENGTH.pack(len(body)) + body


class Splitter(Generic[M]):
    """Cut a stream of bytes into messages. Pure: fed by whoever reads the socket."""

    def __init__(self, expected: Expected[M]) -> None:
        """Set what a message can be: a Struct or a union of tagged ones."""
        self._decoder: msgspec.json.Decoder[M] = msgspec.json.Decoder(expected)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[M]:
        """Take bytes and give the messages they complete. Raises as `take` does; what came before is lost then."""
        return list(self.take(data))

    def take(self, data: bytes) -> Iterator[M]:
        """Take bytes and give the messages they complete, one by one.

        Raises:
            ControlError: a length over the limit, or bytes that are no expected message. The stream cannot go on; the
                messages before it have been given.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > LARGEST:
                raise ControlError(f"a control message announces {length} bytes, over the limit of {LARGEST}.")
            end = _LENGTH.size + length
            if len(buffer) < end:
                break
            try:
                message = self._decoder.decode(buffer[_LENGTH.size : end])
            # Nesting too deep to parse is a RecursionError, no DecodeError.
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ControlError(f"a control message cannot be understood: {error}.") from error
            del buffer[:end]
            yield message


class ControlPipe(asyncio.Protocol, Generic[M]):
    """One end of a control channel on an event loop.

    `receive` gives messages in order and None once the other end has gone. `send` never waits.
    """

    def __init__(self, expected: Expected[M]) -> None:
        self._splitter = Splitter(expected)
        self._messages: asyncio.Queue[M | None] = asyncio.Queue()
        self._transport: asyncio.Transport | None = None
        #: Why the channel ended, if not by the other end's leaving.
        self.failure: ControlError | None = None

    @classmethod
    async def open(cls, end: socket.socket, expected: Expected[M]) -> ControlPipe[M]:
        """Take over one end of a socket pair."""
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_connection(lambda: cls(expected), sock=end)
        return pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # A stream socket gives nothing else; uvloop's transports have the methods without the base class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            for message in self._splitter.take(data):
                self._messages.put_nowait(message)
        except ControlError as error:
            self.failure = error
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop calls it so
        """Called by the loop."""
        self._transport = None
        self._messages.put_nowait(None)

    async def receive(self) -> M | None:
        """Give the next message, or None when the channel has ended."""
        message = await self._messages.get()
        if message is None:
            self._messages.put_nowait(None)  # the next caller must see the end too
        return message

    @property
    def closed(self) -> bool:
        """Whether the channel has ended."""
        return self._transport is None or self._transport.is_closing()

    def send(self, message: msgspec.Struct) -> None:
        """Send a message; silently nothing when the channel has ended (the reader of the end will act on that)."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(pack(message))
        if self._transport.get_write_buffer_size() > _BUFFERED:
            self.failure = ControlError("the other end does not take its control messages: it hangs.")
            self._transport.abort()

    def close(self) -> None:
        """End the channel after what was sent has left."""
        if self._transport is not None:
            self._transport.close()
