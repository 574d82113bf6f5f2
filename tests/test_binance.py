"""Binance spot against real frames: every field equal to an independent decode, and every frame accounted for."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feeds.binance import AGGREGATE_TRADE, QUOTE, TRADE, Binance, BinanceDecoder, BinanceParameters, canonical_symbol
from feeds.capture import Direction, read_capture
from feeds.decoding import STAGED, Acknowledged, Control, Notice, Refused, Rejected, Sink
from feeds.records import DTYPES, NO_TIME, Flag, Kind
from ringbuf.errors import ParameterError
from ringbuf.records import RecordArray

HFTBACKTEST = "binance/hftbacktest/examples_spot_btcusdt_20240808.gz"
RECEIVED = 1_723_161_254_087_891_268
SYMBOL, EXCHANGE = 7, 3
NATIVES = ("btcusdt@trade", "btcusdt@aggTrade", "btcusdt@bookTicker", "bnbbtc@trade")

TRADE_FRAME = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,'
    b'"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
)
AGGREGATE_FRAME = (
    b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1723161255343,"s":"BTCUSDT","a":12345,"p":"0.001",'
    b'"q":"100","f":100,"l":105,"T":1672515782136,"m":false,"M":true}}'
)
QUOTE_FRAME = (
    b'{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000",'
    b'"a":"61837.64000000","A":"1.54698000"}}'
)
FRAMES = (TRADE_FRAME, AGGREGATE_FRAME, QUOTE_FRAME)


# ---- the decoder under test, and what it is held against ------------------------------------------------------------


@dataclass
class Decoded:
    """What a run over frames gave: whole records per kind, and the control."""

    trades: RecordArray
    quotes: RecordArray
    control: list[Control]

    @property
    def rejected(self) -> list[int]:
        return [item.index for item in self.control if isinstance(item, Rejected)]


def decoder() -> BinanceDecoder:
    made = BinanceDecoder()
    for native in NATIVES:
        made.route(native, SYMBOL, EXCHANGE)
    return made


def decode(frames: Sequence[bytes], made: BinanceDecoder | None = None) -> Decoded:
    """Run frames through the decoder in batches, emptying the sink whenever it is full, as the intake does."""
    made = made or decoder()
    sink = Sink()
    taken: dict[Kind, list[bytes]] = {Kind.TRADE: [], Kind.QUOTE: []}
    control: list[Control] = []
    for first in range(0, len(frames), STAGED):
        batch, start = frames[first : first + STAGED], 0
        while start < len(batch):
            done, found = made.decode(batch, start, RECEIVED, sink)
            staged = {kind: sink[kind].count for kind in taken}
            assert done > start or any(staged.values()), "no progress"
            start = done
            control += [Rejected(first + c.index, c.reason) if isinstance(c, Rejected) else c for c in found]
            for kind, count in staged.items():
                taken[kind].append(bytes(sink[kind].buffer[: count * sink[kind].slot]))
                sink[kind].count = 0
                sink[kind].base_seq += count
    assert all(sink[kind].count == 0 for kind in Kind), "records of a kind that Binance does not have"
    trades, quotes = (np.frombuffer(b"".join(taken[kind]), DTYPES[kind]) for kind in (Kind.TRADE, Kind.QUOTE))
    return Decoded(trades, quotes, control)


class Unusable(Exception):
    """The oracle finds no record in a frame."""


def number(value: object) -> Decimal:
    """A number as JSON text or as JSON number."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise Unusable
    try:
        return Decimal(value)
    except InvalidOperation as error:
        raise Unusable from error


def amount(value: object) -> float:
    exact = number(value)
    if not exact.is_finite() or not 0 <= exact <= Decimal("1e300"):
        raise Unusable
    return float(exact)


def whole(value: object, largest: int) -> int:
    exact = number(value)
    if not exact.is_finite() or not 0 <= exact <= largest or exact != exact.to_integral_value():
        raise Unusable
    return int(exact)


def flag(value: object) -> bool:
    text = value.lower() if isinstance(value, str) else value
    if text in ("1", "true") or text == 1:
        return True
    if text in ("0", "false") or text == 0:
        return False
    raise Unusable


MOST_MS = 9_223_372_036_854


def oracle(frame: bytes) -> tuple[Any, ...]:
    """Decode by the standard library: ("trade", ...) or ("quote", ...).

    Raises:
        Unusable: no record.
    """
    try:
        # What is skipped may hold any bytes; names and numbers are ASCII, so that nothing unknown can become one.
        message = json.loads(frame.decode(errors="replace"), strict=False, parse_float=Decimal)
        native, data = message["stream"], message["data"]
        if native not in NATIVES:
            raise Unusable
        if native.endswith("@bookTicker"):
            prices = [amount(data[key]) for key in "bBaA"]
            return "quote", *prices, whole(data["u"], 2**64 - 1)
        aggregate = native.endswith("@aggTrade")
        identity = whole(data["a" if aggregate else "t"], 2**64 - 1)
        times = whole(data["T"], MOST_MS) * 1_000_000, whole(data["E"], MOST_MS) * 1_000_000
        side = -1 if flag(data["m"]) else 1
        return "trade", amount(data["p"]), amount(data["q"]), identity, *times, side, aggregate
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unusable from error


def usable(frame: bytes) -> tuple[Any, ...] | None:
    try:
        return oracle(frame)
    except Unusable:
        return None


def trade_row(record: np.void, seq: int) -> tuple[Any, ...]:
    """One trade as the oracle gives it, after everything that all trades have alike was checked."""
    row = dict(zip(DTYPES[Kind.TRADE].names or (), record.item(), strict=True))
    assert row["seq"] == seq
    assert row["received"] == RECEIVED
    assert (row["symbol"], row["exchange"], row["sequence"]) == (SYMBOL, EXCHANGE, 0)
    assert [row[f"condition_{i}"] for i in (1, 2, 3, 4)] == [0] * 4
    assert row["_reserved"] == bytes(47)
    assert row["flags"] in (0, Flag.AGGREGATE)
    return (
        "trade", row["last_price"], row["last_size"], row["trade_id"], row["date"], row["published"], row["side"],
        row["flags"] == Flag.AGGREGATE,
    )  # fmt: skip


def quote_row(record: np.void, seq: int) -> tuple[Any, ...]:
    row = dict(zip(DTYPES[Kind.QUOTE].names or (), record.item(), strict=True))
    assert row["seq"] == seq
    assert row["date"] == row["received"] == RECEIVED
    assert row["flags"] == Flag.DATE_IS_RECEIVED
    # numpy gives an unknown time as None when it turns into Python's own values.
    assert record["published"].view("<i8") == NO_TIME
    assert (row["symbol"], row["exchange"]) == (SYMBOL, EXCHANGE)
    assert (row["bid_exchange"], row["ask_exchange"]) == (0, 0)
    assert [row[f"condition_{i}"] for i in (1, 2, 3, 4)] == [0] * 4
    assert row["_reserved"] == bytes(36)
    return "quote", row["bid_price"], row["bid_size"], row["ask_price"], row["ask_size"], row["sequence"]


def rows(decoded: Decoded) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    trades = [trade_row(record, seq) for seq, record in enumerate(decoded.trades)]
    return trades, [quote_row(record, seq) for seq, record in enumerate(decoded.quotes)]


def check(frames: Sequence[bytes]) -> None:
    """Every frame is a record equal to the oracle's, or control; exactly one of these, in order."""
    decoded = decode(frames)
    trades, quotes = rows(decoded)
    expected = [usable(frame) for frame in frames]
    refused = set(decoded.rejected)
    kept = [row for i, row in enumerate(expected) if i not in refused and row is not None]
    assert trades == [row for row in kept if row[0] == "trade"]
    assert quotes == [row for row in kept if row[0] == "quote"]
    assert len(decoded.trades) + len(decoded.quotes) + len(decoded.control) == len(frames)
    assert len(refused) == len(decoded.rejected), "a frame was rejected twice"
    assert not any(frames[i] in FRAMES for i in refused), "a good frame suffered for another"


# ---- real frames ----------------------------------------------------------------------------------------------------


def test_the_whole_capture_decodes_as_the_standard_library_does(captures: Path) -> None:
    frames = [
        frame.payload
        for frame in read_capture(captures / HFTBACKTEST)
        if b"@bookTicker" in frame.payload[:40] or b"@trade" in frame.payload[:40]
    ]
    decoded = decode(frames)
    assert decoded.control == []
    assert (len(decoded.quotes), len(decoded.trades)) == (28_040, 9_757)
    expected = [oracle(frame) for frame in frames]
    trades, quotes = rows(decoded)
    assert trades == [row for row in expected if row[0] == "trade"]
    assert quotes == [row for row in expected if row[0] == "quote"]
    assert trades[0] == (
        "trade", 61837.63, 0.02, 3735683259, 1723161255342000000, 1723161255343000000, -1, False,
    )  # fmt: skip
    assert quotes[0] == ("quote", 61837.63, 3.78826, 61837.64, 1.54698, 50093239212)


def test_frames_of_topics_nobody_asked_for_are_counted_by_name(captures: Path) -> None:
    frames = [frame.payload for frame in read_capture(captures / HFTBACKTEST)]
    decoded = decode(frames)
    reasons = [item.reason for item in decoded.control if isinstance(item, Rejected)]
    assert reasons.count("not subscribed to 'btcusdt@depth@100ms'") == 3451
    assert len(decoded.trades) + len(decoded.quotes) + len(decoded.control) == len(frames)


def test_an_aggregate_trade_printed_over_many_lines(captures: Path) -> None:
    frames = [
        frame.payload
        for frame in read_capture(captures / "binance/jkorf/Spot__ExchangeData__AggregatedTrades.txt")
        if frame.direction is Direction.RECEIVED
    ]
    data = [frame for frame in frames if b'"stream"' in frame]
    assert len(data) == 1
    trades, _ = rows(decode(data))
    assert trades == [("trade", 0.001, 100.0, 12345, 1672515782136000000, 1672515782136000000, -1, True)]


def test_a_quote_printed_over_many_lines_with_odd_blanks(captures: Path) -> None:
    path = captures / "binance/jkorf/Spot__ExchangeData__BookTicker.txt"
    data = [frame.payload for frame in read_capture(path) if b'"stream"' in frame.payload]
    _, quotes = rows(decode(data))
    assert quotes == [("quote", 25.3519, 31.21, 25.3652, 40.66, 400900217)]


@pytest.mark.parametrize("name", ["Trades", "Concurrent"])
def test_all_spot_samples_of_trades_are_accounted_for(captures: Path, name: str) -> None:
    path = captures / f"binance/jkorf/Spot__ExchangeData__{name}.txt"
    check([frame.payload for frame in read_capture(path) if frame.direction is Direction.RECEIVED])


def test_trades_of_2019_with_the_orders_ids_are_the_same_trades(captures: Path) -> None:
    frames = [frame.payload for frame in read_capture(captures / "binance/tardis-node/binance_messages.jsonl")]
    decoded = decode(frames)
    trades, quotes = rows(decoded)
    assert trades == [
        ("trade", 0.0042699, 33.82, 40756030, 1554076800940000000, 1554076800945000000, 1, False),
        ("trade", 0.0021965, 6.48, 60276726, 1567296001034000000, 1567296001038000000, -1, False),
    ]
    assert len(quotes) == 1
    assert len(decoded.control) == len(frames) - 3


# ---- harmless differences -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", FRAMES)
def test_key_order_white_space_and_unknown_keys_change_nothing(frame: bytes) -> None:
    message = json.loads(frame)
    backwards = {
        "data": dict(reversed(message["data"].items())),
        "stream": message["stream"],
    }
    more = {
        "stream": message["stream"],
        "new": [{"x": 1}],
        "data": {"st": {"a": [1, None]}, **message["data"], "ps": "X"},
    }
    variants = [
        frame,
        json.dumps(backwards).encode(),
        json.dumps(backwards, indent=4).encode(),
        json.dumps(message, indent="\t").encode(),
        json.dumps(more).encode(),
        b" \r\n" + frame + b"\n ",
        frame.replace(b'{"stream"', b'{"e":"x","id":9,"result":null,"stream"'),
    ]
    decoded = decode(variants)
    trades, quotes = rows(decoded)
    assert decoded.control == []
    assert [*trades, *quotes] == [oracle(frame)] * len(variants)


def test_shuffled_keys_of_a_whole_batch_decode_alike() -> None:
    shuffler = random.Random(1)
    frames = []
    for frame in FRAMES * 50:
        message = json.loads(frame)
        keys = list(message["data"])
        shuffler.shuffle(keys)
        outer = [("stream", message["stream"]), ("data", {key: message["data"][key] for key in keys})]
        shuffler.shuffle(outer)
        frames.append(json.dumps(dict(outer)).encode())
    check(frames)
    assert decode(frames).control == []


def test_a_frame_without_the_name_of_its_stream_is_reported_as_lost_data() -> None:
    """A URL that ends in /ws gives these: they must be counted as unusable, not taken for a notice."""
    raw = [json.dumps(json.loads(frame)["data"]).encode() for frame in FRAMES]
    decoded = decode(raw)
    assert decoded.control == [Rejected(i, "market data without the name of its stream") for i in range(3)]


# ---- control --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b'{"result":null,"id":7}', Acknowledged(7)),
        (b'{"id":7,"result":["btcusdt@trade"]}', Acknowledged(7)),
        (
            b'{"error":{"code":2,"msg":"Invalid request: unknown stream"},"id":7}',
            Refused(7, "Invalid request: unknown stream (code 2)"),
        ),
        (b'{"error":{"code":3,"msg":"Invalid JSON"},"id":null}', Refused(None, "Invalid JSON (code 3)")),
        (b'{"error":{"code":3,"msg":"Invalid JSON"},"id":"abc"}', Refused(None, "Invalid JSON (code 3)")),
        (b'{"error":{}}', Refused(None, " (code 0)")),
        (b'{"e":"serverShutdown","E":1770123456789}', Notice("the venue announces 'serverShutdown'")),
        (b'{"stream":"ethusdt@trade","data":{}}', Rejected(0, "not subscribed to 'ethusdt@trade'")),
        (b"{}", Rejected(0, "neither data nor an answer")),
        (b'{"id":7}', Rejected(0, "neither data nor an answer")),
        (b'{"id":"7","result":null}', Rejected(0, "neither data nor an answer")),
    ],
)
def test_what_is_no_record_is_the_right_control(frame: bytes, expected: Control) -> None:
    assert decode([frame]).control == [expected]


@pytest.mark.parametrize(
    "frame",
    [
        json.dumps({"error": {"code": 2, "msg": "x" * 10**6}, "id": 1}).encode(),
        json.dumps({"e": "x" * 10**6}).encode(),
        json.dumps({"stream": "x" * 10**6}).encode(),
    ],
)
def test_a_venue_that_says_a_lot_is_quoted_briefly(frame: bytes) -> None:
    (control,) = decode([frame]).control
    assert len(repr(control)) < 300


def test_an_unrouted_topic_is_rejected_and_a_routed_one_has_its_new_ids() -> None:
    made = decoder()
    made.unroute("btcusdt@trade")
    made.unroute("btcusdt@trade")
    assert decode([TRADE_FRAME], made).control == [Rejected(0, "not subscribed to 'btcusdt@trade'")]
    made.route("btcusdt@trade", 2**32 - 1, 2**16 - 1)
    (record,) = decode([TRADE_FRAME], made).trades
    assert (int(record["symbol"]), int(record["exchange"])) == (2**32 - 1, 2**16 - 1)


# ---- what no record can hold ----------------------------------------------------------------------------------------

GARBAGE = [
    '"nan"', '"NaN"', '"-nan"', '"inf"', '"-Infinity"', "NaN", "Infinity", "1e999", '"1e999"', '"1e301"', '"-1"',
    "-0.01", '""', '" 1"', '"1 "', '"1_0"', '"0x10"', '"+1"', '"1,5"', '"1."', '"\\u0663"', "null", "[]", "{}", "true",
    '"abc"',
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("key", ["p", "q"])
def test_a_price_or_size_that_is_none_rejects_the_frame(key: str, garbage: str) -> None:
    before = json.loads(TRADE_FRAME)["data"][key]
    frame = TRADE_FRAME.replace(f'"{key}":"{before}"'.encode(), f'"{key}":{garbage}'.encode())
    assert frame != TRADE_FRAME
    assert decode([TRADE_FRAME, frame, QUOTE_FRAME]).rejected == [1]


@pytest.mark.parametrize("garbage", ["-1", "18446744073709551616", "1e30", "1.5", '"x"', "null", '"1e30"', "-1e400"])
@pytest.mark.parametrize(("frame", "key", "value"), [(TRADE_FRAME, "t", 3735683259), (QUOTE_FRAME, "u", 50093239212)])
def test_an_id_that_fits_no_u64_rejects_the_frame(frame: bytes, key: str, value: int, garbage: str) -> None:
    broken = frame.replace(f'"{key}":{value}'.encode(), f'"{key}":{garbage}'.encode())
    assert broken != frame
    check([frame, broken, frame])
    assert decode([frame, broken, frame]).rejected == [1]


def test_the_largest_id_time_and_size_are_kept_exactly() -> None:
    frame = (
        b'{"stream":"btcusdt@trade","data":{"E":9223372036854,"t":18446744073709551615,"p":"1e300","q":"0",'
        b'"T":9223372036854,"m":false}}'
    )
    (row,), _ = rows(decode([frame]))
    assert row == ("trade", 1e300, 0.0, 2**64 - 1, 9_223_372_036_854_000_000, 9_223_372_036_854_000_000, 1, False)
    later = frame.replace(b"9223372036854,", b"9223372036855,")
    assert decode([later]).rejected == [0]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.1", 0.1), ("61837.63000000", 61837.63), ("0.30000000000000004", 0.30000000000000004), ("5e-324", 5e-324),
     ("9007199254740993", 9007199254740992.0), ("0.000000000000000000000000000000000000000000001", 1e-45),
     ("179769313486231570000000000000000000000000000000000", 1.7976931348623157e50)],
)  # fmt: skip
def test_prices_are_the_nearest_f64_of_their_text(text: str, value: float) -> None:
    frame = TRADE_FRAME.replace(b"61837.63000000", text.encode())
    (row,), _ = rows(decode([frame]))
    assert row[1] == value == float(Decimal(text))


@pytest.mark.parametrize(
    "nested", [b"[" * 200_000, b'{"a":' * 200_000, b'{"stream":"btcusdt@trade","data":{"x":' + b"[" * 200_000]
)
def test_nesting_without_end_is_one_rejected_frame(nested: bytes) -> None:
    assert decode([TRADE_FRAME, nested, QUOTE_FRAME]).rejected == [1]


def test_a_frame_of_sixteen_mebibytes_is_decoded_or_rejected_like_any_other() -> None:
    padding = b"x" * (16 * 2**20)
    giant = TRADE_FRAME.replace(b'"e":"trade"', b'"e":"' + padding + b'"')
    without_a_quote = b'{"stream":"' + padding
    decoded = decode([giant, without_a_quote, padding])
    assert rows(decoded)[0] == [oracle(TRADE_FRAME)]
    assert decoded.rejected == [1, 2]


# ---- any bytes ------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
hostile_numbers: st.SearchStrategy[object] = st.sampled_from(
    [0, -1, 1, 2**63, 2**64 - 1, 2**64, 10**400, 1.5, -0.0, 1e22, 1e308, "0", "1", "1e5", "-5", "nan", "inf", "",
     "1e400", "00", "true", True, False, None, [], {}]
)  # fmt: skip


@st.composite
def rewritten(draw: st.DrawFn) -> bytes:
    """A real frame with some of its values replaced or swapped: still JSON, perhaps with NaN in it."""
    message = json.loads(draw(st.sampled_from(FRAMES)))
    data = message["data"]
    for key in draw(st.lists(st.sampled_from(sorted(data)), max_size=3)):
        data[key] = draw(hostile_numbers | json_values | st.sampled_from(sorted(map(str, data.values()))))
    for key in draw(st.lists(st.sampled_from(sorted(data)), max_size=1)):
        del data[key]
    if draw(st.booleans()):
        message["stream"] = draw(st.sampled_from(NATIVES) | st.text(max_size=12) | json_values)
    return json.dumps(message, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real frame cut short, or with some of its bytes changed, put in or taken out."""
    frame = bytearray(draw(st.sampled_from(FRAMES)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(frame) - 1))
        match draw(st.sampled_from(["flip", "cut", "insert", "delete"])):
            case "flip":
                frame[at] ^= draw(st.integers(1, 255))
            case "cut":
                frame = frame[: at + 1]
            case "insert":
                frame[at:at] = draw(st.binary(min_size=1, max_size=4))
            case _:
                frame[at : at + 1] = b""
                frame = frame or bytearray(b"{")
    return bytes(frame)


@given(st.lists(st.binary(max_size=60) | st.sampled_from(FRAMES) | json_values.map(lambda v: json.dumps(v).encode())))
@example([b"", b"{", b"\xff", b"null", b'{"stream":null}', b'{"stream":"\xff"}', b'{"stream":"\\ud800"}'])
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_record_or_one_reason(frames: list[bytes]) -> None:
    decoded = decode(frames)
    assert len(decoded.trades) + len(decoded.quotes) + len(decoded.control) == len(frames)
    rows(decoded)


@given(st.lists(rewritten() | st.sampled_from(FRAMES), max_size=8))
@settings(max_examples=250, deadline=None)
def test_a_frame_with_other_values_is_equal_to_the_oracle_or_rejected(frames: list[bytes]) -> None:
    check(frames)


@given(st.lists(damaged() | st.sampled_from(FRAMES), max_size=8))
@settings(max_examples=250, deadline=None)
def test_a_damaged_frame_is_equal_to_the_oracle_or_rejected(frames: list[bytes]) -> None:
    check(frames)


# ---- the sink -------------------------------------------------------------------------------------------------------


def test_a_full_sink_gives_the_index_and_goes_on_in_order_when_called_again() -> None:
    frames = [QUOTE_FRAME, TRADE_FRAME, QUOTE_FRAME, TRADE_FRAME]
    made, sink = decoder(), Sink()
    sink[Kind.TRADE].count = STAGED - 1
    sink[Kind.TRADE].base_seq = 1000
    assert made.decode(frames, 0, RECEIVED, sink) == (3, [])
    assert (sink[Kind.TRADE].count, sink[Kind.QUOTE].count) == (STAGED, 2)
    assert made.decode(frames, 3, RECEIVED, sink) == (3, [])  # nothing has made room
    last = np.frombuffer(sink[Kind.TRADE].buffer, DTYPES[Kind.TRADE])[STAGED - 1]
    assert int(last["seq"]) == 1000 + STAGED - 1
    sink[Kind.TRADE].count = 0
    sink[Kind.TRADE].base_seq += STAGED
    assert made.decode(frames, 3, RECEIVED, sink) == (4, [])
    assert int(np.frombuffer(sink[Kind.TRADE].buffer, DTYPES[Kind.TRADE])[0]["seq"]) == 1000 + STAGED


def test_control_before_a_full_sink_is_told_once() -> None:
    made, sink = decoder(), Sink()
    sink[Kind.QUOTE].count = STAGED
    frames = [b"{", QUOTE_FRAME, b"["]
    done, control = made.decode(frames, 0, RECEIVED, sink)
    assert (done, len(control)) == (1, 1)
    sink[Kind.QUOTE].count = 0
    done, control = made.decode(frames, done, RECEIVED, sink)
    assert (done, [item.index for item in control if isinstance(item, Rejected)]) == (3, [2])


def test_a_rejected_frame_leaves_no_trace_in_the_record_after_it() -> None:
    too_large = TRADE_FRAME.replace(b"3735683259", b"99999999999999999999")
    decoded = decode([too_large, TRADE_FRAME, too_large])
    assert rows(decoded)[0] == [oracle(TRADE_FRAME)]
    assert decoded.rejected == [0, 2]


# ---- topics, parameters, requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", ["btcusdt", "BTCUSDT", "BTC-USDT", "btc/usdt", "btc_usdt", "  BtcUsdt "])
def test_every_spelling_of_a_symbol_is_one_topic(symbol: str) -> None:
    (topic,) = Binance().topics(BinanceParameters(symbol="x1"), [symbol])
    assert (topic.native, topic.symbol, topic.channel) == ("btcusdt@trade", "BTCUSDT", TRADE)


@pytest.mark.parametrize(
    "symbol", ["", "b", "x" * 21, "btc usdt", "btc@usdt", "btc\nusdt", "btcüsd", "{}", "../x", "∞"]
)
def test_what_cannot_be_a_symbol_is_refused_by_name(symbol: str) -> None:
    with pytest.raises(ParameterError) as caught:
        canonical_symbol(symbol)
    assert repr(symbol) in str(caught.value)
    assert "btcusdt" in str(caught.value)


def test_several_feeds_give_a_topic_each_without_duplicates() -> None:
    parameters = BinanceParameters(symbol="x1", feed="trade, quote,aggregate_trade,trade")
    topics = Binance().topics(parameters, ["btcusdt", "BTC-USDT", "ethusdt"])
    assert [topic.native for topic in topics] == [
        "btcusdt@trade", "btcusdt@bookTicker", "btcusdt@aggTrade",
        "ethusdt@trade", "ethusdt@bookTicker", "ethusdt@aggTrade",
    ]  # fmt: skip
    assert [topic.channel for topic in topics[:3]] == [TRADE, QUOTE, AGGREGATE_TRADE]


def test_requests_are_what_the_venue_documents() -> None:
    provider = Binance()
    topics = provider.topics(BinanceParameters(symbol="x1"), ["btcusdt", "ethusdt"])
    assert json.loads(provider.subscribe(topics, 5)) == {
        "method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 5,
    }  # fmt: skip
    assert json.loads(provider.unsubscribe(topics[:1], 6)) == {
        "method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 6,
    }  # fmt: skip


def test_the_url_is_the_environments_or_the_users_own() -> None:
    provider = Binance()
    assert provider.url(BinanceParameters(symbol="x1"), []) == "wss://stream.binance.com:9443/stream"
    us = BinanceParameters(symbol="x1", environment="us")
    assert provider.url(us, []) == "wss://stream.binance.us:9443/stream"
    own = BinanceParameters(symbol="x1", url="ws://127.0.0.1:9/stream")
    assert provider.url(own, []) == "ws://127.0.0.1:9/stream"
