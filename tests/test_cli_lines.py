"""Records as lines and as a table, from the JSON objects that every front gives."""

from __future__ import annotations

import io

from rich.console import Console

from cli import lines

TRADE = {
    "date": "2024-11-12T04:51:33.083000+00:00", "symbol": "BTCUSDT", "type": "trade", "side": -1,
    "last_price": 61837.63, "last_size": 0.0087,
}  # fmt: skip
QUOTE = {
    "date": "2024-11-12T04:51:33.083001+00:00", "symbol": "PEPEUSDT", "type": "quote",
    "bid_price": 8.42e-06, "bid_size": 100.0, "ask_price": 8.43e-06,
}  # fmt: skip


def drawn(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_a_line_has_what_people_look_at_and_begins_with_the_time() -> None:
    assert lines.line(TRADE).plain.split() == ["04:51:33.083000", "BTCUSDT", "trade", "sell", "61837.63", "0.0087"]


def test_an_unknown_value_is_a_dash_so_that_columns_stay_in_their_places() -> None:
    assert lines.line(QUOTE).plain.split()[3:] == ["100", "0.00000842", "0.00000843", "-"]


def test_a_long_value_is_never_cut() -> None:
    assert "A" * 40 in lines.line({**TRADE, "symbol": "A" * 40}).plain


def test_a_record_of_an_unknown_kind_still_has_its_time_and_symbol() -> None:
    assert lines.line({**TRADE, "type": "novelty"}).plain.split() == ["04:51:33.083000", "BTCUSDT", "novelty"]


def test_a_table_has_the_columns_of_the_kinds_that_are_in_it_and_leaves_the_others_out() -> None:
    header, *rows = drawn(lines.table([TRADE, QUOTE])).splitlines()
    assert header.split() == [
        "date", "symbol", "type", "side", "last_price", "last_size", "bid_size", "bid_price", "ask_price", "ask_size",
    ]  # fmt: skip
    assert rows[0].split()[3:] == ["sell", "61837.63", "0.0087"]
    assert rows[1].split()[3:] == ["100", "0.00000842", "0.00000843", "-"]
