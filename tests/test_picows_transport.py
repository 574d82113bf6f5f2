"""The picows transport against servers that do what venues do on bad days: real sockets, bytes written by hand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import pytest
import uvloop

from feeds.decoding import STAGED
from feeds.picows_transport import PicowsSocket, PicowsTransport
from feeds.transport import ConnectOptions, redacted
from ringbuf.errors import UnauthorizedError, VenueUnreachable

# libuv makes one pipe for the whole process with its first loop; it must not count as left open by a test.
uvloop.new_event_loop().close()

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
DEADLINE = 20.0


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """A server's frame (RFC 6455, 5.2): never masked."""
    size = len(payload)
    head = bytes([opcode | (0x80 if fin else 0)])
    if size < 126:
        return head + bytes([size]) + payload
    if size < 65536:
        return head + b"\x7e" + struct.pack(">H", size) + payload
    return head + b"\x7f" + struct.pack(">Q", size) + payload


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(struct.pack(">H", code) + reason, CLOSE)


@dataclass
class Receiver:
    """Takes down what a transport hands over."""

    batches: list[list[bytes]] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    ended: list[tuple[int, str]] = field(default_factory=list)

    def on_batch(self, frames: list[bytes], received_ns: int) -> None:
        assert not self.ended, "frames after the end"
        self.batches.append(frames)
        self.stamps.append(received_ns)

    def on_disconnected(self, code: int, reason: str) -> None:
        self.ended.append((code, reason))

    @property
    def frames(self) -> list[bytes]:
        return [frame for batch in self.batches for frame in batch]

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110 - what is waited for is plain data
            await asyncio.sleep(0.002)

    async def gone(self) -> tuple[int, str]:
        await self.until(lambda: self.ended)
        (ended,) = self.ended
        return ended


@dataclass
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: bytes

    def write(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))

    async def read_frame(self) -> tuple[int, bytes]:
        """One frame of the client, unmasked: (opcode, payload)."""
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await self.reader.readexactly(2))
        mask = await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        return first & 0xF, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


Behaviour = Callable[[Peer], Awaitable[None]]


class Server:
    """A websocket server whose behaviour after the upgrade, or instead of it, is the test's own."""

    def __init__(self, behaviour: Behaviour, answer: Callable[[bytes], bytes] | None = None) -> None:
        self._behaviour = behaviour
        self._answer = answer or _accept
        self._writers: list[asyncio.StreamWriter] = []
        self.peers = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.peers += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer(request))
            await self._behaviour(Peer(reader, writer, request))
            await writer.drain()
        writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/stream?token=GEHEIM"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0.01)  # the transports' last callbacks


def _accept(request: bytes) -> bytes:
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")).split(b":")[1]
    digest = hashlib.sha1(key.strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 - RFC 6455, 1.3
    accept = base64.b64encode(digest)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


async def stay(peer: Peer) -> None:
    """Say nothing until the client leaves."""
    await peer.reader.read()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """On uvloop, as the provider process does."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE):
            await test()

    uvloop.run(bounded())


async def connect(url: str, receiver: Receiver, **options: float) -> PicowsSocket:
    stamps = iter(range(1, 10**9))
    return await PicowsTransport(lambda: next(stamps)).connect(url, ConnectOptions(**options), receiver)  # type: ignore[arg-type]  # only timeout is given


def exchange(behaviour: Behaviour) -> Receiver:
    """Connect to a server of this behaviour, stay until it ends the connection, and give what was received."""
    receiver = Receiver()

    async def test() -> None:
        async with Server(behaviour) as server:
            await connect(server.url, receiver)
            await receiver.gone()

    run(test)
    return receiver


# ---- batches --------------------------------------------------------------------------------------------------------


def test_frames_of_one_read_are_one_batch_with_one_stamp() -> None:
    async def behave(peer: Peer) -> None:
        peer.write(*(frame(b"%d" % i) for i in range(100)))

    receiver = exchange(behave)
    assert receiver.frames == [b"%d" % i for i in range(100)]
    assert len(receiver.batches) <= 2  # the upgrade's answer may bring the first frames
    assert receiver.stamps == sorted(receiver.stamps)


def test_a_batch_has_at_most_256_frames() -> None:
    async def behave(peer: Peer) -> None:
        peer.write(*(frame(b"%d" % i) for i in range(1000)))

    receiver = exchange(behave)
    assert receiver.frames == [b"%d" % i for i in range(1000)]
    assert max(map(len, receiver.batches)) == STAGED


def test_a_frame_is_not_held_back_by_the_unfinished_one_behind_it() -> None:
    receiver = Receiver()

    async def behave(peer: Peer) -> None:
        second = frame(b"second")
        peer.write(frame(b"first"), second[:4])
        await receiver.until(lambda: receiver.frames == [b"first"])
        peer.write(second[4:])

    async def test() -> None:
        async with Server(behave) as server:
            await connect(server.url, receiver)
            await receiver.gone()

    run(test)
    assert receiver.frames == [b"first", b"second"]


def test_a_ping_at_the_end_of_a_read_holds_no_frame_back_and_is_echoed() -> None:
    receiver = Receiver()
    pongs = []

    async def behave(peer: Peer) -> None:
        peer.write(frame(b"data"), frame(b"1723161254087", PING))
        pongs.append(await peer.read_frame())
        await receiver.until(lambda: receiver.frames == [b"data"])
        peer.write(frame(b"", PING), frame(b"unasked", PONG))
        pongs.append(await peer.read_frame())

    async def test() -> None:
        async with Server(behave) as server:
            await connect(server.url, receiver)
            await receiver.gone()

    run(test)
    assert pongs == [(PONG, b"1723161254087"), (PONG, b"")]
    assert receiver.frames == [b"data"]


def test_frames_that_come_with_the_upgrade_are_not_lost() -> None:
    receiver = Receiver()

    async def test() -> None:
        async with Server(stay, lambda request: _accept(request) + frame(b"hello") + frame(b"again")) as server:
            socket = await connect(server.url, receiver)
            await receiver.until(lambda: len(receiver.frames) == 2)
            await socket.close()

    run(test)
    assert receiver.frames == [b"hello", b"again"]


# ---- messages -------------------------------------------------------------------------------------------------------


def test_a_fragmented_message_is_put_together_and_keeps_its_place() -> None:
    async def behave(peer: Peer) -> None:
        peer.write(
            frame(b"before"), frame(b"one ", fin=False), frame(b"ping", PING), frame(b"two ", CONTINUATION, fin=False),
            frame(b"three", CONTINUATION), frame(b"after"),
        )  # fmt: skip
        await peer.read_frame()

    assert exchange(behave).frames == [b"before", b"one two three", b"after"]


def test_a_binary_message_is_a_message() -> None:
    async def behave(peer: Peer) -> None:
        peer.write(frame(b"\x00\xff", BINARY), frame(b"\x01", BINARY, fin=False), frame(b"\x02", CONTINUATION))

    assert exchange(behave).frames == [b"\x00\xff", b"\x01\x02"]


def test_a_continuation_of_nothing_is_no_message() -> None:
    async def behave(peer: Peer) -> None:
        peer.write(frame(b"stray", CONTINUATION), frame(b"good"))

    assert exchange(behave).frames == [b"good"]


def test_a_message_of_sixteen_mebibytes_passes() -> None:
    large = b"x" * (16 * 2**20)

    async def behave(peer: Peer) -> None:
        peer.write(frame(large))
        await peer.writer.drain()

    assert exchange(behave).frames == [large]


def test_a_larger_frame_ends_the_connection_with_1009() -> None:
    codes = []

    async def behave(peer: Peer) -> None:
        peer.write(frame(b"good"), frame(b"x" * (16 * 2**20 + 1))[:100])
        opcode, payload = await peer.read_frame()
        codes.append((opcode, payload[:2]))

    receiver = exchange(behave)
    assert receiver.frames == [b"good"]
    ((code, reason),) = receiver.ended
    assert code == 1009
    assert "exceeding" in reason
    assert codes == [(CLOSE, struct.pack(">H", 1009))]


def test_fragments_without_end_end_the_connection_with_1009() -> None:
    async def behave(peer: Peer) -> None:
        peer.write(frame(b"x", fin=False))
        for _ in range(17):
            peer.write(frame(b"x" * 2**20, CONTINUATION, fin=False))
            await peer.writer.drain()
        await stay(peer)

    receiver = exchange(behave)
    assert receiver.frames == []
    assert receiver.ended == [(1009, "a message in fragments was too large")]


@pytest.mark.parametrize(
    "wire", [b"\x83\x01x", b"\x81\x81abcdx", b"\x09\x01x"], ids=["opcode", "masked", "part of a ping"]
)
def test_a_frame_that_breaks_the_protocol_ends_the_connection_with_1002_after_the_good_ones(wire: bytes) -> None:
    async def behave(peer: Peer) -> None:
        peer.write(frame(b"good"), wire)
        await stay(peer)

    receiver = exchange(behave)
    assert receiver.frames == [b"good"]
    ((code, reason),) = receiver.ended
    assert code == 1002
    assert reason.startswith("Received")


# ---- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1008, 1011, 1012, 3000, 4000, 4999])
def test_a_close_code_is_told_with_its_number_and_words(code: int) -> None:
    async def behave(peer: Peer) -> None:
        if code == 1006:  # never on the wire: the connection just breaks off
            peer.write(frame(b"last"))
            await peer.writer.drain()
            return
        peer.write(frame(b"last"), close_frame(code, "gute Nacht ☾".encode()))
        await stay(peer)

    receiver = exchange(behave)
    assert receiver.frames == [b"last"]
    assert receiver.ended == [(code, "the connection broke off" if code == 1006 else "gute Nacht ☾")]


def test_a_close_without_a_code_is_1005() -> None:
    async def behave(peer: Peer) -> None:
        peer.write(frame(b"", CLOSE))
        await stay(peer)

    assert exchange(behave).ended == [(1005, "")]


@pytest.mark.parametrize("close", [close_frame(1004), close_frame(1000, b"\xff\xfe"), frame(b"x", CLOSE)])
def test_an_illegal_close_frame_still_ends_the_connection_and_loses_no_frame(close: bytes) -> None:
    async def behave(peer: Peer) -> None:
        peer.write(frame(b"last"), close)
        await stay(peer)

    receiver = exchange(behave)
    assert receiver.frames == [b"last"]
    ((code, _),) = receiver.ended
    assert code in (1002, 1007)


def test_a_cut_in_the_middle_of_a_frame_gives_the_whole_ones_and_1006() -> None:
    async def behave(peer: Peer) -> None:
        peer.write(frame(b"whole"), frame(b"x" * 1000)[:500])
        await peer.writer.drain()

    receiver = exchange(behave)
    assert receiver.frames == [b"whole"]
    assert receiver.ended == [(1006, "the connection broke off")]


def test_our_close_says_1000_waits_for_the_answer_and_frames_until_then_arrive() -> None:
    receiver = Receiver()
    said = []

    async def behave(peer: Peer) -> None:
        said.append(await peer.read_frame())
        peer.write(frame(b"still on its way"), close_frame(1000, b"bye"))

    async def test() -> None:
        async with Server(behave) as server:
            socket = await connect(server.url, receiver)
            await socket.close()
            await socket.close()
            socket.send(b"into the void")

    run(test)
    assert said == [(CLOSE, struct.pack(">H", 1000))]
    assert receiver.frames == [b"still on its way"]
    assert receiver.ended == [(1000, "bye")]


def test_a_venue_that_does_not_answer_our_close_is_left_anyway() -> None:
    receiver = Receiver()

    async def behave(peer: Peer) -> None:
        await asyncio.sleep(DEADLINE)

    async def test() -> None:
        async with Server(behave) as server:
            socket = await connect(server.url, receiver)
            await socket.close()
            assert receiver.ended

    run(test)


def test_closing_after_a_violation_of_the_protocol_raises_nothing() -> None:
    receiver = Receiver()

    async def behave(peer: Peer) -> None:
        peer.write(b"\x83\x01x")
        await stay(peer)

    async def test() -> None:
        async with Server(behave) as server:
            socket = await connect(server.url, receiver)
            await socket.close()
            await receiver.gone()
            await socket.close()

    run(test)
    assert receiver.ended[0][0] == 1002


def test_what_is_sent_arrives_as_text() -> None:
    got = []

    async def behave(peer: Peer) -> None:
        got.append(await peer.read_frame())

    async def test() -> None:
        async with Server(behave) as server:
            receiver = Receiver()
            socket = await connect(server.url, receiver)
            socket.send(b'{"method":"SUBSCRIBE"}')
            await receiver.gone()

    run(test)
    assert got == [(TEXT, b'{"method":"SUBSCRIBE"}')]


# ---- connects that do not come about --------------------------------------------------------------------------------


def failure(url: str, timeout: float = 10.0) -> str:
    said = []

    async def test() -> None:
        receiver = Receiver()
        with pytest.raises(VenueUnreachable) as caught:
            await connect(url, receiver, timeout=timeout)
        assert receiver.ended == []
        said.append(str(caught.value))

    run(test)
    assert "GEHEIM" not in said[0]
    return said[0]


def answered(answer: bytes, kind: type[Exception] = VenueUnreachable) -> str:
    """What a client says to a server that answers its upgrade with this."""
    said = []

    async def leave(_: Peer) -> None:
        pass

    async def test() -> None:
        async with Server(leave, lambda _: answer) as server:
            receiver = Receiver()
            with pytest.raises(kind) as caught:
                await connect(server.url, receiver)
            said.append(str(caught.value))
            assert receiver.ended == []

    run(test)
    assert "GEHEIM" not in said[0]
    return said[0]


def test_nobody_listens_there(unused_port: int) -> None:
    said = failure(f"ws://127.0.0.1:{unused_port}/stream?token=GEHEIM")
    assert said.startswith(f"ws://127.0.0.1:{unused_port}/stream cannot be reached: ")


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/?GEHEIM", "ws:///?GEHEIM", "ws://127.0.0.1:99999/?GEHEIM", "ws://127.0.0.1:x/?GEHEIM",
     "ws://[::1/?GEHEIM", "ws://127.0.0.1/#GEHEIM", "ws://a..b.ünicode/?GEHEIM", "venue"],
)  # fmt: skip
def test_what_is_no_url_of_a_websocket_is_said_without_repeating_it(url: str) -> None:
    assert "is no websocket's URL" in failure(url)


def test_a_host_that_does_not_exist() -> None:
    assert "nowhere.invalid/x cannot be reached" in failure("ws://nowhere.invalid/x?GEHEIM")


@pytest.mark.parametrize(
    "status", [b"404 Not Found", b"500 Internal Server Error", b"200 OK", b"429 Too Many Requests"]
)
def test_another_http_status_is_told(status: bytes) -> None:
    said = answered(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")
    assert f"did not open a websocket: HTTP {status.decode()[:3]}" in said


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_a_refused_credential_is_told_apart(status: bytes) -> None:
    said = answered(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n", UnauthorizedError)
    assert f"HTTP {status.decode()[:3]}: check the credentials" in said


def test_a_venue_that_closes_without_an_answer_is_not_taken_for_open() -> None:
    """Picows gives such a connection as opened; the session would wait for acknowledgements on it."""
    assert "closed the connection without an answer" in answered(b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x00\xff\xfe\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 Switch",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_whatever_else_a_server_answers_is_one_clear_error(answer: bytes) -> None:
    assert answered(answer)


def test_a_server_that_never_answers_is_given_up_at_the_timeout_and_reaches_nobody_later() -> None:
    receiver = Receiver()
    late = asyncio.Event

    async def test() -> None:
        given_up = late()

        async def behave(peer: Peer) -> None:
            await given_up.wait()
            peer.write(_accept(peer.request), frame(b"too late"))
            assert await peer.reader.read() in (b"", None)  # the client has left, without a word

        async with Server(behave, lambda _: b"") as server:
            with pytest.raises(VenueUnreachable, match=r"did not answer within 0\.2 s"):
                await connect(server.url, receiver, timeout=0.2)
            given_up.set()
            await asyncio.sleep(0.05)

    run(test)
    assert receiver.batches == []
    assert receiver.ended == []


def test_a_server_that_speaks_no_tls_is_one_clear_error() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async def test() -> None:
        async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(VenueUnreachable, match=r"cannot be trusted: .*"):
                await connect(f"wss://127.0.0.1:{port}/stream", Receiver())

    run(test)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://venue.example:9443/stream?token=GEHEIM", "wss://venue.example:9443/stream"),
        ("wss://user:GEHEIM@venue.example/x#GEHEIM", "wss://venue.example/x"),
        ("ws://[::1", "a URL that is none"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redacted(url) == shown
