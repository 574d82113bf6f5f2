"""Reading results: the rows of a results file, and what the rings hold beyond them.

::

    results file:  rows ......... cursors (one read transaction, so that they belong together)
                                     |
    rings:               ............+------------> newest      read from the cursors on

So a caller sees every record that a reader of the ring would, never an interval late, and none twice: what the
recorder commits meanwhile is either in the transaction's view, rows and cursors both, or not in it at all.

The file is opened read-only, by as many as like; nobody but the recorder writes it. Where no cursors are known for the
connection (a file that tickring has not recorded into, a table that another connection has continued) the rows are all.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from feeds.records import DATA_KINDS, Kind
from ringbuf.errors import ParameterError, ResultsFileError
from supervisor.gathered import Cursor, merged
from supervisor.results_schema import check_table_name, read_cursors
from supervisor.ring_stream import RingStream
from supervisor.snapshot_file import described, resolved


def read_results(results_file: str, table_name: str, connection: str, limit: int | None) -> list[bytes]:
    """Give a connection's newest records as JSON texts, oldest first; events are not among them.

    Works whether the connection runs or not, and while the recorder writes. Takes about 1 us a row and 2 us a record
    of the rings.

    Args:
        results_file: its absolute path.
        table_name: the table's name.
        connection: the connection whose rings hold what is newer than the rows.
        limit: at most so many, the newest; None for all.

    Raises:
        ResultsFileError: there is no such file or table, or it is no SQLite database.
        ParameterError: a name or limit that cannot be one.
        RingCorrupt: a ring's names cannot be read.
    """
    check_table_name(table_name)
    if limit is not None and limit < 1:
        raise ParameterError(f"limit must be at least 1, or None for everything, not {limit}.")
    rows, cursors = _read_file(resolved(results_file), table_name, connection, limit)
    if cursors is not None:
        rows += beyond(connection, cursors, limit)
    return rows if limit is None else rows[-limit:]


def _read_file(
    path: Path, table_name: str, connection: str, limit: int | None
) -> tuple[list[bytes], dict[Kind, Cursor] | None]:
    """Give the newest rows, and the cursors behind them if the table is this connection's."""
    if not path.is_file():
        raise ResultsFileError(f"{path} does not exist, or is no file: nothing has been recorded there.")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as database:
            database.text_factory = bytes
            database.execute("BEGIN")
            _require_table(database, path, table_name)
            newest = database.execute(
                f'SELECT message FROM "{table_name}" ORDER BY id DESC LIMIT ?',  # noqa: S608 - checked name
                (-1 if limit is None else limit,),
            )
            rows = [message for (message,) in newest]
            cursors = _cursors(database, table_name, connection)
    except sqlite3.Error as error:
        raise described(path, error, "read") from error
    rows.reverse()
    return rows, cursors


def _require_table(database: sqlite3.Connection, path: Path, table_name: str) -> None:
    tables = [name.decode() for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if table_name.lower() not in map(str.lower, tables):
        shown = [name for name in tables if not name.startswith(("sqlite_", "tickring_"))]
        raise ResultsFileError(f"{path} has no table {table_name}. It has: {', '.join(sorted(shown)) or 'none'}.")


def _cursors(database: sqlite3.Connection, table_name: str, connection: str) -> dict[Kind, Cursor] | None:
    if database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'tickring_tables'").fetchone() == (0,):
        return None
    recorded = database.execute("SELECT connection FROM tickring_tables WHERE table_name = ?", (table_name,)).fetchone()
    return read_cursors(database, table_name) if recorded == (connection.encode(),) else None


def beyond(connection: str, cursors: Mapping[Kind, Cursor], limit: int | None) -> list[bytes]:
    """Give the newest data records that the rings of a connection hold beyond the cursors, as JSON.

    No ring is no error; a ring that cannot be read gives nothing, for it is the recorder that tells about it.
    """
    rings = RingStream(connection, cursors, begin="oldest", limit=limit, kinds=DATA_KINDS, batch=sys.maxsize)
    try:
        rings.attach()
        rings.gather(rings.tails())
        return merged(rings.take().data, limit)
    finally:
        rings.close()
