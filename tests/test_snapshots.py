"""One connection's table: shape, transaction, limit, pruning, cursors, gaps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from processes.recorder_parts import BEGIN, Market, gaps, number, parse, reading, recorded, rows

from feeds.records import DATA_KINDS, DTYPES, Kind
from ringbuf.errors import ParameterError, ResultsFileError
from ringbuf.records import Loss
from supervisor import snapshots
from supervisor.gathered import Cursor, Gathered
from supervisor.results_schema import read_cursors, view_statement
from supervisor.ring_stream import RingStream
from supervisor.snapshot_file import SnapshotFile
from supervisor.snapshots import SnapshotTable

NOW = BEGIN + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def file(path: Path) -> Iterator[SnapshotFile]:
    file = SnapshotFile(path)
    yield file
    file.close()


class Snapshotter:
    """A table with the stream that belongs to it, as the recorder has them."""

    def __init__(
        self, file: SnapshotFile, limit: int | None, table: str = "records", connection: str = "crypto"
    ) -> None:
        self.table = SnapshotTable(file, table, connection, limit)
        self.rings = RingStream(
            connection, self.table.cursors, begin=None if self.table.started else "oldest", limit=limit
        )

    def snapshot(self) -> bool:
        self.rings.attach()
        self.rings.gather(self.rings.tails())
        return self.table.commit(self.rings.take(), NOW)

    def close(self) -> None:
        self.rings.close()


def test_the_table_has_the_shape_of_the_toolkit(file: SnapshotFile, path: Path) -> None:
    SnapshotTable(file, "records", "crypto", 10)
    with reading(path) as database:
        statements = dict(database.execute("SELECT name, sql FROM sqlite_master"))
    for name in ("records", "records_events"):
        assert statements[name] == f'CREATE TABLE "{name}" (id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT)'
    assert {f"records_{kind}" for kind in DATA_KINDS} <= set(statements)


def test_rows_are_records_in_merged_order_as_text(file: SnapshotFile, path: Path, market: Market) -> None:
    for kind, count in ((Kind.TRADE, 3), (Kind.QUOTE, 2), (Kind.TRADE, 2)):
        market.publish(kind, count)
    snapshotter = Snapshotter(file, None)
    assert snapshotter.snapshot()
    with reading(path) as database:
        found = database.execute("SELECT id, typeof(message), message FROM records ORDER BY id").fetchall()
    assert [row[:2] for row in found] == [(number, "text") for number in range(1, 8)]
    assert recorded(path) == market.order
    assert found[1][2] == (
        '{"date":"2024-11-12T04:51:33.000001+00:00","symbol":"BTCUSDT","type":"trade","exchange":"binance",'
        '"last_price":0.25,"last_size":0.0,"received":"2024-11-12T04:51:33.000001+00:00","seq":1}'
    )
    snapshotter.close()


def test_views_show_the_fields_of_their_kind_only(file: SnapshotFile, path: Path, market: Market) -> None:
    for kind in DATA_KINDS:
        market.publish(kind, 2)
    snapshotter = Snapshotter(file, None)
    snapshotter.snapshot()
    with reading(path) as database:
        for kind in DATA_KINDS:
            cursor = database.execute(f"SELECT * FROM records_{kind}")  # noqa: S608
            columns = [column for column, *_ in cursor.description]
            assert set(columns) == {"id"} | {n for n in DTYPES[kind].names or () if not n.startswith("_")}
            assert [row[columns.index("seq")] for row in cursor] == [0, 1]
        price, symbol, size = database.execute("SELECT last_price, symbol, trade_id FROM records_trade").fetchall()[1]
    assert (price, symbol, size) == (0.25, "BTCUSDT", None)
    snapshotter.close()


@pytest.mark.parametrize("limit", [1, 2, 7, 10, 50])
def test_the_limit_is_exact_after_every_commit_and_ids_go_on(
    file: SnapshotFile, path: Path, market: Market, limit: int
) -> None:
    snapshotter = Snapshotter(file, limit)
    for count in (3, 4, 1, 25, 2, 60, 1, 1, 9):
        market.publish(Kind.TRADE, count)
        market.publish(Kind.QUOTE, 1)
        snapshotter.snapshot()
        assert recorded(path) == market.order[-limit:]
        with reading(path) as database:
            ids = [number for (number,) in database.execute("SELECT id FROM records ORDER BY id")]
        total = len(market.order)
        assert ids == list(range(total - len(ids) + 1, total + 1))
        assert number(path, "pruned") == total - len(ids)
    snapshotter.close()


def test_ids_are_never_used_again_even_after_all_rows_were_deleted(
    file: SnapshotFile, path: Path, market: Market
) -> None:
    snapshotter = Snapshotter(file, None)
    market.publish(Kind.TRADE, 5)
    snapshotter.snapshot()
    file.database.execute("DELETE FROM records")
    market.publish(Kind.TRADE, 1)
    snapshotter.snapshot()
    with reading(path) as database:
        assert database.execute("SELECT id FROM records").fetchall() == [(6,)]
    snapshotter.close()


def test_nothing_new_is_no_transaction(file: SnapshotFile, market: Market) -> None:
    market.publish(Kind.TRADE, 1)
    snapshotter = Snapshotter(file, None)
    assert snapshotter.snapshot()
    before = file.database.total_changes
    assert not snapshotter.snapshot()
    assert file.database.total_changes == before
    snapshotter.close()


def test_an_own_table_of_rows_is_continued_and_cut_to_the_limit_at_once(path: Path, market: Market) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE records (id integer primary key autoincrement, message text)")
        database.executemany(
            "INSERT INTO records VALUES (?, ?)", [(seq, f'{{"type":"old","seq":{seq}}}') for seq in (2, 5, 9)]
        )
    file = SnapshotFile(path)
    snapshotter = Snapshotter(file, 2)
    assert recorded(path) == [("old", 5), ("old", 9)]
    assert number(path, "pruned") == 1
    market.publish(Kind.TRADE, 1)
    snapshotter.snapshot()
    assert recorded(path) == [("old", 9), ("trade", 0)]
    with reading(path) as database:
        assert database.execute("SELECT max(id) FROM records").fetchone() == (10,)
    snapshotter.close()
    file.close()


def test_the_limit_holds_although_a_stranger_writes_rows_too(file: SnapshotFile, path: Path, market: Market) -> None:
    snapshotter = Snapshotter(file, 5)
    market.publish(Kind.TRADE, 4)
    snapshotter.snapshot()
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.executemany("INSERT INTO records (message) VALUES (?)", [('{"type":"theirs"}',)] * 4)
    market.publish(Kind.TRADE, 2)
    snapshotter.snapshot()
    assert [row.type for row in rows(path)] == ["theirs"] * 3 + ["trade"] * 2
    snapshotter.close()


def test_events_have_their_own_table_and_no_part_in_the_limit(file: SnapshotFile, path: Path, market: Market) -> None:
    market.publish(Kind.EVENT, 3)
    market.publish(Kind.TRADE, 3)
    snapshotter = Snapshotter(file, 2)
    snapshotter.snapshot()
    assert recorded(path) == [("trade", 1), ("trade", 2)]
    assert [(row.type, row.seq, row.code) for row in rows(path, "records_events")] == [
        ("event", seq, "connected") for seq in range(3)
    ]
    snapshotter.close()


def test_with_a_limit_events_do_not_grow_without_end(
    file: SnapshotFile, path: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "EVENTS_KEPT", 4)
    snapshotter = Snapshotter(file, 1)
    for _ in range(3):
        market.publish(Kind.EVENT, 3)
        snapshotter.snapshot()
    assert [row.seq for row in rows(path, "records_events")] == [5, 6, 7, 8]
    snapshotter.close()


def test_what_the_ring_overwrote_is_written_down_and_counted(file: SnapshotFile, path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 10)
    snapshotter = Snapshotter(file, None)
    snapshotter.snapshot()
    market.publish(Kind.TRADE, 3 * 2**12)
    snapshotter.snapshot()
    ((kind, first, count, reason),) = gaps(path)
    assert (kind, first, reason) == ("trade", 10, Loss.OVERWRITTEN)
    assert [seq for _, seq in recorded(path)] == [*range(10), *range(10 + count, 10 + 3 * 2**12)]
    assert number(path, "lost") == count
    (gap,) = rows(path, "records_events")
    assert (gap.ring_id, gap.date) == (market.ring_id(Kind.TRADE), "2024-11-12T04:51:33.000000001+00:00")
    snapshotter.close()


def test_rows_and_cursors_are_one_transaction_so_a_resumed_table_repeats_and_loses_nothing(
    path: Path, market: Market
) -> None:
    for _ in range(4):
        file = SnapshotFile(path)
        snapshotter = Snapshotter(file, None)
        market.publish(Kind.TRADE, 5)
        market.publish(Kind.QUOTE, 5)
        snapshotter.snapshot()
        market.publish(Kind.TRADE, 2)  # published while nobody records
        snapshotter.close()
        file.close()
    file = SnapshotFile(path)
    snapshotter = Snapshotter(file, None)
    snapshotter.snapshot()
    assert recorded(path) == market.order
    assert gaps(path) == []
    snapshotter.close()
    file.close()


@pytest.mark.fault
def test_a_commit_that_fails_leaves_neither_rows_nor_cursors(file: SnapshotFile, path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 3)
    snapshotter = Snapshotter(file, None)
    snapshotter.snapshot()
    cursors = read_cursors(file.database, "records")
    file.database.execute(  # the last statement of the transaction fails
        "CREATE TRIGGER no BEFORE UPDATE ON tickring_tables BEGIN SELECT RAISE(ABORT, 'the disk went away'); END"
    )
    market.publish(Kind.TRADE, 3)
    with pytest.raises(ResultsFileError, match="the disk went away"):
        snapshotter.snapshot()
    assert recorded(path) == market.order[:3]
    assert read_cursors(file.database, "records") == cursors
    snapshotter.close()


def test_before_the_first_commit_a_table_is_not_started(file: SnapshotFile, path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 2 * 2**12)
    SnapshotTable(file, "records", "crypto", None)
    assert number(path, "started") == 0
    again = Snapshotter(file, None)
    again.snapshot()
    assert number(path, "started") == 1
    assert gaps(path) == []
    again.close()


def test_another_connection_goes_on_in_a_table_without_a_gap(path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 2)
    file = SnapshotFile(path)
    first = Snapshotter(file, None)
    first.snapshot()
    first.close()
    other = Market("stocks")
    other.publish(Kind.TRADE, 2)
    second = Snapshotter(file, None, connection="stocks")
    second.snapshot()
    second.close()
    file.close()
    assert recorded(path) == [("trade", 0), ("trade", 1)] * 2
    assert gaps(path) == []
    other.close()


def test_another_ring_under_a_known_name_is_a_gap(file: SnapshotFile, path: Path, market: Market) -> None:
    snapshotter = Snapshotter(file, None)
    snapshotter.snapshot()
    snapshotter.table.commit(Gathered(cursors={Kind.TRADE: Cursor("00" * 16, 12)}), NOW)
    snapshotter.close()
    market.publish(Kind.TRADE, 2)
    again = Snapshotter(file, None)
    again.snapshot()
    assert gaps(path) == [("trade", 0, 0, Loss.REPLACED)]
    assert recorded(path) == market.order
    again.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE Records (id INTEGER PRIMARY KEY, message TEXT)",
        "CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT, more TEXT)",
        "CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB)",
        "CREATE VIEW records AS SELECT 1 AS id, 'x' AS message",
        "CREATE TABLE records_events (x)",
        "CREATE TABLE records_trade (x)",
    ],
)
def test_a_table_of_another_shape_is_refused_and_nothing_is_changed(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)
    file = SnapshotFile(path)
    before = file.database.execute("SELECT name, sql FROM sqlite_master").fetchall()
    with pytest.raises(ResultsFileError, match="Choose another table_name or results_file"):
        SnapshotTable(file, "records", "crypto", None)
    assert file.database.execute("SELECT name, sql FROM sqlite_master").fetchall() == before
    file.close()


@pytest.mark.parametrize(("first", "second"), [("a", "A_events"), ("a_events", "a")])
def test_a_table_does_not_mix_with_anothers_events(file: SnapshotFile, first: str, second: str) -> None:
    SnapshotTable(file, first, "crypto", None)
    with pytest.raises(ResultsFileError, match="events"):
        SnapshotTable(file, second, "stocks", None)


def test_a_view_of_an_older_version_is_made_anew(file: SnapshotFile) -> None:
    SnapshotTable(file, "records", "crypto", None)
    file.database.execute("DROP VIEW records_trade")
    file.database.execute("CREATE VIEW records_trade AS SELECT 1")
    SnapshotTable(file, "records", "crypto", None)
    (statement,) = file.database.execute("SELECT sql FROM sqlite_master WHERE name = 'records_trade'").fetchone()
    assert statement == view_statement("records", Kind.TRADE)


@pytest.mark.parametrize("name", ["records", "_", "select", "R2_d2", "x" * 63])
def test_what_can_name_a_table(file: SnapshotFile, name: str) -> None:
    SnapshotTable(file, name, "crypto", 1)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(file: SnapshotFile, limit: int) -> None:
    with pytest.raises(ParameterError, match="limit"):
        SnapshotTable(file, "records", "crypto", limit)


def test_every_message_is_json(file: SnapshotFile, path: Path, market: Market) -> None:
    for kind in Kind:
        market.publish(kind, 1)
    snapshotter = Snapshotter(file, None)
    snapshotter.snapshot()
    with reading(path) as database:
        texts = [
            text
            for (text,) in database.execute("SELECT message FROM records UNION ALL SELECT message FROM records_events")
        ]
    assert sorted(parse(text).type for text in texts) == sorted(map(str, Kind))
    assert all(isinstance(msgspec.json.decode(text), dict) for text in texts)
    snapshotter.close()
