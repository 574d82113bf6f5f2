"""One connection's table in a results file, and the transaction that is a snapshot.

For a table ``records``::

    records          id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT     data records as JSON, oldest first
    records_events   the same                                               event records, and gaps of the recording
    records_trade    view: id and the kind's fields as columns              likewise _quote, _candle, _level, _price

One snapshot is one transaction::

    new records --> newest `limit` --> encode --> DELETE the oldest, INSERT the new   records
    new events, misses -------------> encode --> INSERT                               records_events
    cursors reached, counts ---------------------> UPDATE                             tickring_cursors, tickring_tables

so that after any crash rows and cursors belong together: a resumed recording repeats nothing and misses nothing that
the rings still hold. `limit` is exact after every commit; ids go on over rows that were never written, and those count
as pruned just like rows that were deleted. ``started`` is 0 until the first commit: before it, what the rings had
overwritten is no gap.

A gap reads ``{"date":...,"type":"gap","kind":"trade","first":8,"count":16,"reason":"overwritten","ring_id":"5f..."}``:
`count` records from seq `first` on were published in that ring and are not in the table. The reason is "overwritten",
"void" (never finished by a provider that was killed) or "replaced" (another ring has taken the place; what the old one
held beyond the last snapshot is unknown).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from itertools import count
from typing import Final

import orjson

from feeds.encoding import format_time, lines
from feeds.records import DATA_KINDS, DTYPES, Kind
from ringbuf.errors import ParameterError, ResultsFileError
from ringbuf.frames import column_order
from supervisor.intake import Cursor, Gathered, Miss, merged
from supervisor.snapshot_file import SnapshotFile

#: With a limit, so many events and gaps are kept: days of a bad line, 2 MB.
EVENTS_KEPT: Final = 10_000

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SHAPE: Final = "(id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT)"


def check_table_name(table_name: str) -> str:
    """Give back `table_name` if a table of results can have it.

    Raises:
        ParameterError: it is no plain identifier, or a name that SQLite or tickring keeps for itself.
    """
    if not _NAME.fullmatch(table_name):
        raise ParameterError(
            f"{table_name!r} cannot name a table: use 1 to 63 letters, digits or '_', the first one no digit."
        )
    if table_name.lower().startswith(("sqlite_", "tickring_")):
        raise ParameterError(f"{table_name!r} is a reserved name: choose one that does not begin so.")
    return table_name


def view_statement(table_name: str, kind: Kind) -> str:
    """Write the statement that makes a kind's typed view."""
    fields = [name for name in column_order(DTYPES[kind].names or ()) if name != "type"]
    columns = ", ".join(f"json_extract(message, '$.{name}') AS \"{name}\"" for name in fields)
    return (
        f'CREATE VIEW "{table_name}_{kind}" AS SELECT id, {columns} FROM "{table_name}" '  # noqa: S608 - checked name
        f"WHERE json_extract(message, '$.type') = '{kind}'"
    )


def read_cursors(database: sqlite3.Connection, table_name: str) -> dict[Kind, Cursor]:
    """Give where each kind's recording into a table goes on."""
    rows = database.execute("SELECT kind, ring_id, seq FROM tickring_cursors WHERE table_name = ?", (table_name,))
    known = set(Kind)
    return {Kind(_text(kind)): Cursor(_text(ring_id), seq) for kind, ring_id, seq in rows if _text(kind) in known}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes where the reader wants rows as they are


def gap_text(miss: Miss, now_ns: int) -> bytes:
    """Write a miss as the table of events has it."""
    return orjson.dumps(
        {
            "date": format_time(now_ns),
            "type": "gap",
            "kind": miss.kind,
            "first": miss.first,
            "count": miss.count,
            "reason": miss.reason,
            "ring_id": miss.ring_id,
        }
    )


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
        tables = {_text(name).lower() for (name,) in database.execute("SELECT table_name FROM tickring_tables")}
        if self.name.lower() in {f"{name}_events" for name in tables} or self.events_name.lower() in tables:
            raise self._refusal(self.name, "would mix with another table's events")
        for name in (self.name, self.events_name):
            made = _made(database, name)
            if made is None:
                database.execute(f'CREATE TABLE "{name}" {_SHAPE}')
            elif made[0] != "table" or not _has_shape(database, name, made[1]):
                raise self._refusal(name, f"has another shape than {_SHAPE}")

    def _refusal(self, name: str, why: str) -> ResultsFileError:
        return ResultsFileError(f"{name} in {self.file.path} {why}. Choose another table_name or results_file.")

    def _make_views(self, database: sqlite3.Connection) -> None:
        for kind in DATA_KINDS:
            name, wanted = f"{self.name}_{kind}", view_statement(self.name, kind)
            made = _made(database, name)
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
        self._last_id = _last_id(database, self.name)
        self._last_event_id = _last_id(database, self.events_name)

    @staticmethod
    def _version(database: sqlite3.Connection) -> int:
        """A number that changes when another connection has written."""
        (version,) = database.execute("PRAGMA data_version").fetchone()
        return int(version)

    def commit(self, gathered: Gathered, now_ns: int) -> bool:
        """Write what was gathered and the cursors behind it, all or nothing; tell whether there was anything to write.

        Args:
            gathered: taken from this connection's `Intake`.
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


def _made(database: sqlite3.Connection, name: str) -> tuple[str, str] | None:
    """Give type and statement of what has this name; SQLite's names ignore case."""
    found = database.execute("SELECT type, sql FROM sqlite_master WHERE name = ? COLLATE NOCASE", (name,)).fetchone()
    return None if found is None else (found[0], found[1])


def _has_shape(database: sqlite3.Connection, name: str, statement: str) -> bool:
    columns = [(row[1].lower(), row[2].upper(), row[5]) for row in database.execute(f'PRAGMA table_info("{name}")')]
    wanted = [("id", "INTEGER", 1), ("message", "TEXT", 0)]
    return columns == wanted and "AUTOINCREMENT" in statement.upper()


def _last_id(database: sqlite3.Connection, name: str) -> int:
    """The largest id that the table has ever had."""
    row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = ? COLLATE NOCASE", (name,)).fetchone()
    return int(row[0]) if row is not None else 0
