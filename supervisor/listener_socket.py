"""One listener's websocket: the shell around its account. Writes, closes, answers; decides nothing.

::

    handshake --> token wanted? --no, or right--------------------------> open: served by its stream
                       |  none given: waits 5 s for {"auth_token": ...} --^   |
                       +- wrong, or none came: error, close 1008             |
                                                                             v
                    slow 4008, silent 4009, protocol 100x, withdrawn 1001: closing --> 1 s --> cut

The transport library (picows) makes the handshake and parses frames; all bytes but the close frame are written here, on
the transport beneath it, so that they can be counted. A close frame queues behind what is unsent, therefore every
closing has a deadline after which the connection is cut.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import msgspec
import orjson
from picows import WSCloseCode, WSFrame, WSListener, WSTransport

from supervisor.frame_log import FrameLog, gap_notice
from supervisor.frames import (
    CloseCode,
    Closing,
    Inbound,
    Message,
    Opcode,
    Ping,
    Violation,
    close_payload,
    close_reason,
    server_frame,
)
from supervisor.listeners import Limits, Listener, Verdict
from supervisor.stream import Stream

#: Unsent bytes that the kernel keeps for one listener. Without it a stalled one hides 4 MB in the kernel before any
#: buffer of ours grows; with it about 128 KB, most of that in flight (measured on loopback).
UNSENT: Final = 16 * 1024

REFUSED: Final = "Invalid authentication token"


class _TokenMessage(msgspec.Struct):
    auth_token: str


_TOKEN_MESSAGE: Final = msgspec.json.Decoder(_TokenMessage)


@dataclass(frozen=True)
class Admission:
    """What a listener must present, and what it did present in its handshake."""

    token: bytes | None
    presented: tuple[bytes, ...]

    def granted(self) -> bool:
        """Tell whether it may listen: without a token everyone may, whatever they present."""
        token = self.token
        return token is None or any(hmac.compare_digest(token, given) for given in self.presented)


def token_bytes(token: str) -> bytes:
    """Give a token as it is compared; any text can be one."""
    return token.encode("utf-8", "surrogatepass")


class ListenerSocket(WSListener):
    """One listener's connection."""

    def __init__(
        self,
        stream: Stream,
        admission: Admission,
        path: str,
        limits: Limits,
        tell: Callable[[str], None],
        clock: Callable[[], float],
        alive: set[ListenerSocket],
    ) -> None:
        """Prepare for a handshake on `path` that asks for `stream`.

        `tell` gets lines for people; it is in `alive` from the end of the handshake until its connection has ended.
        """
        self.stream = stream
        self._alive = alive
        self._admission = admission
        self._path = path
        self._limits = limits
        self._tell = tell
        self._clock = clock
        # Before the handshake is answered: what is published after the listener sees the answer is its own.
        self._account: Listener | None = stream.place() if admission.granted() else None
        #: Set when the connection has ended.
        self.gone = asyncio.Event()
        self._inbound = Inbound()
        self._timers: list[asyncio.TimerHandle] = []
        self._ended = False
        self._slow = False
        self._left_behind: int | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Called by the library after the handshake."""
        self._transport = transport
        self._alive.add(self)
        self._out = transport.underlying_transport
        self._peer = (self._out.get_extra_info("peername") or ("gone", 0))[:2]  # IPv6 has four parts
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            connection = self._out.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self._tell(f'{self._peer} - "WebSocket {self._path}" [accepted]')
        if self._account is not None:
            self._open()
        elif self._admission.presented:
            self._refuse()
        else:
            self._later(self._limits.token, self._refuse)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, call))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _open(self) -> None:
        self._cancel_timers()
        self.stream.join(self)
        self._tell("connection open")

    def _refuse(self) -> None:
        self._reply_error(f"{REFUSED}: this connection's listeners must present the one it was made with.")
        self._tell(f"{self._peer} - {REFUSED}")
        self.end(CloseCode.POLICY, REFUSED)

    def turn(self, now: float, log: FrameLog) -> bool:
        """Write what the listener can take now; tell whether it wants more than it got. See `stream.Outlet`."""
        account = self._account
        if account is None or self._transport.is_close_frame_sent:
            self._closing()  # the library closed it for breaking the protocol
            return False
        verdict = account.judge(now, self._out.get_write_buffer_size())
        if verdict is Verdict.SLOW:
            self._end_slow(account, log)
            return False
        if verdict is Verdict.SILENT:
            self.end(CloseCode.SILENT, "no pong")
            return False
        if account.wants_ping(now):
            self._write(server_frame(Opcode.PING))
        if verdict is Verdict.SEND:
            self._send(account, log)
        return account.position < log.head

    def _send(self, account: Listener, log: FrameLog) -> None:
        if account.fell_out(log):
            self._write_gap(account.skip(log))
            return
        piece = account.next_piece(log)
        if piece is not None:
            self._out.write(piece.data)

    def _end_slow(self, account: Listener, log: FrameLog) -> None:
        self._slow = True
        lost = account.skip(log)
        if lost:
            self._write_gap(lost)
        self.end(CloseCode.SLOW, "slow")

    def _write_gap(self, lost: int) -> None:
        self._write(server_frame(Opcode.TEXT, gap_notice(self.stream.connection, lost, "slow")))

    def _write(self, data: bytes) -> None:
        # The library may have closed on the frame after the one that is being answered.
        if not self._ended and not self._transport.is_close_frame_sent:
            self._out.write(data)
            if self._account is not None:
                self._account.wrote(len(data))

    def _reply(self, data: bytes) -> None:
        """Answer what the listener sent. One that asks and asks and never reads is slow too."""
        if self._out.get_write_buffer_size() > self._limits.hard:
            self._slow = True
            self.end(CloseCode.SLOW, "slow")
        else:
            self._write(data)

    def _reply_error(self, text: str) -> None:
        self._reply(server_frame(Opcode.TEXT, orjson.dumps({"type": "error", "message": text})))

    def end(self, code: int, reason: str) -> None:
        """Close the connection: a close frame now, and cut it if that takes too long."""
        if self._ended:
            return
        if self._account is not None:
            self._account.wrote(len(server_frame(Opcode.CLOSE, close_payload(code, reason))))
        # The library's enumeration lacks the applications' codes, its function takes them.
        self._transport.send_close(cast("WSCloseCode", code), close_reason(reason))
        self._closing()

    def _closing(self) -> None:
        if not self._ended:
            self._ended = True
            self.stream.leave(self)
            self._cancel_timers()
            self._later(self._limits.closing, self.cut)

    def cut(self) -> None:
        """End the connection now."""
        self._count_left_behind()
        self._out.abort()

    def _count_left_behind(self) -> None:
        if self._account is not None and self._left_behind is None:
            self._left_behind = self._account.undelivered(self._out.get_write_buffer_size())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Called by the library for every frame but those that it refuses itself."""
        opcode = Opcode(cast("int", frame.msg_type))
        if self._ended:
            if opcode is Opcode.CLOSE:  # the other half of the handshake
                self._count_left_behind()
                transport.disconnect()
            return
        if self._account is not None:
            self._account.heard(self._clock())
        reserved = frame.rsv1 or frame.rsv2 or frame.rsv3
        received = self._inbound.take(
            opcode, frame.get_payload_as_bytes(), fin=bool(frame.fin), reserved=bool(reserved)
        )
        if isinstance(received, Message):
            self._take_message(received.data)
        elif isinstance(received, Ping):
            self._reply(server_frame(Opcode.PONG, received.data))
        elif isinstance(received, Violation):
            self.end(received.code, received.reason)
        elif isinstance(received, Closing):
            self.end(received.code, "")
            transport.disconnect()

    def _take_message(self, data: bytes) -> None:
        token = _token_of(data)
        if token is not None and self._account is None:
            self._admission = Admission(self._admission.token, (token_bytes(token),))
            if self._admission.granted():
                self._account = self.stream.place()
                self._open()
            else:
                self._refuse()
        elif token is None:
            self._reply_error(
                "This message is not understood. Listeners cannot send commands yet; the only message with a meaning "
                'is {"auth_token": "..."} as the first one, where a token is wanted.'
            )

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002 - the library calls it so
        """Called by the library when the connection has ended, however."""
        self._cancel_timers()
        self._ended = True
        self._alive.discard(self)
        self.gone.set()
        self.stream.leave(self)
        self._count_left_behind()
        if self._slow:
            self._tell(f"{self._peer} - too slow, closed with 4008: {self._left_behind or 0} records not delivered")
        self._tell("connection closed")

    def pause_writing(self) -> None:
        """Called by the library; every turn looks at the buffer itself."""

    def resume_writing(self) -> None:
        """Called by the library; see `pause_writing`."""


def _token_of(data: bytes) -> str | None:
    try:
        return _TOKEN_MESSAGE.decode(data).auth_token
    except msgspec.DecodeError:
        return None
