"""Binance spot: trades, aggregate trades, and the best bid and ask.

Wire facts, from captures and the venue's documentation:

* One combined stream (`/stream`) carries all topics; each frame is ``{"stream":"btcusdt@trade","data":{...}}``.
* ``{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}`` is answered ``{"result":null,"id":1}``, or by an error
  object. A name that is well formed but unknown is acknowledged all the same, and stays silent: only the topic's
  liveness tells.
* Five messages a second from us at most, pongs included; 1,024 streams a connection; 24 hours of life.
* The best bid and ask have no time of their own: `date` is `received`, flagged.
* ``m`` says that the buyer was the maker: the taker sold.
* Trade ids and aggregate ids rise by one per symbol; ``u`` of the best bid and ask only rises.

The decoder finds the native name by the frame's first bytes, which every captured frame has alike, and lets one typed
parse per frame give the numbers (prices are parsed from text to the nearest f64). A frame that begins otherwise, with
its keys in another order say, takes the slower path through its parsed envelope and ends in the same record.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from pydantic import Field, field_validator

from feeds.contract import Channel, Declaration, Limits, Numbering, Parameters, Topic, Verified
from feeds.decoding import STAGED, Acknowledged, Control, Notice, Refused, Rejected, Sink
from feeds.records import NO_TIME, Flag, Kind, Side
from ringbuf.errors import ParameterError

# A minute: the busiest symbols trade every second, and nobody should wait longer to learn of a dead one.
TRADE: Final = Channel("trade", Kind.TRADE, silence=60.0)
AGGREGATE_TRADE: Final = Channel("aggregate_trade", Kind.TRADE, silence=60.0, aggregate=True)
QUOTE: Final = Channel("quote", Kind.QUOTE, silence=60.0)

#: The venue's name of each channel.
_STREAMS: Final = {TRADE.feed: "trade", AGGREGATE_TRADE.feed: "aggTrade", QUOTE.feed: "bookTicker"}
_CHANNELS: Final = {TRADE.feed: TRADE, AGGREGATE_TRADE.feed: AGGREGATE_TRADE, QUOTE.feed: QUOTE}

_ENVIRONMENTS: Final = {
    "production": "wss://stream.binance.com:9443",
    "market_data": "wss://data-stream.binance.vision",
    "us": "wss://stream.binance.us:9443",
    "testnet": "wss://stream.testnet.binance.vision",
}

_SYMBOL = re.compile(r"[a-z0-9]{2,20}")

DECLARATION: Final = Declaration(
    name="binance",
    title="Binance spot",
    exchange="binance",
    channels=(TRADE, AGGREGATE_TRADE, QUOTE),
    # 200 names keep a request below 8 KiB. Three messages a second: the fourth is the pong's, and the fifth is room for
    # the network, which brings messages closer together than they were sent; one too many is the end of the connection.
    limits=Limits(topics_per_connection=1024, topics_per_request=200, messages_per_second=3.0),
    numbering={
        Kind.TRADE: Numbering("trade_id", consecutive=True),
        Kind.QUOTE: Numbering("sequence", consecutive=False),
    },
    example="btcusdt",
    verified=Verified.CAPTURES,
)


class BinanceParameters(Parameters):
    """What a Binance connection can be asked for."""

    asset_type: Literal["crypto"] = Field(default="crypto", description="Binance spot trades crypto only.")
    feed: str = Field(default="trade", description="Feeds, comma-separated: trade, aggregate_trade, quote.")
    environment: Literal["production", "market_data", "us", "testnet"] = Field(
        default="production", description="Which of the venue's installations."
    )

    @field_validator("feed")
    @classmethod
    def _known_feeds(cls, value: str) -> str:
        feeds = [feed.strip() for feed in value.split(",") if feed.strip()]
        for feed in feeds:
            if feed not in _CHANNELS:
                raise ValueError(f"{feed!r} is no feed of binance: choose from {', '.join(_CHANNELS)}")
        if not feeds:
            raise ValueError(f"no feed given: choose from {', '.join(_CHANNELS)}")
        return ",".join(dict.fromkeys(feeds))


def canonical_symbol(symbol: str) -> str:
    """Give the venue's spelling of a symbol in stream names: ``BTC-USDT``, ``btc/usdt`` and ``BTCUSDT`` are one.

    Raises:
        ParameterError: it cannot be a symbol of this venue.
    """
    bare = symbol.strip().lower().replace("-", "").replace("/", "").replace("_", "")
    if not _SYMBOL.fullmatch(bare):
        raise ParameterError(
            f"{symbol!r} cannot be a Binance symbol: 2 to 20 letters and digits, such as {DECLARATION.example}."
        )
    return bare


class Binance:
    """The provider."""

    declaration = DECLARATION
    parameters = BinanceParameters

    def topics(self, parameters: BinanceParameters, symbols: Sequence[str]) -> list[Topic]:
        """See `Provider.topics`."""
        found: dict[str, Topic] = {}
        for symbol in symbols:
            bare = canonical_symbol(symbol)
            for feed in parameters.feed.split(","):
                native = f"{bare}@{_STREAMS[feed]}"
                found[native] = Topic(native, bare.upper(), _CHANNELS[feed])
        return list(found.values())

    def url(self, parameters: BinanceParameters, desired: Sequence[Topic]) -> str:  # noqa: ARG002 - one URL for all
        """See `Provider.url`."""
        return parameters.url or f"{_ENVIRONMENTS[parameters.environment]}/stream"

    def subscribe(self, topics: Sequence[Topic], request: int) -> bytes:
        """See `Provider.subscribe`."""
        return _request("SUBSCRIBE", topics, request)

    def unsubscribe(self, topics: Sequence[Topic], request: int) -> bytes:
        """See `Provider.unsubscribe`."""
        return _request("UNSUBSCRIBE", topics, request)

    def decoder(self) -> BinanceDecoder:
        """See `Provider.decoder`."""
        return BinanceDecoder()


def _request(method: str, topics: Sequence[Topic], request: int) -> bytes:
    return msgspec.json.encode({"method": method, "params": [topic.native for topic in topics], "id": request})


# ---- frames ---------------------------------------------------------------------------------------------------------
# Only the fields that end in a record are declared; msgspec skips the others, whatever they hold, in any order.
# Numbers come as text: strict=False parses "0.10" straight to the nearest f64, without a str between. The bounds keep
# out what no record can hold: NaN, infinities, negative sizes, ids beyond u64, times beyond the year 2262.

_Amount: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=1e300)]
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=9_223_372_036_854)]


class _Trade(msgspec.Struct, gc=False):
    t: _Number
    p: _Amount
    q: _Amount
    T: _Milliseconds  # when the trade happened
    E: _Milliseconds  # when the venue sent it
    m: bool


class _AggregateTrade(msgspec.Struct, gc=False, rename={"t": "a"}):
    t: _Number
    p: _Amount
    q: _Amount
    T: _Milliseconds
    E: _Milliseconds
    m: bool


class _Quote(msgspec.Struct, gc=False):
    u: _Number
    b: _Amount
    B: _Amount
    a: _Amount
    A: _Amount


class _TradeFrame(msgspec.Struct, gc=False):
    data: _Trade


class _AggregateTradeFrame(msgspec.Struct, gc=False):
    data: _AggregateTrade


class _QuoteFrame(msgspec.Struct, gc=False):
    data: _Quote


class _Error(msgspec.Struct, gc=False):
    code: int = 0
    msg: str = ""


class _Envelope(msgspec.Struct, gc=False):
    """Anything the venue sends on a combined stream."""

    stream: str | None = None
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: _Error | None = None
    e: str | None = None
    s: str | None = None


_decode_trade = msgspec.json.Decoder(_TradeFrame, strict=False).decode
_decode_aggregate = msgspec.json.Decoder(_AggregateTradeFrame, strict=False).decode
_decode_quote = msgspec.json.Decoder(_QuoteFrame, strict=False).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode

# seq date received symbol exchange flags | last_price last_size trade_id sequence published condition_1-4 side
_pack_trade = struct.Struct("<QqqIHHddQQqHHHHb").pack_into
# seq date received symbol exchange flags | bid_price bid_size ask_price ask_size sequence published
_pack_quote = struct.Struct("<QqqIHHddddQq").pack_into

#: Of a venue's words, so many characters go on: into logs, events and answers.
_WORDS: Final = 200

_MS: Final = 1_000_000
_PREFIX: Final = b'{"stream":"'
_NAME_AT: Final = len(_PREFIX)
_SOLD: Final = int(Side.SOLD)
_BOUGHT: Final = int(Side.BOUGHT)
_NO_DATE_FLAG: Final = int(Flag.DATE_IS_RECEIVED)

#: Decodes one frame of a trade channel.
_TradeDecode: TypeAlias = Callable[[bytes], _TradeFrame | _AggregateTradeFrame]

_TRADE_CHANNELS: Final[dict[str, tuple[_TradeDecode, int]]] = {
    "trade": (_decode_trade, 0),
    "aggTrade": (_decode_aggregate, int(Flag.AGGREGATE)),
}


@dataclass(frozen=True, slots=True)
class _Route:
    """Where the frames of one native topic go."""

    #: How a trade is decoded, and its flags; None for the best bid and ask.
    trade: tuple[_TradeDecode, int] | None
    symbol: int
    exchange: int


class BinanceDecoder:
    """The Python decoder; the oracle of any compiled one.

    The loop holds the two staging buffers in locals and writes their counts back at its end: one function call and two
    attribute stores less a frame.
    """

    def __init__(self) -> None:
        #: The first bytes of a topic's frames, up to its name's closing quote -> where they go.
        self._routes: dict[bytes, _Route] = {}

    def route(self, native: str, symbol: int, exchange: int) -> None:
        """See `Decoder.route`."""
        stream = native.partition("@")[2]
        self._routes[_PREFIX + native.encode()] = _Route(_TRADE_CHANNELS.get(stream), symbol, exchange)

    def unroute(self, native: str) -> None:
        """See `Decoder.unroute`."""
        self._routes.pop(_PREFIX + native.encode(), None)

    def decode(self, frames: Sequence[bytes], start: int, received_ns: int, sink: Sink) -> tuple[int, list[Control]]:
        """See `Decoder.decode`."""
        control: list[Control] = []
        find_route = self._routes.get
        quotes, trades = sink[Kind.QUOTE], sink[Kind.TRADE]
        quote_count, quote_seq, trade_count, trade_seq = quotes.count, quotes.base_seq, trades.count, trades.base_seq
        index, total = start, len(frames)
        while index < total:
            frame = frames[index]
            route = find_route(frame[: frame.find(b'"', _NAME_AT)])
            if route is None:
                found = self._classify(frame, index)
                if not isinstance(found, _Route):
                    control.append(found)
                    index += 1
                    continue
                route = found
            trade = route.trade
            if (quote_count if trade is None else trade_count) == STAGED:
                break
            try:
                if trade is None:
                    quote = _decode_quote(frame).data
                    _pack_quote(
                        quotes.buffer, quote_count * quotes.slot, quote_seq + quote_count, received_ns, received_ns,
                        route.symbol, route.exchange, _NO_DATE_FLAG,
                        quote.b, quote.B, quote.a, quote.A, quote.u, NO_TIME,
                    )  # fmt: skip
                    quote_count += 1
                else:
                    decode, flags = trade
                    data = decode(frame).data
                    _pack_trade(
                        trades.buffer, trade_count * trades.slot, trade_seq + trade_count, data.T * _MS, received_ns,
                        route.symbol, route.exchange, flags, data.p, data.q, data.t, 0, data.E * _MS,
                        0, 0, 0, 0, _SOLD if data.m else _BOUGHT,
                    )  # fmt: skip
                    trade_count += 1
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, struct.error) as error:
                control.append(Rejected(index, str(error)))
            index += 1
        quotes.count, trades.count = quote_count, trade_count
        return index, control

    def _classify(self, frame: bytes, index: int) -> _Route | Control:
        """Tell what a frame is whose first bytes did not."""
        try:
            envelope = _decode_envelope(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Rejected(index, str(error))
        if envelope.stream is not None:
            route = self._routes.get(_PREFIX + envelope.stream.encode())
            return route or Rejected(index, f"not subscribed to {envelope.stream[:64]!r}")
        if envelope.error is not None:
            reason = f"{envelope.error.msg[:_WORDS]} (code {envelope.error.code})"
            return Refused(envelope.id if isinstance(envelope.id, int) else None, reason)
        if isinstance(envelope.id, int) and envelope.result:
            return Acknowledged(envelope.id)
        if envelope.s is not None:
            # A URL ending in /ws instead of /stream gives such frames: nothing says which topic they belong to.
            return Rejected(index, "market data without the name of its stream")
        if envelope.e is not None:
            return Notice(f"the venue announces {envelope.e[:_WORDS]!r}")
        return Rejected(index, "neither data nor an answer")
