"""What a results file holds for one table, in words of SQL.

For a table ``records``::

    records          id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT     data records as JSON, oldest first
    records_events   the same                                               event records, and gaps of the recording
    records_trade    view: id and the kind's fields as columns              likewise _quote, _candle, _level, _price

A gap reads ``{"date":...,"type":"gap","kind":"trade","first":8,"count":16,"reason":"overwritten","ring_id":"5f..."}``:
`count` records from seq `first` on were published in that ring and are not in the table. The reason is "overwritten",
"void" (never finished by a provider that was killed) or "replaced" (another ring has taken the place; what the old one
held beyond the last snapshot is unknown).
"""

from __future__ import annotations

import re
import sqlite3
from typing import Final

import orjson

from feeds.encoding import format_time
from feeds.records import DTYPES, Kind
from ringbuf.errors import ParameterError
from ringbuf.frames import column_order
from supervisor.gathered import Cursor, Miss

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
#: The columns of a table of rows.
SHAPE: Final = "(id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT)"


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


def table_names(database: sqlite3.Connection) -> set[str]:
    """Give the tables that are recorded into, in small letters."""
    return {_text(name).lower() for (name,) in database.execute("SELECT table_name FROM tickring_tables")}


def existing(database: sqlite3.Connection, name: str) -> tuple[str, str] | None:
    """Give type and statement of what has this name; SQLite's names ignore case."""
    found = database.execute("SELECT type, sql FROM sqlite_master WHERE name = ? COLLATE NOCASE", (name,)).fetchone()
    return None if found is None else (found[0], found[1])


def has_shape(database: sqlite3.Connection, name: str, statement: str) -> bool:
    """Tell whether a table, made by this statement, is one of rows."""
    columns = [(row[1].lower(), row[2].upper(), row[5]) for row in database.execute(f'PRAGMA table_info("{name}")')]
    wanted = [("id", "INTEGER", 1), ("message", "TEXT", 0)]
    return columns == wanted and "AUTOINCREMENT" in statement.upper()


def last_id(database: sqlite3.Connection, name: str) -> int:
    """The largest id that the table has ever had."""
    row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = ? COLLATE NOCASE", (name,)).fetchone()
    return int(row[0]) if row is not None else 0
