"""The recorder as the process that it is: asked, answered, ended, and killed at any moment."""

from __future__ import annotations

import random
import sqlite3
import stat
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import psutil
import pytest
from processes.recorder_crashes import Sweep
from processes.recorder_parts import Market, gaps, number, parse, reading, recorded, recorder, request, rows
from processes.running import running
from waiting import wait_until

from feeds.records import Kind
from ringbuf.records import Loss
from supervisor.messages import Commit, Release


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def test_the_process_records_and_ends_in_order(path: Path, market: Market) -> None:
    with recorder() as client:
        client.carry_out(request(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for kind in (Kind.TRADE, Kind.EVENT, Kind.QUOTE):
            market.publish(kind, 100)
        wait_until(lambda: recorded(path) == market.order, "all records in the file")
        market.publish(Kind.LEVEL, 100)
        client.carry_out(Commit(0, "crypto"))
        assert recorded(path) == market.order
        market.publish(Kind.TRADE, 10)
        client.carry_out(Release(0, "crypto", delete=False))
        assert recorded(path) == market.order
        assert client.notices == []
        client.hang_up()
        assert client.process.wait(20) == 0
    assert [entry.name for entry in path.parent.iterdir() if not entry.name.endswith(("-shm", "-wal"))] == [path.name]


@pytest.mark.parametrize("how", ["hang up", "terminate"])
def test_at_the_end_a_last_snapshot_is_taken_and_checkpointed(path: Path, market: Market, how: str) -> None:
    with recorder() as client:
        client.carry_out(request(path, sleep_time=3600.0))
        market.publish(Kind.TRADE, 100)
        if how == "hang up":
            client.hang_up()
        else:
            client.process.terminate()
        assert client.process.wait(20) == 0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert recorded(path) == market.order


def test_a_file_that_we_made_is_deleted_when_asked_for(path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 5)
    with recorder() as client:
        client.carry_out(request(path))
        client.carry_out(Release(0, "crypto", delete=True))
        assert list(path.parent.iterdir()) == []


def test_a_file_that_was_there_is_completed_and_never_deleted(path: Path, market: Market) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (x)")
    with recorder() as client:
        client.carry_out(request(path, sleep_time=3600.0))
        market.publish(Kind.TRADE, 5)
        problem = client.ask(Release(0, "crypto", delete=True)).problem
        assert problem is not None
        assert problem.type == "ResultsFileError"
        assert "is kept" in problem.message
        assert recorded(path) == market.order
        again = client.ask(Release(0, "crypto", delete=True)).problem
        assert again is not None
        assert again.type == "UnknownConnection"


def test_two_connections_may_share_a_file_but_not_a_table(path: Path, market: Market) -> None:
    other = Market("stocks")
    with recorder() as client:
        client.carry_out(request(path, limit=3))
        problem = client.ask(request(path, "stocks", "RECORDS")).problem
        assert problem is not None
        assert "Choose another table_name" in problem.message
        client.carry_out(request(path, "stocks", "others"))
        market.publish(Kind.TRADE, 10)
        other.publish(Kind.QUOTE, 5)
        for connection in ("crypto", "stocks"):
            client.carry_out(Commit(0, connection))
        client.carry_out(Release(0, "crypto", delete=False))
        other.publish(Kind.QUOTE, 5)
        problem = client.ask(Release(0, "stocks", delete=True)).problem
        assert problem is not None
        assert "another connection's table" in problem.message
    assert recorded(path) == market.order[-3:]
    assert recorded(path, "others") == other.order
    other.close()


def test_asking_again_for_the_same_changes_nothing_and_for_something_else_is_refused(
    path: Path, market: Market
) -> None:
    with recorder() as client:
        client.carry_out(request(path))
        client.carry_out(request(path))
        problem = client.ask(request(path, limit=5)).problem
        assert problem is not None
        assert problem.type == "ConnectionExists"
        market.publish(Kind.TRADE, 10)
        client.carry_out(Commit(0, "crypto"))
        assert recorded(path) == market.order


@pytest.mark.parametrize(
    ("file", "options", "error", "words"),
    [
        ("text", {}, "ResultsFileError", "no SQLite database"),
        ("folder", {}, "ResultsFileError", "is a directory"),
        ("missing/results.db", {}, "ResultsFileError", "Make it"),
        ("new.db", {"table": "sqlite_x"}, "ParameterError", "reserved"),
        ("new.db", {"table": "a b"}, "ParameterError", "cannot name a table"),
        ("new.db", {"limit": 0}, "ParameterError", "limit"),
        ("new.db", {"connection": "../x"}, "ParameterError", "cannot name a connection"),
    ],
)
def test_a_bad_request_is_answered_and_the_others_go_on(
    path: Path, market: Market, file: str, options: dict[str, str | int], error: str, words: str
) -> None:
    (path.parent / "text").write_text("date,price\n" * 100)
    (path.parent / "folder").mkdir()
    with recorder() as client:
        client.carry_out(request(path))
        asked = {"connection": "other", **options}
        problem = client.ask(request(path.parent / file, **asked)).problem  # type: ignore[arg-type]  # a test's options
        assert problem is not None
        assert problem.type == error
        assert words in problem.message
        market.publish(Kind.TRADE, 10)
        wait_until(lambda: recorded(path) == market.order, "the other connection is recorded")
    assert (path.parent / "text").read_text() == "date,price\n" * 100


@pytest.mark.fault
def test_a_second_recorder_is_kept_out_until_the_first_is_killed(path: Path, market: Market) -> None:
    with recorder() as first, recorder() as second:
        first.carry_out(request(path))
        problem = second.ask(request(path)).problem
        assert problem is not None
        assert "another recorder writes" in problem.message
        first.process.kill()
        first.process.wait(20)
        second.carry_out(request(path))
        market.publish(Kind.TRADE, 10)
        second.carry_out(Commit(0, "crypto"))
        assert recorded(path) == market.order


@pytest.mark.fault
def test_a_disk_that_fills_up_is_told_once_and_again_when_it_has_room(path: Path, market: Market) -> None:
    with recorder() as client:
        client.carry_out(request(path))
        market.publish(Kind.TRADE, 100)
        client.carry_out(Commit(0, "crypto"))
        limits = psutil.Process(client.process.pid)
        before = limits.rlimit(psutil.RLIMIT_FSIZE)
        limits.rlimit(psutil.RLIMIT_FSIZE, (path.with_name("results.db-wal").stat().st_size, before[1]))
        market.publish(Kind.TRADE, 1000)
        wait_until(lambda: client.receive(0.1) and client.notices, "the trouble is told")
        market.publish(Kind.TRADE, 1000)
        problem = client.ask(Commit(0, "crypto")).problem
        assert problem is not None
        assert str(path) in problem.message
        limits.rlimit(psutil.RLIMIT_FSIZE, before)
        wait_until(lambda: client.receive(0.1) and len(client.notices) == 2, "the recovery is told")
        assert recorded(path) == market.order
        assert gaps(path) == []


class Watcher(threading.Thread):
    """An independent reader: how many rows are there, and are they the newest in a row, at every moment it looks."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__()
        self._path, self._limit = path, limit
        self.finished = threading.Event()
        self.wrong: list[object] = []
        self.full = 0

    def run(self) -> None:
        with reading(self._path) as database:
            while not self.finished.is_set():
                seen = [parse(text).seq for (text,) in database.execute("SELECT message FROM records ORDER BY id")]
                if len(seen) > self._limit or seen != [*range(seen[0], seen[0] + len(seen))] if seen else False:
                    self.wrong.append(seen)
                self.full += len(seen) == self._limit


def test_the_limit_is_exact_at_every_moment_that_an_independent_reader_sees(path: Path, market: Market) -> None:
    dice = random.Random(3)
    with recorder() as client:
        client.carry_out(request(path, limit=100, sleep_time=0.005))
        watcher = Watcher(path, 100)
        watcher.start()
        try:
            while watcher.full < 150 and not watcher.wrong:
                market.publish(Kind.TRADE, dice.randint(1, 200))
                client.carry_out(Commit(0, "crypto"))
        finally:
            watcher.finished.set()
            watcher.join()
        assert watcher.wrong == []
        assert recorded(path) == market.order[-100:]
        assert number(path, "pruned") == len(market.order) - 100


class Writer(threading.Thread):
    """Publishes random numbers of records, about 200,000 a second, until told to stop or `quota` is used up."""

    def __init__(self, market: Market, dice: random.Random, quota: int) -> None:
        super().__init__()
        self._market, self._dice, self._quota = market, random.Random(dice.random()), quota
        self.finished = threading.Event()

    def run(self) -> None:
        enough = len(self._market.order) + self._quota
        while len(self._market.order) < enough and not self.finished.wait(0.001):
            self._market.publish(Kind.TRADE, self._dice.randint(1, 200))
            self._market.publish(Kind.QUOTE, self._dice.randint(1, 200))
            self._market.publish(Kind.EVENT, 1)


def last_id(path: Path) -> int:
    """How many data records the recorder has dealt with, for ids go on over those that the limit left out."""
    with reading(path) as database:
        (newest,) = database.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()
    return int(newest)


def progressed(path: Path, since: int) -> bool:
    return last_id(path) > since


def kill_while_it_records(
    path: Path, market: Market, dice: random.Random, kills: int, limit: int | None = None, overrun: int = 0
) -> None:
    """Kill and restart the recorder `kills` times while it records what is written all the time; then let it finish.

    A kill counts only if this recorder had committed something and there was more to come: else it came too early or
    too late to prove anything. While it is dead, `overrun` trades are published.
    """
    hits = 0
    while hits < kills:
        writer = Writer(market, dice, quota=10_000)
        with recorder() as client:
            client.carry_out(request(path, sleep_time=0.005, limit=limit))
            writer.start()
            wait_until(partial(progressed, path, last_id(path)), "a commit")
            writer.finished.wait(dice.uniform(0.0, 0.03))  # the moment of the kill: any
            client.process.kill()
            client.process.wait(20)
            writer.finished.set()
            writer.join()
        hits += last_id(path) < len(market.order)
        if overrun:
            market.publish(Kind.TRADE, overrun)
    with recorder() as client:
        client.carry_out(request(path, limit=limit))
        client.carry_out(Release(0, "crypto", delete=False))


@pytest.mark.fault
@pytest.mark.parametrize("limit", [None, 7])
def test_kill_9_before_any_statement_repeats_nothing_and_loses_nothing(
    path: Path, runtime: Path, limit: int | None
) -> None:
    with running("recorder_crashes", path, limit or 0) as process:
        assert process.stdout is not None
        sweep = msgspec.json.decode(process.stdout.read(), type=Sweep)
    assert sweep.children > 30  # opening, recording and closing are so many statements at least
    assert recorded(path) == (sweep.order if limit is None else sweep.order[-limit:])
    assert number(path, "pruned") == len(sweep.order) - len(recorded(path))
    assert [row.seq for row in rows(path, "records_events")] == list(range(sweep.events))
    assert gaps(path) == []


@pytest.mark.fault
def test_kill_9_at_any_moment_repeats_nothing_and_loses_nothing_that_the_rings_hold(
    path: Path, large_market: Market
) -> None:
    market = large_market
    kill_while_it_records(path, market, random.Random(11), 4)
    assert gaps(path) == []
    for kind in (Kind.TRADE, Kind.QUOTE):
        truth = [seq for one, seq in market.order if one == kind]
        assert [seq for one, seq in recorded(path) if one == kind] == truth
    events = rows(path, "records_events")
    assert [row.seq for row in events] == list(range(len(events)))
    assert len(events) == market.writer.rings["event"].tail
    with reading(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        ids = [number for (number,) in database.execute("SELECT id FROM records ORDER BY id")]
    assert ids == list(range(1, len(market.order) + 1))


@pytest.mark.fault
def test_kill_9_with_rings_that_overwrite_accounts_for_every_record_once(path: Path, market: Market) -> None:
    kill_while_it_records(path, market, random.Random(12), 3, overrun=6000)
    found = gaps(path)
    assert len(found) >= 3
    for kind in (Kind.TRADE, Kind.QUOTE):
        seqs = [seq for one, seq in recorded(path) if one == kind]
        lost = [seq for one, first, count, _ in found if one == kind for seq in range(first, first + count)]
        assert sorted(seqs + lost) == list(range(market.writer.rings[kind].tail))
        assert seqs == sorted(seqs)
    assert number(path, "lost") == sum(count for _, _, count, _ in found)
    assert {reason for *_, reason in found} == {Loss.OVERWRITTEN}


@pytest.mark.fault
def test_kill_9_with_a_limit_leaves_the_newest_and_counts_the_rest(path: Path, large_market: Market) -> None:
    market = large_market
    kill_while_it_records(path, market, random.Random(13), 3, limit=100)
    assert len(recorded(path)) == 100
    assert number(path, "pruned") == len(market.order) - 100
    for kind in (Kind.TRADE, Kind.QUOTE):
        seqs = [seq for one, seq in recorded(path) if one == kind]
        assert seqs == list(range(market.writer.rings[kind].tail - len(seqs), market.writer.rings[kind].tail))
