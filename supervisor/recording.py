"""One connection's snapshots: rings to stream to table, at their pace, and healing by themselves.

::

    Recording.step --- look: read the rings, every 5 to 50 ms
                   '-- commit: every `sleep_time`, or when a batch is full

How often rings are looked at follows from how fast they run: half the time in which the fastest would have filled a
quarter. 50 ms at most, because a ring that begins to run at full speed fills the smallest default ring, 2**13 slots, in
no less (160,000 records a second); 5 ms at least, which a ring of 2**17 slots outruns at 26 million a second.

A recording that fails (full disk, a file removed or locked by another program) heals as if after a crash: file and
rings are let go, and opened again at the cursors that are in the file, after 0.25 s, 0.5 s, ... 5 s. What the rings
still hold then is recorded; what they do not is counted and written down as a gap. People are told once, and once more
when it works again. One recording's trouble is no other's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from feeds.logs import get_logger
from ringbuf.directory import check_name
from ringbuf.errors import ParameterError, ResultsFileError, TickringError
from supervisor.messages import Notice, Record
from supervisor.results_schema import check_table_name
from supervisor.ring_stream import Begin, RingStream
from supervisor.snapshot_file import SnapshotFile, resolved
from supervisor.snapshots import SnapshotTable

#: Bounds of the time between two looks at the rings, in seconds; see the module.
SHORTEST_LOOK: Final = 0.005
LONGEST_LOOK: Final = 0.05
#: Bounds of the time before a failed recording is tried again, in seconds; the disk of a user who acts fills no faster.
FIRST_RETRY: Final = 0.25
LONGEST_RETRY: Final = 5.0

#: Takes a line for people.
Tell: TypeAlias = Callable[[Notice], None]

_log = get_logger()


def next_look(quarters: float, elapsed: float) -> float:
    """Give the seconds until the next look at rings that advanced by this part of a quarter in this many seconds."""
    wanted = elapsed / quarters / 2 if quarters > 0 else LONGEST_LOOK
    return min(max(wanted, SHORTEST_LOOK), LONGEST_LOOK)


def unforeseen(connection: str, error: Exception) -> ResultsFileError:
    """Log a fault of ours with its stack, and give it as an error that can be told."""
    _log.exception("fault in a recording", connection=connection)
    return ResultsFileError(f"{connection} cannot be recorded: {type(error).__name__}: {error}. Please report it.")


class OpenFiles:
    """The results files that are open, each once however many connections record into it."""

    def __init__(self) -> None:
        self._files: dict[Path, SnapshotFile] = {}
        self._tables: dict[Path, set[str]] = {}

    def open(self, request: Record) -> SnapshotTable:
        """Open a recording's table, and its file if that is not open yet. Raises as both do."""
        path, name = resolved(request.results_file), check_table_name(request.table_name).lower()
        tables = self._tables.setdefault(path, set())
        if name in tables:
            raise ResultsFileError(
                f"{request.table_name} in {path} is recorded into by another connection. Choose another table_name."
            )
        try:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = SnapshotFile(path)
            table = SnapshotTable(file, request.table_name, request.connection, request.limit)
        except BaseException:
            self._let_go(path, delete=False)
            raise
        tables.add(name)
        return table

    def close(self, table: SnapshotTable, *, delete: bool = False) -> None:
        """Let a table go; with its last table the file is closed, and deleted if wanted."""
        self._tables[table.file.path].discard(table.name.lower())
        self._let_go(table.file.path, delete=delete)

    def _let_go(self, path: Path, *, delete: bool) -> None:
        if not self._tables[path]:
            del self._tables[path]
            file = self._files.pop(path, None)
            if file is not None:
                file.close(delete=delete)


class Recording:
    """One connection's snapshots. It never waits: its owner calls `step` when that asks for it. For one thread."""

    def __init__(
        self,
        request: Record,
        files: OpenFiles,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open the results file and begin at its cursors.

        Args:
            request: what to record where.
            files: the process's open files.
            tell: takes lines for people.
            clock: gives seconds that never go back.
            wall: gives ns since 1970, for the dates of gaps.

        Raises:
            ParameterError, ResultsFileError: it cannot be recorded so; nothing stays open.
        """
        check_name(request.connection)
        if not request.sleep_time > 0:
            raise ParameterError(f"sleep_time must be above 0 seconds, not {request.sleep_time}.")
        self.request = request
        self._files = files
        self._tell = tell
        self._clock = clock
        self._wall = wall
        self._table: SnapshotTable | None = None
        self._trouble = ""
        self._failures = 0
        self._due = self._looked = clock()
        self._open()

    def _open(self) -> SnapshotTable:
        table = self._table = self._files.open(self.request)
        # Before a table's first commit, what the rings have overwritten is no gap.
        begin: Begin | None = None if table.started else "oldest"
        self._rings = RingStream(self.request.connection, table.cursors, begin=begin, limit=self.request.limit)
        return table

    def step(self) -> float:
        """Do what is due: look at the rings, commit, try again. Never raises; gives the seconds until the next step."""
        now = self._clock()
        try:
            if self._table is not None:
                return self._look(self._table, now)
            if now >= self._due:
                return self._look(self._open(), now)
        except TickringError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a fault in one recording must not end the others
            self._fail(unforeseen(self.request.connection, error))
        return self._due - now

    def _look(self, table: SnapshotTable, now: float) -> float:
        full = self._gather()
        elapsed, self._looked = now - self._looked, now
        if full or now >= self._due:
            self._commit(table)
        if full:
            return 0.0
        if now >= self._due:
            # Late steps are not made up for: the next one takes what they would have.
            self._due = max(self._due + self.request.sleep_time, now)
        return min(next_look(self._rings.quarters, elapsed), max(self._due - now, SHORTEST_LOOK))

    def _gather(self) -> bool:
        self._rings.attach()
        full = self._rings.gather(self._rings.tails())
        for text in self._rings.new_troubles():
            self._notify(f"not recorded: {text}")
        return full

    def _commit(self, table: SnapshotTable) -> None:
        table.file.check()
        written = table.commit(self._rings.take(), self._wall())
        if written and self._trouble:
            self._trouble, self._failures = "", 0
            self._notify(f"recorded into {table.file.path} again; what was lost meanwhile is in {table.events_name}.")

    def snapshot(self) -> None:
        """Record now all that the rings hold at this moment.

        Raises:
            ResultsFileError: it could not be written; it will be tried again.
        """
        try:
            table = self._table or self._open()
            self._rings.attach()
            tails = self._rings.tails()
            while self._rings.gather(tails):
                self._commit(table)
            self._commit(table)
        except TickringError as error:
            self._fail(error)
            raise
        except Exception as error:  # as in `step`
            problem = unforeseen(self.request.connection, error)
            self._fail(problem)
            raise problem from error

    def _fail(self, error: TickringError) -> None:
        if self._table is not None:
            self._let_go()
        self._due = self._clock() + min(FIRST_RETRY * 2**self._failures, LONGEST_RETRY)
        self._failures = min(self._failures + 1, 10)
        if self._trouble != str(error):
            self._trouble = str(error)
            self._notify(f"not recorded: {error} It is tried again; nothing is lost that the rings hold until then.")

    def _notify(self, text: str) -> None:
        self._tell(Notice(self.request.connection, f"{self.request.connection}: {text}"))

    def _let_go(self, *, delete: bool = False) -> None:
        table, self._table = self._table, None
        self._rings.close()
        if table is not None:
            self._files.close(table, delete=delete)

    def end(self, *, delete: bool) -> None:
        """Take a last snapshot and close the file, or delete it instead. Whatever happens, nothing stays open.

        Raises:
            ResultsFileError: the last snapshot could not be written; or the file is not to be deleted, as it existed
                before or holds another connection's table: then it has been completed and closed instead.
        """
        try:
            table = self._table or self._open()
            refused = delete and not table.file.may_delete(self.request.connection)
            if not delete or refused:
                self.snapshot()
            self._let_go(delete=delete and not refused)
            if refused:
                raise ResultsFileError(
                    f"{table.file.path} is kept: it existed before, or holds another connection's table. Delete it "
                    "yourself if you want to."
                )
        finally:
            self._let_go()
