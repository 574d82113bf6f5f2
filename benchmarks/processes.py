"""The processes that a benchmark measures or needs: started, spoken to, and ended whatever happens.

Every one of them ends by itself when its standard input, or its control pipe, ends: even a benchmark that is killed
leaves none behind.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from feeds.messages import Drain, Failed, FromProvider, Ready, Start, ToProvider
from feeds.pipe import Splitter, pack
from ringbuf.errors import TickringError

#: Seconds that a process may take to say something, or to end.
_PATIENCE: Final = 20.0


@contextmanager
def started(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m module`` with pipes for its input and output."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        _end(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what it did not read any more
                    pipe.close()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def line(process: subprocess.Popen[str]) -> str:
    """Give the next line that a process prints.

    Raises:
        TickringError: it ended instead.
    """
    assert process.stdout is not None
    text = process.stdout.readline()
    if not text:
        raise TickringError(f"{process.args!r} ended without an answer, exit code {process.wait(_PATIENCE)}.")
    return text.strip()


def tell(process: subprocess.Popen[str], text: str) -> None:
    """Give a process a line."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


@contextmanager
def simulated_venue(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run the simulator; give its URL and its process id."""
    with started("feeds.simulator", "--until-eof", *arguments) as process:
        yield str(json.loads(line(process))["url"]), process.pid


class Provider:
    """A provider process, driven through its pipe as the supervisor does."""

    def __init__(self, name: str, url: str, environment: Mapping[str, str] | None = None) -> None:
        """Start it and tell it what to do; it is not ready yet. `started_at` is the moment before its exec."""
        self._pipe, theirs = socket.socketpair()
        self._pipe.settimeout(_PATIENCE)
        self._splitter: Splitter[FromProvider] = Splitter(FromProvider)
        self._waiting: list[FromProvider] = []
        command = [sys.executable, "-P", "-m", "feeds.worker", "--control-fd", str(theirs.fileno())]
        with theirs:
            self.started_at = time.perf_counter()
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self.pid = self._process.pid
        self._send(Start(name, "binance", {"symbol": "btcusdt", "feed": "trade,quote", "url": url}))

    def _send(self, message: ToProvider) -> None:
        self._pipe.sendall(pack(message))

    def wait_ready(self) -> None:
        """Wait until the venue has accepted its subscriptions.

        Raises:
            TickringError: it failed or ended instead.
        """
        while True:
            while not self._waiting:
                received = self._pipe.recv(65536)
                if not received:
                    raise TickringError(f"the provider ended before it was ready, exit code {self._process.wait()}.")
                self._waiting = self._splitter.feed(received)
            message = self._waiting.pop(0)
            if isinstance(message, Failed):
                raise message.problem.error()
            if isinstance(message, Ready):
                return

    def drain(self) -> None:
        """Let it publish what it has, and wait until it has ended."""
        self._send(Drain())
        self._process.wait(_PATIENCE)

    def close(self) -> None:
        """End it if it has not ended."""
        self._pipe.close()  # which is the end for it
        try:
            self._process.wait(_PATIENCE)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise


@contextmanager
def provider(name: str, url: str, environment: Mapping[str, str] | None = None) -> Iterator[Provider]:
    """Run a provider process; it is told what to do, but need not be ready yet."""
    running = Provider(name, url, environment)
    try:
        yield running
    finally:
        running.close()
