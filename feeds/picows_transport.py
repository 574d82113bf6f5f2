"""Websockets by picows: the least work per frame.

picows calls back once a frame. The callback appends the payload and, when the frame is the last one in the read buffer
or the 256th, hands the batch over. Pings are answered here and not by picows: its automatic pong swallows the frame,
and with it the sign that the read has ended, so the batch before it would wait for the next read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSInvalidURL,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSTransport,
    ws_connect,
)

from feeds.decoding import STAGED
from feeds.transport import ConnectOptions, Receiver, redacted
from ringbuf.errors import UnauthorizedError, VenueUnreachable

#: One read takes what has gathered meanwhile; 256 KiB is a full batch of large frames. Costs that much per socket.
_READ_BUFFER: Final = 256 * 1024
#: No venue's message is larger, whole or in fragments; a giant one ends the connection with 1009, not the memory.
_LARGEST_FRAME: Final = 16 * 2**20
#: What the venue gets to answer our close, in seconds.
_CLOSE_WITHIN: Final = 1.0
#: The code that stands for "no close frame came" (RFC 6455, 7.4.1); never on the wire.
_ABNORMAL: Final = 1006
#: The code that stands for "a close frame without a code" (the same place).
_NO_CODE: Final = 1005
#: Looked up once, not per frame.
_TEXT: Final = WSMsgType.TEXT


class _Listener(WSListener):
    """The callbacks of one socket."""

    def __init__(self, receiver: Receiver, now: Callable[[], int]) -> None:
        self._receiver = receiver
        self._now = now
        self._frames: list[bytes] = []
        self._parts: bytearray | None = None
        #: What the venue's close frame said, once there was one.
        self._ended: tuple[int, str] | None = None
        #: Whether nobody waits for this connection any more.
        self.abandoned = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Called by picows once the upgrade is done, even if whoever wanted it has given up meanwhile."""
        if self.abandoned:
            transport.disconnect(graceful=False)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Called by picows for every frame."""
        if frame.msg_type is _TEXT and frame.fin:
            self._frames.append(frame.get_payload_as_bytes())
        else:
            self._other(transport, frame)
        if frame.last_in_buffer or len(self._frames) >= STAGED:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._frames:
            frames, self._frames = self._frames, []
            self._receiver.on_batch(frames, self._now())

    def _other(self, transport: WSTransport, frame: WSFrame) -> None:
        """Deal with everything but a whole text message."""
        kind = frame.msg_type
        if kind is WSMsgType.PING:
            # RFC 6455, 5.5.3: the pong carries the ping's payload; Binance cuts who does not echo it.
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind is WSMsgType.CLOSE:
            self._ended = (_close_code(frame), frame.get_close_reason() or "")
            self._hand_over()
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif kind is not WSMsgType.PONG:
            self._part(transport, frame)

    def _part(self, transport: WSTransport, frame: WSFrame) -> None:
        """Put a fragmented or binary message together (RFC 6455, 5.4)."""
        if frame.msg_type is not WSMsgType.CONTINUATION:
            self._parts = bytearray()
        if self._parts is not None:
            self._parts += frame.get_payload_as_memoryview()
            if len(self._parts) > _LARGEST_FRAME:
                self._parts = None
                self._ended = (WSCloseCode.MESSAGE_TOO_BIG.value, "a message in fragments was too large")
                transport.send_close(WSCloseCode.MESSAGE_TOO_BIG)
                transport.disconnect()
            elif frame.fin:
                self._frames.append(bytes(self._parts))
                self._parts = None

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Called by picows once, whoever ended it."""
        if not self.abandoned:
            self._hand_over()
            self._receiver.on_disconnected(*(self._ended or _our_verdict(transport)))


def _close_code(frame: WSFrame) -> int:
    return _number(frame.get_close_code()) or _NO_CODE


def _number(code: object) -> int:
    """A close code is an enum's member to picows, or a plain number where it knows none (4000)."""
    number = code.value if isinstance(code, WSCloseCode) else code
    return number if isinstance(number, int) else 0


def _our_verdict(transport: WSTransport) -> tuple[int, str]:
    """Why a connection ended without the venue's close frame: what we closed it for, or that it broke off."""
    sent = getattr(transport.close_handshake, "sent", None)  # there is no handshake until somebody has sent a close
    if sent is not None and sent.reason:  # picows gives one with every violation of the protocol
        return _number(sent.code), sent.reason
    return _ABNORMAL, "the connection broke off"


class PicowsSocket:
    """One open websocket."""

    def __init__(self, transport: WSTransport) -> None:
        self._transport = transport
        # Awaited from the start: what picows found wrong with the venue is raised there, and has been told by then.
        self._gone = asyncio.create_task(_gone(transport))

    def send(self, message: bytes) -> None:
        """See `Socket.send`."""
        if not self._transport.is_disconnected:
            self._transport.send(WSMsgType.TEXT, message)

    async def close(self, code: int = 1000) -> None:
        """See `Socket.close`."""
        transport = self._transport
        if transport.is_disconnected:
            await self._gone
            return
        transport.send_close(WSCloseCode(code))
        try:
            async with asyncio.timeout(_CLOSE_WITHIN):
                await asyncio.shield(self._gone)
        except TimeoutError:
            transport.disconnect(graceful=False)
            await self._gone


async def _gone(transport: WSTransport) -> None:
    with suppress(Exception):  # `on_disconnected` has told it
        await transport.wait_disconnected()


class PicowsTransport:
    """Opens websockets with picows."""

    def __init__(self, now: Callable[[], int]) -> None:
        """Set what gives ns since 1970, for stamping batches."""
        self._now = now

    async def connect(self, url: str, options: ConnectOptions, receiver: Receiver) -> PicowsSocket:
        """See `Transport.connect`."""
        shown = redacted(url)
        listener = _Listener(receiver, self._now)
        try:
            transport = await self._open(url, options, listener)
        except TimeoutError as error:
            raise VenueUnreachable(f"{shown} did not answer within {options.timeout:g} s.") from error
        except ssl.SSLError as error:
            raise VenueUnreachable(f"{shown} cannot be trusted: {error}.") from error
        except OSError as error:
            raise VenueUnreachable(f"{shown} cannot be reached: {error.strerror or error}.") from error
        except (WSInvalidURL, ValueError) as error:
            # Their words quote the URL with all that is secret in it.
            raise VenueUnreachable(f"{shown} is no websocket's URL: check it.") from error
        except WSError as error:
            raise _refused(shown, error) from error
        except RuntimeError as error:  # what picows says of an answer that is no HTTP
            raise VenueUnreachable(f"{shown} did not open a websocket: {error}. Check the URL.") from error
        return PicowsSocket(transport)

    async def _open(self, url: str, options: ConnectOptions, listener: _Listener) -> WSTransport:
        sockets: list[socket.socket] = []

        async def dial(parsed: WSParsedURL) -> socket.socket:
            sockets.append(await _connected(parsed.host, parsed.port))
            return sockets[-1]

        try:
            async with asyncio.timeout(options.timeout):
                transport, opened = await ws_connect(
                    lambda: listener,
                    url,
                    websocket_handshake_timeout=options.timeout,
                    disconnect_on_exception=False,
                    enable_auto_pong=False,
                    max_frame_size=_LARGEST_FRAME,
                    read_buffer_init_size=_READ_BUFFER,
                    socket_factory=dial,
                    extra_headers=list(options.headers.items()),
                )
        except BaseException:
            # picows goes on with an upgrade that nobody waits for any more, and has no way to be told: its frames must
            # reach nobody, and its socket must see the end.
            listener.abandoned = True
            for opened_here in sockets:
                with suppress(OSError):
                    opened_here.shutdown(socket.SHUT_RDWR)
            raise
        # picows takes a connection that ends before the venue's answer for opened, with nobody to tell of its end.
        if opened is None:
            raise ConnectionResetError("it closed the connection without an answer")
        return transport


async def _connected(host: str, port: int) -> socket.socket:
    """Open a TCP connection to the first address of a host that takes one."""
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        try:
            await loop.sock_connect(opened, address)
        except OSError as error:
            opened.close()
            failure = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise failure


def _refused(shown: str, error: WSError) -> VenueUnreachable | UnauthorizedError:
    response = getattr(error, "response", None)
    status = int(response.status) if response is not None else 0
    if status in (401, 403):
        return UnauthorizedError(f"{shown} refused the connection with HTTP {status}: check the credentials.")
    said = f"HTTP {status}" if status else str(error)
    return VenueUnreachable(f"{shown} did not open a websocket: {said}. Check the URL.")
