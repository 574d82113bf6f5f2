"""DataFrames: order and type of every column, names as categories, times in UTC."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feeds.records import DTYPES, NO_TIME, EventCode, Kind
from ringbuf import ConnectionWriter, attach
from ringbuf.errors import ParameterError
from ringbuf.frames import column_order
from ringbuf.records import Records
from ringbuf.symbols import Namespace

NAMES = {Namespace.SYMBOL: ["", "BTCUSDT", "ETHUSDT", "unused"], Namespace.EXCHANGE: ["", "binance"]}
UTC = "datetime64[ns, UTC]"
#: What pandas makes of text: "str" from version 3 on.
TEXT = str(pd.Series(["text"]).dtype)


def records(kind: Kind, count: int = 3) -> Records:
    array = np.zeros(count, DTYPES[kind])
    array["seq"] = np.arange(count)
    array["date"] = np.datetime64("2024-11-12T04:51:33.083000001", "ns")
    array["symbol"] = np.arange(count) % 3
    return Records(array, "venue", kind, NAMES.__getitem__)


COLUMNS = {
    Kind.TRADE: [
        ("date", UTC), ("symbol", "category"), ("type", "category"), ("exchange", "category"),
        ("last_price", "float64"), ("last_size", "float64"), ("trade_id", "uint64"), ("sequence", "uint64"),
        ("condition_1", "uint16"), ("condition_2", "uint16"), ("condition_3", "uint16"), ("condition_4", "uint16"),
        ("side", "int8"), ("published", UTC), ("received", UTC), ("flags", "uint16"), ("seq", "uint64"),
    ],
    Kind.QUOTE: [
        ("date", UTC), ("symbol", "category"), ("type", "category"), ("exchange", "category"),
        ("bid_price", "float64"), ("bid_size", "float64"), ("ask_price", "float64"), ("ask_size", "float64"),
        ("sequence", "uint64"), ("bid_exchange", "category"), ("ask_exchange", "category"),
        ("condition_1", "uint16"), ("condition_2", "uint16"), ("condition_3", "uint16"), ("condition_4", "uint16"),
        ("published", UTC), ("received", UTC), ("flags", "uint16"), ("seq", "uint64"),
    ],
    Kind.CANDLE: [
        ("date", UTC), ("symbol", "category"), ("type", "category"), ("exchange", "category"),
        ("open", "float64"), ("high", "float64"), ("low", "float64"), ("close", "float64"), ("volume", "float64"),
        ("quote_volume", "float64"), ("vwap", "float64"), ("taker_buy_volume", "float64"),
        ("taker_buy_quote_volume", "float64"), ("close_date", UTC), ("trades", "uint64"), ("interval", "uint32"),
        ("received", UTC), ("flags", "uint16"), ("seq", "uint64"),
    ],
    Kind.LEVEL: [
        ("date", UTC), ("symbol", "category"), ("type", "category"), ("exchange", "category"),
        ("price", "float64"), ("size", "float64"), ("update_id", "uint64"), ("orders", "uint32"), ("side", "int8"),
        ("received", UTC), ("flags", "uint16"), ("seq", "uint64"),
    ],
    Kind.PRICE: [
        ("date", UTC), ("symbol", "category"), ("type", "category"), ("exchange", "category"),
        ("price", "float64"), ("published", UTC), ("received", UTC), ("flags", "uint16"), ("seq", "uint64"),
    ],
    Kind.EVENT: [
        ("date", UTC), ("symbol", "category"), ("type", "category"), ("exchange", "category"),
        ("value", "int64"), ("at_seq", "uint64"), ("code", "uint16"), ("at_kind", "uint16"), ("socket", "uint32"),
        ("text", TEXT), ("received", UTC), ("flags", "uint16"), ("seq", "uint64"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("count", [0, 3])
def test_every_column_has_its_place_and_its_type(kind: Kind, count: int) -> None:
    frame = records(kind, count).to_pandas()
    assert len(frame) == count
    assert [(str(name), str(dtype)) for name, dtype in frame.dtypes.items()] == COLUMNS[kind]


def test_times_are_utc_and_exact_to_the_nanosecond_and_a_missing_one_is_nat() -> None:
    taken = records(Kind.TRADE)
    taken.array["published"] = np.array([0, NO_TIME, 1], "M8[ns]")
    frame = taken.to_pandas()
    assert frame["date"][0] == pd.Timestamp("2024-11-12T04:51:33.083000001", tz="UTC")
    assert frame["published"].isna().tolist() == [False, True, False]
    assert frame["published"][2] == pd.Timestamp(1, tz="UTC")


def test_names_are_categories_and_a_missing_one_is_nan() -> None:
    frame = records(Kind.TRADE).to_pandas()
    assert frame["symbol"].isna().tolist() == [True, False, False]
    assert frame["symbol"].tolist()[1:] == ["BTCUSDT", "ETHUSDT"]
    assert frame["symbol"].cat.categories.tolist() == ["BTCUSDT", "ETHUSDT", "unused"]
    assert frame["type"].tolist() == ["trade"] * 3
    assert frame["exchange"].isna().all()


def test_before_any_name_is_known_there_are_no_categories() -> None:
    array = np.zeros(2, DTYPES[Kind.TRADE])
    frame = Records(array, "venue", "trade", lambda _: [""]).to_pandas()
    assert frame["symbol"].isna().all()
    assert frame["symbol"].cat.categories.tolist() == []


def test_the_text_of_an_event_is_text() -> None:
    taken = records(Kind.EVENT, 2)
    taken.array["code"] = EventCode.REJECTED
    taken.array["text"] = [b"x" * 71 + "é".encode(), "börse".encode()]
    texts = taken.to_pandas()["text"].tolist()
    assert texts == ["x" * 71 + "\N{REPLACEMENT CHARACTER}", "börse"]


def test_a_frame_is_of_its_own_and_its_integers_stay_integers() -> None:
    taken = records(Kind.TRADE)
    taken.array["trade_id"] = 2**64 - 1
    frame = taken.to_pandas()
    taken.array["trade_id"] = 0
    assert frame["trade_id"].tolist() == [2**64 - 1] * 3


def test_what_was_read_from_a_ring_becomes_a_frame_even_after_the_reader_is_closed(runtime: Path) -> None:
    with ConnectionWriter("venue") as writer:
        array = np.zeros(2, DTYPES[Kind.TRADE])
        array["seq"], array["symbol"] = [0, 1], [writer.symbols.intern(name) for name in ("BTCUSDT", "ETHUSDT")]
        array["exchange"] = writer.symbols.intern("binance", Namespace.EXCHANGE)
        writer.ring("trade", array.dtype, 64).publish(memoryview(array.tobytes()), 2)
        with attach("venue", "trade") as reader:
            taken = reader.read()
    frame = taken.to_pandas()
    assert frame["symbol"].tolist() == ["BTCUSDT", "ETHUSDT"]
    assert frame["exchange"].tolist() == ["binance", "binance"]
    assert frame["seq"].tolist() == [0, 1]


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ParameterError, match=r"pip install 'tickring\[pandas\]'"):
        records(Kind.TRADE).to_pandas()


def test_reserved_fields_are_never_columns() -> None:
    assert column_order(("seq", "date", "x", "_reserved", "flags")) == [
        "date", "symbol", "type", "exchange", "x", "flags", "seq",
    ]  # fmt: skip
