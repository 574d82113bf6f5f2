"""What a read gives, looked at record by record."""

from __future__ import annotations

import numpy as np
import pytest

from feeds.records import DTYPES, EventCode, Kind
from ringbuf.records import Gap, Loss, Records
from ringbuf.symbols import Namespace, namespace_of

NAMES = {Namespace.SYMBOL: ["", "BTCUSDT", "ETHUSDT"], Namespace.EXCHANGE: ["", "binance"]}


def trades(gaps: tuple[Gap, ...] = ()) -> Records:
    array = np.zeros(3, DTYPES[Kind.TRADE])
    array["seq"] = [7, 8, 9]
    array["date"] = np.array(["2024-11-12T04:51:33.083", "NaT", "2024-11-12T04:51:34"], "M8[ns]")
    array["symbol"] = [2, 1, 0]
    array["exchange"] = [1, 1, 0]
    array["last_price"] = [3100.5, 70000.25, np.nan]
    return Records(array, "venue", "trade", NAMES.__getitem__, gaps)


def test_columns_are_those_of_the_structured_array() -> None:
    records = trades()
    assert len(records) == 3
    assert records["seq"].tolist() == [7, 8, 9]
    assert records["last_price"][1] == 70000.25
    assert records.to_numpy() is records.array
    with pytest.raises(ValueError, match="price"):
        records["price"]


def test_ids_are_given_as_names() -> None:
    records = trades()
    assert records.symbols() == ["ETHUSDT", "BTCUSDT", ""]
    assert records.names(Namespace.EXCHANGE) == ["", "binance"]


def test_a_record_is_a_dict_with_names_and_without_reserved_bytes() -> None:
    first, second, third = trades()
    assert (first["symbol"], first["exchange"], first["last_price"]) == ("ETHUSDT", "binance", 3100.5)
    assert first["date"] == np.datetime64("2024-11-12T04:51:33.083")
    assert np.isnat(second["date"])
    assert (third["symbol"], third["exchange"]) == ("", "")
    assert list(first) == [name for name in DTYPES[Kind.TRADE].names or () if name != "_reserved"]


def test_the_text_of_an_event_is_text() -> None:
    array = np.zeros(1, DTYPES[Kind.EVENT])
    array["code"], array["text"] = EventCode.REJECTED, "unknown symbol: börse".encode()
    (event,) = Records(array, "venue", "event", NAMES.__getitem__)
    assert (event["code"], event["text"]) == (EventCode.REJECTED, "unknown symbol: börse")


def test_what_was_lost_is_summed_over_the_gaps() -> None:
    assert (trades().lost, trades().gaps) == (0, ())
    records = trades((Gap(0, 5, Loss.OVERWRITTEN), Gap(5, 2, Loss.VOID), Gap(0, 0, Loss.REPLACED)))
    assert records.lost == 7
    assert [str(gap.reason) for gap in records.gaps] == ["overwritten", "void", "replaced"]


def test_a_look_at_records_says_what_they_are() -> None:
    assert repr(trades()) == "<3 trade records of venue>"
    assert repr(trades((Gap(0, 7, Loss.OVERWRITTEN),))) == "<3 trade records of venue, 7 lost before>"


@pytest.mark.parametrize(
    ("column", "namespace"),
    [
        ("symbol", Namespace.SYMBOL),
        ("exchange", Namespace.EXCHANGE),
        ("bid_exchange", Namespace.EXCHANGE),
        ("ask_exchange", Namespace.EXCHANGE),
        ("last_price", None),
        ("seq", None),
    ],
)
def test_columns_of_ids_are_known_by_their_names(column: str, namespace: Namespace | None) -> None:
    assert namespace_of(column) is namespace
