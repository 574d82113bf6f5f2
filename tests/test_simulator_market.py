"""The seeded market: the same seed the same events, ids that a reader can check, prices that make sense."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from feeds.simulator.instruments import MOST_SYMBOLS, instruments
from feeds.simulator.market import FIRST_ID, EventKind, MarketLap, make_lap
from ringbuf.errors import ParameterError

SYMBOLS = 20
ACTIONS = 4_000


def lap_of(seed: int = 7) -> MarketLap:
    return make_lap(instruments(SYMBOLS, seed), seed, ACTIONS)


def columns(lap: MarketLap) -> dict[str, object]:
    return {f.name: getattr(lap, f.name) for f in fields(lap) if f.name != "instruments"}


def test_the_same_seed_gives_the_same_market() -> None:
    one, two = columns(lap_of()), columns(lap_of())
    for name, column in one.items():
        np.testing.assert_array_equal(column, two[name], err_msg=name)
    assert instruments(200, 7) == instruments(200, 7)


def test_another_seed_gives_another_market() -> None:
    assert not np.array_equal(lap_of(7).price[:100], lap_of(8).price[:100])


@pytest.mark.parametrize("kind", [EventKind.TRADE, EventKind.AGGREGATE])
def test_trade_and_aggregate_ids_rise_by_one_per_symbol_and_go_on_in_the_next_lap(kind: EventKind) -> None:
    lap = lap_of()
    for symbol in range(SYMBOLS):
        ids = lap.id[(lap.kind == kind) & (lap.instrument == symbol)]
        assert ids[0] == FIRST_ID
        assert (np.diff(ids) == 1).all()
        assert ids[0] + lap.growth[kind, symbol] == ids[-1] + 1


def test_update_ids_rise_per_symbol_and_rise_into_the_next_lap() -> None:
    lap = lap_of()
    for symbol in range(SYMBOLS):
        ids = lap.id[(lap.kind == EventKind.QUOTE) & (lap.instrument == symbol)]
        assert (np.diff(ids) >= 1).all()
        assert ids[0] + lap.growth[EventKind.QUOTE, symbol] > ids[-1]


def test_an_aggregate_sums_the_trades_before_it() -> None:
    lap = lap_of()
    ends = np.flatnonzero(lap.kind == EventKind.AGGREGATE)
    several = 0
    for end in ends[:500]:
        count = int(lap.last_trade[end] - lap.first_trade[end]) + 1
        fills = slice(end - count, end)
        assert (lap.kind[fills] == EventKind.TRADE).all()
        assert (lap.instrument[fills] == lap.instrument[end]).all()
        assert lap.id[fills].tolist() == list(range(lap.first_trade[end], lap.last_trade[end] + 1))
        assert lap.size[fills].sum() == lap.size[end]
        assert set(lap.price[fills]) == {lap.price[end]}
        assert set(lap.taker_sold[fills]) == {lap.taker_sold[end]}
        several += count > 1
    assert several > 50


def test_trades_happen_at_the_best_bid_or_ask_of_the_last_quote() -> None:
    lap = lap_of()
    quoted: dict[int, tuple[int, int]] = {}
    for i, symbol in enumerate(lap.instrument.tolist()):
        if lap.kind[i] == EventKind.QUOTE:
            assert 0 < lap.bid[i] < lap.ask[i]
            quoted[symbol] = (lap.bid[i], lap.ask[i])
        else:
            assert lap.price[i] == quoted[symbol][0 if lap.taker_sold[i] else 1]


def test_prices_and_sizes_keep_to_tick_and_lot() -> None:
    lap = lap_of()
    ticks = np.array([symbol.tick for symbol in lap.instruments])[lap.instrument]
    lots = np.array([symbol.lot for symbol in lap.instruments])[lap.instrument]
    for price in (lap.bid, lap.ask, lap.price):
        assert (price % ticks == 0).all()
    for size in (lap.size, lap.bid_size, lap.ask_size):
        assert (size % lots == 0).all()
        assert (size > 0).all()


def test_every_symbol_quotes_and_trades_and_the_first_are_the_busiest() -> None:
    lap = make_lap(instruments(200, 1), 1, ACTIONS)
    for kind in EventKind:
        assert len(np.unique(lap.instrument[lap.kind == kind])) == 200
    counts = np.bincount(lap.instrument)
    assert counts[0] > 10 * np.median(counts)


def test_the_price_walks_and_comes_back_for_the_next_lap() -> None:
    lap = lap_of()
    bids = lap.bid[(lap.kind == EventKind.QUOTE) & (lap.instrument == 0)]
    start = lap.instruments[0].price
    assert len(np.unique(bids)) > 100
    assert bids[-1] == start


def test_names_are_those_of_real_pairs_and_differ() -> None:
    names = [symbol.base + symbol.quote for symbol in instruments(MOST_SYMBOLS, 1)]
    assert names[:3] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert len(set(names)) == MOST_SYMBOLS


def test_impossible_markets_are_refused() -> None:
    for count in (0, MOST_SYMBOLS + 1):
        with pytest.raises(ParameterError, match="symbols, not"):
            instruments(count, 1)
    with pytest.raises(ParameterError, match="at least 20 actions"):
        make_lap(instruments(10, 1), 1, 19)
