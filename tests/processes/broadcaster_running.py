"""A real broadcaster process, seen from the supervisor's end of its pipe, and rings for it to read."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from feeds.messages import Problem
from feeds.pipe import Splitter, pack
from feeds.records import DTYPES, Kind
from ringbuf import ConnectionWriter
from supervisor.messages import Bind, Done, FromService, Notice, Serve, ToBroadcaster, Withdraw

_TESTS = Path(__file__).resolve().parents[1]


class RunningBroadcaster:
    """Asks, and keeps what it is told."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: socket.socket) -> None:
        self.process = process
        self.pipe = pipe
        self.notices: list[Notice] = []
        self._splitter: Splitter[FromService] = Splitter(FromService)
        self._asked = 0
        self.port = 0

    def ask(self, request: ToBroadcaster) -> Done:
        """Send a request and wait for its answer."""
        self.pipe.sendall(pack(request))
        while True:
            for done in self._receive():
                assert done.id == request.id
                return done

    def _receive(self) -> list[Done]:
        data = self.pipe.recv(65536)
        assert data, "the broadcaster has ended"
        messages = self._splitter.feed(data)
        self.notices += [message for message in messages if isinstance(message, Notice)]
        return [message for message in messages if isinstance(message, Done)]

    def _number(self) -> int:
        self._asked += 1
        return self._asked

    def bind(self, host: str = "127.0.0.1", port: int = 0) -> Done:
        done = self.ask(Bind(self._number(), host, port))
        self.port = done.port
        return done

    def serve(self, connection: str, auth_token: str | None = None) -> Problem | None:
        return self.ask(Serve(self._number(), connection, auth_token)).problem

    def withdraw(self, connection: str) -> Problem | None:
        return self.ask(Withdraw(self._number(), connection)).problem

    def url(self, path: str = "/") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def wait_for_notice(self, part: str, connection: str | None = None) -> str:
        """Wait for a notice that has `part` in its text; the test's own time limit bounds the wait."""
        while True:
            for notice in self.notices:
                if part in notice.text and connection in (None, notice.connection):
                    return notice.text
            self._receive()

    def poll(self) -> None:
        """Take the notices that are there."""
        while select.select([self.pipe], [], [], 0)[0]:
            self._receive()

    def texts(self) -> list[str]:
        return [notice.text for notice in self.notices]


@contextmanager
def broadcaster(**limits: float) -> Iterator[RunningBroadcaster]:
    """Run a broadcaster; with other limits than usual if some are given. Nothing of it stays."""
    ours, theirs = socket.socketpair()
    module = ["-P", "-m", "supervisor.broadcaster"] if not limits else ["-m", "processes.broadcaster_limited"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(_TESTS), str(_TESTS.parent)))}
    environment["TICKRING_TEST_LIMITS"] = json.dumps(limits)
    command = [sys.executable, *module, "--control-fd", str(theirs.fileno())]
    with ours, subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        try:
            yield RunningBroadcaster(process, ours)
        finally:
            process.kill()


class Feed:
    """A provider's rings, with records whose fields follow from a running number."""

    def __init__(self, name: str, capacity: int = 2**14) -> None:
        self.name = name
        self.writer = ConnectionWriter(name)
        self._capacity = capacity
        self._symbols = [self.writer.symbols.intern(symbol) for symbol in ("BTCUSDT", "ETHUSDT")]

    def publish(self, kind: Kind, count: int, *, received: int | None = None, step: int = 1000) -> None:
        """Publish `count` records of a kind, received `step` ns after one another, by default after all before."""
        ring = self.writer.ring(kind, DTYPES[kind], self._capacity)
        if received is None:
            received = 1_731_387_093_000_000_000 + ring.tail * 1000
        numbers = np.arange(ring.tail, ring.tail + count)
        records = np.zeros(count, DTYPES[kind])
        records["seq"] = numbers
        records["symbol"] = np.array(self._symbols)[numbers % 2]
        records["received"] = received + np.arange(count) * step
        records["date"] = 1_731_387_093_000_000_000 + numbers * 1_000_000
        for field in ("last_price", "last_size", "bid_price", "ask_price", "price"):
            if field in (records.dtype.names or ()):
                records[field] = numbers * 0.25 + 1
        ring.publish(memoryview(records.tobytes()), count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
