"""Binance spot, as a venue profile: the words of its market streams (developers.binance.com, and captured frames).

Routes: ``/stream`` (messages wrapped as ``{"stream":…,"data":…}``; ``?streams=a/b`` subscribes at once) and ``/ws``
(``/ws/a/b`` likewise; not wrapped). Requests and answers::

    {"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}      {"result":null,"id":1}
    {"method":"UNSUBSCRIBE",…}                                    {"result":null,"id":…}
    {"method":"LIST_SUBSCRIPTIONS","id":3}                        {"result":["btcusdt@trade"],"id":3}
    {"method":"SET_PROPERTY","params":["combined",true],"id":5}   {"result":null,"id":5}
    {"method":"GET_PROPERTY","params":["combined"],"id":6}        {"result":true,"id":6}
    anything else                                                 {"error":{"code":2,"msg":"Invalid request: …"},"id":…}

As at the venue, a name that is well formed but means nothing is acknowledged and stays silent for ever, in a request
and in a URL. With `refuse_unknown` (ours) it is refused in words, so that one sees what a refusal looks like. Names
that are not well formed (upper case, odd characters) are refused in a request. A refused request changes nothing.

Market streams: ``<symbol>@trade``, ``@aggTrade``, ``@bookTicker``; prices and sizes with eight decimals.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import orjson

from feeds.simulator.instruments import SCALE, Instrument
from feeds.simulator.market import EventKind, MarketLap
from feeds.simulator.profile import Answer, Limits, Subscriptions
from feeds.simulator.tape import NUMBER, TIME, TapeFrame

#: Streams a connection (the venue's documentation); one more is refused with code 4 as users quote it.
MOST_STREAMS: Final = 1024

_WELL_FORMED: Final = re.compile(
    r"(?:[a-z0-9]{2,30}|!?[a-zA-Z]{2,30})@[a-zA-Z0-9_]+(?:@[a-zA-Z0-9+:]+)?|![a-zA-Z_0-9]+(?:@arr)?"
)
_UPPER_SYMBOL: Final = re.compile(r"[^@!]*[A-Z]")
_WRAPPED: Final = re.compile(rb'\s*\{\s*"stream"\s*:\s*"([^"\\]+)"\s*,\s*"data"\s*:\s*(.*\S)\s*\}\s*', re.DOTALL)
_METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class _Request(msgspec.Struct):
    """A client's request; what is missing or of a wrong type is refused in the venue's words, field by field."""

    method: object = None
    params: object = None
    id: object = None


class _Refused(Exception):
    """The request cannot be granted: Binance's error code and words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class BinanceSpot:
    """The profile of Binance spot.

    Args:
        ping_interval: Seconds between the venue's pings; the venue's own are 20. Below 0.2 the pongs alone break the
            limit of five messages a second.
        pong_deadline: Seconds within which the payload must be echoed; the venue's own is a minute.
    """

    name = "binance"
    path = "/stream"

    def __init__(self, ping_interval: float = 20.0, pong_deadline: float = 60.0) -> None:
        # The venue's documentation: five messages a second, pings and pongs among them.
        self.limits = Limits(requests_per_second=5, ping_interval=ping_interval, pong_deadline=pong_deadline)

    def connect(self, path: str) -> Subscriptions | None:
        """See `VenueProfile`."""
        parts = urlsplit(path)
        route, _, rest = unquote(parts.path).strip("/").partition("/")
        if route == "ws":
            names = rest
        elif route == "stream" and not rest:
            names = "/".join(parse_qs(parts.query).get("streams", []))
        else:
            return None
        streams = dict.fromkeys(name for name in names.split("/") if name)
        return Subscriptions(streams, wrapped=route == "stream") if len(streams) <= MOST_STREAMS else None

    def answer(self, request: bytes, current: Subscriptions, known: Collection[str] | None, refusal: str) -> Answer:
        """See `VenueProfile`."""
        number: object = None
        try:
            parsed = _parsed(request)
            number = _number(parsed)
            result, changed = _granted(parsed, current, known, refusal)
        except _Refused as refused:
            error = {"error": {"code": refused.code, "msg": refused.words}, "id": number}
            return Answer(orjson.dumps(error), refused=True)
        return Answer(orjson.dumps({"result": result, "id": number}), changed)

    def ping_payload(self, time_ms: int) -> bytes:
        """Give the time in ms as text, as the venue's pings carry it."""
        return b"%d" % time_ms

    def stream_of(self, payload: bytes) -> str | None:
        """Name the stream that wraps the message; messages that are not wrapped belong to none."""
        match = _WRAPPED.fullmatch(payload)
        return match[1].decode("utf-8", "replace") if match else None

    def unwrapped(self, payload: bytes) -> bytes:
        """See `VenueProfile`."""
        match = _WRAPPED.fullmatch(payload)
        return match[2] if match else payload

    def encode(self, lap: MarketLap) -> list[TapeFrame]:
        """See `VenueProfile`."""
        return list(_encoded(lap))


def _parsed(request: bytes) -> _Request:
    try:
        return msgspec.json.decode(request, type=_Request)
    except msgspec.ValidationError as error:
        raise _Refused(2, "Invalid request: expected an object at line 1 column 1") from error
    except msgspec.DecodeError as error:
        raise _Refused(3, "Invalid JSON: expected value at line 1 column 1") from error


def _number(request: _Request) -> object:
    """Take the request's id, which the answer repeats: an integer of 64 bits, up to 36 characters, or null."""
    number = request.id
    if number is None or (isinstance(number, str) and len(number) <= 36):
        return number
    if isinstance(number, int) and not isinstance(number, bool) and -(2**63) <= number < 2**63:
        return number
    raise _Refused(2, "Invalid request: request ID must be an unsigned integer")


def _granted(
    request: _Request, current: Subscriptions, known: Collection[str] | None, refusal: str
) -> tuple[object, Subscriptions | None]:
    """Give the result and, if they change, the new subscriptions."""
    match request.method:
        case "SUBSCRIBE":
            return None, _with(current, _names(request.params), known, refusal)
        case "UNSUBSCRIBE":
            gone = set(_names(request.params))
            return None, replace(current, streams=dict.fromkeys(name for name in current.streams if name not in gone))
        case "LIST_SUBSCRIPTIONS":
            return list(current.streams), None
        case "SET_PROPERTY":
            return None, replace(current, wrapped=_combined(request.params, setting=True))
        case "GET_PROPERTY":
            _combined(request.params, setting=False)
            return current.wrapped, None
        case None:
            raise _Refused(2, "Invalid request: missing field `method` at line 1 column 1")
        case other:
            choices = ", ".join(f"`{method}`" for method in _METHODS)
            raise _Refused(
                2, f"Invalid request: unknown variant `{other}`, expected one of {choices} at line 1 column 1"
            )


def _names(params: object) -> list[str]:
    if not isinstance(params, list) or not params:
        raise _Refused(2, "Invalid request: params must be a list of stream names")
    names = [name for name in params if isinstance(name, str) and _well_formed(name)]
    if len(names) != len(params):
        wrong = next(name for name in params if name not in names)
        raise _Refused(2, f"Invalid request: invalid stream name {orjson.dumps(wrong).decode()}")
    return names


def _well_formed(name: str) -> bool:
    return bool(_WELL_FORMED.fullmatch(name)) and not _UPPER_SYMBOL.match(name)


def _with(current: Subscriptions, names: list[str], known: Collection[str] | None, refusal: str) -> Subscriptions:
    if refusal:
        raise _Refused(2, f"Invalid request: {refusal}")
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise _Refused(2, f"Invalid request: unknown stream {unknown[0]}")
    streams = current.streams | dict.fromkeys(names)
    if len(streams) > MOST_STREAMS:
        raise _Refused(4, "Too many subscriptions")
    return replace(current, streams=streams)


def _combined(params: object, *, setting: bool) -> bool:
    """Read the parameters of the one property there is; give the value to set."""
    values = params if isinstance(params, list) else []
    if not values or not isinstance(values[0], str):
        raise _Refused(2, "Invalid request: property name must be a string")
    if len(values) > 1 + setting:
        raise _Refused(2, "Invalid request: too many parameters")
    if values[0] != "combined":
        raise _Refused(0, "Unknown property")
    if not setting:
        return False
    if len(values) == 1 or not isinstance(values[1], bool):
        raise _Refused(1, "Invalid value type: expected Boolean")
    return values[1]


def _encoded(lap: MarketLap) -> Iterator[TapeFrame]:
    texts = [_texts(instrument) for instrument in lap.instruments]
    growth = lap.growth.tolist()
    columns = (
        lap.kind, lap.instrument, lap.id, lap.first_trade, lap.last_trade, lap.taker_sold, lap.price, lap.size, lap.bid,
        lap.bid_size, lap.ask, lap.ask_size,
    )  # fmt: skip
    for kind, i, number, first, last, sold, price, size, bid, bid_size, ask, ask_size in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        stream, before, between = texts[i][kind]
        if kind == EventKind.QUOTE:
            body = b'%s","B":"%s","a":"%s","A":"%s"}}' % (_text(bid), _text(bid_size), _text(ask), _text(ask_size))
            yield TapeFrame(stream, before + body, ((number, growth[kind][i]),))
            continue
        body = b'%s","q":"%s",%s%s}}' % (_text(price), _text(size), between, _MAKER[sold])
        numbers = [(number, growth[kind][i])]
        if kind == EventKind.AGGREGATE:
            trades = growth[EventKind.TRADE][i]
            numbers += [(first, trades), (last, trades)]
        yield TapeFrame(stream, before + body, tuple(numbers))


_MAKER: Final = (b'"m":false,"M":true', b'"m":true,"M":true')


def _texts(instrument: Instrument) -> tuple[tuple[str, bytes, bytes], ...]:
    """Give, by `EventKind`, the stream's name, what stands before the first price, and what stands after the size."""
    symbol = instrument.base + instrument.quote
    lower = symbol.lower()
    names = (f"{lower}@bookTicker", f"{lower}@trade", f"{lower}@aggTrade")
    heads = [b'{"stream":"%s","data":{' % name.encode() for name in names]
    upper = symbol.encode()
    quote = heads[0] + b'"u":%s,"s":"%s","b":"' % (NUMBER, upper)
    trade = heads[1] + b'"e":"trade","E":%s,"s":"%s","t":%s,"p":"' % (TIME, upper, NUMBER)
    aggregate = heads[2] + b'"e":"aggTrade","E":%s,"s":"%s","a":%s,"p":"' % (TIME, upper, NUMBER)
    traded = b'"T":%s,' % TIME
    return (
        (names[0], quote, b""),
        (names[1], trade, traded),
        (names[2], aggregate, b'"f":%s,"l":%s,' % (NUMBER, NUMBER) + traded),
    )


def _text(units: int) -> bytes:
    return b"%d.%08d" % divmod(units, SCALE)
