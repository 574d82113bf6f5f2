"""A recorder that dies at every point where it can: ``python -m processes.recorder_crashes FILE LIMIT``.

Again and again this process publishes some records, and a child of it records them; the first child kills itself by
SIGKILL before its first statement of SQL, the second before its second, until one lives to the end. (Rows inserted in
a row count as one statement.) Then the last records are recorded in peace, and what was published is printed as JSON,
with the number of children. A LIMIT of 0 is none.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from feeds.records import Kind
from processes.recorder_parts import Market, request
from supervisor import snapshot_file
from supervisor.recording import OpenFiles, Recording


class Sweep(msgspec.Struct):
    """What was published, in merged order, and how many recorders it took."""

    order: list[tuple[str, int]]
    events: int
    children: int


def dies_before(statement: int) -> Callable[[str], None]:
    """Give a trace callback that ends this process before the statement of that number, as nothing can prevent."""
    seen, last = 0, ""

    def trace(sql: str) -> None:
        nonlocal seen, last
        kind = sql[:24] if sql.startswith('INSERT INTO "') else sql
        seen += kind != last or not kind.startswith("INSERT")
        last = kind
        if seen == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    return trace


def record(path: Path, limit: int | None, statement: int | None) -> None:
    """Take one snapshot and end in good order, or die on the way."""
    if statement is not None:
        connect = sqlite3.connect

        def traced(*arguments: object, **options: object) -> sqlite3.Connection:
            database: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]  # passed on
            database.set_trace_callback(dies_before(statement))
            return database

        snapshot_file.sqlite3.connect = traced  # type: ignore[attr-defined]  # where the recorder finds it
    recording = Recording(request(path, limit=limit), OpenFiles(), lambda _: None)
    recording.snapshot()
    recording.end(delete=False)


def survives(path: Path, limit: int | None, statement: int) -> bool:
    """Record in a child; tell whether it came to its end."""
    child = os.fork()
    if not child:
        record(path, limit, statement)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def main(path: Path, limit: int | None) -> None:
    market = Market()
    children = 0
    while True:
        market.publish(Kind.TRADE, 3)
        market.publish(Kind.QUOTE, 2)
        market.publish(Kind.EVENT, 1)
        children += 1
        if survives(path, limit, children):
            break
    record(path, limit, None)
    sweep = Sweep(market.order, market.writer.rings["event"].tail, children)
    market.close()
    sys.stdout.write(msgspec.json.encode(sweep).decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) or None)
