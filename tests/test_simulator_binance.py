"""The Binance profile: its frames have the shape of captured ones, its answers the words of the venue."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import orjson
import pytest

from feeds.capture import read_capture
from feeds.simulator.binance import MOST_STREAMS, BinanceSpot
from feeds.simulator.instruments import instruments
from feeds.simulator.market import make_lap
from feeds.simulator.profile import Answer, RequestLimit, Subscriptions
from feeds.simulator.source import MarketSource
from feeds.simulator.tape import NUMBER, TIME

PROFILE = BinanceSpot()


def answered(request: object, current: Subscriptions | None = None, known: Collection[str] | None = None) -> Answer:
    text = request if isinstance(request, bytes) else orjson.dumps(request)
    return PROFILE.answer(text, current or Subscriptions(), known, "")


def streams_after(answer: Answer) -> list[str]:
    assert answer.subscriptions is not None
    return list(answer.subscriptions.streams)


def shape(payload: bytes) -> bytes:
    """A message with every number, name and flag taken out: what is left is its form."""
    text = re.sub(rb'"\d+\.\d{8}"', b'"D"', payload)
    text = re.sub(rb":\d+", b":N", text)
    return re.sub(rb'(?<="stream":")[a-z0-9]+|(?<="s":")[A-Z0-9]+|(?<="m":)(true|false)', b"X", text)


def test_market_frames_have_the_exact_form_of_captured_frames(captures: Path) -> None:
    capture = read_capture(captures / "binance/hftbacktest/examples_spot_btcusdt_20240808.gz")
    captured = {shape(f.payload) for f, _ in zip(capture, range(200), strict=False) if b"@depth" not in f.payload[:40]}
    captured = {form for form in captured if b'"stream"' in form}
    lap = make_lap(instruments(5, 1), 1, 200)
    made = {
        shape(f.payload.replace(NUMBER, b"123456789012").replace(TIME, b"1723161254087")) for f in PROFILE.encode(lap)
    }
    aggregate = (
        b'{"stream":"X@aggTrade","data":{"e":"aggTrade","E":N,"s":"X","a":N,"p":"D","q":"D","f":N,"l":N,"T":N,'
        b'"m":X,"M":true}}'
    )
    assert len(captured) == 2
    assert made == captured | {aggregate}


def test_market_frames_carry_the_events_values() -> None:
    source = MarketSource(symbols=3, seed=5, actions=300)
    lap = make_lap(instruments(3, 5), 5, 300)
    tape = source.tape(source.frames(PROFILE))
    for i in range(len(lap)):
        frame = bytes(tape.render(i, i + 1, 0, 1_700_000_000_123))
        data = orjson.loads(frame[frame.index(b"{") :])["data"]
        symbol = lap.instruments[lap.instrument[i]]
        assert data["s"] == symbol.base + symbol.quote
        if "e" not in data:
            assert data["u"] == lap.id[i]
            assert [round(float(data[k]) * 1e8) for k in "bBaA"] == [
                lap.bid[i], lap.bid_size[i], lap.ask[i], lap.ask_size[i]
            ]  # fmt: skip
            continue
        assert data["E"] == data["T"] == 1_700_000_000_123
        assert [round(float(data[k]) * 1e8) for k in "pq"] == [lap.price[i], lap.size[i]]
        assert data["m"] is bool(lap.taker_sold[i])
        if data["e"] == "trade":
            assert data["t"] == lap.id[i]
        else:
            assert [data[k] for k in "afl"] == [lap.id[i], lap.first_trade[i], lap.last_trade[i]]


def test_subscribe_is_acknowledged_and_adds() -> None:
    current = Subscriptions({"btcusdt@trade": None})
    answer = answered(
        {"method": "SUBSCRIBE", "params": ["ethusdt@bookTicker", "btcusdt@depth@100ms"], "id": 1}, current
    )
    assert answer.reply == b'{"result":null,"id":1}'
    assert streams_after(answer) == ["btcusdt@trade", "ethusdt@bookTicker", "btcusdt@depth@100ms"]
    assert list(current.streams) == ["btcusdt@trade"]


def test_unsubscribe_list_and_properties_answer_as_the_venue() -> None:
    current = Subscriptions({"a1@trade": None, "b1@trade": None})
    gone = answered({"method": "UNSUBSCRIBE", "params": ["a1@trade", "zz@trade"], "id": "u-1"}, current)
    assert gone.reply == b'{"result":null,"id":"u-1"}'
    assert streams_after(gone) == ["b1@trade"]
    assert (
        answered({"method": "LIST_SUBSCRIPTIONS", "id": 3}, current).reply
        == b'{"result":["a1@trade","b1@trade"],"id":3}'
    )
    raw = answered({"method": "SET_PROPERTY", "params": ["combined", False], "id": 5}, current)
    assert raw.subscriptions == Subscriptions(current.streams, wrapped=False)
    assert (
        answered({"method": "GET_PROPERTY", "params": ["combined"], "id": 6}, current).reply
        == b'{"result":true,"id":6}'
    )


@pytest.mark.parametrize(
    "name",
    [
        "btcusdt@trade",
        "1inchusdt@kline_1m",
        "btcusdt@kline_1d@+08:00",
        "btcusdt@depth5@100ms",
        "!miniTicker@arr",
        "xy@depth@100mss",
    ],
)
def test_well_formed_names_are_acknowledged_whether_they_mean_something_or_not(name: str) -> None:
    assert streams_after(answered({"method": "SUBSCRIBE", "params": [name], "id": 1})) == [name]


@pytest.mark.parametrize(
    "name", ["btcusdt@nonsense!!", "BTCUSDT@trade", "btcusdt", "", "@trade", "btc usdt@trade", 5, None]
)
def test_names_that_are_not_well_formed_are_refused_and_nothing_of_the_request_happens(name: object) -> None:
    answer = answered({"method": "SUBSCRIBE", "params": ["ethusdt@trade", name], "id": 9})
    assert (answer.refused, answer.subscriptions) == (True, None)
    error = orjson.loads(answer.reply)
    assert error["id"] == 9
    assert error["error"]["code"] == 2
    assert error["error"]["msg"].startswith("Invalid request: invalid stream name ")


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (b"not json", 3, "Invalid JSON"),
        (b"\xff\xfe", 3, "Invalid JSON"),
        (b"", 3, "Invalid JSON"),
        (b"[1,2]", 2, "expected an object"),
        (b"{}", 2, "missing field `method`"),
        (
            {"method": "subscribe", "id": 1},
            2,
            "unknown variant `subscribe`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`",
        ),
        ({"method": ["x"], "id": 1}, 2, "unknown variant"),
        ({"method": "SUBSCRIBE", "id": 1}, 2, "params"),
        ({"method": "SUBSCRIBE", "params": [], "id": 1}, 2, "params"),
        ({"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": 1}, 2, "params"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1.5}, 2, "request ID"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": "x" * 37}, 2, "request ID"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": True}, 2, "request ID"),
        ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}, 1, "expected Boolean"),
        ({"method": "SET_PROPERTY", "params": ["colour", True], "id": 1}, 0, "Unknown property"),
        ({"method": "GET_PROPERTY", "params": ["combined", 1], "id": 1}, 2, "too many parameters"),
        ({"method": "GET_PROPERTY", "id": 1}, 2, "property name"),
    ],
)
def test_malformed_requests_get_the_venues_error(request_: object, code: int, words: str) -> None:
    answer = answered(request_)
    error = orjson.loads(answer.reply)["error"]
    assert answer.refused
    assert answer.subscriptions is None
    assert error["code"] == code
    assert words in error["msg"]


def test_more_than_1024_streams_are_refused_in_a_request_and_in_a_url() -> None:
    names = [f"coin{i}usdt@trade" for i in range(MOST_STREAMS)]
    full = answered({"method": "SUBSCRIBE", "params": names, "id": 1})
    assert len(streams_after(full)) == MOST_STREAMS
    more = answered({"method": "SUBSCRIBE", "params": ["more@trade"], "id": 2}, full.subscriptions)
    assert more.reply == b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":2}'
    assert PROFILE.connect("/stream?streams=" + "/".join(names)) is not None
    assert PROFILE.connect("/stream?streams=" + "/".join([*names, "more@trade"])) is None


def test_strict_profiles_refuse_what_there_is_not() -> None:
    answer = answered({"method": "SUBSCRIBE", "params": ["nosuch@trade"], "id": 1}, known={"btcusdt@trade"})
    assert answer.reply == b'{"error":{"code":2,"msg":"Invalid request: unknown stream nosuch@trade"},"id":1}'


def test_paths_say_what_is_subscribed_and_whether_messages_are_wrapped() -> None:
    assert PROFILE.connect("/stream") == Subscriptions({}, wrapped=True)
    both = {"btcusdt@trade": None, "ethusdt@bookTicker": None}
    assert PROFILE.connect("/stream?streams=btcusdt@trade/ethusdt@bookTicker") == Subscriptions(both, wrapped=True)
    assert PROFILE.connect("/stream?streams=btcusdt%40trade") == Subscriptions({"btcusdt@trade": None}, wrapped=True)
    assert PROFILE.connect("/ws/btcusdt@trade/ethusdt@bookTicker") == Subscriptions(both, wrapped=False)
    assert PROFILE.connect("/ws") == Subscriptions({}, wrapped=False)
    for path in ("/", "/nothing", "/stream/btcusdt@trade", "/streams"):
        assert PROFILE.connect(path) is None


def test_the_wrapping_is_taken_off_exactly() -> None:
    message = b'{"stream":"btcusdt@trade","data":{"e":"trade","p":"1.0"}}'
    assert PROFILE.stream_of(message) == "btcusdt@trade"
    assert PROFILE.unwrapped(message) == b'{"e":"trade","p":"1.0"}'
    assert PROFILE.stream_of(b'{"lastUpdateId":1,"bids":[]}') is None


def test_requests_are_limited_in_any_second_and_not_by_the_clocks_seconds() -> None:
    limit = RequestLimit(5)
    assert [limit.allows(10.8 + i / 100) for i in range(5)] == [True] * 5
    assert limit.allows(11.1) is False
    patient = RequestLimit(5)
    assert all(patient.allows(i * 0.21) for i in range(100))
