"""What the tests of the recorder share: a connection that writes known records, and a recorder process to talk to."""

from __future__ import annotations

import itertools
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np

from feeds.pipe import Splitter, pack
from feeds.records import DTYPES, EventCode, Kind
from ringbuf import ConnectionWriter
from ringbuf.records import Loss
from ringbuf.symbols import Namespace
from supervisor.messages import Done, FromService, Notice, Record

#: 2024-11-12T04:51:33 UTC in ns; the first record is received then, each later one a microsecond after.
BEGIN = 1731387093000000000

#: No answer of the recorder takes longer than this, in seconds; a test that waits so long has failed.
DEADLINE = 20.0


class Market:
    """A connection whose records are known: `received` rises by a microsecond with every record of any kind."""

    def __init__(self, name: str = "crypto", capacity: int = 2**12) -> None:
        self.writer = ConnectionWriter(name)
        self.name = name
        self._capacity = capacity
        self._now = BEGIN
        self._symbol = self.writer.symbols.intern("BTCUSDT")
        self._exchange = self.writer.symbols.intern("binance", Namespace.EXCHANGE)
        #: The merged order of all data records: (kind, seq).
        self.order: list[tuple[str, int]] = []

    def publish(self, kind: Kind, count: int, step: int = 1000) -> None:
        """Publish records of a kind, received `step` ns after each other."""
        ring = self.writer.ring(kind, DTYPES[kind], self._capacity)
        array = np.zeros(count, DTYPES[kind])
        array["seq"] = np.arange(ring.tail, ring.tail + count)
        array["received"] = array["date"] = (self._now + step * np.arange(count)).view("<M8[ns]")
        array["symbol"], array["exchange"] = self._symbol, self._exchange
        if "published" in (array.dtype.names or ()):
            array["published"] = np.datetime64("NaT")
        if kind is Kind.EVENT:
            array["code"] = EventCode.CONNECTED
        elif kind is Kind.TRADE:
            array["last_price"] = array["seq"] / 4
        self._now += step * count
        if kind is not Kind.EVENT:
            self.order += zip(itertools.repeat(str(kind)), array["seq"].tolist(), strict=False)
        ring.publish(memoryview(array.tobytes()), count)

    def ring_id(self, kind: Kind) -> str:
        """The identity of a kind's ring, in hex."""
        return self.writer.rings[kind].header.ring_id.hex()

    def close(self) -> None:
        """Leave in good order."""
        self.writer.close()


class Row(msgspec.Struct, omit_defaults=True):
    """What the tests look at in a message."""

    type: str
    seq: int = -1
    date: str = ""
    last_price: float | None = None
    code: str = ""
    kind: str = ""
    first: int = -1
    count: int = -1
    reason: str = ""
    ring_id: str = ""


def parse(text: str | bytes) -> Row:
    return msgspec.json.decode(text, type=Row)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as any reader opens it."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as database:
        yield database


def rows(path: Path, table: str = "records") -> list[Row]:
    with reading(path) as database:
        return [parse(text) for (text,) in database.execute(f'SELECT message FROM "{table}" ORDER BY id')]  # noqa: S608


def recorded(path: Path, table: str = "records") -> list[tuple[str, int]]:
    """(kind, seq) of every row, in the table's order."""
    return [(row.type, row.seq) for row in rows(path, table)]


def gaps(path: Path, table: str = "records") -> list[tuple[str, int, int, Loss]]:
    """(kind, first, count, reason) of every gap written down."""
    found = [row for row in rows(path, f"{table}_events") if row.type == "gap"]
    return [(row.kind, row.first, row.count, Loss(row.reason)) for row in found]


def number(path: Path, column: str, table: str = "records") -> int:
    """A count kept for a table: pruned, lost, started."""
    with reading(path) as database:
        (value,) = database.execute(
            f"SELECT {column} FROM tickring_tables WHERE table_name = ?",  # noqa: S608
            (table,),
        ).fetchone()
    return int(value)


def request(
    path: Path,
    connection: str = "crypto",
    table: str = "records",
    limit: int | None = None,
    sleep_time: float = 0.02,
    id: int = 0,  # noqa: A002 - the message's field
) -> Record:
    return Record(id, connection, str(path), table, limit, sleep_time)


class RecorderClient:
    """The supervisor's end of a recorder process."""

    def __init__(self, process: subprocess.Popen[bytes], end: socket.socket) -> None:
        self.process = process
        self.notices: list[str] = []
        self._end = end
        self._end.settimeout(DEADLINE)
        self._splitter: Splitter[FromService] = Splitter(FromService)
        self._done: dict[int, Done] = {}
        self._ids = itertools.count(1)

    def ask(self, message: msgspec.Struct) -> Done:
        """Send a request under a new id and give its answer."""
        number = next(self._ids)
        self._end.sendall(pack(msgspec.structs.replace(message, id=number)))
        while number not in self._done:
            self.receive()
        return self._done.pop(number)

    def carry_out(self, message: msgspec.Struct) -> None:
        """Ask for something that must work."""
        done = self.ask(message)
        assert done.problem is None, done.problem

    def receive(self, timeout: float = DEADLINE) -> bool:
        """Take what has arrived; False if nothing did in time."""
        self._end.settimeout(timeout)
        try:
            data = self._end.recv(65536)
        except TimeoutError:
            return False
        assert data, "the recorder has closed its pipe"
        for message in self._splitter.feed(data):
            match message:
                case Done():
                    self._done[message.id] = message
                case Notice():
                    self.notices.append(message.text)
        return True

    def hang_up(self) -> None:
        """End the pipe, as a supervisor that dies does."""
        self._end.close()


@contextmanager
def recorder() -> Iterator[RecorderClient]:
    """A recorder process; killed at the end if it still runs."""
    ours, theirs = socket.socketpair()
    root = str(Path(__file__).resolve().parents[2])
    command = ["-P", "-m", "supervisor.recorder", "--control-fd", str(theirs.fileno()), "--title", "recorder"]
    with (
        ours,
        subprocess.Popen(
            [sys.executable, *command], env={**os.environ, "PYTHONPATH": root}, pass_fds=[theirs.fileno()]
        ) as process,
    ):
        theirs.close()
        try:
            yield RecorderClient(process, ours)
        finally:
            process.kill()
