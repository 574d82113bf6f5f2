"""The simulated venue, over real sockets: the reference websocket client, and raw sockets where bytes matter."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from feeds.capture import read_capture
from feeds.simulator.binance import BinanceSpot
from feeds.simulator.pace import Speed
from feeds.simulator.source import CaptureSource, MarketSource
from feeds.simulator.tape import server_frame
from feeds.simulator.venue import SimulatedVenue
from ringbuf.errors import AddressInUse, CaptureError

HFTBACKTEST = "binance/hftbacktest/examples_spot_btcusdt_20240808.gz"
STREAMS = ["btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms"]
#: Every wait of this file ends; none needs nearly as long.
DEADLINE = 30.0


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE):
            await test()

    asyncio.run(bounded())


def client(url: str) -> connect:
    return connect(url, compression=None, ping_interval=None, proxy=None, max_size=None, close_timeout=0.1)


async def request(websocket: ClientConnection, **message: object) -> dict[str, object]:
    """Send a request and give its answer; data that comes before is dropped."""
    await websocket.send(orjson.dumps({"id": 1, **message}).decode())
    while True:
        answer: dict[str, object] = orjson.loads(await websocket.recv(decode=False))
        if "id" in answer:
            return answer


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the venue's counts are plain numbers
        await asyncio.sleep(0.002)


def capture_file(directory: Path, frames: int = 6, distance_ns: int = 0, padding: int = 0) -> Path:
    """A capture of alternating trades and quotes, numbered."""
    path = directory / "capture.txt"
    stream = ("btcusdt@trade", "btcusdt@bookTicker")
    path.write_text(
        "".join(
            f"{1_700_000_000_000_000_000 + i * distance_ns} "
            f'{{"stream":"{stream[i % 2]}","data":{{"n":{i}{" " * padding}}}}}\n'
            for i in range(frames)
        )
    )
    return path


def captured_payloads(path: Path, *streams: str) -> list[bytes]:
    names = [b'{"stream":"%s",' % stream.encode() for stream in streams]
    return [f.payload for f in read_capture(path) if any(f.payload.startswith(name) for name in names)]


@asynccontextmanager
async def replaying(
    path: Path, *, laps: int | None = 1, speed: Speed = None, **options: object
) -> AsyncIterator[SimulatedVenue]:
    async with SimulatedVenue(BinanceSpot(), CaptureSource(path, laps=laps), speed=speed, **options) as venue:  # type: ignore[arg-type]  # passed on
        yield venue


async def receive(websocket: ClientConnection, count: int) -> list[bytes]:
    return [await websocket.recv(decode=False) for _ in range(count)]


def test_a_subscriber_gets_exactly_the_captures_frames_in_order(captures: Path) -> None:
    async def test() -> None:
        expected = captured_payloads(captures / HFTBACKTEST, *STREAMS)
        assert len(expected) == 41_248
        async with replaying(captures / HFTBACKTEST) as venue, client(venue.url) as websocket:
            assert await request(websocket, method="SUBSCRIBE", params=STREAMS) == {"result": None, "id": 1}
            assert await receive(websocket, len(expected)) == expected
            await until(lambda: venue.stats.replays_over == 1)
            assert venue.stats.frames_sent == len(expected)

    run(test)


def test_only_subscribed_streams_are_sent(captures: Path) -> None:
    async def test() -> None:
        trades = captured_payloads(captures / HFTBACKTEST, "btcusdt@trade")
        async with (
            replaying(captures / HFTBACKTEST, close_at_end=True) as venue,
            client(venue.url + "?streams=btcusdt@trade/nosuch@trade") as websocket,
        ):
            assert [message async for message in websocket] == [trade.decode() for trade in trades]

    run(test)


def test_raw_streams_have_no_wrapping(tmp_path: Path) -> None:
    async def test() -> None:
        path = capture_file(tmp_path)
        async with replaying(path) as venue, client(venue.url.replace("/stream", "/ws/btcusdt@trade")) as websocket:
            assert await receive(websocket, 3) == [b'{"n":0}', b'{"n":2}', b'{"n":4}']

    run(test)


def test_a_capture_is_repeated_verbatim_and_then_the_connection_stays_open(tmp_path: Path) -> None:
    async def test() -> None:
        path = capture_file(tmp_path)
        expected = captured_payloads(path, "btcusdt@trade", "btcusdt@bookTicker") * 3
        async with replaying(path, laps=3) as venue, client(venue.url) as websocket:
            await request(websocket, method="SUBSCRIBE", params=["btcusdt@trade", "btcusdt@bookTicker"])
            assert await receive(websocket, len(expected)) == expected
            await until(lambda: venue.stats.replays_over == 1)
            assert await request(websocket, method="LIST_SUBSCRIPTIONS") == {
                "result": ["btcusdt@trade", "btcusdt@bookTicker"],
                "id": 1,
            }

    run(test)


def test_each_client_hears_the_capture_from_its_beginning(tmp_path: Path) -> None:
    async def test() -> None:
        path = capture_file(tmp_path)
        expected = captured_payloads(path, "btcusdt@trade")
        async with replaying(path, laps=None, speed=1.0) as venue:
            tasks = asyncio.all_tasks()
            for _ in range(2):
                async with client(venue.url + "?streams=btcusdt@trade") as websocket:
                    assert await receive(websocket, 3) == expected
            await until(lambda: asyncio.all_tasks() == tasks)  # nobody hears the replays: they have ended

    run(test)


def test_a_replay_can_wait_for_several_subscriptions(tmp_path: Path) -> None:
    async def test() -> None:
        path = capture_file(tmp_path)
        async with replaying(path, start_after=2) as venue, client(venue.url) as websocket:
            for stream in ("btcusdt@bookTicker", "btcusdt@trade"):
                await websocket.send(orjson.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 1}).decode())
            messages = await receive(websocket, 8)
            assert messages[:2] == [b'{"result":null,"id":1}'] * 2
            assert messages[2:] == captured_payloads(path, "btcusdt@bookTicker", "btcusdt@trade")

    run(test)


def test_a_paced_replay_sends_what_is_due_and_a_later_subscription_joins(tmp_path: Path) -> None:
    async def test() -> None:
        path = capture_file(tmp_path, frames=400, distance_ns=1_000_000)
        now = 0
        async with replaying(path, speed=2.0, clock=lambda: now) as venue, client(venue.url) as websocket:
            await request(websocket, method="SUBSCRIBE", params=["btcusdt@trade"])
            assert orjson.loads(await websocket.recv())["data"]["n"] == 0
            now = 50_000_000  # at twice the speed frame 100 is due; quotes are not subscribed yet
            numbers = [orjson.loads(m)["data"]["n"] for m in await receive(websocket, 50)]
            assert numbers == list(range(2, 101, 2))
            assert await request(websocket, method="SUBSCRIBE", params=["btcusdt@bookTicker"])
            now = 10**9
            numbers = [orjson.loads(m)["data"]["n"] for m in await receive(websocket, 299)]
            assert numbers == list(range(101, 400))
            await until(lambda: venue.stats.replays_over == 1)

    run(test)


def test_frames_due_together_travel_together(tmp_path: Path) -> None:
    """One `recv` on the socket holds many frames, as from a real venue."""

    async def test() -> None:
        path = capture_file(tmp_path, frames=2_000)
        async with replaying(path) as venue:
            with await handshake(venue.port, "/stream?streams=btcusdt@trade/btcusdt@bookTicker") as raw:
                await until(lambda: venue.stats.replays_over == 1)
                chunk = raw.recv(1 << 20)
                expected = b"".join(server_frame(f.payload) for f in read_capture(path))
                assert chunk == expected[: len(chunk)]
                assert len(chunk) > 20_000
                assert venue.stats.writes <= len(expected) // (32 * 1024) + 1

    run(test)


async def handshake(port: int, path: str) -> socket.socket:
    """Open a websocket on a bare socket, blocking; the handshake is read exactly to its end."""
    raw = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    raw.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await loop.sock_recv(raw, 1)
    assert b" 101 " in answer.splitlines()[0]
    raw.setblocking(True)
    return raw


def test_at_full_speed_a_client_that_does_not_read_holds_the_replay_and_loses_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        path = capture_file(tmp_path, frames=40_000, padding=800)  # 34 MB: more than the kernel holds
        payloads = captured_payloads(path, "btcusdt@trade", "btcusdt@bookTicker")
        async with replaying(path) as venue:
            with await handshake(venue.port, "/stream?streams=btcusdt@trade/btcusdt@bookTicker") as raw:
                sent = -1
                while sent != venue.stats.bytes_sent:
                    sent = venue.stats.bytes_sent
                    await asyncio.sleep(0.05)
                assert 0 < sent < 20_000_000
                raw.setblocking(False)
                loop = asyncio.get_running_loop()
                expected = b"".join(server_frame(payload) for payload in payloads)
                received = bytearray()
                while len(received) < len(expected):
                    received += await loop.sock_recv(raw, 1 << 20)
                assert received == expected
                assert venue.stats.closed_too_slow == 0

    run(test)


def test_a_paced_venue_bounds_its_buffer_and_cuts_a_slow_client_off(tmp_path: Path) -> None:
    async def test() -> None:
        path = capture_file(tmp_path, frames=40_000, padding=800)
        limit = 256 * 1024
        async with replaying(path, speed=1.0, buffer_limit=limit) as venue:
            with await handshake(venue.port, "/stream?streams=btcusdt@trade/btcusdt@bookTicker"):
                await until(lambda: venue.stats.closed_too_slow == 1)
                await until(lambda: venue.connections == 0)
                assert venue.stats.bytes_sent < 20_000_000
            async with client(venue.url) as websocket:  # and everyone else is served
                assert await request(websocket, method="LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}

    run(test)


def test_garbage_and_refused_names_are_answered_and_the_client_lives_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with replaying(capture_file(tmp_path), refuse_unknown=True) as venue, client(venue.url) as websocket:
            await websocket.send("}{ not json")
            assert orjson.loads(await websocket.recv())["error"]["code"] == 3
            assert "error" in await request(websocket, method="SUBSCRIBE", params=["BTCUSDT@trade"])
            assert "error" in await request(websocket, method="SUBSCRIBE", params=["ethusdt@trade"])
            assert await request(websocket, method="SUBSCRIBE", params=["btcusdt@trade"]) == {"result": None, "id": 1}
            assert (venue.stats.requests, venue.stats.refusals) == (4, 3)

    run(test)


def test_unsubscribing_ends_a_stream() -> None:
    async def test() -> None:
        source = MarketSource(symbols=2, actions=200)
        async with SimulatedVenue(BinanceSpot(), source, speed=None) as venue, client(venue.url) as websocket:
            await request(websocket, method="SUBSCRIBE", params=["btcusdt@trade", "ethusdt@trade"])
            await websocket.send('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":9}')
            while orjson.loads(await websocket.recv()).get("id") != 9:
                pass
            assert {orjson.loads(m)["stream"] for m in await receive(websocket, 2_000)} == {"ethusdt@trade"}
            await websocket.send('{"method":"UNSUBSCRIBE","params":["ethusdt@trade"],"id":10}')
            while orjson.loads(await websocket.recv()).get("id") != 10:
                pass
            assert "result" in await request(websocket, method="LIST_SUBSCRIPTIONS")

    run(test)


@pytest.mark.parametrize(("speed", "rate"), [(None, 2_000.0), (1.0, 50_000.0)], ids=["full speed", "paced"])
def test_market_ids_rise_by_one_per_symbol_over_many_laps(speed: Speed, rate: float) -> None:
    async def test() -> None:
        source = MarketSource(symbols=3, rate=rate, actions=300)
        async with SimulatedVenue(BinanceSpot(), source, speed=speed) as venue, client(venue.url) as websocket:
            streams = [f"{s}@{c}" for s in ("btcusdt", "ethusdt") for c in ("trade", "aggTrade", "bookTicker")]
            await request(websocket, method="SUBSCRIBE", params=streams)
            last: dict[tuple[str, str], int] = {}
            steps: dict[str, set[int]] = defaultdict(set)
            for message in await receive(websocket, 6_000):  # some twenty laps
                data = orjson.loads(message)["data"]
                kind, key = ("u", "u") if "u" in data else (data["e"], {"trade": "t", "aggTrade": "a"}[data["e"]])
                before = last.get((data["s"], kind))
                if before is not None:
                    steps[kind].add(data[key] - before)
                last[data["s"], kind] = data[key]
            assert steps["trade"] == {1}
            assert steps["aggTrade"] == {1}
            assert min(steps["u"]) >= 1

    run(test)


def test_two_clients_of_the_market_hear_the_same_events() -> None:
    async def test() -> None:
        source = MarketSource(symbols=2, actions=200)
        async with (
            SimulatedVenue(BinanceSpot(), source, speed=None, wall_clock=lambda: 10**18) as venue,
            client(venue.url) as one,
            client(venue.url) as two,
        ):
            await asyncio.gather(*(request(c, method="SUBSCRIBE", params=["btcusdt@trade"]) for c in (one, two)))
            seen = [{orjson.loads(m)["data"]["t"]: m for m in await receive(c, 3_000)} for c in (one, two)]
            common = seen[0].keys() & seen[1].keys()
            assert len(common) > 1_000
            assert all(seen[0][number] == seen[1][number] for number in common)

    run(test)


def test_the_venue_pings_and_counts_echoes() -> None:
    async def test() -> None:
        profile = BinanceSpot(ping_interval=0.02, pong_deadline=DEADLINE)
        async with (
            SimulatedVenue(profile, MarketSource(symbols=1, actions=10)) as venue,
            client(venue.url) as websocket,
        ):
            await websocket.pong(b"unsolicited")
            await until(lambda: venue.stats.pongs_received >= 3)  # the reference client echoes by itself
            assert venue.stats.pongs_unsolicited == 1
            assert venue.stats.pings_sent >= venue.stats.pongs_received

    run(test)


def test_a_client_that_echoes_outlives_the_deadline_of_every_ping() -> None:
    async def test() -> None:
        profile = BinanceSpot(ping_interval=0.25, pong_deadline=1.0)  # four pongs a second: five requests are allowed
        source = MarketSource(symbols=1, actions=10)
        async with SimulatedVenue(profile, source) as venue, client(venue.url):
            await until(lambda: venue.stats.pongs_received >= 6)
            assert (venue.stats.closed_without_pong, venue.connections) == (0, 1)

    run(test)


def test_a_client_that_does_not_echo_pings_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        profile = BinanceSpot(ping_interval=0.02, pong_deadline=0.05)
        async with SimulatedVenue(profile, CaptureSource(capture_file(tmp_path))) as venue:
            with await handshake(venue.port, "/stream"):
                await until(lambda: venue.stats.closed_without_pong == 1)
                await until(lambda: venue.connections == 0)

    run(test)


def test_a_clients_ping_is_answered_with_its_payload() -> None:
    async def test() -> None:
        source = MarketSource(symbols=1, actions=10)
        async with SimulatedVenue(BinanceSpot(), source) as venue, client(venue.url) as websocket:
            await (await websocket.ping(b"are you there"))

    run(test)


def test_six_requests_in_a_second_close_the_connection_as_the_venue_does() -> None:
    async def test() -> None:
        source = MarketSource(symbols=1, actions=10)
        async with SimulatedVenue(BinanceSpot(), source) as venue, client(venue.url) as websocket:
            for _ in range(6):
                await websocket.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            with pytest.raises(ConnectionClosed) as closed:
                await receive(websocket, 6)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Too many requests")
            assert venue.stats.closed_too_many_requests == 1
            assert venue.stats.requests == 5

    run(test)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x82\x81\0\0\0\0x", 1003),
        (b"\x01\x81\0\0\0\0x", 1002),
        (b"\x80\x81\0\0\0\0x", 1002),
        (b"\xc1\x81\0\0\0\0x", 1002),
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # close code 1005 must not be sent
        (b"\x88\x82\0\0\0\0\x0f\xa1", 4001),
    ],
    ids=["binary", "fragment", "continuation", "reserved bit", "forbidden close code", "private close code"],
)
def test_what_breaks_the_protocol_is_closed_with_the_right_code(tmp_path: Path, wire: bytes, code: int) -> None:
    async def test() -> None:
        async with replaying(capture_file(tmp_path)) as venue:
            with await handshake(venue.port, "/stream") as raw:
                raw.sendall(wire)
                raw.setblocking(False)
                answer = await asyncio.get_running_loop().sock_recv(raw, 4096)
                assert answer[:1] == b"\x88"
                assert int.from_bytes(answer[2:4], "big") == code

    run(test)


def test_an_unknown_path_is_not_found() -> None:
    async def test() -> None:
        async with SimulatedVenue(BinanceSpot(), MarketSource(symbols=1, actions=10)) as venue:
            with pytest.raises(InvalidStatus) as refusal:
                async with client(venue.url + "s"):
                    pass
            assert refusal.value.response.status_code == 404

    run(test)


def test_refusals_can_be_switched_on_and_off(tmp_path: Path) -> None:
    async def test() -> None:
        async with replaying(capture_file(tmp_path)) as venue, client(venue.url) as websocket:
            venue.refuse_subscriptions("not today")
            answer = await request(websocket, method="SUBSCRIBE", params=["btcusdt@trade"])
            assert answer == {"error": {"code": 2, "msg": "Invalid request: not today"}, "id": 1}
            venue.refuse_subscriptions("")
            assert await request(websocket, method="SUBSCRIBE", params=["btcusdt@trade"]) == {"result": None, "id": 1}

    run(test)


def test_anything_can_be_sent_to_subscribers(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            replaying(capture_file(tmp_path, frames=2)) as venue,
            client(venue.url + "?streams=btcusdt@trade") as websocket,
            client(venue.url) as bystander,
        ):
            await receive(websocket, 1)
            venue.send_to_all(b'{"stream":"btcusdt@trade","da')
            assert await receive(websocket, 1) == [b'{"stream":"btcusdt@trade","da']
            venue.write_to_all(b"\x8f\x00")  # an opcode that does not exist
            with pytest.raises(ConnectionClosed):
                await receive(websocket, 1)
            assert await request(bystander, method="LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}

    run(test)


def test_connections_can_be_dropped_and_closed_with_any_code() -> None:
    async def test() -> None:
        async with SimulatedVenue(BinanceSpot(), MarketSource(symbols=1, actions=10)) as venue:
            async with client(venue.url) as websocket:
                venue.close_all(4321, "maintenance")
                await websocket.wait_closed()
                assert (websocket.close_code, websocket.close_reason) == (4321, "maintenance")
            async with client(venue.url) as websocket:
                venue.drop_all()
                await websocket.wait_closed()
                assert websocket.close_code == 1006
            assert (venue.stats.connections, venue.stats.open, venue.connections) == (2, 0, 0)

    run(test)


def test_a_silent_venue_answers_requests_and_resumes_a_replay_where_it_stood(tmp_path: Path) -> None:
    async def test() -> None:
        path = capture_file(tmp_path, frames=4)
        async with replaying(path) as venue, client(venue.url) as websocket:
            venue.go_silent()
            assert await request(websocket, method="SUBSCRIBE", params=["btcusdt@trade", "btcusdt@bookTicker"])
            assert await request(websocket, method="LIST_SUBSCRIPTIONS")
            assert venue.stats.frames_sent == 0
            venue.speak()
            assert await receive(websocket, 4) == captured_payloads(path, "btcusdt@trade", "btcusdt@bookTicker")

    run(test)


def test_a_silent_paced_replay_makes_no_burst_when_it_resumes(tmp_path: Path) -> None:
    async def test() -> None:
        now = looks = 0

        def clock() -> int:
            nonlocal looks
            looks += 1
            return now

        path = capture_file(tmp_path, frames=400, distance_ns=1_000_000)
        url = "?streams=btcusdt@trade/btcusdt@bookTicker"
        async with replaying(path, speed=1.0, clock=clock) as venue, client(venue.url + url) as websocket:
            await receive(websocket, 1)
            venue.go_silent()
            now += 10**9
            seen = looks
            await until(lambda: looks > seen + 4)
            venue.speak()
            now += 10_000_000
            await receive(websocket, 10)
            seen = looks
            await until(lambda: looks > seen + 4)
            assert venue.stats.frames_sent <= 12

    run(test)


def test_a_client_that_stalls_the_market_at_full_speed_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feeds.simulator.playback.STALL_SECONDS", 0.5)

    async def test() -> None:
        async with (
            SimulatedVenue(BinanceSpot(), MarketSource(symbols=1, actions=100), speed=None) as venue,
            client(venue.url + "?streams=btcusdt@trade") as websocket,
        ):
            with await handshake(venue.port, "/stream?streams=btcusdt@trade"):
                while venue.stats.closed_too_slow == 0:
                    await receive(websocket, 1_000)
                await receive(websocket, 1_000)

    run(test)


def test_a_silent_paced_market_goes_on_unheard() -> None:
    async def test() -> None:
        now = looks = 0

        def clock() -> int:
            nonlocal looks
            looks += 1
            return now

        source = MarketSource(symbols=1, rate=100_000, actions=100)
        async with SimulatedVenue(BinanceSpot(), source, clock=clock) as venue, client(venue.url) as websocket:
            await request(websocket, method="SUBSCRIBE", params=["btcusdt@trade"])
            now += 10_000_000  # a thousand events
            await until(lambda: venue.stats.frames_sent > 0)
            sent = venue.stats.frames_sent
            venue.go_silent()
            now += 10_000_000
            seen = looks
            await until(lambda: looks > seen + 4)
            assert venue.stats.frames_sent == sent
            venue.speak()
            now += 10_000_000
            ids = [orjson.loads(m)["data"]["t"] for m in await receive(websocket, sent + 1)]
            assert ids[:sent] == list(range(ids[0], ids[0] + sent))
            assert ids[sent] > ids[sent - 1] + 100

    run(test)


def test_a_port_in_use_and_a_foreign_capture_are_refused(captures: Path) -> None:
    async def test() -> None:
        source = MarketSource(symbols=1, actions=10)
        async with SimulatedVenue(BinanceSpot(), source) as venue:
            with pytest.raises(AddressInUse, match=str(venue.port)):
                async with SimulatedVenue(BinanceSpot(), source, port=venue.port):
                    pass
        with pytest.raises(CaptureError, match=r"no frame of .* belongs to a stream of binance"):
            async with replaying(captures / "kraken/cryptofeed/KRAKEN.ws.48.0"):
                pass

    run(test)
