"""A listener made of a bare socket: it sends what no library would, and stops reading when the test says so."""

from __future__ import annotations

import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

import orjson
from websockets.frames import Close, Frame
from websockets.protocol import Protocol, Side, State

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """A client's frame, legal or not. The mask is zero, so the payload stands there as it is."""
    length = len(payload)
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if length < 126:
        head += bytes([128 | length])
    elif length < 65536:
        head += bytes([254]) + length.to_bytes(2, "big")
    else:
        head += bytes([255]) + length.to_bytes(8, "big")
    return head + bytes(4) + payload


class RawListener:
    """One connection to a broadcaster."""

    def __init__(
        self,
        port: int,
        path: str = "/",
        headers: tuple[str, ...] = (),
        *,
        small: bool = False,
        upgrade: str = "Upgrade",
    ) -> None:
        self.socket = socket.socket()
        if small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        lines = [
            f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", f"Connection: {upgrade}",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {_KEY}", *headers, "", "",
        ]  # fmt: skip
        self.socket.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(1)
            assert data, f"the connection ended in the handshake: {head!r}"
            head += data
        self.status = int(head.split(b" ")[1])
        self._protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        #: The frames that came.
        self.frames: list[Frame] = []
        #: All bytes after the handshake.
        self.raw = b""
        self.ended = False

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> None:
        """Take what comes next: one read of the socket."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if data:
            self.raw += data
            self._protocol.receive_data(data)
        else:
            self.ended = True
        self.frames += [event for event in self._protocol.events_received() if isinstance(event, Frame)]

    def read_until(self, count: int) -> list[Frame]:
        """Read until so many frames have come."""
        while len(self.frames) < count:
            assert not self.ended, f"the connection ended after {self.frames}"
            self.read()
        return self.frames

    def read_to_end(self) -> Close | None:
        """Read until the server ends the connection, answering its close frame; give that, if it sent one."""
        answered = False
        while not self.ended:
            self.read()
            if self._protocol.close_rcvd is not None and not answered:
                answered = True
                with suppress(ConnectionError):  # the server may have ended it already
                    self.send(masked(8, b"\x03\xe8"))
        return self._protocol.close_rcvd

    def objects(self) -> list[dict[str, object]]:
        """The text messages that came."""
        return [orjson.loads(frame.data) for frame in self.frames if frame.opcode == 1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
