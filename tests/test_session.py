"""The session against the simulated venue on loopback: real sockets, real rings, and a venue that misbehaves."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server
from structlog.testing import capture_logs

from feeds.backoff import Backoff
from feeds.binance import DECLARATION, Binance, BinanceParameters
from feeds.clock import Clock
from feeds.contract import Deadlines, Limits, Parameters, Provider
from feeds.decoding import Reply
from feeds.intake import Intake
from feeds.messages import TopicAnswer
from feeds.picows_transport import PicowsTransport
from feeds.records import DEFAULT_CAPACITY, EventCode, Kind
from feeds.session import Session
from feeds.simulator.binance import BinanceSpot
from feeds.simulator.source import CaptureSource, MarketSource
from feeds.simulator.venue import SimulatedVenue
from feeds.topics import refusal
from ringbuf import ConnectionWriter, attach
from ringbuf.counters import Counter, CountersSnapshot, TopicState, read_counters
from ringbuf.errors import ParameterError, ProviderError, SharedMemoryFull, SubscriptionRefused, UnauthorizedError
from ringbuf.records import Records

# libuv makes one pipe for the whole process with its first loop; it must not count as left open by a test.
uvloop.new_event_loop().close()

NAME = "crypto"
DEADLINE = 30.0
#: Tries again at once: what is tested is whether it does, not how long it waits.
AT_ONCE = Backoff(base=0.01, cap=0.01, floor=0.01)


class Impatient(Binance):
    """Binance, with a shorter patience than the venue's own, so that no test waits ten seconds."""

    declaration = DECLARATION.__class__(
        **{**DECLARATION.__dict__, "deadlines": Deadlines(connect=5.0, acknowledge=0.4)}
    )


@dataclass
class Running:
    """A session at work, and what it has told."""

    session: Session
    connection: ConnectionWriter
    task: asyncio.Task[None]
    problems: list[ProviderError] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)

    def counters(self) -> CountersSnapshot:
        return read_counters(self.connection.directory)

    def count(self, counter: Counter) -> int:
        return self.counters().values[counter]

    def state(self, native: str) -> TopicState | None:
        return next((topic.state for topic in self.counters().topics if topic.native == native), None)

    def events(self, *codes: EventCode) -> list[tuple[int, int, str]]:
        """(code, value, text) of the events told so far, of these codes or of all."""
        if not (self.connection.directory / "event.ring").exists():
            return []
        found = records(Kind.EVENT)
        columns = found["code"].tolist(), found["value"].tolist(), [text.decode() for text in found["text"].tolist()]
        return [row for row in zip(*columns, strict=True) if not codes or row[0] in codes]

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            if self.task.done():
                await self.task
            await asyncio.sleep(0.005)

    async def live(self, *natives: str) -> None:
        await self.until(lambda: all(self.state(native) is TopicState.LIVE for native in natives))


def records(kind: Kind) -> Records:
    with attach(NAME, kind) as ring:
        return ring.tail(2**17)


@asynccontextmanager
async def running(
    url: str,
    *,
    symbol: str = "btcusdt",
    feed: str = "trade",
    stale_after: float | None = None,
    provider: Provider[Parameters] | None = None,
    backoff: Backoff = AT_ONCE,
    useful_after: float = 10.0,
    letters: Path | None = None,
) -> AsyncIterator[Running]:
    """A session on a fresh connection; closed at the end, which must leave nothing running."""
    parameters = BinanceParameters(symbol=symbol, url=url, feed=feed, stale_after=stale_after)
    found: Provider[Parameters] = provider or Impatient()  # type: ignore[assignment]  # it takes its own Parameters
    with ConnectionWriter(NAME) as connection:
        clock = Clock()
        intake = Intake(found.declaration, found.decoder(), connection, clock, letters)
        problems: list[ProviderError] = []
        infos: list[str] = []
        session = Session(
            found, parameters, connection, PicowsTransport(clock.now), intake, clock, backoff=backoff,
            useful_after=useful_after, on_problem=problems.append, on_info=infos.append,
        )  # fmt: skip
        task = asyncio.create_task(session.run())
        try:
            yield Running(session, connection, task, problems, infos)
        finally:
            await session.close()
            await asyncio.gather(task, return_exceptions=True)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """On uvloop, as the provider process does."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE):
            await test()

    uvloop.run(bounded())


def market(**options: object) -> SimulatedVenue:
    """A market of a few symbols at 2,000 events a second. Its first symbol is BTCUSDT, its second ETHUSDT."""
    source = MarketSource(symbols=5, rate=2_000, actions=4_000)
    return SimulatedVenue(options.pop("profile", BinanceSpot()), source, **options)  # type: ignore[arg-type]  # as given


def states(answers: list[TopicAnswer]) -> dict[str, str]:
    return {answer.topic: answer.state for answer in answers}


# ---- wishes and answers ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_topics_are_subscribed_acknowledged_and_live_and_their_records_are_in_the_rings() -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url, feed="trade,quote") as feed:
            answers = await feed.session.topics.subscribe(["btcusdt", "ETH-USDT"])
            natives = ["btcusdt@trade", "btcusdt@bookTicker", "ethusdt@trade", "ethusdt@bookTicker"]
            assert states(answers).keys() == set(natives)
            assert set(states(answers).values()) <= {"acknowledged", "live"}
            assert {answer.symbol for answer in answers} == {"BTCUSDT", "ETHUSDT"}
            await feed.live(*natives)
            assert sorted(text for _, _, text in feed.events(EventCode.SUBSCRIBED)) == sorted(natives)
            assert sorted(text for _, _, text in feed.events(EventCode.LIVE)) == sorted(natives)
            assert next(code for code, _, _ in feed.events()) == EventCode.CONNECTED
            assert venue.stats.requests == 1
        assert set(records(Kind.TRADE).symbols()) == {"BTCUSDT", "ETHUSDT"}
        counters = read_counters(feed.connection.directory)
        values = counters.values
        assert values[Counter.FRAMES] == values[Counter.RECORDS] + values[Counter.CONTROL] + values[Counter.REJECTED]
        assert values[Counter.REJECTED] == values[Counter.GAPS] == values[Counter.OUT_OF_ORDER] == 0
        assert sum(topic.records for topic in counters.topics) == values[Counter.RECORDS]
        assert feed.infos == ["WebSocket connection established."]

    run(test)


@pytest.mark.usefixtures("runtime")
def test_a_refusal_is_answered_per_symbol_with_the_venues_words_and_the_rest_goes_on() -> None:
    async def test() -> None:
        async with market(refuse_unknown=True) as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            (answer,) = await feed.session.topics.subscribe(["nosuch"])
            assert answer == TopicAnswer(
                "NOSUCH", "nosuch@trade", "refused", "Invalid request: unknown stream nosuch@trade (code 2)"
            )
            error = refusal([answer])
            assert isinstance(error, SubscriptionRefused)
            assert "unknown stream nosuch@trade" in str(error)
            assert feed.state("nosuch@trade") is TopicState.REFUSED
            assert feed.events(EventCode.REJECTED) == [
                (EventCode.REJECTED, 0, "nosuch@trade Invalid request: unknown stream nosuch@trade (code 2)"[:72])
            ]
            await feed.live("btcusdt@trade")
            # Neither a reconnect nor the passing of time asks again; asking anew does.
            asked = venue.stats.requests
            venue.drop_all()
            await feed.until(lambda: venue.stats.requests == asked + 1)
            await feed.live("btcusdt@trade")
            assert venue.stats.requests == asked + 1
            venue.refuse_subscriptions("not today")
            (answer,) = await feed.session.topics.subscribe(["nosuch"])
            assert answer.reason == "Invalid request: not today (code 2)"
            # One bad name among good ones costs only itself, though the venue refuses requests as a whole.
            venue.refuse_subscriptions("")
            await feed.session.topics.subscribe(["ethusdt", "nosuch", "solusdt", "xrpusdt"])
            for good in ("ethusdt@trade", "solusdt@trade", "xrpusdt@trade"):
                await feed.live(good)
            assert feed.state("nosuch@trade") is TopicState.REFUSED

    run(test)


def test_a_refusal_of_some_is_no_error() -> None:
    good, bad = TopicAnswer("A", "a@trade", "acknowledged"), TopicAnswer("B", "b@trade", "refused", "no")
    assert refusal([good, bad]) is None
    assert refusal([]) is None
    assert str(refusal([bad])) == "the venue refused b@trade: no"


@pytest.mark.usefixtures("runtime")
def test_unsubscribing_is_answered_and_ends_the_data_and_subscribing_again_is_no_gap() -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt", "ethusdt"])
            await feed.live("btcusdt@trade", "ethusdt@trade")
            (answer,) = await feed.session.topics.unsubscribe(["btcusdt"])
            assert (answer.topic, answer.state) == ("btcusdt@trade", "removed")
            assert feed.state("btcusdt@trade") is TopicState.REMOVED
            assert [text for _, _, text in feed.events(EventCode.UNSUBSCRIBED)] == ["btcusdt@trade"]
            assert [topic.native for topic in feed.session.topics.table.desired()] == ["ethusdt@trade"]
            before = records(Kind.TRADE)["trade_id"].max()
            await feed.until(lambda: records(Kind.TRADE)["seq"][-1] > 200)
            await feed.session.topics.subscribe(["btcusdt"])
            await feed.live("btcusdt@trade")
            assert records(Kind.TRADE)["trade_id"].max() > before
            assert feed.count(Counter.GAPS) == 0
            assert feed.count(Counter.REJECTED) == 0

    run(test)


@pytest.mark.usefixtures("runtime")
def test_wishes_that_cannot_be_are_one_clear_error_and_change_nothing() -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            with pytest.raises(ParameterError, match="'b@d' cannot be a Binance symbol"):
                await feed.session.topics.subscribe(["ethusdt", "b@d"])
            with pytest.raises(ParameterError, match="crypto is not subscribed to ETHUSDT, XRPUSDT"):
                await feed.session.topics.unsubscribe(["btcusdt", "xrpusdt", "ethusdt"])
            with pytest.raises(ParameterError, match="1025 topics are more than the 1024 that Binance spot allows"):
                await feed.session.topics.subscribe([f"s{i}x" for i in range(1024)])
            assert [topic.native for topic in feed.session.topics.table.desired()] == ["btcusdt@trade"]
            assert venue.stats.requests == 1

    run(test)


@pytest.mark.usefixtures("runtime")
def test_wishes_before_the_venue_can_be_reached_are_answered_when_it_can() -> None:
    async def test() -> None:
        async with market() as venue:
            url, port = venue.url, venue.port
        async with running(url) as feed:
            patient = asyncio.create_task(feed.session.topics.subscribe(["btcusdt"], patient=True))
            await feed.until(lambda: len(feed.problems) >= 3)
            assert "cannot be reached" in str(feed.problems[0])
            assert feed.state("btcusdt@trade") is TopicState.REQUESTED
            (answer,) = await feed.session.topics.unsubscribe(["btcusdt"]) and await feed.session.topics.subscribe(
                ["ethusdt"]
            )
            assert (answer.topic, answer.state) == ("ethusdt@trade", "requested")
            # Nobody waits for what was taken back; asking patiently for it has not brought it back.
            assert states(await patient) == {"btcusdt@trade": "removed"}
            async with market(port=port):
                await feed.live("ethusdt@trade")
            assert feed.state("btcusdt@trade") is TopicState.REMOVED

    run(test)


@pytest.mark.usefixtures("runtime")
def test_wishes_that_cross_each_other_end_as_wished_last() -> None:
    """A topic wanted again while its removal waits for the rate limit must not be taken for subscribed by it."""

    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt", "ethusdt"])
            for _ in range(2):
                await asyncio.gather(
                    feed.session.topics.unsubscribe(["btcusdt"]),
                    feed.session.topics.subscribe(["btcusdt"]),
                    feed.session.topics.unsubscribe(["ethusdt"]),
                    feed.session.topics.subscribe(["bnbusdt"]),
                    feed.session.topics.subscribe(["ethusdt"]),
                )
                removing = asyncio.create_task(feed.session.topics.unsubscribe(["btcusdt"]))
                await asyncio.sleep(0.02)  # it is somewhere between the wish, the wire and the answer
                await feed.session.topics.subscribe(["btcusdt"])
                await removing
            natives = {f"{symbol}@trade" for symbol in ("btcusdt", "ethusdt", "bnbusdt")}
            (connection,) = venue._connections
            assert set(connection.subscriptions.streams) == natives
            assert {topic.native for topic in feed.session.topics.table.desired()} == natives
            await feed.live(*natives)

    run(test)


# ---- the rate limit -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_a_thousand_topics_and_their_removal_stay_below_the_venues_rate_with_pongs_between() -> None:
    symbols = [f"sym{i}usdt" for i in range(1024)]

    async def test() -> None:
        profile = BinanceSpot(ping_interval=0.9)
        async with market(profile=profile) as venue, running(venue.url, provider=Binance()) as feed:  # type: ignore[arg-type]  # as above
            assert set(states(await feed.session.topics.subscribe(symbols)).values()) == {"acknowledged"}
            await feed.session.topics.unsubscribe(symbols[:400])
            await feed.session.topics.subscribe(["btcusdt"])
            assert venue.stats.requests == 6 + 2 + 1
            assert venue.stats.connections == 1
            assert venue.stats.closed_too_many_requests == 0
            assert venue.stats.pongs_received >= 1

    run(test)


# ---- silence --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_an_unknown_symbol_is_acknowledged_and_then_stale_by_its_deadline_while_others_live() -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url, stale_after=0.5) as feed:
            answers = await feed.session.topics.subscribe(["btcusdt", "mispelt"])
            assert states(answers)["mispelt@trade"] == "acknowledged"
            await feed.until(lambda: feed.state("mispelt@trade") is TopicState.STALE)
            assert feed.state("btcusdt@trade") is TopicState.LIVE
            topic = next(t for t in feed.counters().topics if t.native == "mispelt@trade")
            assert topic.reason == "no data for 0.5 s"
            assert [text for _, _, text in feed.events(EventCode.STALE)] == ["mispelt@trade"]

    run(test)


@pytest.mark.usefixtures("runtime")
def test_a_venue_that_falls_silent_makes_topics_stale_and_its_data_makes_them_live_again() -> None:
    async def test() -> None:
        profile = BinanceSpot(ping_interval=0.5)
        async with market(profile=profile) as venue, running(venue.url, stale_after=0.3) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            await feed.live("btcusdt@trade")
            venue.go_silent()
            # Pings go on: they are no data.
            await feed.until(lambda: feed.state("btcusdt@trade") is TopicState.STALE)
            assert venue.stats.pongs_received > 0
            venue.speak()
            await feed.live("btcusdt@trade")
            assert venue.stats.connections == 1
            assert venue.stats.closed_without_pong == 0
            # The market went on unheard: what it did meanwhile is told as a gap.
            await feed.until(lambda: feed.count(Counter.MISSED) > 0)

    run(test)


@dataclass
class Script:
    """A venue in a few lines, for what the simulator does not do: it never answers, or says what it is told to."""

    #: What is sent when a client has connected, as raw text messages.
    greeting: list[bytes] = field(default_factory=list)
    #: Called with each request; gives the answers.
    answer: Callable[[bytes], list[bytes]] = field(default=lambda _: [])
    #: Closed with this code right after the greeting; 0 stays.
    close: int = 0
    connects: int = 0
    requests: list[bytes] = field(default_factory=list)
    transports: list[WSTransport] = field(default_factory=list)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await ws_create_server(lambda _: _ScriptConnection(self), "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/stream"
        finally:
            server.close()
            for transport in self.transports:
                transport.disconnect(graceful=False)
            await server.wait_closed()


class _ScriptConnection(WSListener):
    def __init__(self, script: Script) -> None:
        self.script = script

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.script.connects += 1
        self.script.transports.append(transport)
        for message in self.script.greeting:
            transport.send(WSMsgType.TEXT, message)
        if self.script.close:
            transport.send_close(WSCloseCode(self.script.close))
            transport.disconnect()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            request = frame.get_payload_as_bytes()
            self.script.requests.append(request)
            for message in self.script.answer(request):
                transport.send(WSMsgType.TEXT, message)


def acknowledge(request: bytes) -> list[bytes]:
    return [json.dumps({"result": None, "id": json.loads(request)["id"]}).encode()]


def trade(number: int) -> bytes:
    data = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": number, "p": "1", "q": "1", "T": 1, "m": True}
    return json.dumps({"stream": "btcusdt@trade", "data": data}, separators=(",", ":")).encode()


class OneAtATime(Binance):
    """Binance, asked for each topic by itself, so that the venue can refuse one of a symbol's feeds."""

    declaration = replace(DECLARATION, limits=Limits(1024, topics_per_request=1, messages_per_second=100.0))


@pytest.mark.usefixtures("runtime")
def test_a_symbol_of_which_the_venue_refused_one_feed_can_still_be_unsubscribed() -> None:
    def answer(request: bytes) -> list[bytes]:
        if b"bookTicker" not in request:
            return acknowledge(request)
        return [json.dumps({"error": {"code": 2, "msg": "no quotes"}, "id": json.loads(request)["id"]}).encode()]

    async def test() -> None:
        script = Script(answer=answer)
        async with script.serve() as url, running(url, feed="trade,quote", provider=OneAtATime()) as feed:  # type: ignore[arg-type]  # as above
            answers = await feed.session.topics.subscribe(["btcusdt"])
            assert states(answers) == {"btcusdt@trade": "acknowledged", "btcusdt@bookTicker": "refused"}
            answers = await feed.session.topics.unsubscribe(["btcusdt"])
            assert set(states(answers).values()) == {"removed"}
            assert feed.session.topics.table.entries == {}
            assert {topic.state for topic in feed.counters().topics} == {TopicState.REMOVED}

    run(test)


@pytest.mark.usefixtures("runtime")
def test_a_venue_that_does_not_answer_requests_is_left_and_asked_again_on_a_new_connection() -> None:
    async def test() -> None:
        script = Script()
        async with script.serve() as url, running(url) as feed:
            asking = asyncio.create_task(feed.session.topics.subscribe(["btcusdt"], patient=True))
            await feed.until(lambda: script.connects >= 2 and len(script.requests) >= 2)
            script.answer = acknowledge
            assert states(await asking) == {"btcusdt@trade": "acknowledged"}
            assert feed.count(Counter.DISCONNECTS) == script.connects - 1
            assert feed.session.topics.table.entries["btcusdt@trade"].state is TopicState.ACKNOWLEDGED

    run(test)


@pytest.mark.usefixtures("runtime")
def test_a_venue_that_gives_data_without_acknowledging_is_not_left() -> None:
    async def test() -> None:
        script = Script(answer=lambda _: [trade(1)])
        async with script.serve() as url, running(url) as feed:
            assert states(await feed.session.topics.subscribe(["btcusdt"])) == {"btcusdt@trade": "live"}
            await asyncio.sleep(1.2)  # three times the patience, and the session looks every second
            assert script.connects == 1

    run(test)


# ---- pings ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_pings_are_echoed_in_time() -> None:
    async def test() -> None:
        profile = BinanceSpot(ping_interval=0.25, pong_deadline=0.4)
        async with market(profile=profile) as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            await feed.until(lambda: venue.stats.pongs_received >= 3)
            assert venue.stats.connections == 1
            assert venue.stats.pongs_unsolicited == venue.stats.closed_without_pong == 0

    run(test)


@pytest.mark.usefixtures("runtime")
def test_a_reply_that_the_decoder_asks_for_is_sent() -> None:
    async def test() -> None:
        script = Script(answer=acknowledge)
        async with script.serve() as url, running(url) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            feed.session._on_control(Reply(b'{"pong":7}'))
            await feed.until(lambda: b'{"pong":7}' in script.requests)

    run(test)


# ---- ends and new beginnings ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_a_dropped_connection_is_made_again_with_all_topics_and_the_gap_is_counted() -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url, feed="trade,quote") as feed:
            await feed.session.topics.subscribe(["btcusdt", "ethusdt"])
            natives = [topic.native for topic in feed.session.topics.table.desired()]
            await feed.live(*natives)
            feed.session._backoff = Backoff(base=0.4, cap=0.4, floor=0.4)  # the market goes on meanwhile
            venue.drop_all()
            await feed.until(lambda: feed.events(EventCode.RECONNECTED))
            await feed.live(*natives)
            await feed.until(lambda: feed.events(EventCode.GAP))
            await feed.until(lambda: feed.count(Counter.CONNECTS) == 2)
            trades = records(Kind.TRADE)
            missing = 0
            for symbol in set(trades["symbol"].tolist()):
                ids = trades["trade_id"][trades["symbol"] == symbol]
                missing += int((ids[1:] - ids[:-1] - 1).sum())
            assert missing > 0
            assert feed.count(Counter.MISSED) == missing
            assert sum(value for _, value, _ in feed.events(EventCode.GAP)) == missing
            ((_, code, _),) = feed.events(EventCode.DISCONNECTED)
            assert code == 1006
            ((_, down, _),) = feed.events(EventCode.RECONNECTED)
            assert down >= 400_000_000
            assert venue.stats.requests == 2
            order = [
                code for code, _, _ in feed.events(EventCode.CONNECTED, EventCode.DISCONNECTED, EventCode.RECONNECTED)
            ]
            assert order == [EventCode.CONNECTED, EventCode.DISCONNECTED, EventCode.RECONNECTED]
            assert feed.infos[1] == "WebSocket connection lost (1006). Connecting again."
            assert feed.count(Counter.DISCONNECTS) == 1
            assert feed.count(Counter.CONNECTED_SINCE) > 0

    run(test)


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 4000])
def test_a_close_is_told_with_its_code_and_the_session_goes_on(code: int) -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            await feed.live("btcusdt@trade")
            if code == 1006:
                venue.drop_all()
            else:
                venue.close_all(code, "maintenance")
            await feed.until(lambda: feed.events(EventCode.DISCONNECTED))
            ((_, told, text),) = feed.events(EventCode.DISCONNECTED)
            assert (told, text) == (code, "the connection broke off" if code == 1006 else "maintenance")
            await feed.until(lambda: feed.events(EventCode.RECONNECTED))
            await feed.live("btcusdt@trade")

    run(test)


@pytest.mark.usefixtures("runtime")
def test_frames_that_arrive_together_with_the_close_are_in_the_ring() -> None:
    async def test() -> None:
        script = Script(answer=lambda request: acknowledge(request) + [trade(number) for number in range(1, 600)])
        async with script.serve() as url, running(url) as feed:
            closing = script.answer

            def answer_and_close(request: bytes) -> list[bytes]:
                asyncio.get_running_loop().call_soon(script.transports[-1].send_close, WSCloseCode.OK)
                return closing(request)

            script.answer = answer_and_close
            feed.session._backoff = Backoff(base=60, cap=60, floor=60)
            await feed.session.topics.subscribe(["btcusdt"])
            await feed.until(lambda: feed.events(EventCode.DISCONNECTED))
            assert records(Kind.TRADE)["trade_id"].tolist() == list(range(1, 600))
            assert feed.count(Counter.FRAMES) == 600

    run(test)


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("greeting", [[], [trade(1)]], ids=["nothing", "a record"])
def test_a_venue_that_accepts_and_closes_is_not_stormed(greeting: list[bytes]) -> None:
    """The pauses grow although every connect succeeds, and although each connection gives a record."""
    asked: list[float] = []

    def drawn() -> float:
        asked.append(1.0)
        return 1.0

    async def test() -> None:
        script = Script(greeting=greeting, close=1008)
        backoff = Backoff(base=0.02, cap=60.0, floor=0.0, draw=drawn)
        async with script.serve() as url, running(url, backoff=backoff) as feed:
            wishing = asyncio.create_task(feed.session.topics.subscribe(["btcusdt"]))
            await feed.until(lambda: script.connects >= 2)
            await asyncio.sleep(0.5)
            # 0.04 + 0.08 + 0.16 + 0.32: no more pauses fit into the time, however fast the machine.
            assert script.connects <= 2 + 4
            assert len(asked) in (script.connects, script.connects + 1)
            assert feed.count(Counter.CONNECTS) == script.connects
            wishing.cancel()

    run(test)


@pytest.mark.usefixtures("runtime")
def test_a_connection_that_was_useful_for_long_enough_ends_the_growth_of_the_pauses() -> None:
    failures: list[int] = []

    class Noted(Backoff):
        def delay(self, failures_in_a_row: int) -> float:
            failures.append(failures_in_a_row)
            return 0.01

    async def test() -> None:
        async with market() as venue, running(venue.url, backoff=Noted(), useful_after=3600) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            for _ in range(3):
                await feed.live("btcusdt@trade")
                venue.drop_all()
                await feed.until(lambda: feed.state("btcusdt@trade") is not TopicState.LIVE)
            assert failures == [1, 2, 3]
            feed.session._useful_after = 0.0  # an hour has passed, say
            await feed.until(lambda: feed.session._useful)
            venue.drop_all()
            await feed.until(lambda: len(failures) == 4)
            assert failures[3] == 0

    run(test)


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ws://127.0.0.1:1/stream", "ws://127.0.0.1:1/stream cannot be reached"),
        ("{venue}/elsewhere", "did not open a websocket: HTTP 404"),
        ("ws://nowhere.invalid/stream", "ws://nowhere.invalid/stream cannot be reached"),
    ],
)
def test_a_venue_that_cannot_be_reached_is_tried_again_and_each_failure_told(url: str, words: str) -> None:
    async def test() -> None:
        async with market() as venue, running(url.format(venue=venue.url.removesuffix("/stream"))) as feed:
            await feed.until(lambda: len(feed.problems) >= 2)
            assert all(words in str(problem) for problem in feed.problems)
            assert feed.count(Counter.CONNECTS) == feed.count(Counter.DISCONNECTS) == 0
            assert feed.events() == []

    run(test)


@pytest.mark.usefixtures("runtime")
def test_credentials_that_the_venue_does_not_want_end_the_session() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async def test() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with running(f"ws://127.0.0.1:{port}/stream") as feed:
                with pytest.raises(UnauthorizedError, match="HTTP 403: check the credentials"):
                    await feed.task

    run(test)


# ---- what a venue may send ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_garbage_is_counted_and_kept_and_the_feed_goes_on_with_others_unharmed(tmp_path: Path) -> None:
    letters = tmp_path / "crypto.jsonl"
    garbage = [b"", b"{", b"\xff\xfe", b'{"stream":"btcusdt@trade","data":{}}', b"[" * 50_000, b"null", b"x" * 100_000]

    async def test() -> None:
        async with market() as venue, running(venue.url, letters=letters) as feed:
            await feed.session.topics.subscribe(["btcusdt", "ethusdt"])
            await feed.live("btcusdt@trade", "ethusdt@trade")
            for _ in range(300):
                for payload in garbage:
                    venue.send_to_all(payload)
                await asyncio.sleep(0)
            await feed.until(lambda: feed.count(Counter.REJECTED) == 300 * len(garbage))
            before = feed.count(Counter.RECORDS)
            await feed.until(lambda: feed.count(Counter.RECORDS) > before + 100)
            assert venue.stats.connections == 1
            assert feed.count(Counter.GAPS) == feed.count(Counter.OUT_OF_ORDER) == 0
            assert 0 < len(feed.events(EventCode.DECODE_ERROR)) <= len(garbage)

    run(test)
    files = list(tmp_path.iterdir())
    assert letters in files
    assert sum(file.stat().st_size for file in files) <= 2 * 2**20
    for file in files:
        assert all(json.loads(line)["reason"] for line in file.read_text().splitlines())


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    "wire", [b"\x83\x00", b"\x81\x7f" + struct.pack(">Q", 2**40)], ids=["opcode", "a TiB announced"]
)
def test_an_illegal_frame_ends_the_connection_only(wire: bytes) -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            await feed.live("btcusdt@trade")
            venue.write_to_all(wire)
            await feed.until(lambda: feed.events(EventCode.RECONNECTED))
            await feed.live("btcusdt@trade")
            ((_, code, _),) = feed.events(EventCode.DISCONNECTED)
            assert code in (1002, 1009)

    run(test)


@pytest.mark.usefixtures("runtime")
def test_a_flood_of_errors_and_notices_is_no_flood_of_log_lines() -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            with capture_logs() as lines:
                for i in range(2000):
                    venue.send_to_all(b'{"error":{"code":1,"msg":"busy"}}')
                    venue.send_to_all(b'{"e":"notice %d"}' % i)
                await feed.until(lambda: feed.count(Counter.CONTROL) >= 4001)
            assert len(lines) <= 101
            assert feed.session.topics.table.entries["btcusdt@trade"].state is not TopicState.REFUSED

    run(test)


@pytest.mark.usefixtures("runtime")
def test_the_whole_capture_arrives_and_a_replay_that_ends_is_no_fault(captures: Path) -> None:
    async def test() -> None:
        source = CaptureSource(captures / "binance/hftbacktest/examples_spot_btcusdt_20240808.gz")
        venue = SimulatedVenue(BinanceSpot(), source, speed=None, start_after=2, close_at_end=True)
        async with venue, running(venue.url, feed="trade,quote") as feed:
            feed.session._backoff = Backoff(base=60, cap=60, floor=60)
            await feed.session.topics.subscribe(["btcusdt"])
            await feed.until(lambda: feed.events(EventCode.DISCONNECTED))
            assert feed.count(Counter.RECORDS) == 28_040 + 9_757
            assert feed.count(Counter.REJECTED) == feed.count(Counter.GAPS) == feed.count(Counter.OUT_OF_ORDER) == 0
            assert feed.events(EventCode.DISCONNECTED) == [(EventCode.DISCONNECTED, 1000, "end of the capture")]
            topics = {topic.native: topic.records for topic in feed.counters().topics}
            assert topics == {"btcusdt@trade": 9_757, "btcusdt@bookTicker": 28_040}

    run(test)


# ---- its own end ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_closing_publishes_what_came_and_says_good_bye() -> None:
    async def test() -> None:
        async with market() as venue:
            async with running(venue.url) as feed:
                await feed.session.topics.subscribe(["btcusdt"])
                await feed.live("btcusdt@trade")
            await feed.task
            assert venue.connections == 0
            values = read_counters(feed.connection.directory).values
            assert values[Counter.FRAMES] == values[Counter.RECORDS] + values[Counter.CONTROL]
            assert values[Counter.DISCONNECTS] == 0  # it was asked to
            assert values[Counter.CONNECTED_SINCE] == 0
            found = records(Kind.EVENT)
            assert (int(found["code"][-1]), int(found["value"][-1])) == (EventCode.DISCONNECTED, 1000)

    run(test)


@pytest.mark.usefixtures("runtime")
def test_closing_while_a_connect_is_under_way_waits_for_nobody() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        await gone.wait()
        writer.close()

    arrived, gone = asyncio.Event(), asyncio.Event()

    async def test() -> None:
        server = await asyncio.start_server(never, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with running(f"ws://127.0.0.1:{port}/stream", provider=Binance()) as feed:  # type: ignore[arg-type]  # as above
            await arrived.wait()
            began = asyncio.get_running_loop().time()
            await feed.session.close()
            await feed.task
            assert asyncio.get_running_loop().time() - began < 5  # the connect itself may take ten
        gone.set()
        server.close()
        await server.wait_closed()

    run(test)


@pytest.mark.usefixtures("runtime")
def test_closing_in_a_pause_waits_for_nobody() -> None:
    async def test() -> None:
        slow = Backoff(base=60, cap=60, floor=60)
        async with running("ws://127.0.0.1:1/stream", backoff=slow) as feed:
            await feed.until(lambda: feed.problems)
            await feed.session.close()
            await feed.task

    run(test)


@pytest.mark.usefixtures("runtime")
def test_no_room_for_a_ring_ends_the_session_with_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes up in the socket's callback, which would swallow it."""
    monkeypatch.setitem(DEFAULT_CAPACITY, Kind.TRADE, 2**40)

    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            wishing = asyncio.create_task(feed.session.topics.subscribe(["btcusdt"]))
            with pytest.raises(SharedMemoryFull, match="MiB are free"):
                await feed.task
            wishing.cancel()

    run(test)


@pytest.mark.usefixtures("runtime")
def test_no_room_for_events_ends_the_session_with_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEFAULT_CAPACITY, Kind.EVENT, 2**40)

    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            with pytest.raises(SharedMemoryFull, match="MiB are free"):
                await feed.task
            assert venue.stats.connections == 1

    run(test)


class Broken(Intake):
    """An intake with a fault of its own in the part that only the ticker runs."""

    def housekeep(self, on_data: Callable[[str], None]) -> None:  # noqa: ARG002 - as its parent
        raise ZeroDivisionError("a fault of our own")


@pytest.mark.usefixtures("runtime")
def test_a_fault_in_the_ticker_is_no_silent_stall_but_the_end_of_the_session() -> None:
    async def test() -> None:
        parameters = BinanceParameters(symbol="btcusdt", url="ws://127.0.0.1:1/")
        with ConnectionWriter(NAME) as connection:
            clock = Clock()
            provider: Provider[Parameters] = Binance()  # type: ignore[assignment]  # as above
            intake = Broken(provider.declaration, provider.decoder(), connection, clock)
            session = Session(
                provider, parameters, connection, PicowsTransport(clock.now), intake, clock, backoff=Backoff(60, 60, 60)
            )
            with pytest.raises(ZeroDivisionError, match="of our own"):
                await session.run()

    run(test)


@pytest.mark.usefixtures("runtime")
def test_a_clock_that_steps_is_told_with_its_distance() -> None:
    async def test() -> None:
        async with market() as venue, running(venue.url) as feed:
            await feed.session.topics.subscribe(["btcusdt"])
            step = 3_600_000_000_000
            clock = feed.session._clock
            wall = clock._wall
            clock._wall = lambda: wall() + step
            await feed.until(lambda: feed.events(EventCode.CLOCK_STEP))
            ((_, value, _),) = feed.events(EventCode.CLOCK_STEP)
            assert abs(value - step) < 50_000_000
            await feed.live("btcusdt@trade")

    run(test)
