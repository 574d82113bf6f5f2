"""The rings of a connection as one stream: order, limits, cursors, and every record accounted for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes.recorder_parts import Market, parse

from feeds.records import DATA_KINDS, DTYPES, Kind
from ringbuf import ConnectionWriter, Records, RingReader, layout
from ringbuf.directory import connection_directory
from ringbuf.records import Loss
from supervisor.gathered import Cursor, Gathered, Miss, merged
from supervisor.intake import Intake, beyond


@pytest.fixture
def market(runtime: Path) -> Iterator[Market]:
    market = Market(capacity=64)
    yield market
    market.close()


def everything(intake: Intake) -> Gathered:
    """What the rings hold now, in one piece."""
    intake.attach()
    intake.gather(intake.tails())
    return intake.take()


def order(gathered: Gathered, limit: int | None = None) -> list[tuple[str, int]]:
    return [(row.type, row.seq) for row in map(parse, merged(gathered.data, limit))]


def test_kinds_are_merged_by_the_time_they_were_received(market: Market) -> None:
    for kind, count in ((Kind.TRADE, 3), (Kind.QUOTE, 2), (Kind.TRADE, 1), (Kind.PRICE, 2), (Kind.QUOTE, 4)):
        market.publish(kind, count)
    intake = Intake("crypto", {})
    gathered = everything(intake)
    assert order(gathered) == market.order
    assert order(gathered, 5) == market.order[-5:]
    assert order(gathered, 100) == market.order
    assert gathered.count == 12
    intake.close()


def test_a_clock_that_was_set_back_does_not_turn_a_rings_own_order_round(market: Market) -> None:
    market.publish(Kind.TRADE, 2)
    market.publish(Kind.TRADE, 3, step=-5_000_000)
    market.publish(Kind.QUOTE, 1)
    market.publish(Kind.TRADE, 1, step=9_000_000_000)
    intake = Intake("crypto", {}, batch=3)
    seen: list[tuple[str, int]] = []
    for _ in range(9):
        seen += order(everything(intake))
    assert [seq for kind, seq in seen if kind == "trade"] == [0, 1, 2, 3, 4, 5]
    assert len(seen) == 7
    intake.close()


def test_reading_goes_on_at_the_cursors(market: Market) -> None:
    market.publish(Kind.TRADE, 5)
    market.publish(Kind.QUOTE, 5)
    first = Intake("crypto", {})
    cursors = everything(first).cursors
    first.close()
    assert cursors == {kind: Cursor(market.ring_id(kind), 5) for kind in (Kind.TRADE, Kind.QUOTE)}
    market.publish(Kind.QUOTE, 2)
    second = Intake("crypto", cursors)
    gathered = everything(second)
    assert order(gathered) == [("quote", 5), ("quote", 6)]
    assert gathered.misses == []
    second.close()


def test_a_ring_that_appears_later_is_read_from_its_first_record(market: Market) -> None:
    intake = Intake("crypto", {}, fresh=True)
    assert everything(intake).count == 0
    market.publish(Kind.LEVEL, 3)
    gathered = everything(intake)
    assert order(gathered) == [("level", 0), ("level", 1), ("level", 2)]
    assert gathered.misses == []
    intake.close()


def test_what_went_by_before_a_fresh_beginning_is_no_miss_but_later_it_is(market: Market) -> None:
    market.publish(Kind.TRADE, 100)
    intake = Intake("crypto", {}, fresh=True)
    gathered = everything(intake)
    oldest = 100 - 64 + 2
    assert order(gathered) == [("trade", seq) for seq in range(oldest, 100)]
    assert gathered.misses == []
    market.publish(Kind.QUOTE, 100)  # appeared and went round between two looks
    gathered = everything(intake)
    assert gathered.misses == [Miss(Kind.QUOTE, market.ring_id(Kind.QUOTE), 0, oldest, Loss.OVERWRITTEN)]
    intake.close()


def test_overwritten_records_are_missed_by_number(market: Market) -> None:
    market.publish(Kind.TRADE, 10)
    intake = Intake("crypto", {}, fresh=True)
    everything(intake)
    market.publish(Kind.TRADE, 200)
    gathered = everything(intake)
    (miss,) = gathered.misses
    assert (miss.kind, miss.first, miss.reason) == (Kind.TRADE, 10, Loss.OVERWRITTEN)
    assert order(gathered) == [("trade", seq) for seq in range(10 + miss.count, 210)]
    intake.close()


def test_a_replaced_ring_is_read_to_its_end_and_the_new_one_from_its_oldest(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringbuf.reader.NAME_CHECK", 0.0)
    market.publish(Kind.TRADE, 3)
    intake = Intake("crypto", {}, fresh=True)
    everything(intake)
    market.publish(Kind.TRADE, 2)
    old = market.ring_id(Kind.TRADE)
    market.close()
    successor = Market(capacity=128)
    successor.publish(Kind.TRADE, 4)
    new = successor.ring_id(Kind.TRADE)
    seen: list[tuple[str, int]] = []
    misses: list[Miss] = []
    for _ in range(3):
        gathered = everything(intake)
        seen += order(gathered)
        misses += gathered.misses
    assert old != new
    assert seen == [("trade", 3), ("trade", 4), *(("trade", seq) for seq in range(4))]
    assert misses == [Miss(Kind.TRADE, new, 0, 0, Loss.REPLACED)]
    assert gathered.cursors == {Kind.TRADE: Cursor(new, 4)}
    intake.close()
    successor.close()


@pytest.mark.parametrize("seq", [3, 5000])
def test_a_cursor_of_an_unknown_ring_begins_at_the_oldest_record_and_says_so(market: Market, seq: int) -> None:
    market.publish(Kind.TRADE, 100)
    intake = Intake("crypto", {Kind.TRADE: Cursor("ab" * 16, seq)})
    gathered = everything(intake)
    assert gathered.misses == [Miss(Kind.TRADE, market.ring_id(Kind.TRADE), 0, 38, Loss.REPLACED)]
    assert order(gathered) == [("trade", number) for number in range(38, 100)]
    intake.close()


def test_a_limit_keeps_the_newest_in_memory_and_counts_the_rest(market: Market) -> None:
    intake = Intake("crypto", {}, fresh=True, limit=4)
    for _ in range(10):
        market.publish(Kind.TRADE, 3)
        market.publish(Kind.QUOTE, 3)
        intake.attach()
        intake.gather(intake.tails())
    gathered = intake.take()
    assert gathered.count == 60
    assert gathered.waiting(Kind.TRADE) <= 6
    assert order(gathered, 4) == market.order[-4:]
    intake.close()


def test_a_full_batch_is_told_and_nothing_overtakes_it(market: Market) -> None:
    for _ in range(8):
        market.publish(Kind.TRADE, 5)
        market.publish(Kind.QUOTE, 1)
    intake = Intake("crypto", {}, fresh=True, batch=10)
    seen: list[tuple[str, int]] = []
    intake.attach()
    tails = intake.tails()
    rounds = 0
    while intake.gather(tails):
        gathered = intake.take()
        assert 0 < gathered.count <= 20
        seen += order(gathered)
        # The cursors are exactly behind what was taken, so that a crash here repeats and loses nothing.
        taken = {kind: sum(1 for one, _ in seen if one == kind) for kind in ("trade", "quote")}
        assert {kind: cursor.seq for kind, cursor in gathered.cursors.items()} == taken
        rounds += 1
    seen += order(intake.take())
    assert rounds == 3
    assert seen == market.order
    intake.close()


def test_a_miss_stays_with_the_records_around_it(market: Market) -> None:
    """Quotes are far behind; of the trades only what is older may be taken, and with it no miss that comes later."""
    market.publish(Kind.QUOTE, 40)
    market.publish(Kind.TRADE, 2)
    intake = Intake("crypto", {}, fresh=True, batch=16)
    intake.attach()
    intake.gather({Kind.QUOTE: 40, Kind.TRADE: 2})
    market.publish(Kind.TRADE, 100)
    intake.gather(intake.tails())
    gathered = intake.take()
    assert order(gathered) == [("quote", seq) for seq in range(16)]
    assert gathered.misses == []
    assert gathered.cursors[Kind.TRADE].seq == 0
    seen: list[tuple[str, int]] = []
    misses: list[Miss] = []
    for _ in range(20):
        gathered = everything(intake)
        seen += order(gathered)
        misses += gathered.misses
    (miss,) = misses
    assert (miss.first, seen[-1]) == (2, ("trade", 101))
    assert [seq for kind, seq in seen if kind == "trade"] == [0, 1, *range(2 + miss.count, 102)]
    intake.close()


def test_events_are_no_data(market: Market) -> None:
    market.publish(Kind.EVENT, 3)
    market.publish(Kind.TRADE, 1)
    intake = Intake("crypto", {}, fresh=True, limit=1)
    gathered = everything(intake)
    assert gathered.waiting(Kind.EVENT) == 3
    assert order(gathered) == [("trade", 0)]
    assert gathered.cursors[Kind.EVENT].seq == 3
    intake.close()


def test_a_connection_that_does_not_exist_gives_nothing(runtime: Path) -> None:
    intake = Intake("nobody", {})
    assert everything(intake).count == 0
    assert intake.new_troubles() == []
    assert beyond("nobody", {}, None) == []
    intake.close()


def test_a_removed_connection_ends_quietly(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringbuf.reader.NAME_CHECK", 0.0)
    market.publish(Kind.TRADE, 2)
    intake = Intake("crypto", {}, fresh=True)
    intake.attach()
    directory = connection_directory("crypto")
    (directory / "trade.ring").unlink()
    gathered = everything(intake)
    assert order(gathered) == [("trade", 0), ("trade", 1)]
    assert gathered.cursors[Kind.TRADE].seq == 2
    assert everything(intake).count == 0
    assert intake.tails() == {}
    assert intake.new_troubles() == []
    intake.close()


def test_a_damaged_ring_is_told_once_and_the_others_are_read(market: Market) -> None:
    market.publish(Kind.TRADE, 2)
    market.publish(Kind.QUOTE, 2)
    ring = connection_directory("crypto") / "quote.ring"
    whole = ring.read_bytes()
    ring.write_bytes(b"x" * 5000)
    ring.chmod(0o600)
    intake = Intake("crypto", {}, fresh=True)
    assert order(everything(intake)) == [("trade", 0), ("trade", 1)]
    (trouble,) = intake.new_troubles()
    assert "quote.ring" in trouble
    everything(intake)
    assert intake.new_troubles() == []
    ring.write_bytes(whole)
    assert order(everything(intake)) == [("quote", 0), ("quote", 1)]
    intake.close()


def test_a_ring_that_becomes_damaged_while_it_is_read_leaves_the_cursor_behind_what_was_read(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.publish(Kind.TRADE, 40)
    read = RingReader.read

    def read_and_damage(reader: RingReader, limit: int | None = None) -> Records:
        records = read(reader, limit)
        with (market.writer.directory / "trade.ring").open("r+b") as ring:
            os.pwrite(ring.fileno(), bytes(8), layout.TAIL * 8)
        return records

    monkeypatch.setattr(RingReader, "read", read_and_damage)
    intake = Intake("crypto", {}, fresh=True)
    gathered = everything(intake)
    assert order(gathered) == [("trade", seq) for seq in range(16)]
    assert gathered.cursors[Kind.TRADE].seq == 16
    (trouble,) = intake.new_troubles()
    assert "tail is 0" in trouble
    intake.close()


def test_records_of_another_layout_are_refused(runtime: Path) -> None:
    with ConnectionWriter("crypto") as writer:
        writer.ring("trade", DTYPES[Kind.LEVEL], 64)
        intake = Intake("crypto", {}, fresh=True)
        assert everything(intake).cursors == {}
        (trouble,) = intake.new_troubles()
        assert "another version" in trouble
        intake.close()


def test_how_far_rings_advanced_is_told_in_quarters(market: Market) -> None:
    market.publish(Kind.TRADE, 8)
    market.publish(Kind.QUOTE, 24)
    intake = Intake("crypto", {}, fresh=True)
    everything(intake)
    assert intake.quarters == 24 / 16
    everything(intake)
    assert intake.quarters == 0
    intake.close()


def test_beyond_the_cursors_all_is_merged_however_much_it_is(runtime: Path) -> None:
    market = Market(capacity=2**16)
    for _ in range(10):
        market.publish(Kind.TRADE, 4000)
        market.publish(Kind.QUOTE, 10)
    cursors = {Kind.TRADE: Cursor(market.ring_id(Kind.TRADE), 100)}
    texts = [parse(text) for text in beyond("crypto", cursors, None)]
    assert [(row.type, row.seq) for row in texts] == market.order[100:]
    assert beyond("crypto", cursors, 7) == beyond("crypto", cursors, None)[-7:]
    market.close()


def test_every_data_kind_is_read(market: Market) -> None:
    for kind in DATA_KINDS:
        market.publish(kind, 1)
    assert [parse(text).type for text in beyond("crypto", {}, None)] == [str(kind) for kind in DATA_KINDS]


def test_merging_is_what_a_sort_of_all_records_gives(runtime: Path) -> None:
    dice = np.random.default_rng(7)
    market = Market(capacity=2**10)
    for _ in range(60):
        market.publish(Kind(dice.choice(["trade", "quote", "level"])), int(dice.integers(1, 12)))
    intake = Intake("crypto", {}, fresh=True, batch=37)
    seen: list[tuple[str, int]] = []
    for _ in range(40):
        seen += order(everything(intake))
    assert seen == market.order
    intake.close()
    market.close()
