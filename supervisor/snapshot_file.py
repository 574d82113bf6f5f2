"""A results file, open for writing: at most once in the world, and by the recorder only.

::

    results.db           the database; ours has application_id "TICK", user_version 1
    results.db-wal, -shm SQLite's own
    results.db-writer    locked while a recorder has the file open; gone after an orderly close

    tickring_file        one row: made_by_us, 1 if the file did not exist before
    tickring_tables      one row a table: connection, started, pruned, lost
    tickring_cursors     one row a table and kind: ring_id, seq of the next record
    <table_name> ...     see `snapshots`

SQLite before 3.51.3 can corrupt a WAL database that two connections write or checkpoint at the same moment, so a second
recorder is kept out by a lock (see `file_lock`).

Checkpoints are ours alone: PASSIVE after every 4 MiB written, TRUNCATE at the end. After any error the file must be
closed and opened again, which is the same as coming back after a crash; the caller does that.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ringbuf.errors import ParameterError, ResultsFileError
from supervisor.file_lock import FileLock

#: "TICK": tells `file` and a stranger whose database it is.
APPLICATION_ID: Final = 0x5449434B
#: The version of the tables drawn above.
FORMAT: Final = 1

#: How long another program's write lock is waited for, in seconds; short, because everything else waits meanwhile.
_PATIENCE: Final = 0.25
#: SQLite's own default, 1000 pages of 4 KiB.
_CHECKPOINT_BYTES: Final = 4 * 2**20

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS tickring_file (made_by_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS tickring_tables (table_name TEXT PRIMARY KEY COLLATE NOCASE, connection TEXT NOT NULL,
    started INTEGER NOT NULL DEFAULT 0, pruned INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS tickring_cursors (table_name TEXT NOT NULL COLLATE NOCASE, kind TEXT NOT NULL,
    ring_id TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (table_name, kind));
"""


class SnapshotFile:
    """One results file with its only writing connection. For one thread."""

    def __init__(self, path: Path) -> None:
        """Open the file to continue it, or make it (0600) where there is none.

        Args:
            path: absolute, links resolved (see `resolved`).

        Raises:
            ResultsFileError: it is no SQLite database, a directory, not writable, made by a newer version, or another
                recorder has it; the message says what to do.
        """
        self.path = path
        if not path.parent.is_dir():
            raise ResultsFileError(f"{path.parent} is no directory. Make it, or choose another results_file.")
        if path.exists() and not path.is_file():
            raise ResultsFileError(f"{path} is a directory or no plain file. Choose another results_file.")
        self._lock = FileLock(path)
        try:
            made = self._make()
            self.database = sqlite3.connect(
                f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_PATIENCE
            )
            try:
                self._prepare(made)
            except BaseException:
                self.database.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        self._identity = self._found()
        self._written = 0

    def _make(self) -> bool:
        """Make an empty file if there is none, and tell whether there was none."""
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        except OSError as error:
            raise ResultsFileError(
                f"{self.path} cannot be made: {error.strerror}. Choose another results_file."
            ) from error
        return True

    def _prepare(self, made: bool) -> None:
        database = self.database
        with self._told():
            (application,), (version,) = (
                database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
            )
            if application == APPLICATION_ID and version > FORMAT:
                raise ResultsFileError(
                    f"{self.path} was written by a newer tickring (format {version}, this one writes {FORMAT}). "
                    "Upgrade tickring, or choose another results_file."
                )
            if database.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise ResultsFileError(
                    f"{self.path} cannot be written while it is read, as its file system has no shared memory (a "
                    "network file system?). Choose a results_file on a local disk."
                )
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA temp_store = MEMORY")
            database.execute("PRAGMA wal_autocheckpoint = 0")
        with self.transaction():
            for statement in _TABLES.split(";\n"):
                database.execute(statement)
            if database.execute("SELECT count(*) FROM tickring_file").fetchone() == (0,):
                database.execute("INSERT INTO tickring_file VALUES (?)", (int(made),))
            if made:
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {FORMAT}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn an error of SQLite's into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise described(self.path, error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do all or nothing of what is executed within.

        Raises:
            ResultsFileError: SQLite could not: full disk, another program's lock, damage. Close the file and open it
                again; nothing of the transaction has happened.
        """
        database = self.database
        with self._told():
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    def check(self) -> None:
        """Look whether the path still means the file that is open.

        Raises:
            ResultsFileError: somebody removed or replaced it.
        """
        if self._found() != self._identity:
            raise ResultsFileError(f"{self.path} was removed or replaced while it was written.")

    def _found(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self.path.stat()
            return found.st_dev, found.st_ino
        return None

    def wrote(self, size: int) -> None:
        """Count bytes, and checkpoint when there are enough: what readers allow of it, without waiting for them."""
        self._written += size
        if self._written >= _CHECKPOINT_BYTES:
            self._written = 0
            with self._told():
                self.database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def may_delete(self, connection: str) -> bool:
        """Tell whether the file is ours to delete: made by us, and no other connection's table is in it."""
        with self._told():
            (made,) = self.database.execute("SELECT made_by_us FROM tickring_file").fetchone()
            others = "SELECT count(*) FROM tickring_tables WHERE connection <> ?"
            return bool(made) and self.database.execute(others, (connection,)).fetchone() == (0,)

    def close(self, *, delete: bool = False) -> None:
        """Checkpoint all into the database and close it, or delete it; doing so twice is harmless.

        A file that is not there any more, or cannot be written, is closed without a word: what was committed is safe
        in the file beside it, and its next opener takes it over.
        """
        with suppress(sqlite3.Error):
            if not delete:
                self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with suppress(sqlite3.Error):
            self.database.close()
        if delete and self._found() == self._identity:
            for ending in ("", "-wal", "-shm"):
                self.path.with_name(f"{self.path.name}{ending}").unlink(missing_ok=True)
        self._lock.release()


def resolved(results_file: str) -> Path:
    """Give the path that a results file is known by, links resolved.

    Raises:
        ParameterError: it is not absolute: the recorder's working directory is not the caller's.
    """
    if not Path(results_file).is_absolute():
        raise ParameterError(f"results_file must be an absolute path, not {results_file!r}.")
    return Path(os.path.realpath(results_file))


def described(path: Path, error: sqlite3.Error, what: str = "written") -> ResultsFileError:
    """Say what SQLite's error means and what to do."""
    advice = {
        "SQLITE_ERROR": "It is no table of results: choose another table_name.",
        "SQLITE_NOTADB": "It is no SQLite database: choose another results_file.",
        "SQLITE_CORRUPT": "It is damaged: choose another results_file, or restore it from a copy.",
        "SQLITE_FULL": "Make room on its disk.",
        "SQLITE_BUSY": "Another program writes it: end that, for only one process may.",
        "SQLITE_READONLY": "Give yourself the right to write it, or choose another results_file.",
        "SQLITE_CANTOPEN": "Give yourself the rights to it and its directory, or choose another results_file.",
    }
    # Extended codes begin with the plain one: SQLITE_READONLY_DIRECTORY, SQLITE_IOERR_WRITE.
    name = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
    remedy = advice.get(name, "Look at its disk (full, removed, failing?).")
    return ResultsFileError(f"{path} cannot be {what}: {error}. {remedy}")
