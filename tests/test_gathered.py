"""Records of several kinds in one order, and what is counted of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes.recorder_parts import parse

from feeds.records import DATA_KINDS, DTYPES, KIND_NUMBER, Kind
from ringbuf.records import Loss, Records
from supervisor.gathered import Batch, Gathered, Miss, merged


def batch(kind: Kind, first: int, times: list[int]) -> Batch:
    """Records with seq `first` on, received at these times."""
    array = np.zeros(len(times), DTYPES[kind])
    array["seq"] = np.arange(first, first + len(times))
    array["received"] = np.array(times, "<i8").view("<M8[ns]")
    return Batch(kind, "00", Records(array, "crypto", kind, lambda _: [""]))


def order(batches: list[Batch], limit: int | None = None) -> list[tuple[str, int]]:
    return [(row.type, row.seq) for row in map(parse, merged(batches, limit))]


def test_nothing_gives_nothing() -> None:
    assert merged([]) == []


def test_records_received_at_once_come_in_the_order_of_kinds_and_then_of_seq() -> None:
    batches = [batch(kind, 0, [5, 5]) for kind in (Kind.PRICE, Kind.QUOTE, Kind.TRADE)]
    assert order(batches) == [(kind, seq) for kind in ("trade", "quote", "price") for seq in (0, 1)]


def test_batches_of_a_kind_are_one_stream() -> None:
    batches = [batch(Kind.TRADE, 0, [1, 4]), batch(Kind.TRADE, 2, [6, 9]), batch(Kind.QUOTE, 7, [3, 5, 7])]
    merged_order = [("trade", 0), ("quote", 7), ("trade", 1), ("quote", 8), ("trade", 2), ("quote", 9), ("trade", 3)]
    assert order(batches) == merged_order
    for limit in range(1, 9):
        assert order(batches, limit) == merged_order[-limit:]


def test_a_clock_set_back_between_batches_changes_no_rings_order() -> None:
    batches = [batch(Kind.TRADE, 0, [100, 90]), batch(Kind.TRADE, 2, [10]), batch(Kind.QUOTE, 0, [50, 101])]
    assert order(batches) == [("quote", 0), ("trade", 0), ("trade", 1), ("trade", 2), ("quote", 1)]


streams = st.fixed_dictionaries({kind: st.lists(st.integers(0, 30), max_size=12) for kind in DATA_KINDS})


@given(streams, st.integers(1, 40), st.integers(1, 5))
def test_merging_is_a_stable_sort_by_the_latest_time_so_far(
    times: dict[Kind, list[int]], limit: int, size: int
) -> None:
    batches = [
        batch(kind, start, own[start : start + size])
        for kind, own in times.items()
        for start in range(0, len(own), size)
    ]
    expected = sorted(
        (max(own[: seq + 1]), KIND_NUMBER[kind], seq, str(kind))
        for kind, own in times.items()
        for seq in range(len(own))
    )
    assert order(batches, limit) == [(kind, seq) for _, _, seq, kind in expected][-limit:]


@pytest.mark.parametrize("dropped", [0, 3])
def test_counts(dropped: int) -> None:
    miss = Miss(Kind.TRADE, "00", 2, 5, Loss.OVERWRITTEN)
    gathered = Gathered(
        {Kind.TRADE: [batch(Kind.TRADE, 0, [1, 2]), miss], Kind.EVENT: [batch(Kind.EVENT, 0, [1])]}, dropped
    )
    assert gathered.count == 2 + dropped
    assert gathered.waiting(Kind.EVENT) == 1
    assert gathered.misses == [miss]
    assert [len(one) for one in gathered.data] == [2]
