"""Results files: made, continued, refused, locked, deleted."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ringbuf.errors import ParameterError, ResultsFileError
from supervisor.snapshot_file import APPLICATION_ID, SnapshotFile, resolved


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a file?#%41.db"


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(f"PRAGMA {name}").fetchone()[0]


def execute(path: Path, *statements: str) -> None:
    """Do something to a file as any other program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def test_a_new_file_is_private_and_says_whose_it_is(path: Path) -> None:
    file = SnapshotFile(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name(f"{path.name}-wal").stat().st_mode) == 0o600
    file.close()
    assert pragma(path, "application_id") == APPLICATION_ID == int.from_bytes(b"TICK", "big")
    assert pragma(path, "user_version") == 1
    assert pragma(path, "journal_mode") == "wal"


def test_closing_leaves_one_file_with_everything_in_it(path: Path) -> None:
    file = SnapshotFile(path)
    with file.transaction() as database:
        database.execute("CREATE TABLE t (x)")
    file.close()
    file.close()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_someone_elses_database_is_continued_and_keeps_its_identity(path: Path) -> None:
    execute(path, "PRAGMA application_id = 7", "PRAGMA user_version = 9", "CREATE TABLE mine (x)")
    file = SnapshotFile(path)
    assert not file.may_delete("crypto")
    file.close()
    assert (pragma(path, "application_id"), pragma(path, "user_version")) == (7, 9)


def test_an_empty_file_that_was_there_is_not_ours(path: Path) -> None:
    path.touch()
    file = SnapshotFile(path)
    assert not file.may_delete("crypto")
    file.close()


def test_a_file_that_we_made_stays_ours_after_opening_it_again(path: Path) -> None:
    for _ in range(2):
        file = SnapshotFile(path)
        assert file.may_delete("crypto")
        file.close()


def test_a_file_with_another_connections_table_is_not_deleted(path: Path) -> None:
    file = SnapshotFile(path)
    for name, connection in (("a", "crypto"), ("b", "stocks")):
        file.database.execute("INSERT INTO tickring_tables (table_name, connection) VALUES (?, ?)", (name, connection))
    assert not file.may_delete("crypto")
    file.close()


def test_deleting_takes_everything_away_even_while_somebody_reads(path: Path) -> None:
    file = SnapshotFile(path)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as reader:
        reader.execute("SELECT * FROM tickring_file").fetchall()
        file.close(delete=True)
    assert list(path.parent.iterdir()) == []


def test_a_file_that_took_the_name_is_not_deleted(path: Path) -> None:
    file = SnapshotFile(path)
    path.rename(path.with_name("moved.db"))
    path.write_text("mine")
    with pytest.raises(ResultsFileError, match="removed or replaced"):
        file.check()
    file.close(delete=True)
    assert path.read_text() == "mine"


def text_file(path: Path) -> None:
    path.write_text("date,price\n" * 100)


def directory(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def newer(path: Path) -> None:
    execute(path, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 2", "CREATE TABLE t (x)")


def damaged(path: Path) -> None:
    execute(path, "CREATE TABLE t (x)", *["INSERT INTO t VALUES (zeroblob(9000))"] * 5)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (text_file, "no SQLite database: choose another results_file"),
        (directory, "is a directory or no plain file. Choose another"),
        (pipe, "is a directory or no plain file. Choose another"),
        (newer, "newer tickring (format 2, this one writes 1). Upgrade"),
        (damaged, "damaged"),
    ],
)
def test_what_cannot_be_continued_is_refused_and_left_as_it_is(
    path: Path, prepare: Callable[[Path], None], message: str
) -> None:
    prepare(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(ResultsFileError) as refused:
        SnapshotFile(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert not path.with_name(f"{path.name}-writer").exists()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsFileError, match=r"/missing is no directory\. Make it"):
        SnapshotFile(tmp_path / "missing" / "results.db")


def test_a_place_where_nothing_can_be_made_is_refused() -> None:
    # /proc takes no files from anybody, not even from root, whom modes do not stop.
    with pytest.raises(ResultsFileError, match="cannot be written"):
        SnapshotFile(Path("/proc/self/results.db"))


@pytest.mark.skipif(os.geteuid() == 0, reason="modes do not stop root")
def test_a_file_that_may_not_be_written_is_refused(path: Path) -> None:
    execute(path, "CREATE TABLE t (x)")
    path.chmod(0o400)
    with pytest.raises(ResultsFileError, match="cannot be written"):
        SnapshotFile(path)


def test_a_path_must_be_absolute_and_links_lead_to_one_file(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="absolute path"):
        resolved("results.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "results.db")
    assert resolved(str(tmp_path / "link.db")) == resolved(f"{tmp_path}/x/../results.db")


def test_a_failed_transaction_leaves_nothing_and_says_why(path: Path) -> None:
    file = SnapshotFile(path)
    row = ("a", "crypto", 0, 0, 0)
    rows = [row, ("b", *row[1:]), row]  # the last one breaks the rule that a table is there once
    with pytest.raises(ResultsFileError, match="UNIQUE"), file.transaction() as database:
        database.executemany("INSERT INTO tickring_tables VALUES (?, ?, ?, ?, ?)", rows)
    assert file.database.execute("SELECT count(*) FROM tickring_tables").fetchone() == (0,)
    file.close()


@pytest.mark.fault
def test_a_full_disk_is_named_and_nothing_of_the_transaction_stays(path: Path) -> None:
    file = SnapshotFile(path)
    with file.transaction() as database:
        database.execute("CREATE TABLE t (x)")
    (pages,) = file.database.execute("PRAGMA page_count").fetchone()
    file.database.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(ResultsFileError, match=r"disk is full\. Make room on its disk"), file.transaction() as database:
        database.executemany("INSERT INTO t VALUES (?)", [(bytes(3000),)] * 50)
    assert file.database.execute("SELECT count(*) FROM t").fetchone() == (0,)
    file.close()


def test_another_programs_lock_is_named(path: Path) -> None:
    file = SnapshotFile(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(ResultsFileError, match="Another program writes it"), file.transaction():
            pass
    file.close()


def test_what_was_written_is_checkpointed_now_and_then(path: Path) -> None:
    file = SnapshotFile(path)
    size = path.stat().st_size
    with file.transaction() as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (zeroblob(5000000))")
    assert path.stat().st_size == size
    file.wrote(3_000_000)
    assert path.stat().st_size == size
    file.wrote(3_000_000)
    assert path.stat().st_size > 5_000_000
    file.close()
