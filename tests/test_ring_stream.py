"""The rings of a connection as one stream: order, limits, cursors, and every record accounted for."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes.broadcaster_running import Feed
from processes.recorder_parts import BEGIN, Market, parse

from feeds.records import DTYPES, KIND_NUMBER, Kind
from ringbuf import ConnectionWriter, Records, RingReader, layout
from ringbuf.directory import connection_directory
from ringbuf.records import Loss
from supervisor.gathered import Cursor, Gathered, Miss, merged
from supervisor.ring_stream import Begin, RingStream


@pytest.fixture
def market(runtime: Path) -> Iterator[Market]:
    market = Market(capacity=64)
    yield market
    market.close()


def everything(rings: RingStream) -> Gathered:
    """What the rings hold now, in one piece."""
    rings.attach()
    rings.gather(rings.tails())
    return rings.take()


def order(gathered: Gathered, limit: int | None = None) -> list[tuple[str, int]]:
    return [(row.type, row.seq) for row in map(parse, merged(gathered.data, limit))]


def test_kinds_are_merged_by_the_time_they_were_received(market: Market) -> None:
    for kind, count in ((Kind.TRADE, 3), (Kind.QUOTE, 2), (Kind.TRADE, 1), (Kind.PRICE, 2), (Kind.QUOTE, 4)):
        market.publish(kind, count)
    rings = RingStream("crypto", {})
    gathered = everything(rings)
    assert order(gathered) == market.order
    assert order(gathered, 5) == market.order[-5:]
    assert order(gathered, 100) == market.order
    assert gathered.count == 12
    rings.close()


def test_a_clock_that_was_set_back_does_not_turn_a_rings_own_order_round(market: Market) -> None:
    market.publish(Kind.TRADE, 2)
    market.publish(Kind.TRADE, 3, step=-5_000_000)
    market.publish(Kind.QUOTE, 1)
    market.publish(Kind.TRADE, 1, step=9_000_000_000)
    rings = RingStream("crypto", {}, batch=3)
    seen: list[tuple[str, int]] = []
    for _ in range(9):
        seen += order(everything(rings))
    assert [seq for kind, seq in seen if kind == "trade"] == [0, 1, 2, 3, 4, 5]
    assert len(seen) == 7
    rings.close()


def test_reading_goes_on_at_the_cursors(market: Market) -> None:
    market.publish(Kind.TRADE, 5)
    market.publish(Kind.QUOTE, 5)
    first = RingStream("crypto", {})
    cursors = everything(first).cursors
    first.close()
    assert cursors == {kind: Cursor(market.ring_id(kind), 5) for kind in (Kind.TRADE, Kind.QUOTE)}
    market.publish(Kind.QUOTE, 2)
    second = RingStream("crypto", cursors)
    gathered = everything(second)
    assert order(gathered) == [("quote", 5), ("quote", 6)]
    assert gathered.misses == []
    second.close()


@pytest.mark.parametrize("begin", ["oldest", "newest"])
def test_a_ring_that_appears_later_is_read_from_its_first_record(market: Market, begin: Begin) -> None:
    rings = RingStream("crypto", {}, begin=begin)
    assert everything(rings).count == 0
    for kind in (Kind.LEVEL, Kind.QUOTE):
        market.publish(kind, 3)
        gathered = everything(rings)
        assert order(gathered) == [(kind, 0), (kind, 1), (kind, 2)]
        assert gathered.misses == []
    rings.close()


def test_a_beginning_at_the_newest_record_gives_what_is_published_from_then_on(market: Market) -> None:
    market.publish(Kind.TRADE, 10)
    market.publish(Kind.QUOTE, 100)
    rings = RingStream("crypto", {}, begin="newest")
    gathered = everything(rings)
    assert (gathered.count, gathered.misses) == (0, [])
    assert {kind: cursor.seq for kind, cursor in gathered.cursors.items()} == {Kind.TRADE: 10, Kind.QUOTE: 100}
    market.publish(Kind.TRADE, 3)
    gathered = everything(rings)
    assert order(gathered) == [("trade", 10), ("trade", 11), ("trade", 12)]
    assert gathered.misses == []
    market.publish(Kind.LEVEL, 200)  # appeared and went round between two looks
    gathered = everything(rings)
    (miss,) = gathered.misses
    assert (miss.kind, miss.first, miss.reason) == (Kind.LEVEL, 0, Loss.OVERWRITTEN)
    assert order(gathered) == [("level", seq) for seq in range(miss.count, 200)]
    rings.close()


def test_a_writer_that_restarts_is_followed_without_loss(runtime: Path) -> None:
    rings = RingStream("crypto", {}, begin="newest")
    rings.attach()
    for total in (5, 10, 15):
        successor = Market()
        successor.publish(Kind.TRADE, 5)
        gathered = everything(rings)
        assert order(gathered) == [("trade", seq) for seq in range(total - 5, total)]
        assert gathered.misses == []
        successor.close()
    rings.close()


def test_what_went_by_before_a_beginning_is_no_miss_but_later_it_is(market: Market) -> None:
    market.publish(Kind.TRADE, 100)
    rings = RingStream("crypto", {}, begin="oldest")
    gathered = everything(rings)
    oldest = 100 - 64 + 2
    assert order(gathered) == [("trade", seq) for seq in range(oldest, 100)]
    assert gathered.misses == []
    market.publish(Kind.QUOTE, 100)  # appeared and went round between two looks
    gathered = everything(rings)
    assert gathered.misses == [Miss(Kind.QUOTE, market.ring_id(Kind.QUOTE), 0, oldest, Loss.OVERWRITTEN)]
    rings.close()


def test_overwritten_records_are_missed_by_number(market: Market) -> None:
    market.publish(Kind.TRADE, 10)
    rings = RingStream("crypto", {}, begin="oldest")
    everything(rings)
    market.publish(Kind.TRADE, 200)
    gathered = everything(rings)
    (miss,) = gathered.misses
    assert (miss.kind, miss.first, miss.reason) == (Kind.TRADE, 10, Loss.OVERWRITTEN)
    assert order(gathered) == [("trade", seq) for seq in range(10 + miss.count, 210)]
    rings.close()


def test_a_replaced_ring_is_read_to_its_end_and_the_new_one_from_its_oldest(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringbuf.reader.NAME_CHECK", 0.0)
    market.publish(Kind.TRADE, 3)
    rings = RingStream("crypto", {}, begin="oldest")
    everything(rings)
    market.publish(Kind.TRADE, 2)
    old = market.ring_id(Kind.TRADE)
    market.close()
    successor = Market(capacity=128)
    successor.publish(Kind.TRADE, 4)
    new = successor.ring_id(Kind.TRADE)
    seen: list[tuple[str, int]] = []
    misses: list[Miss] = []
    for _ in range(3):
        gathered = everything(rings)
        seen += order(gathered)
        misses += gathered.misses
    assert old != new
    assert seen == [("trade", 3), ("trade", 4), *(("trade", seq) for seq in range(4))]
    assert misses == [Miss(Kind.TRADE, new, 0, 0, Loss.REPLACED)]
    assert gathered.cursors == {Kind.TRADE: Cursor(new, 4)}
    rings.close()
    successor.close()


@pytest.mark.parametrize("seq", [3, 5000])
def test_a_cursor_of_an_unknown_ring_begins_at_the_oldest_record_and_says_so(market: Market, seq: int) -> None:
    market.publish(Kind.TRADE, 100)
    rings = RingStream("crypto", {Kind.TRADE: Cursor("ab" * 16, seq)})
    gathered = everything(rings)
    assert gathered.misses == [Miss(Kind.TRADE, market.ring_id(Kind.TRADE), 0, 38, Loss.REPLACED)]
    assert order(gathered) == [("trade", number) for number in range(38, 100)]
    rings.close()


def test_a_limit_keeps_the_newest_in_memory_and_counts_the_rest(market: Market) -> None:
    rings = RingStream("crypto", {}, begin="oldest", limit=4)
    for _ in range(10):
        market.publish(Kind.TRADE, 3)
        market.publish(Kind.QUOTE, 3)
        rings.attach()
        rings.gather(rings.tails())
    gathered = rings.take()
    assert gathered.count == 60
    assert gathered.waiting(Kind.TRADE) <= 6
    assert order(gathered, 4) == market.order[-4:]
    rings.close()


def test_a_full_batch_is_told_and_nothing_overtakes_it(market: Market) -> None:
    for _ in range(8):
        market.publish(Kind.TRADE, 5)
        market.publish(Kind.QUOTE, 1)
    rings = RingStream("crypto", {}, begin="oldest", batch=10)
    seen: list[tuple[str, int]] = []
    rings.attach()
    tails = rings.tails()
    rounds = 0
    while rings.gather(tails):
        gathered = rings.take()
        assert 0 < gathered.count <= 20
        seen += order(gathered)
        # The cursors are exactly behind what was taken, so that a crash here repeats and loses nothing.
        taken = {kind: sum(1 for one, _ in seen if one == kind) for kind in ("trade", "quote")}
        assert {kind: cursor.seq for kind, cursor in gathered.cursors.items()} == taken
        rounds += 1
    seen += order(rings.take())
    assert rounds == 3
    assert seen == market.order
    rings.close()


def test_a_miss_stays_with_the_records_around_it(market: Market) -> None:
    """Quotes are far behind; of the trades only what is older may be taken, and with it no miss that comes later."""
    market.publish(Kind.QUOTE, 40)
    market.publish(Kind.TRADE, 2)
    rings = RingStream("crypto", {}, begin="oldest", batch=16)
    rings.attach()
    rings.gather({Kind.QUOTE: 40, Kind.TRADE: 2})
    market.publish(Kind.TRADE, 100)
    rings.gather(rings.tails())
    gathered = rings.take()
    assert order(gathered) == [("quote", seq) for seq in range(16)]
    assert gathered.misses == []
    assert gathered.cursors[Kind.TRADE].seq == 0
    seen: list[tuple[str, int]] = []
    misses: list[Miss] = []
    for _ in range(20):
        gathered = everything(rings)
        seen += order(gathered)
        misses += gathered.misses
    (miss,) = misses
    assert (miss.first, seen[-1]) == (2, ("trade", 101))
    assert [seq for kind, seq in seen if kind == "trade"] == [0, 1, *range(2 + miss.count, 102)]
    rings.close()


def test_events_are_no_data(market: Market) -> None:
    market.publish(Kind.EVENT, 3)
    market.publish(Kind.TRADE, 1)
    rings = RingStream("crypto", {}, begin="oldest", limit=1)
    gathered = everything(rings)
    assert gathered.waiting(Kind.EVENT) == 3
    assert order(gathered) == [("trade", 0)]
    assert gathered.cursors[Kind.EVENT].seq == 3
    rings.close()


def test_a_connection_that_does_not_exist_gives_nothing(runtime: Path) -> None:
    rings = RingStream("nobody", {})
    assert everything(rings).count == 0
    assert rings.new_troubles() == []
    rings.close()


def test_a_removed_connection_ends_quietly(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringbuf.reader.NAME_CHECK", 0.0)
    market.publish(Kind.TRADE, 2)
    rings = RingStream("crypto", {}, begin="oldest")
    rings.attach()
    directory = connection_directory("crypto")
    (directory / "trade.ring").unlink()
    gathered = everything(rings)
    assert order(gathered) == [("trade", 0), ("trade", 1)]
    assert gathered.cursors[Kind.TRADE].seq == 2
    assert everything(rings).count == 0
    assert rings.tails() == {}
    assert rings.new_troubles() == []
    rings.close()


def test_a_damaged_ring_is_told_once_and_the_others_are_read(market: Market) -> None:
    market.publish(Kind.TRADE, 2)
    market.publish(Kind.QUOTE, 2)
    ring = connection_directory("crypto") / "quote.ring"
    whole = ring.read_bytes()
    ring.write_bytes(b"x" * 5000)
    ring.chmod(0o600)
    rings = RingStream("crypto", {}, begin="oldest")
    assert order(everything(rings)) == [("trade", 0), ("trade", 1)]
    (trouble,) = rings.new_troubles()
    assert "quote.ring" in trouble
    everything(rings)
    assert rings.new_troubles() == []
    ring.write_bytes(whole)
    assert order(everything(rings)) == [("quote", 0), ("quote", 1)]
    rings.close()


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
    rings = RingStream("crypto", {}, begin="oldest")
    gathered = everything(rings)
    assert order(gathered) == [("trade", seq) for seq in range(16)]
    assert gathered.cursors[Kind.TRADE].seq == 16
    (trouble,) = rings.new_troubles()
    assert "tail is 0" in trouble
    rings.close()


def test_records_of_another_layout_are_refused(runtime: Path) -> None:
    with ConnectionWriter("crypto") as writer:
        writer.ring("trade", DTYPES[Kind.LEVEL], 64)
        rings = RingStream("crypto", {}, begin="oldest")
        assert everything(rings).cursors == {}
        (trouble,) = rings.new_troubles()
        assert "another version" in trouble
        rings.close()


def test_a_ring_of_another_layout_is_missed_once_and_not_with_every_look(runtime: Path) -> None:
    with ConnectionWriter("crypto") as writer:
        writer.ring("trade", DTYPES[Kind.LEVEL], 64)
        rings = RingStream("crypto", {Kind.TRADE: Cursor("ab" * 16, 3)})
        misses = [miss for _ in range(3) for miss in everything(rings).misses]
        assert misses == []
        assert len(rings.new_troubles()) == 1
        rings.close()


def scribble(market: Market, word: int, value: bytes) -> None:
    """Damage one of the trade ring's live words."""
    with (market.writer.directory / "trade.ring").open("r+b") as ring:
        os.pwrite(ring.fileno(), value, word * 8)


@pytest.mark.parametrize("tail", [2, 1000])
def test_a_ring_that_was_damaged_for_a_while_is_told_once_and_read_on_from_where_it_was(
    market: Market, tail: int
) -> None:
    market.publish(Kind.TRADE, 5)
    rings = RingStream("crypto", {}, begin="oldest")
    assert everything(rings).count == 5
    scribble(market, layout.TAIL, tail.to_bytes(8, "little"))
    told: list[str] = []
    for _ in range(4):
        gathered = everything(rings)
        assert (gathered.count, gathered.misses) == (0, [])
        assert gathered.cursors[Kind.TRADE].seq == 5
        told += rings.new_troubles()
    assert len(told) == 1
    scribble(market, layout.TAIL, (5).to_bytes(8, "little"))
    market.publish(Kind.TRADE, 2)
    gathered = everything(rings)
    assert order(gathered) == [("trade", 5), ("trade", 6)]
    assert gathered.misses == []
    scribble(market, layout.TAIL, tail.to_bytes(8, "little"))
    everything(rings)
    assert len(rings.new_troubles()) == 1
    rings.close()


def test_tails_of_a_ring_that_has_been_replaced_do_not_keep_reading_behind(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringbuf.reader.NAME_CHECK", 0.0)
    market.publish(Kind.TRADE, 50)
    rings = RingStream("crypto", {}, begin="oldest")
    rings.attach()
    tails = rings.tails()
    rings.gather(tails)
    market.close()
    successor = Market(capacity=128)
    successor.publish(Kind.TRADE, 4)
    for _ in range(3):
        rings.attach()
        assert not rings.gather(tails)
    assert order(rings.take()) == [("trade", seq) for seq in (*range(50), *range(4))]
    rings.close()
    successor.close()


def test_how_far_rings_advanced_is_told_in_quarters(market: Market) -> None:
    market.publish(Kind.TRADE, 8)
    market.publish(Kind.QUOTE, 24)
    rings = RingStream("crypto", {}, begin="oldest")
    everything(rings)
    assert rings.quarters == 24 / 16
    everything(rings)
    assert rings.quarters == 0
    rings.close()


def test_merging_is_what_a_sort_of_all_records_gives(runtime: Path) -> None:
    dice = np.random.default_rng(7)
    market = Market(capacity=2**10)
    for _ in range(60):
        market.publish(Kind(dice.choice(["trade", "quote", "level"])), int(dice.integers(1, 12)))
    rings = RingStream("crypto", {}, begin="oldest", batch=37)
    seen: list[tuple[str, int]] = []
    for _ in range(40):
        seen += order(everything(rings))
    assert seen == market.order
    rings.close()
    market.close()


@pytest.mark.parametrize("batch", [7, 64, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_records_of_one_time_come_in_the_order_of_kinds_wherever_a_batch_ends(
    runtime: Path, batch: int, seed: int
) -> None:
    chance = random.Random(seed)
    expected: list[tuple[int, int, str, int]] = []
    rings = RingStream("crypto", {}, begin="newest", batch=batch)
    rings.attach()
    with Feed("crypto") as feed:
        for kind in (Kind.TRADE, Kind.QUOTE, Kind.PRICE):
            now, first = 0, 0
            for _ in range(chance.randrange(20, 60)):  # equal and unequal times, in and across kinds
                count, step = chance.randrange(1, 12), chance.choice([0, 1000])
                feed.publish(kind, count, received=BEGIN + now, step=step)
                expected += [(now + step * place, KIND_NUMBER[kind], kind, first + place) for place in range(count)]
                now += count * 1000
                first += count
        seen: list[tuple[str, int]] = []
        rings.attach()
        while True:
            behind = rings.gather(rings.tails())
            gathered = rings.take()
            seen += order(gathered)
            assert gathered.misses == []
            if not behind:
                break
    assert seen == [(kind, seq) for _, _, kind, seq in sorted(expected)]
    rings.close()
