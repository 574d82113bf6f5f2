"""Results: the file's rows with what the rings hold beyond them, never late and nothing twice."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from processes.recorder_parts import Market, parse, request

from feeds.records import DATA_KINDS, Kind
from ringbuf.directory import connection_directory
from ringbuf.errors import ParameterError, ResultsFileError
from supervisor.gathered import Cursor
from supervisor.recording import OpenFiles, Recording
from supervisor.results_file import beyond, read_results


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def record(path: Path, limit: int | None = None) -> Recording:
    return Recording(request(path, limit=limit), OpenFiles(), lambda _: None)


def results(
    path: Path, limit: int | None = None, connection: str = "crypto", table: str = "records"
) -> list[tuple[str, int]]:
    return [(row.type, row.seq) for row in map(parse, read_results(str(path), table, connection, limit))]


def test_results_are_rows_and_then_what_only_the_rings_hold(path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 3)
    recording = record(path)
    recording.snapshot()
    market.publish(Kind.QUOTE, 2)
    market.publish(Kind.TRADE, 2)
    assert results(path) == market.order
    recording.snapshot()
    assert results(path) == market.order
    recording.end(delete=False)
    assert results(path) == market.order


def test_a_text_is_the_same_from_the_ring_and_from_the_file(path: Path, market: Market) -> None:
    recording = record(path)
    for kind in (Kind.TRADE, Kind.QUOTE, Kind.CANDLE, Kind.LEVEL, Kind.PRICE):
        market.publish(kind, 2)
    from_rings = read_results(str(path), "records", "crypto", None)
    recording.snapshot()
    assert read_results(str(path), "records", "crypto", None) == from_rings
    recording.end(delete=False)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 9, 100])
def test_no_more_than_the_limit_and_the_newest(path: Path, market: Market, limit: int) -> None:
    recording = record(path, limit=6)
    market.publish(Kind.TRADE, 20)
    recording.snapshot()
    market.publish(Kind.QUOTE, 2)
    market.publish(Kind.TRADE, 1)
    assert results(path, limit) == market.order[-9:][-limit:]
    recording.end(delete=False)


def test_events_are_no_results(path: Path, market: Market) -> None:
    recording = record(path)
    market.publish(Kind.EVENT, 2)
    market.publish(Kind.TRADE, 1)
    assert results(path) == [("trade", 0)]
    recording.snapshot()
    market.publish(Kind.EVENT, 2)
    assert results(path) == [("trade", 0)]
    recording.end(delete=False)


def test_a_connection_that_was_removed_still_has_its_rows(path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 3)
    recording = record(path)
    recording.end(delete=False)
    market.close()
    directory = connection_directory("crypto")
    for entry in directory.iterdir():
        entry.unlink()
    directory.rmdir()
    assert results(path) == market.order


def test_a_table_that_another_connection_continues_gives_its_rows_only(path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 3)
    recording = record(path)
    recording.end(delete=False)
    market.publish(Kind.TRADE, 3)
    assert results(path, connection="stocks") == market.order[:3]
    assert results(path) == market.order


def test_a_file_that_tickring_never_recorded_into_gives_its_rows(path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT)")
        database.execute("""INSERT INTO records (message) VALUES ('{"type":"theirs","seq":1}')""")
    assert results(path) == [("theirs", 1)]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsFileError, match=r"/none\.db does not exist"):
        results(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_table_is_named_and_so_are_those_there_are(path: Path, runtime: Path) -> None:
    record(path).end(delete=False)
    with pytest.raises(ResultsFileError, match=r"no table others\. It has: records, records_events\."):
        results(path, table="others")


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_text("date,price\n" * 100)
    with pytest.raises(ResultsFileError, match="cannot be read: file is not a database"):
        results(path)


@pytest.mark.parametrize(("table", "limit"), [("a b", None), ("sqlite_master", None), ("records", 0)])
def test_parameters_that_cannot_be(path: Path, table: str, limit: int | None) -> None:
    with pytest.raises(ParameterError):
        read_results(str(path), table, "crypto", limit)


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ParameterError, match="absolute"):
        read_results("results.db", "records", "crypto", None)


def test_reading_never_writes(path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 3)
    recording = record(path)
    recording.snapshot()
    before = path.read_bytes(), path.with_name("results.db-wal").read_bytes()
    results(path)
    assert (path.read_bytes(), path.with_name("results.db-wal").read_bytes()) == before
    recording.end(delete=False)


@pytest.mark.parametrize("limit", [None, 50])
def test_while_the_recorder_commits_nothing_is_missing_and_nothing_twice(
    path: Path, market: Market, limit: int | None
) -> None:
    """Rows and rings are read while records are published and committed between any two steps of the reading."""
    recording = record(path, limit)
    reads = 0
    wrong: list[object] = []
    finished = threading.Event()

    def read() -> None:
        nonlocal reads
        while not finished.is_set():
            published = len(market.order)
            seen = results(path, limit)
            enough = len(seen) == limit if limit is not None and published >= limit else len(seen) >= published
            trades = [seq for kind, seq in seen if kind == "trade"]
            quotes = [seq for kind, seq in seen if kind == "quote"]
            wrong.extend(seqs for seqs in (trades, quotes) if seqs and seqs != [*range(seqs[0], seqs[-1] + 1)])
            if not enough:
                wrong.append((published, len(seen)))
            reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while reads < 40 and not wrong:
            if len(market.order) < 3000:
                market.publish(Kind.TRADE, 7)
                market.publish(Kind.QUOTE, 5)
            recording.snapshot()
    finally:
        finished.set()
        reader.join()
    assert wrong == []
    recording.end(delete=False)


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


def test_a_connection_that_does_not_exist_holds_nothing_beyond(runtime: Path) -> None:
    assert beyond("nobody", {}, None) == []
