"""Housekeeping by columns, held against a check of one record at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.contract import Numbering
from feeds.housekeeping import FARTHEST, REORDER, Hole, KindHousekeeping
from feeds.records import DTYPES, NO_TIME, Flag, Kind
from ringbuf.records import RecordArray

TRADES = Numbering("trade_id", consecutive=True)
QUOTES = Numbering("sequence", consecutive=False)


def trades(*numbers: int, symbol: int = 1, aggregate: bool = False, seq: int = 0) -> RecordArray:
    records = np.zeros(len(numbers), DTYPES[Kind.TRADE])
    records["trade_id"] = numbers
    records["symbol"] = symbol
    records["seq"] = np.arange(seq, seq + len(numbers))
    records["received"] = np.arange(len(numbers)) + 1_000
    records["flags"] = Flag.AGGREGATE if aggregate else 0
    return records


def quotes(*numbers: int) -> RecordArray:
    records = np.zeros(len(numbers), DTYPES[Kind.QUOTE])
    records["sequence"] = numbers
    records["symbol"] = 1
    records["seq"] = np.arange(len(numbers))
    records["flags"] = Flag.DATE_IS_RECEIVED
    return records


def look(*batches: RecordArray, numbering: Numbering | None = TRADES, kind: Kind = Kind.TRADE) -> list[Hole]:
    housekeeping = KindHousekeeping(kind, numbering)
    return [hole for records in batches for hole in housekeeping.look(records)]


# ---- numbering ------------------------------------------------------------------------------------------------------


def test_the_first_number_of_a_topic_begins_its_count() -> None:
    assert look(trades(500, 501, 502), trades(503)) == []


def test_a_hole_is_told_at_the_record_after_it_with_what_is_missing() -> None:
    assert look(trades(500, 501, 505)) == [Hole(key=2, seq=2, missing=3)]
    assert look(trades(500, seq=9), trades(502, seq=10)) == [Hole(key=2, seq=10, missing=1)]


def test_a_repetition_is_0_behind_and_a_straggler_its_distance() -> None:
    assert look(trades(500, 501, 501, 502)) == [Hole(2, 2, 0)]
    assert look(trades(500, 501, 502, 500, 503)) == [Hole(2, 3, -2)]


def test_disorder_within_a_batch_is_a_hole_and_a_straggler_and_the_count_goes_on() -> None:
    assert look(trades(500, 502, 501, 503), trades(504)) == [Hole(2, 1, 1), Hole(2, 2, -1)]


def test_a_replay_after_a_reconnect_is_repetitions_only() -> None:
    replayed = trades(*range(400, 501), seq=1000)
    holes = look(trades(*range(1, 501)), replayed, trades(501, 502, seq=2000))
    assert [hole.missing for hole in holes] == list(range(-100, 1))
    assert [hole.seq for hole in holes] == list(range(1000, 1101))


def test_numbers_that_fall_far_begin_anew_and_are_told_once() -> None:
    high = 10_000_000
    assert look(trades(high, high + 1), trades(5, 6, 7), trades(8)) == [Hole(2, 0, 5 - high - 1)]


def test_a_fall_as_far_as_a_replay_may_reach_is_disorder() -> None:
    top = 10 * REORDER
    assert look(trades(top), trades(top - REORDER), trades(top + 1)) == [Hole(2, 0, -REORDER)]
    assert look(trades(top), trades(top - REORDER - 1), trades(top - REORDER)) == [Hole(2, 0, -REORDER - 1)]


def test_a_number_that_is_garbage_makes_one_large_hole_and_nothing_overflows() -> None:
    holes = look(trades(100, 2**64 - 1, 101, 102))
    assert holes == [Hole(2, 1, FARTHEST), Hole(2, 2, -FARTHEST)]


def test_unnumbered_records_are_no_holes_and_no_beginning() -> None:
    assert look(trades(0, 0, 0)) == []
    assert look(trades(5, 0, 6), trades(0), trades(7)) == []
    assert look(trades(5, 0, 8)) == [Hole(2, 2, 2)]


def test_symbols_and_aggregates_are_counted_apart() -> None:
    mixed = np.concatenate(
        [trades(5, symbol=1), trades(900, symbol=2), trades(70, aggregate=True), trades(6, symbol=1)]
    )
    more = np.concatenate(
        [trades(72, aggregate=True, seq=50), trades(901, symbol=2), trades(7), trades(71, aggregate=True)]
    )
    assert look(mixed, more) == [Hole(3, 50, 1), Hole(3, 0, -1)]


def test_updates_that_only_rise_may_leap_but_not_stand_or_fall() -> None:
    assert look(quotes(10, 900, 901), quotes(5000), numbering=QUOTES, kind=Kind.QUOTE) == []
    assert look(quotes(10, 10, 9), numbering=QUOTES, kind=Kind.QUOTE) == [Hole(2, 1, 0), Hole(2, 2, -1)]
    assert look(quotes(2**64 - 2), quotes(10), numbering=QUOTES, kind=Kind.QUOTE) == [Hole(2, 0, -FARTHEST)]


def test_a_kind_without_numbers_has_no_holes() -> None:
    assert look(trades(5, 9, 1), numbering=None) == []


def test_a_forgotten_topic_begins_anew() -> None:
    housekeeping = KindHousekeeping(Kind.TRADE, TRADES)
    housekeeping.look(trades(5, 6))
    housekeeping.forget(2)
    housekeeping.forget(10**6)  # never seen
    assert housekeeping.look(trades(900, 901)) == []
    assert housekeeping.look(trades(903)) == [Hole(2, 0, 1)]


# ---- liveness and lag -----------------------------------------------------------------------------------------------


def test_counts_and_times_are_per_topic_and_only_those_with_data_are_seen() -> None:
    housekeeping = KindHousekeeping(Kind.TRADE, TRADES)
    housekeeping.look(np.concatenate([trades(1, 2, 3), trades(1, symbol=3)]))
    assert housekeeping.seen == [2, 6]
    housekeeping.look(trades(2, symbol=3))
    assert housekeeping.seen == [6]
    assert [int(housekeeping.counts[key]) for key in (2, 6, 4)] == [3, 2, 0]
    assert [int(housekeeping.last_received[key]) for key in (2, 6)] == [1002, 1000]


def test_ids_beyond_the_room_make_room() -> None:
    housekeeping = KindHousekeeping(Kind.TRADE, TRADES)
    housekeeping.look(trades(5, symbol=1))
    housekeeping.look(trades(5, symbol=700_000))
    assert housekeeping.look(trades(7, symbol=1)) == [Hole(2, 0, 1)]
    assert housekeeping.look(trades(7, symbol=700_000)) == [Hole(1_400_000, 0, 1)]
    assert int(housekeeping.counts[1_400_000]) == 2


def test_lag_is_from_the_sending_or_else_the_event_and_unknown_times_have_none() -> None:
    records = trades(1, 2, 3, 4)
    records["received"] = 10_000
    records["published"] = [9_000, NO_TIME, NO_TIME, 11_000]
    records["date"] = [1_000, 8_000, 10_000, 1_000]
    records["flags"] = [0, 0, Flag.DATE_IS_RECEIVED, Flag.DATE_IS_RECEIVED]
    housekeeping = KindHousekeeping(Kind.TRADE, TRADES)
    housekeeping.look(records)
    assert housekeeping.lags.tolist() == [1_000, 2_000, -1_000]


def test_lag_of_a_kind_without_a_time_of_sending_is_from_the_event() -> None:
    records = np.zeros(2, DTYPES[Kind.LEVEL])
    records["received"], records["date"] = 500, [100, 500]
    records["flags"] = [0, Flag.DATE_IS_RECEIVED]
    housekeeping = KindHousekeeping(Kind.LEVEL, None)
    housekeeping.look(records)
    assert housekeeping.lags.tolist() == [400]


# ---- the same, one record at a time ---------------------------------------------------------------------------------


@dataclass
class Simple:
    """What housekeeping does, written for clarity."""

    consecutive: bool
    highest: dict[int, int] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)

    def look(self, rows: list[tuple[int, int, int, int]]) -> set[Hole]:
        found = set()
        for key, number, seq, received in rows:
            self.counts[key] = self.counts.get(key, 0) + 1
            self.last[key] = received
            if number == 0:
                continue
            highest = self.highest.get(key, 0)
            if number > highest:
                if self.consecutive and highest and number != highest + 1:
                    found.add(Hole(key, seq, min(number - highest - 1, FARTHEST)))
                self.highest[key] = number
            else:
                found.add(Hole(key, seq, max(number - highest, -FARTHEST)))
                if highest - number > REORDER:
                    self.highest[key] = number
        return found


numbers = (
    st.integers(0, 40)
    | st.integers(REORDER - 5, REORDER + 40)
    | st.sampled_from([10**6, 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2])
)
steps = st.tuples(st.integers(0, 3), st.booleans(), numbers | st.none())


@given(st.lists(st.lists(steps, min_size=1, max_size=30), max_size=6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_columns_find_what_a_record_at_a_time_finds(
    batches: list[list[tuple[int, bool, int | None]]], consecutive: bool
) -> None:
    housekeeping = KindHousekeeping(Kind.TRADE, Numbering("trade_id", consecutive))
    simple = Simple(consecutive)
    newest: dict[int, int] = {}
    seq = 0
    for batch in batches:
        rows = []
        for symbol, aggregate, chosen in batch:
            key = 2 * symbol + aggregate
            # Most records go on by one, as most do; the others are anything.
            number = min(newest.get(key, 0) + 1, 2**64 - 2) if chosen is None else chosen
            newest[key] = number
            rows.append((key, number, seq, seq * 3))
            seq += 1
        records = np.zeros(len(rows), DTYPES[Kind.TRADE])
        for i, (key, number, at, received) in enumerate(rows):
            records[i]["symbol"], records[i]["flags"] = key // 2, Flag.AGGREGATE * (key % 2)
            records[i]["trade_id"], records[i]["seq"] = number, at
            records[i]["received"] = received
        assert sorted(housekeeping.look(records), key=lambda h: h.seq) == sorted(simple.look(rows), key=lambda h: h.seq)
        assert housekeeping.seen == sorted({key for key, *_ in rows})
    assert {key: int(housekeeping.counts[key]) for key in simple.counts} == simple.counts
    assert {key: int(housekeeping.last_received[key]) for key in simple.last} == simple.last
