"""A seeded market of many symbols: trades, aggregated trades and best bid/ask, in no venue's words.

No clock, no socket: the same seed and numpy give the same market. The market is one **lap** of events that repeats for
ever. What a reader checks goes on over the laps: trade ids and aggregate ids rise by exactly one per symbol, update ids
rise, and an event of lap L has the id of the first lap plus L times what a lap adds (`MarketLap.growth`). So any event
of any lap is known without the ones before it. What repeats is the price path; it is a bridge, which ends where it
began, so that no seam shows.

One lap is made of actions: a change of the best bid/ask, or one taker's order, whose one to three fills are trades at
one price and are summed by one aggregate after them::

    action   quote      order of two fills            quote
    event    QUOTE      TRADE   TRADE   AGGREGATE     QUOTE

Prices and sizes are integers in the units of `instruments`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feeds.simulator.instruments import Instrument
from ringbuf.errors import ParameterError

Integers = NDArray[np.int64]

#: Ids start with twelve digits and may reach the last twelve-digit number, so that no frame ever changes its length:
#: nine hundred thousand million trades of one symbol, 17 days at 600,000 a second.
FIRST_ID: Final = 10**11

#: About 80,000 events and 13 MB of frames a lap: 40 s at 2,000 events a second, built in half a second.
DEFAULT_ACTIONS: Final = 60_000

#: Of the actions of the Binance capture, 28,040 are best bid/ask and about 6,000 are taker orders (9,757 fills).
_ORDER_SHARE: Final = 0.2
_MOST_FILLS: Final = 3
#: Zipf exponent of activity: the busiest symbol of 200 makes a fifth of the events, the quietest one of 2,000.
_ACTIVITY: Final = 1.1
#: Price change per quote, relative: a symbol that changes 10,000 times moves about 0.2 %.
_VOLATILITY: Final = 2e-5


class EventKind(IntEnum):
    """What a market event is."""

    QUOTE = 0
    TRADE = 1
    AGGREGATE = 2


@dataclass(frozen=True, slots=True, eq=False)
class MarketLap:
    """One lap of events, in order: columns of equal length.

    Attributes:
        instruments: What `instrument` counts into.
        kind: `EventKind` of each event.
        instrument: Its symbol.
        id: Update id, trade id or aggregate id, by kind, in the first lap.
        first_trade: First trade of an aggregate; 0 for others.
        last_trade: Last trade of an aggregate; 0 for others.
        taker_sold: The taker sold (the buyer was the maker).
        price: Of trades and aggregates.
        size: Of trades and aggregates.
        bid: Best bid at the event; likewise `bid_size`, `ask`, `ask_size`.
        growth: What one lap adds to the ids, by `[kind, instrument]`.
    """

    instruments: tuple[Instrument, ...]
    kind: NDArray[np.int8]
    instrument: NDArray[np.int64]
    id: Integers
    first_trade: Integers
    last_trade: Integers
    taker_sold: NDArray[np.bool_]
    price: Integers
    size: Integers
    bid: Integers
    bid_size: Integers
    ask: Integers
    ask_size: Integers
    growth: Integers

    def __len__(self) -> int:
        return len(self.kind)


def make_lap(symbols: tuple[Instrument, ...], seed: int, actions: int = DEFAULT_ACTIONS) -> MarketLap:
    """Make one lap of the market.

    Args:
        symbols: From `instruments`; the first are the busiest.
        seed: The same seed gives the same lap.
        actions: Quotes and taker orders in the lap; the events are about 1.4 times as many. Every symbol quotes and
            trades at least once.

    Returns:
        The lap.

    Raises:
        ParameterError: Fewer than two actions per symbol.
    """
    if actions < 2 * len(symbols):
        raise ParameterError(f"{len(symbols)} symbols need at least {2 * len(symbols)} actions a lap, not {actions}")
    random = np.random.default_rng([seed, 2])
    instrument, is_order = _actions(random, len(symbols), actions)
    bid, ask, update = _walk(random, symbols, instrument, is_order)
    fills = np.where(is_order, random.choice(_MOST_FILLS, actions, p=(0.6, 0.25, 0.15)) + 1, 0)
    action = np.repeat(np.arange(actions), np.where(is_order, fills + 1, 1))
    place = np.arange(len(action)) - np.flatnonzero(np.diff(action, prepend=-1))[action]
    kind = np.where(
        ~is_order[action], EventKind.QUOTE, np.where(place < fills[action], EventKind.TRADE, EventKind.AGGREGATE)
    )
    columns = _Columns(action, kind, instrument[action], len(symbols))
    sizes, other_sizes = _sizes(random, symbols, columns), _sizes(random, symbols, columns)
    sold = (random.random(actions) < 0.5)[action]
    ids, first, last = _ids(columns, update, fills)
    growth = np.array([np.bincount(columns.instrument[kind == k], minlength=len(symbols)) for k in EventKind], np.int64)
    growth[EventKind.QUOTE] = _last_of_each(instrument, update, len(symbols))
    return MarketLap(
        instruments=symbols, kind=kind.astype(np.int8), instrument=columns.instrument, id=ids, first_trade=first,
        last_trade=last, taker_sold=sold, price=np.where(sold, bid[action], ask[action]),
        size=_with_sums(columns, sizes, fills), bid=bid[action], bid_size=sizes, ask=ask[action],
        ask_size=other_sizes, growth=growth,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """Which action, kind and symbol every event of the lap has."""

    action: Integers
    kind: Integers
    instrument: Integers
    symbols: int


def _actions(random: np.random.Generator, symbols: int, actions: int) -> tuple[Integers, NDArray[np.bool_]]:
    """Choose a symbol and quote or order for every action; each symbol begins with a quote and has an order."""
    weight = 1.0 / np.arange(1, symbols + 1) ** _ACTIVITY
    chosen = random.choice(symbols, actions - 2 * symbols, p=weight / weight.sum())
    order = random.random(len(chosen)) < _ORDER_SHARE
    every = np.arange(symbols)
    return (
        np.concatenate([every, every, chosen]),
        np.concatenate([np.zeros(symbols, bool), np.ones(symbols, bool), order]),
    )


def _walk(
    random: np.random.Generator, symbols: tuple[Instrument, ...], instrument: Integers, is_order: NDArray[np.bool_]
) -> tuple[Integers, Integers, Integers]:
    """Walk every symbol's best bid and ask, moving at its quotes only, and its update id, 1 to 20 a quote."""
    bid, ask = np.zeros(len(instrument), np.int64), np.zeros(len(instrument), np.int64)
    update = np.zeros(len(instrument), np.int64)
    for number, symbol in enumerate(symbols):
        mine = np.flatnonzero(instrument == number)
        moves = ~is_order[mine]
        ticks = symbol.price // symbol.tick
        path = np.cumsum(random.normal(0.0, max(0.3, ticks * _VOLATILITY), len(mine)) * moves)
        bridge = path - path[-1] * np.cumsum(moves) / moves.sum()
        low = np.maximum(1, ticks + np.rint(bridge).astype(np.int64))
        # Busy symbols are one tick wide, quiet ones a few; the width belongs to the quote, so orders repeat it.
        width = 1 + random.poisson(min(4.0, 8.0 * number / len(symbols)), len(mine))
        width = width[np.maximum.accumulate(np.where(moves, np.arange(len(mine)), 0))]
        bid[mine], ask[mine] = low * symbol.tick, (low + width) * symbol.tick
        update[mine] = np.cumsum(random.integers(1, 21, len(mine)) * moves)
    return bid, ask, update


def _sizes(random: np.random.Generator, symbols: tuple[Instrument, ...], columns: _Columns) -> Integers:
    """Draw a log-normal size for every event, in whole lots."""
    lots = np.array([symbol.lot for symbol in symbols], np.int64)[columns.instrument]
    usual = np.array([symbol.size / symbol.lot for symbol in symbols])[columns.instrument]
    drawn: Integers = np.maximum(1, usual * np.exp(random.normal(0.0, 1.5, len(lots)))).astype(np.int64)
    return lots * drawn


def _ids(columns: _Columns, update: Integers, fills: Integers) -> tuple[Integers, Integers, Integers]:
    """Number the events of each kind and symbol; give an aggregate the ids of its first and last trade."""
    ids = np.where(columns.kind == EventKind.QUOTE, FIRST_ID + update[columns.action] - 1, 0)
    for kind in (EventKind.TRADE, EventKind.AGGREGATE):
        chosen = np.flatnonzero(columns.kind == kind)
        ids[chosen] = FIRST_ID + _rank(columns.instrument[chosen])
    first, last = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    ends = np.flatnonzero(columns.kind == EventKind.AGGREGATE)
    last[ends] = ids[ends - 1]
    first[ends] = ids[ends - fills[columns.action[ends]]]
    return ids, first, last


def _rank(groups: Integers) -> Integers:
    """Count, for each element, the equal ones before it."""
    order = np.argsort(groups, kind="stable")
    grouped = groups[order]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1))
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return ranks


def _with_sums(columns: _Columns, sizes: Integers, fills: Integers) -> Integers:
    """Give every aggregate the sum of its fills' sizes."""
    totals = np.cumsum(sizes)
    ends = np.flatnonzero(columns.kind == EventKind.AGGREGATE)
    starts = ends - fills[columns.action[ends]]
    summed = sizes.copy()
    summed[ends] = totals[ends - 1] - totals[starts] + sizes[starts]
    return summed


def _last_of_each(instrument: Integers, update: Integers, symbols: int) -> Integers:
    """Give the highest update number of every symbol: what a lap adds to its update id."""
    highest = np.zeros(symbols, np.int64)
    np.maximum.at(highest, instrument, update)
    return highest
