"""How a record looks as a line (`attach`) or as a row of a table (`results`). Pure.

Both begin with what every record has; the kind's own columns follow. Widths fit what is usual: a longer value pushes
its line, and is never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from cli import formats

_COMMON: Final = ("date", "symbol", "type")

#: The columns of each kind that people look at; the rest is in the JSON.
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "trade": ("side", "last_price", "last_size"),
    "quote": ("bid_size", "bid_price", "ask_price", "ask_size"),
    "candle": ("interval", "open", "high", "low", "close", "volume"),
    "level": ("side", "price", "size"),
    "price": ("price",),
    "event": ("code", "value", "text"),
}
_WIDTHS: Final = {"date": 15, "symbol": 10, "type": 6, "side": 4, "code": 12, "interval": 6}
_SIDES: Final = {1: "buy", -1: "sell", 0: ""}
_LEFT: Final = frozenset({"date", "symbol", "type", "side", "code", "text"})


def cell(column: str, value: object) -> str:
    """Write one value."""
    if value is None:
        return "-" if column not in ("side", "text") else ""
    if column == "date":
        return formats.time_of_day(str(value))
    if column == "side" and isinstance(value, int):
        return _SIDES.get(value, str(value))
    return formats.plain(value) if isinstance(value, float) else str(value)


def _style(column: str, record: Mapping[str, Any]) -> str:
    if column in ("date", "type"):
        return "dim"
    if column in ("last_price", "side"):
        return {1: "green", -1: "red"}.get(record.get("side", 0), "")
    return {"bid_price": "green", "ask_price": "red", "code": "yellow"}.get(column, "")


def line(record: Mapping[str, Any]) -> Text:
    """Give a record as one line; on what is no terminal its colours fall away."""
    text = Text(no_wrap=True)
    for column in (*_COMMON, *COLUMNS.get(str(record.get("type")), ())):
        width = _WIDTHS.get(column, 14)
        written = cell(column, record.get(column))
        text.append(written.ljust(width) if column in _LEFT else written.rjust(width), _style(column, record))
        text.append(" ")
    text.rstrip()
    return text


def table(records: Iterable[Mapping[str, Any]]) -> Table:
    """Give records as a table: the columns of all kinds that are among them."""
    rows = list(records)
    kinds = {str(row.get("type")) for row in rows}
    columns = list(dict.fromkeys(c for kind, own in COLUMNS.items() if kind in kinds for c in (*_COMMON, *own)))
    found = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        found.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=True)
    for row in rows:
        own = (*_COMMON, *COLUMNS.get(str(row.get("type")), ()))
        found.add_row(*(Text(cell(c, row.get(c)) if c in own else "", _style(c, row)) for c in columns))
    return found
