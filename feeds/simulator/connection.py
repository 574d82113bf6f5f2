"""One client of a simulated venue: its requests, pings, limits and back-pressure, on a picows transport.

Frames bypass picows: ready-made stretches of the tape are written to the underlying transport, many frames a system
call. Answers, pings and closes go through picows, in the same order on the same transport.

The client's end of the protocol is checked as a venue does: unfragmented text messages only (1003 for binary, 1002 for
fragments and reserved bits), at most so many messages a second (1008, "Too many requests"), pings echoed in time
(1008). Close codes are picows's to check. After our close frame the client has a second to answer, then the socket is
cut: the close frame stands behind whatever the client has not read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from feeds.simulator.profile import RequestLimit, Subscriptions
from feeds.simulator.tape import Tape

if TYPE_CHECKING:
    from feeds.simulator.playback import Playback
    from feeds.simulator.venue import SimulatedVenue

#: Seconds a client has to answer a close frame (the value that facts give for a listener that does not read).
_CLOSE_SECONDS: Final = 1.0


class ClientConnection(WSListener):
    """The venue's side of one websocket. Created by the server; lives on its event loop only."""

    def __init__(self, venue: SimulatedVenue, subscriptions: Subscriptions) -> None:
        super().__init__()
        self.subscriptions = subscriptions
        self.tape: Tape = venue.tape(subscriptions)
        self.playback: Playback | None = None
        self._venue = venue
        self._stats = venue.stats
        self._limit = RequestLimit(venue.profile.limits.requests_per_second)
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._pings: dict[bytes, asyncio.TimerHandle] = {}
        self._next_ping: asyncio.TimerHandle | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._closing = False

    # What picows calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin: no backlog is tolerated before writing pauses, so that full speed is the client's own."""
        self._transport = transport
        self._socket = transport.underlying_transport
        self._socket.set_write_buffer_limits(high=0)
        self._schedule_ping()
        self._venue.joined(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        """End: timers stop, and whoever waits for room goes on."""
        self._end()
        for timer in (self._next_ping, self._cut, *self._pings.values()):
            if timer is not None:
                timer.cancel()
        self._pings.clear()
        self._venue.left(self)

    def pause_writing(self) -> None:
        """The kernel took less than was written."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The backlog is gone."""
        self._room.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle one frame of the client."""
        if frame.msg_type == WSMsgType.CLOSE:
            self._answer_close(transport, frame)
        elif self._closing:
            return
        elif frame.rsv1 or frame.rsv2 or frame.rsv3 or not frame.fin or frame.msg_type == WSMsgType.CONTINUATION:
            self.close(1002, "reserved bits and fragments are not accepted")
        elif frame.msg_type == WSMsgType.BINARY:
            self.close(1003, "text messages only")
        elif not self._limit.allows(self._loop.time()):
            self._stats.closed_too_many_requests += 1
            self.close(1008, "Too many requests")
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.PONG:
            self._take_pong(frame.get_payload_as_bytes())
        else:
            self._answer(frame.get_payload_as_bytes())

    # What playback and venue call.

    def play(self, first: int, stop: int, lap: int) -> bool:
        """Write a stretch of this client's tape; see `Hearer`."""
        if self._closing:
            return False
        if stop > first:
            stretch = self.tape.render(first, stop, lap, self._venue.time_ms())
            self._socket.write(stretch)
            self._stats.frames_sent += stop - first
            self._stats.bytes_sent += len(stretch)
            self._stats.writes += 1
            if self._socket.get_write_buffer_size() > self._venue.buffer_limit:
                self.too_slow()
        return not self._closing

    def write(self, wire: bytes) -> None:
        """Write bytes as they are, legal or not."""
        if not self._closing:
            self._socket.write(wire)

    async def drained(self) -> None:
        """Wait until the backlog is gone, or the client is."""
        await self._room.wait()

    def too_slow(self) -> None:
        """Cut the client off: it reads too slowly. No close frame: it would stand behind the backlog."""
        self._stats.closed_too_slow += 1
        self.abort()

    def replay_over(self) -> None:
        """The capture's last lap was written."""
        self._stats.replays_over += 1
        if self._venue.close_at_end:
            self.close(1000, "end of the capture")

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and cut the socket a second later, unless the client answers before."""
        if self._closing:
            return
        self._end()
        # picows passes any number on; its type says only the codes that have names
        self._transport.send_close(cast(WSCloseCode, code), reason.encode())
        self._cut = self._loop.call_later(_CLOSE_SECONDS, self.abort)

    def abort(self) -> None:
        """Cut the socket: the client sees a reset or an end without a close frame."""
        self._end()
        self._transport.disconnect(graceful=False)

    def _end(self) -> None:
        """Hear no more, and hold up nobody."""
        self._closing = True
        self.tape = self.tape.select(())
        self._room.set()

    # Requests and pings.

    def _answer(self, request: bytes) -> None:
        venue = self._venue
        self._stats.requests += 1
        answer = venue.profile.answer(request, self.subscriptions, venue.known_streams, venue.refusal)
        self._stats.refusals += answer.refused
        if answer.reply:
            self._transport.send(WSMsgType.TEXT, answer.reply)
        if answer.subscriptions is not None:
            self.subscriptions = answer.subscriptions
            self.tape = venue.tape(answer.subscriptions)
            venue.subscribed(self)

    def _answer_close(self, transport: WSTransport, frame: WSFrame) -> None:
        if not self._closing:
            self._end()
            code = frame.get_close_code()
            transport.send_close(code if frame.payload_size >= 2 else WSCloseCode.OK)
        transport.disconnect()
        if self._cut is None:  # the socket closes when the client has read what is left, and no later than this
            self._cut = self._loop.call_later(_CLOSE_SECONDS, self.abort)

    def _schedule_ping(self) -> None:
        interval = self._venue.profile.limits.ping_interval
        if interval > 0:
            self._next_ping = self._loop.call_later(interval, self._ping)

    def _ping(self) -> None:
        if self._closing:
            return
        payload = self._venue.profile.ping_payload(self._venue.time_ms())
        if payload not in self._pings:
            deadline = self._venue.profile.limits.pong_deadline
            self._pings[payload] = self._loop.call_later(deadline, self._pong_is_missing)
            self._transport.send_ping(payload)
            self._stats.pings_sent += 1
        self._schedule_ping()

    def _take_pong(self, payload: bytes) -> None:
        """A pong answers its ping and those before it; any other pong keeps nothing alive."""
        if payload not in self._pings:
            self._stats.pongs_unsolicited += 1
            return
        self._stats.pongs_received += 1
        for sent in list(self._pings):
            self._pings.pop(sent).cancel()
            if sent == payload:
                break

    def _pong_is_missing(self) -> None:
        self._stats.closed_without_pong += 1
        self.close(1008, "Pong timeout")
