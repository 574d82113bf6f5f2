"""Records as JSON: golden texts of every kind, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.encoding import format_time, lines, objects
from feeds.records import DTYPES, NO_TIME, EventCode, Flag, Kind, Side
from ringbuf.records import Records
from ringbuf.symbols import Namespace

NAMES = {Namespace.SYMBOL: ["", "BTCUSDT", "klvusdt", 'od"d', "Ω"], Namespace.EXCHANGE: ["", "binance", "huobi"]}

#: 2024-11-12T04:51:33.083 UTC in ns.
DATE = 1731387093083000000


def records(kind: Kind, *rows: Mapping[str, str | bytes | float]) -> Records:
    """Records of a kind: unknown floats and times unless given, `seq` counted from 7."""
    array = np.zeros(len(rows), DTYPES[kind])
    for name in array.dtype.names or ():
        if array.dtype[name].kind == "f":
            array[name] = np.nan
        elif array.dtype[name].kind == "M":
            array[name] = np.datetime64("NaT")
    for place, row in enumerate(rows):
        array[place]["seq"] = 7 + place
        for name, value in row.items():
            array[place][name] = np.int64(value).view("<M8[ns]") if array.dtype[name].kind == "M" else value
    return Records(array, "crypto", kind, NAMES.__getitem__)


def one(kind: Kind, **row: str | bytes | float) -> bytes:
    (text,) = lines(records(kind, row))
    return text


def test_a_trade_reads_as_the_toolkit_prints_it() -> None:
    text = one(
        Kind.TRADE,
        date=DATE,
        received=DATE + 1_500_000,
        symbol=2,
        exchange=2,
        last_price=0.00239,
        last_size=8367.4749,
        trade_id=4076293441,
        side=Side.SOLD,
    )
    assert text == (
        b'{"date":"2024-11-12T04:51:33.083000+00:00","symbol":"klvusdt","type":"trade","exchange":"huobi",'
        b'"last_price":0.00239,"last_size":8367.4749,"trade_id":4076293441,"side":-1,'
        b'"received":"2024-11-12T04:51:33.084500+00:00","seq":7}'
    )


def test_a_quote() -> None:
    text = one(
        Kind.QUOTE,
        date=DATE,
        received=DATE,
        symbol=1,
        exchange=1,
        bid_price=61837.63,
        bid_size=3.78826,
        ask_price=61837.64,
        sequence=50093239212,
        published=DATE - 1000,
        bid_exchange=1,
        ask_exchange=2,
        condition_2=9,
        flags=Flag.DATE_IS_RECEIVED,
    )
    assert text == (
        b'{"date":"2024-11-12T04:51:33.083000+00:00","symbol":"BTCUSDT","type":"quote","exchange":"binance",'
        b'"bid_price":61837.63,"bid_size":3.78826,"ask_price":61837.64,"sequence":50093239212,'
        b'"bid_exchange":"binance","ask_exchange":"huobi","condition_2":9,'
        b'"published":"2024-11-12T04:51:33.082999+00:00","received":"2024-11-12T04:51:33.083000+00:00","flags":1,"seq":7}'
    )


def test_a_candle_whose_zeros_are_values() -> None:
    text = one(
        Kind.CANDLE,
        date=DATE,
        received=DATE,
        symbol=1,
        open=1.0,
        high=2.5,
        low=0.0,
        close=-1.5,
        volume=0.0,
        close_date=DATE + 60_000_000_000,
        interval=60,
        flags=Flag.FINAL,
    )
    assert text == (
        b'{"date":"2024-11-12T04:51:33.083000+00:00","symbol":"BTCUSDT","type":"candle","open":1.0,"high":2.5,'
        b'"low":0.0,"close":-1.5,"volume":0.0,"close_date":"2024-11-12T04:52:33.083000+00:00","trades":0,"interval":60,'
        b'"received":"2024-11-12T04:51:33.083000+00:00","flags":16,"seq":7}'
    )


def test_a_level_that_is_removed_keeps_its_size_of_zero() -> None:
    text = one(
        Kind.LEVEL,
        date=DATE,
        received=DATE,
        symbol=4,
        price=100.25,
        size=0.0,
        update_id=11,
        side=Side.BOUGHT,
        flags=Flag.SNAPSHOT | Flag.LAST_OF_UPDATE,
    )
    assert (
        text
        == (
            '{"date":"2024-11-12T04:51:33.083000+00:00","symbol":"Ω","type":"level","price":100.25,"size":0.0,'
            '"update_id":11,"side":1,"received":"2024-11-12T04:51:33.083000+00:00","flags":96,"seq":7}'
        ).encode()
    )


def test_a_price() -> None:
    assert one(Kind.PRICE, date=DATE, received=DATE, symbol=3, price=1e22) == (
        b'{"date":"2024-11-12T04:51:33.083000+00:00","symbol":"od\\"d","type":"price","price":1e+22,'
        b'"received":"2024-11-12T04:51:33.083000+00:00","seq":7}'
    )


def test_an_event_in_words() -> None:
    text = one(
        Kind.EVENT,
        date=DATE,
        received=DATE,
        symbol=1,
        value=3,
        at_seq=0,
        code=EventCode.OUT_OF_ORDER,
        at_kind=1,
        socket=2,
        text=b"no data",
    )
    assert text == (
        b'{"date":"2024-11-12T04:51:33.083000+00:00","symbol":"BTCUSDT","type":"event","value":3,"at_seq":0,'
        b'"code":"out_of_order","at_kind":"trade","socket":2,"text":"no data",'
        b'"received":"2024-11-12T04:51:33.083000+00:00","seq":7}'
    )


@pytest.mark.parametrize("code", EventCode)
def test_every_event_code_is_a_word(code: EventCode) -> None:
    assert orjson.loads(one(Kind.EVENT, code=code))["code"] == code.name.lower()


@pytest.mark.parametrize(("number", "kind"), list(enumerate(Kind, start=1)))
def test_every_kind_an_event_stands_at_is_a_word(number: int, kind: Kind) -> None:
    (event,) = objects(records(Kind.EVENT, {"code": 1, "at_kind": number, "at_seq": 5}))
    assert (event["at_kind"], event["at_seq"]) == (kind, 5)


def test_an_event_that_stands_nowhere_has_no_place() -> None:
    at, nowhere = objects(records(Kind.EVENT, {"code": 1, "at_kind": 2}, {"code": 1}))
    assert at["at_seq"] == 0
    assert "at_seq" not in nowhere
    assert "at_kind" not in nowhere


def test_a_code_of_a_newer_version_does_not_stop_the_reader() -> None:
    (event,) = objects(records(Kind.EVENT, {"code": 777, "at_kind": 99}))
    assert event["code"] == "code_777"
    assert "at_kind" not in event


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000+00:00"),
        (1, "1970-01-01T00:00:00.000000001+00:00"),
        (1723161254087891268, "2024-08-08T23:54:14.087891268+00:00"),
        (1723161254087891000, "2024-08-08T23:54:14.087891+00:00"),
        (1723161254000000000, "2024-08-08T23:54:14.000000+00:00"),
        (-1, "1969-12-31T23:59:59.999999999+00:00"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807+00:00"),
        (NO_TIME + 1, "1677-09-21T00:12:43.145224193+00:00"),
    ],
)
def test_times_have_six_digits_and_nine_where_needed(ns: int, text: str) -> None:
    assert format_time(ns) == text
    (price,) = objects(records(Kind.PRICE, {"date": ns}))
    assert price["date"] == text


@given(st.lists(st.integers(NO_TIME, 2**63 - 1) | st.sampled_from([0, 1000, 1001, NO_TIME]), max_size=20))
def test_a_column_of_times_is_every_time_by_itself(times: list[int]) -> None:
    rows = objects(records(Kind.PRICE, *({"received": ns} for ns in times)))
    assert [row.get("received") for row in rows] == [None if ns == NO_TIME else format_time(ns) for ns in times]


def test_what_is_unknown_is_left_out_of_its_own_record_only() -> None:
    known = {"date": DATE, "symbol": 1, "exchange": 1, "last_price": 1.0, "trade_id": 5, "side": 1}
    first, second = objects(records(Kind.TRADE, known, {}))
    assert set(first) == {"date", "symbol", "type", "exchange", "last_price", "trade_id", "side", "seq"}
    assert second == {"type": "trade", "seq": 8}


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_json_has_no_number_for_is_left_out(number: float) -> None:
    texts = lines(records(Kind.PRICE, {"price": number}, {"price": 2.0}))
    assert texts == [b'{"type":"price","seq":7}', b'{"type":"price","price":2.0,"seq":8}']


@pytest.mark.parametrize(
    ("number", "shown"),
    [(2**53, 2**53), (2**53 + 1, "9007199254740993"), (2**64 - 1, "18446744073709551615"), (1, 1)],
)
def test_integers_beyond_2_to_the_53_are_strings(number: int, shown: int | str) -> None:
    (trade,) = objects(records(Kind.TRADE, {"trade_id": number}))
    assert trade["trade_id"] == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(-(2**53), -(2**53)), (-(2**53) - 1, "-9007199254740993"), (-(2**63), str(-(2**63))), (0, 0)]
)
def test_negative_values_of_events_too(number: int, shown: int | str) -> None:
    (event,) = objects(records(Kind.EVENT, {"code": 1, "value": number}))
    assert event["value"] == shown


def test_an_id_that_no_name_was_written_for_is_unknown() -> None:
    first, second = objects(records(Kind.PRICE, {"symbol": 99, "exchange": 99}, {"symbol": 1}))
    assert "symbol" not in first
    assert "exchange" not in first
    assert second["symbol"] == "BTCUSDT"


def test_a_text_cut_inside_a_character_is_still_json() -> None:
    (event,) = objects(records(Kind.EVENT, {"code": 1, "text": "Ω".encode()[:1]}))
    assert event["text"] == "\N{REPLACEMENT CHARACTER}"


def test_no_records_give_no_lines() -> None:
    for kind in Kind:
        assert lines(records(kind)) == []
        assert objects(records(kind)) == []


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_comes_back_exactly(price: float) -> None:
    assert orjson.loads(one(Kind.PRICE, price=price))["price"] == price
