"""The demo's market: the newest prices of every symbol, from the records that a reader of the rings gets. Pure.

Records are taken by batch: the last record of every symbol is found by numpy, and only those are looked at one by one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from cli import formats
from ringbuf.records import Records

#: How many points of a symbol's path are kept: as many as the widest view draws.
PATH_POINTS: Final = 60
#: Seconds from one point of the path to the next: after five seconds there is something to see.
PATH_STEP: Final = 0.5
#: Trades a second are those of the last so many points.
_RATE_POINTS: Final = 10


@dataclass
class Line:
    """One symbol."""

    symbol: str
    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    size: float | None = None
    #: Who took the last trade: 1 a buyer, -1 a seller, 0 unknown.
    side: int = 0
    #: Whether the last price is above (1) or below (-1) the price shown before.
    direction: int = 0
    first: float | None = None
    trades: int = 0
    #: Digits after the point, as many as any price of it has had: so prices stand below each other.
    decimals: int = 0
    path: deque[float] = field(default_factory=lambda: deque(maxlen=PATH_POINTS))
    _counts: deque[int] = field(default_factory=lambda: deque(maxlen=_RATE_POINTS + 1))

    @property
    def change(self) -> float | None:
        """The change since the first trade, in basis points."""
        if self.first is None or self.last is None:
            return None
        return (self.last / self.first - 1.0) * 1e4

    @property
    def trades_per_second(self) -> float | None:
        """Trades a second lately; None before there are two points."""
        if len(self._counts) < 2:
            return None
        return (self._counts[-1] - self._counts[0]) / ((len(self._counts) - 1) * PATH_STEP)

    def sample(self) -> None:
        """Add a point to the path."""
        middle = (self.bid + self.ask) / 2 if self.bid is not None and self.ask is not None else self.last
        if middle is not None:
            self.path.append(middle)
        self._counts.append(self.trades)


class Board:
    """All symbols, in the order in which they first had a record."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._next: float | None = None

    @property
    def lines(self) -> list[Line]:
        """The lines."""
        return list(self._lines.values())

    def order(self, symbols: list[str]) -> None:
        """Give these symbols their lines, in this order, before there is a record of them."""
        for symbol in symbols:
            self._line(symbol)

    def _line(self, symbol: str) -> Line:
        return self._lines.setdefault(symbol, Line(symbol))

    def take_trades(self, records: Records) -> None:
        """Take trades."""
        counts = np.bincount(records["symbol"])
        for symbol, number, row in _newest(records):
            line = self._line(symbol)
            price = float(row["last_price"])
            if line.last is not None and price != line.last:
                line.direction = 1 if price > line.last else -1
            line.first = price if line.first is None else line.first
            line.last, line.size, line.side = price, float(row["last_size"]), int(row["side"])
            line.trades += int(counts[number])
            line.decimals = max(line.decimals, formats.decimals(price))

    def take_quotes(self, records: Records) -> None:
        """Take best bids and asks."""
        for symbol, _, row in _newest(records):
            line = self._line(symbol)
            line.bid, line.ask = float(row["bid_price"]), float(row["ask_price"])
            line.decimals = max(line.decimals, formats.decimals(line.bid), formats.decimals(line.ask))

    def sample(self, now: float) -> None:
        """Add a point to every path whenever its time has come; `now` is in monotonic seconds."""
        due = now if self._next is None else self._next
        if now < due:
            return
        # A look that came more than a step too late begins a new rhythm.
        self._next = (due if now < due + PATH_STEP else now) + PATH_STEP
        for line in self._lines.values():
            line.sample()


def _newest(records: Records) -> list[tuple[str, int, np.void]]:
    """Give the last record of every symbol: its name, its id, the row."""
    if not len(records):
        return []
    names = records.names()
    numbers, places = np.unique(records["symbol"][::-1], return_index=True)
    last = len(records) - 1
    return [
        (names[number], number, records.array[last - place])
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True)
        if number < len(names)
    ]
