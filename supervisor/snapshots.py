"""One connection's table in a results file, and the transaction that is a snapshot.

One snapshot is one transaction::

    new records --> newest `limit` --> encode --> DELETE the oldest, INSERT the new   records
    new events, misses -------------> encode --> INSERT                               records_events
    cursors reached, counts ---------------------> UPDATE                             tickring_cursors, tickring_tables

so that after any crash rows and cursors belong together: a resumed recording repeats nothing and misses nothing that
the rings still hold. `limit` is exact after every commit; ids go on over rows that were never written, and those count
as pruned just like rows that were deleted. ``started`` is 0 until the first commit: before it, what the rings had
overwritten is no gap.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import count
from typing import Final

from feeds.encoding import lines
from feeds.records import DATA_KINDS, Kind
from ringbuf.errors import ParameterError, ResultsFileError
from supervisor.gathered import Cursor, Gathered, merged
from supervisor.results_schema import (
    SHAPE,
    check_table_name,
    existing,
    gap_text,
    has_shape,
    last_id,
    read_cursors,
    table_names,
    view_statement,
)
from supervisor.snapshot_file import SnapshotFile

__all__ = ["EVENTS_KEPT", "SnapshotTable", "check_table_name"]

#: With a limit, so many events and gaps are kept: days of a bad line, 2 MB.
EVENTS_KEPT: Final = 10_000


class SnapshotTable:
    """What one connection records into. For one thread; after an error, open the file and this anew."""

    def __init__(self, file: SnapshotFile, table_name: str, connection: str, limit: int | None) -> None:
        """Make the table, or continue one of that shape; then it has at most `limit` rows.

        Raises:
            ParameterError: the name cannot be a table's, or `limit` is below 1.
            ResultsFileError: something of that name with another shape is in the file, or the file cannot be written.
        """
        if limit is not None and limit < 1:
            raise ParameterError(f"limit must be at least 1, or None to keep everything, not {limit}.")
        self.name = check_table_name(table_name)
        self.events_name = f"{table_name}_events"
        self.file = file
        self._connection = connection
        self._limit = limit
        with file.transaction() as database:
            self._make_tables(database)
            self._make_views(database)
            self._register(database)
            #: Where each kind's reading goes on.
            self.cursors = read_cursors(database, table_name)
            self._count(database)
            self._prune(database, 0)
            self._tally(database)
            self._data_version = self._version(database)

    def _make_tables(self, database: sqlite3.Connection) -> None:
        tables = table_names(database)
        if self.name.lower() in {f"{name}_events" for name in tables} or self.events_name.lower() in tables:
            raise self._refusal(self.name, "would mix with another table's events")
        for name in (self.name, self.events_name):
            made = existing(database, name)
            if made is None:
                database.execute(f'CREATE TABLE "{name}" {SHAPE}')
            elif made[0] != "table" or not has_shape(database, name, made[1]):
                raise self._refusal(name, f"has another shape than {SHAPE}")

    def _refusal(self, name: str, why: str) -> ResultsFileError:
        return ResultsFileError(f"{name} in {self.file.path} {why}. Choose another table_name or results_file.")

    def _make_views(self, database: sqlite3.Connection) -> None:
        for kind in DATA_KINDS:
            name, wanted = f"{self.name}_{kind}", view_statement(self.name, kind)
            made = existing(database, name)
            if made is not None and made[0] != "view":
                raise self._refusal(name, f"stands where the view of {kind} records belongs")
            if made is not None and made[1] != wanted:
                database.execute(f'DROP VIEW "{name}"')
            if made is None or made[1] != wanted:
                database.execute(wanted)

    def _register(self, database: sqlite3.Connection) -> None:
        row = database.execute(
            "SELECT connection, started, pruned, lost FROM tickring_tables WHERE table_name = ?", (self.name,)
        ).fetchone()
        if row is not None and row[0] != self._connection:
            # Another connection's table is continued: its cursors mean nothing here, its counts stay the table's.
            database.execute("DELETE FROM tickring_cursors WHERE table_name = ?", (self.name,))
            database.execute(
                "UPDATE tickring_tables SET connection = ?, started = 0 WHERE table_name = ?",
                (self._connection, self.name),
            )
            row = (self._connection, 0, row[2], row[3])
        if row is None:
            database.execute(
                "INSERT INTO tickring_tables (table_name, connection) VALUES (?, ?)", (self.name, self._connection)
            )
            row = (self._connection, 0, 0, 0)
        #: Whether anything has been committed for this connection.
        self.started = bool(row[1])
        #: Data records that were deleted, or never written, because of `limit`.
        self.pruned: int = row[2]
        #: Records of all kinds that the rings did not hold any more.
        self.lost: int = row[3]

    def _count(self, database: sqlite3.Connection) -> None:
        """Count rows and find the newest ids; again whenever a stranger has written."""
        (self._rows,) = database.execute(f'SELECT count(*) FROM "{self.name}"').fetchone()  # noqa: S608
        self._last_id = last_id(database, self.name)
        self._last_event_id = last_id(database, self.events_name)

    @staticmethod
    def _version(database: sqlite3.Connection) -> int:
        """A number that changes when another connection has written."""
        (version,) = database.execute("PRAGMA data_version").fetchone()
        return int(version)

    def commit(self, gathered: Gathered, now_ns: int) -> bool:
        """Write what was gathered and the cursors behind it, all or nothing; tell whether there was anything to write.

        Args:
            gathered: taken from this connection's `RingStream`.
            now_ns: the time that gaps are dated with, ns since 1970.

        Raises:
            ResultsFileError: nothing was written; see `SnapshotFile.transaction`.
        """
        texts = merged(gathered.data, self._limit)
        misses = gathered.misses
        events = [text for batch in gathered.batches(Kind.EVENT) for text in lines(batch.records)]
        events += [gap_text(miss, now_ns) for miss in misses]
        moved = {kind: cursor for kind, cursor in gathered.cursors.items() if self.cursors.get(kind) != cursor}
        if self.started and not texts and not events and not moved:
            return False
        with self.file.transaction() as database:
            version = self._version(database)
            if version != self._data_version:
                self._data_version = version
                self._count(database)
            self._insert(database, texts, gathered.count - len(texts))
            self._insert_events(database, events)
            self._move_cursors(database, moved)
            self.lost += sum(miss.count for miss in misses)
            self.started = True
            self._tally(database)
        self.cursors.update(moved)
        self.file.wrote(sum(map(len, texts)) + sum(map(len, events)))
        return True

    def _insert(self, database: sqlite3.Connection, texts: Sequence[bytes], skipped: int) -> None:
        self._prune(database, len(texts))
        ids = count(self._last_id + skipped + 1)
        database.executemany(
            f'INSERT INTO "{self.name}" (id, message) VALUES (?, ?)',  # noqa: S608 - checked name
            zip(ids, (text.decode() for text in texts), strict=False),
        )
        self._rows += len(texts)
        self._last_id += skipped + len(texts)
        self.pruned += skipped

    def _prune(self, database: sqlite3.Connection, coming: int) -> None:
        """Delete the oldest rows, so that with those that come there are no more than the limit."""
        if self._limit is None or self._rows + coming <= self._limit:
            return
        excess = min(self._rows + coming - self._limit, self._rows)
        if excess == self._rows:
            database.execute(f'DELETE FROM "{self.name}"')  # noqa: S608 - SQLite does this one in one step
        else:
            database.execute(
                f'DELETE FROM "{self.name}" WHERE id <= '  # noqa: S608
                f'(SELECT id FROM "{self.name}" ORDER BY id LIMIT 1 OFFSET ?)',
                (excess - 1,),
            )
        self._rows -= excess
        self.pruned += excess

    def _insert_events(self, database: sqlite3.Connection, events: Sequence[bytes]) -> None:
        if not events:
            return
        database.executemany(
            f'INSERT INTO "{self.events_name}" (id, message) VALUES (?, ?)',  # noqa: S608
            zip(count(self._last_event_id + 1), (text.decode() for text in events), strict=False),
        )
        self._last_event_id += len(events)
        if self._limit is not None:
            database.execute(
                f'DELETE FROM "{self.events_name}" WHERE id <= ?',  # noqa: S608
                (self._last_event_id - EVENTS_KEPT,),
            )

    def _move_cursors(self, database: sqlite3.Connection, moved: dict[Kind, Cursor]) -> None:
        database.executemany(
            "INSERT OR REPLACE INTO tickring_cursors (table_name, kind, ring_id, seq) VALUES (?, ?, ?, ?)",
            [(self.name, kind.value, cursor.ring_id, cursor.seq) for kind, cursor in moved.items()],
        )

    def _tally(self, database: sqlite3.Connection) -> None:
        database.execute(
            "UPDATE tickring_tables SET started = ?, pruned = ?, lost = ? WHERE table_name = ?",
            (int(self.started), self.pruned, self.lost, self.name),
        )
