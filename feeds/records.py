"""The record kinds: what a ring holds, byte by byte.

One declaration gives the numpy dtypes here, the column names of DataFrames, the keys of JSON, and the header for a
compiled decoder (`c_header`). Little-endian, no holes: what is left over is a reserved field, written as zeros.

Every kind starts with the same 32 bytes::

      0        8        16         24       28         30      32
      +--------+--------+----------+--------+----------+-------+
      | seq    | date   | received | symbol | exchange | flags |
      | u64    | ns     | ns       | u32    | u16      | u16   |
      +--------+--------+----------+--------+----------+-------+

trade, 128 bytes::

      32           40          48         56         64          72              80     81          128
      +------------+-----------+----------+----------+-----------+---------------+------+-----------+
      | last_price | last_size | trade_id | sequence | published | condition_1-4 | side | reserved  |
      | f64        | f64       | u64      | u64      | ns        | 4 x u16       | i8   | 47 bytes  |
      +------------+-----------+----------+----------+-----------+---------------+------+-----------+

quote, 128 bytes::

      32          40         48          56         64         72          80              84              92        128
      +-----------+----------+-----------+----------+----------+-----------+---------------+---------------+---------+
      | bid_price | bid_size | ask_price | ask_size | sequence | published | bid_, ask_    | condition_1-4 | reserved|
      | f64       | f64      | f64       | f64      | u64      | ns        | exchange, u16 | 4 x u16       | 36 bytes|
      +-----------+----------+-----------+----------+----------+-----------+---------------+---------------+---------+

candle, 128 bytes::

      32                               72             80     88                             104
      +--------------------------------+--------------+------+------------------------------+------------+-----
      | open high low close volume     | quote_volume | vwap | taker_buy_(quote_)volume     | close_date | ...
      | 5 x f64                        | f64          | f64  | 2 x f64                      | ns         |
      +--------------------------------+--------------+------+------------------------------+------------+-----
      112      120        124       128
      +--------+----------+---------+
      | trades | interval | reserved|
      | u64    | u32, s   | 4 bytes |
      +--------+----------+---------+

level, 64 bytes: ``price f64 @32, size f64 @40, update_id u64 @48, orders u32 @56, side i8 @60, 3 reserved``.
price, 64 bytes: ``price f64 @32, published ns @40, 16 reserved``.
event, 128 bytes: ``value i64 @32, at_seq u64 @40, code u16 @48, at_kind u16 @50, socket u32 @52, text 72 bytes @56``.

Times are int64 nanoseconds since 1970 in UTC, viewed as ``datetime64[ns]``; NaT is "not given". Unknown floats are
NaN, unknown integers 0. ``date`` is the provider's time; where the provider gives none it is ``received``, and the
flag says so.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from typing import Final

import numpy as np


class Kind(StrEnum):
    """What a record is."""

    TRADE = "trade"
    QUOTE = "quote"
    CANDLE = "candle"
    LEVEL = "level"
    PRICE = "price"
    EVENT = "event"


class Flag(IntFlag):
    """Bits of ``flags``."""

    #: The provider gave no time: ``date`` repeats ``received``.
    DATE_IS_RECEIVED = 1
    #: ``trade_id`` is a 64-bit hash of a textual id.
    TRADE_ID_HASHED = 2
    #: One trade that sums the fills of one taker order at one price.
    AGGREGATE = 4
    #: A break or correction of an earlier trade.
    CORRECTION = 8
    #: A candle that will not change any more.
    FINAL = 16
    #: A level that belongs to a snapshot of the book.
    SNAPSHOT = 32
    #: The last level of one update.
    LAST_OF_UPDATE = 64


class Side(IntEnum):
    """Who took liquidity."""

    SOLD = -1
    UNKNOWN = 0
    BOUGHT = 1


class EventCode(IntEnum):
    """What an event record tells."""

    CONNECTED = 1
    SUBSCRIBED = 2
    UNSUBSCRIBED = 3
    REJECTED = 4
    STALE = 5
    LIVE = 6
    GAP = 7
    OUT_OF_ORDER = 8
    DISCONNECTED = 9
    RECONNECTED = 10
    DECODE_ERROR = 11
    WRITER_REPLACED = 12
    CLOCK_STEP = 13
    DROPPED = 14


#: Missing time: what ``datetime64("NaT")`` is underneath.
NO_TIME: Final = -(2**63)

_TIME = "<M8[ns]"
_COMMON = [
    ("seq", "<u8"),
    ("date", _TIME),
    ("received", _TIME),
    ("symbol", "<u4"),
    ("exchange", "<u2"),
    ("flags", "<u2"),
]
_CONDITIONS = [(f"condition_{i}", "<u2") for i in range(1, 5)]

_FIELDS: dict[Kind, list[tuple[str, str]]] = {
    Kind.TRADE: [
        *_COMMON,
        ("last_price", "<f8"),
        ("last_size", "<f8"),
        ("trade_id", "<u8"),
        ("sequence", "<u8"),
        ("published", _TIME),
        *_CONDITIONS,
        ("side", "i1"),
        ("_reserved", "V47"),
    ],
    Kind.QUOTE: [
        *_COMMON,
        ("bid_price", "<f8"),
        ("bid_size", "<f8"),
        ("ask_price", "<f8"),
        ("ask_size", "<f8"),
        ("sequence", "<u8"),
        ("published", _TIME),
        ("bid_exchange", "<u2"),
        ("ask_exchange", "<u2"),
        *_CONDITIONS,
        ("_reserved", "V36"),
    ],
    Kind.CANDLE: [
        *_COMMON,
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("volume", "<f8"),
        ("quote_volume", "<f8"),
        ("vwap", "<f8"),
        ("taker_buy_volume", "<f8"),
        ("taker_buy_quote_volume", "<f8"),
        ("close_date", _TIME),
        ("trades", "<u8"),
        ("interval", "<u4"),
        ("_reserved", "V4"),
    ],
    Kind.LEVEL: [
        *_COMMON,
        ("price", "<f8"),
        ("size", "<f8"),
        ("update_id", "<u8"),
        ("orders", "<u4"),
        ("side", "i1"),
        ("_reserved", "V3"),
    ],
    Kind.PRICE: [*_COMMON, ("price", "<f8"), ("published", _TIME), ("_reserved", "V16")],
    Kind.EVENT: [
        *_COMMON,
        ("value", "<i8"),
        ("at_seq", "<u8"),
        ("code", "<u2"),
        ("at_kind", "<u2"),
        ("socket", "<u4"),
        ("text", "S72"),
    ],
}

#: The numpy dtype of every kind.
DTYPES: Final[dict[Kind, np.dtype[np.void]]] = {kind: np.dtype(fields) for kind, fields in _FIELDS.items()}

#: Slots of a ring unless asked otherwise (DESIGN: 2**17 for the busy kinds, 2**14 for the rest).
DEFAULT_CAPACITY: Final[dict[Kind, int]] = {kind: 2**17 if kind in (Kind.TRADE, Kind.QUOTE) else 2**14 for kind in Kind}

#: The kinds that carry market data; events are told apart from them in results and to listeners.
DATA_KINDS: Final = tuple(kind for kind in Kind if kind is not Kind.EVENT)

#: Kinds are numbered in this order wherever a number is stored (``at_kind``, merge order).
KIND_NUMBER: Final[dict[Kind, int]] = {kind: number for number, kind in enumerate(Kind)}

_C_TYPES = {
    "<u8": "uint64_t", "<u4": "uint32_t", "<u2": "uint16_t", "<f8": "double", "<i8": "int64_t", _TIME: "int64_t",
    "i1": "int8_t",
}  # fmt: skip


def c_header() -> str:
    """Write the C header that a compiled decoder includes: one packed struct per kind, from the same declaration."""
    lines = ["/* Generated by feeds.records.c_header(). */", "#pragma once", "#include <stdint.h>", ""]
    for kind, fields in _FIELDS.items():
        lines.append(f"struct tickring_{kind} {{  /* {DTYPES[kind].itemsize} bytes */")
        for name, code in fields:
            if code in _C_TYPES:
                lines.append(f"    {_C_TYPES[code]} {name};")
            else:
                lines.append(f"    unsigned char {name.lstrip('_')}[{code[1:]}];")
        lines += ["} __attribute__((packed));", ""]
    for flag in Flag:
        lines.append(f"#define TICKRING_FLAG_{flag.name} {flag.value}")
    return "\n".join(lines) + "\n"
