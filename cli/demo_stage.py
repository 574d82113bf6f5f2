r"""What the demo runs, and how it is taken down: an instance of its own, beside which nothing else notices it.

::

    feeds.simulator --ws--> provider --> rings --> recorder --> results file
          |                                  \--> broadcaster --ws--> a listener (a thread here)
          |  supervisor, for this session     \--> a reader (here)
          |
          stdin: ends when the demo does

Everything lies in one directory, the instance's: rings, control socket, results, logs. The supervisor was started for a
session, and the simulator ends with its standard input: so even a demo that is killed outright leaves no process, and
the next one removes its directory. Both are in sessions of their own, so that Ctrl-C in the terminal reaches the demo
alone, which then ends them in order.

Building goes on in a thread of its own, so that the view moves meanwhile, and an ending waits for the step at hand: no
process is started that nobody remembers.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from cli.demo_board import Board
from cli.demo_listener import Listener
from cli.gauge import Figures, Gauge
from feeds.simulator.instruments import instruments
from ringbuf.counters import read_counters
from ringbuf.directory import connection_directory, instance_directory, runtime_root
from ringbuf.errors import ParameterError, RingError, TickringError
from ringbuf.process import process_start
from ringbuf.reader import RingReader, attach
from ringbuf.records import Records
from supervisor import control
from supervisor.client import ControlClient, start_supervisor
from supervisor.control import ConnectionStatus

#: Symbols of the market: as many as somebody who takes all of a venue's liquid ones has.
MARKET_SYMBOLS: Final = 200
_SEED: Final = 1
CONNECTION: Final = "crypto_binance"
#: Rows kept in the results file: 3 MB, whatever the rate and however long the demo runs.
ROWS_KEPT: Final = 10_000
#: The demo's state directory, in its runtime directory: a name that begins with a dot can be no connection's.
_STATE: Final = ".state"
#: How long the parts may take to end in order, in seconds; after that they are killed.
_END_WITHIN: Final = 8.0
#: A snapshot is taken every quarter of a second and a listener served every 20 ms; this is for a loaded machine.
_SETTLE_WITHIN: Final = 5.0
#: The quietest of few symbols may take its time to its first trade.
_FIRST_RECORD_WITHIN: Final = 20.0


class Cancelled(Exception):
    """Building was given up, because the demo is to end."""


@dataclass(frozen=True)
class RingFigures:
    """One ring, and this process's reader of it."""

    kind: str
    capacity: int
    tail: int
    start: int
    received: int
    lost: int


class Stage:
    """The demo's parts. `start`, then look at `built` and `problem`; `clear` in any case. For the main thread."""

    def __init__(self, symbols: int, rate: float) -> None:
        if not 1 <= symbols <= MARKET_SYMBOLS:
            raise ParameterError(f"--symbols is 1 to {MARKET_SYMBOLS}, the symbols of the market, not {symbols}.")
        if not 0 < rate < float("inf"):
            raise ParameterError(f"--rate is a number of events a second above 0, not {rate}.")
        market = [f"{one.base}{one.quote}" for one in instruments(MARKET_SYMBOLS, _SEED)]
        self.symbols = market[:symbols]
        #: One that is not subscribed, if there is one.
        self.another_symbol = market[symbols % MARKET_SYMBOLS].lower()
        self.market_symbols = MARKET_SYMBOLS
        self.rate = rate
        self.instance = f"demo-{os.getpid()}"
        #: What has been built, and what is being built, in words.
        self.done: list[str] = []
        self.doing = ""
        self.problem: TickringError | None = None
        self.built = False
        self.url = ""
        self.board = Board()
        self.board.order(self.symbols)
        self.listener: Listener | None = None
        #: How rings and results file stood at the end of `finish`.
        self.last_rings: list[RingFigures] = []
        self.snapshotted = (0, 0)
        self._directory: Path | None = None
        self._made_root = False
        self._gauge, self._whole_run = Gauge(), Gauge(float("inf"))
        self._client: ControlClient | None = None
        self._simulator: subprocess.Popen[bytes] | None = None
        self._readers: dict[str, RingReader] = {}
        self._provider: psutil.Process | None = None
        self._cancelled = False
        self._thread = threading.Thread(target=self._build, name="tickring-demo-build", daemon=True)

    # ---- building ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the private instance, and begin to build in the background.

        Raises:
            UnsafePath: the runtime directory cannot be used.
        """
        # An empty runtime directory is only ours to remove if nobody else had it.
        self._made_root = sweep() or not runtime_root().exists()
        os.environ["TICKRING_INSTANCE"] = self.instance
        self._directory = instance_directory(create=True)
        self._state = self._directory / _STATE
        self._state.mkdir(mode=0o700)
        os.environ["TICKRING_STATE_DIR"] = str(self._state)
        self._thread.start()

    @property
    def building(self) -> bool:
        """Whether building goes on."""
        return self._thread.is_alive()

    def _build(self) -> None:
        try:
            self._step("a simulated Binance")
            self._simulator = self._start_simulator()
            self._step("the supervisor")
            self._client = start_supervisor(session=True)
            self._step("the connection")
            self.url = self._simulator_url(self._simulator)
            self.connection = self._create(self._client)
            self._step("a reader and a listener")
            for kind in ("trade", "quote"):
                self._attach(kind)
            self.listener = Listener(f"{self.connection.broadcast_address}/{CONNECTION}")
            self._step("")
            self.built = True
        except Cancelled:
            pass
        except TickringError as error:
            self.problem = error
        except OSError as error:
            self.problem = TickringError(f"the demo cannot be set up: {error}.")

    def _step(self, doing: str) -> None:
        if self._cancelled:
            raise Cancelled
        if self.doing:
            self.done.append(self.doing)
        self.doing = doing

    def _start_simulator(self) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-P", "-m", "feeds.simulator", "--until-eof", "--refuse-unknown"]
        arguments += ["--symbols", str(MARKET_SYMBOLS), "--seed", str(_SEED), "--rate", str(self.rate)]
        with (self._state / "simulator.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own module with our own arguments
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )

    def _simulator_url(self, simulator: subprocess.Popen[bytes]) -> str:
        assert simulator.stdout is not None  # noqa: S101 - it was asked for
        line = simulator.stdout.readline()
        if self._cancelled:
            raise Cancelled
        if not line:
            words = (self._state / "simulator.log").read_text(errors="replace").strip().splitlines()
            raise TickringError(f"the simulated venue did not start: {words[-1] if words else 'it said nothing'}.")
        return str(json.loads(line)["url"])

    def _create(self, client: ControlClient) -> ConnectionStatus:
        parameters = {"symbol": ",".join(self.symbols), "feed": "trade,quote", "url": self.url}
        outcome = client.request(
            lambda number: control.Create(
                number, "binance", parameters, CONNECTION, limit=ROWS_KEPT, start_broadcast=True
            )
        )
        return outcome.connections[0]

    def _attach(self, kind: str) -> None:
        """Attach a reader."""
        end = time.monotonic() + _FIRST_RECORD_WITHIN
        while True:
            try:
                self._readers[kind] = attach(CONNECTION, kind, wait=0.25)
            except RingError:
                if self._cancelled:
                    raise Cancelled from None
                if time.monotonic() > end:
                    raise
            else:
                return

    # ---- looking ----------------------------------------------------------------------------------------------------

    def begin(self) -> Figures:
        """Begin the run: what came before, while rings were made and caches were cold, is not counted into its lags."""
        return self._whole_run.add(time.monotonic(), read_counters(connection_directory(CONNECTION)))

    def look(self) -> Figures:
        """Read what the rings have for the board, and give the connection's figures."""
        now = time.monotonic()
        for kind, reader in self._readers.items():
            take = self.board.take_trades if kind == "trade" else self.board.take_quotes
            for records in _available(reader):
                take(records)
        self.board.sample(now)
        return self._gauge.add(now, read_counters(connection_directory(CONNECTION)))

    def status(self) -> ConnectionStatus:
        """Ask the supervisor how the connection stands."""
        assert self._client is not None  # noqa: S101 - asked only when all is built
        self.connection = self._client.request(lambda number: control.Status(number, CONNECTION)).connections[0]
        return self.connection

    def provider_cpu(self) -> float | None:
        """Give the share of a core that the provider process took since the last call; None the first time."""
        pid = self.connection.provider_pid
        if pid is None:
            return None
        try:
            if self._provider is None or self._provider.pid != pid:
                self._provider = psutil.Process(pid)
                self._provider.cpu_percent()  # the first call only begins the measurement
                return None
            return self._provider.cpu_percent() / 100
        except psutil.Error:  # it has just ended
            return None

    def rings(self) -> list[RingFigures]:
        """Tell of the rings."""
        return [
            RingFigures(kind, reader.header.capacity, reader.published, reader.start, reader.received, reader.lost)
            for kind, reader in self._readers.items()
        ]

    def snapshot(self) -> tuple[int, int]:
        """Give how many rows the results file has, and how many records have been snapshotted altogether."""
        uri = f"{Path(self.connection.results_file).as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as database:
                rows, newest = database.execute("SELECT count(*), max(id) FROM records").fetchone()
        except sqlite3.Error:
            return 0, 0  # not made yet
        return rows, newest or 0

    def heard(self) -> tuple[int, int]:
        """Give how many messages the listener has got, and how many it has missed."""
        return (0, 0) if self.listener is None else (self.listener.frames, self.listener.lost)

    # ---- ending -----------------------------------------------------------------------------------------------------

    def finish(self) -> Figures:
        """Stop the provider, let reader, recorder and listener come to the end of what it published; give the figures.

        Lags are those from `begin` on.
        """
        assert self._client is not None  # noqa: S101 - called only when all is built
        self.connection = self._client.request(lambda number: control.Stop(number, CONNECTION)).connections[0]
        self.look()
        figures = self._whole_run.add(time.monotonic(), read_counters(connection_directory(CONNECTION)))
        self.last_rings = self.rings()
        _wait(lambda: self._settled(figures.records), _SETTLE_WITHIN)
        self.snapshotted = self.snapshot()
        return figures

    def _settled(self, records: int) -> bool:
        tails = {ring.kind: ring.tail for ring in self.last_rings}
        heard = self.listener is None or self.listener.ended or self.listener.reached(tails)
        return heard and self.snapshot()[1] >= records

    def clear(self, in_a_hurry: Callable[[], bool]) -> list[str]:
        """End everything in order, kill what does not end, remove the directory; give what is left, in words.

        Args:
            in_a_hurry: tells that order matters no more.
        """
        self._cancelled = True
        if self._thread.ident is not None:
            _wait(lambda: not self.building, _END_WITHIN, in_a_hurry)
        ours = psutil.Process().children(recursive=True)
        for reader in self._readers.values():
            reader.close()
        self._down(in_a_hurry)
        if self._simulator is not None and self._simulator.stdin is not None:
            with suppress(OSError):
                self._simulator.stdin.close()
        _wait(lambda: not _alive(ours), _END_WITHIN, in_a_hurry)
        for process in _alive(ours):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(ours, timeout=2.0)
        if self._simulator is not None and self._simulator.stdout is not None:
            self._simulator.stdout.close()
        if self.listener is not None:
            self.listener.join(2.0)
        return [f"process {process.pid}" for process in alive] + self._remove()

    def _down(self, in_a_hurry: Callable[[], bool]) -> None:
        client = self._client
        if client is None:
            return
        if not in_a_hurry():
            with suppress(TickringError):
                client.request(lambda number: control.Down(number, forget=True), timeout=_END_WITHIN)
                _wait(lambda: client.ended, _END_WITHIN, in_a_hurry)
        client.close()

    def _remove(self) -> list[str]:
        if self._directory is None:
            return []
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._made_root and "TICKRING_RUNTIME_DIR" not in os.environ:
            with suppress(OSError):  # somebody else has begun to use it
                runtime_root().rmdir()
        return [str(self._directory)] if self._directory.exists() else []


def sweep() -> bool:
    """Remove the directories of demos that were killed and can no longer do so themselves; tells if there were any."""
    swept = False
    with suppress(OSError):
        for directory in runtime_root().glob("demo-*"):
            pid = directory.name.partition("-")[2]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)) and _deserted(directory):
                shutil.rmtree(directory, ignore_errors=True)
                swept = True
    return swept


def _deserted(directory: Path) -> bool:
    """Whether no process runs there any more: a supervisor takes a second to end after its demo was killed."""
    for name, lock in (("supervisor.lock", fcntl.lockf), ("family.lock", fcntl.flock)):
        with suppress(FileNotFoundError), (directory / name).open("rb+") as file:
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def _available(reader: RingReader) -> list[Records]:
    """Give what a reader has to read now; at most a whole ring, so that a look ends at any rate."""
    found = []
    for _ in range(4):
        records = reader.read()
        if not len(records):
            break
        found.append(records)
    return found


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process_start(process.pid) and process.is_running()]


def _wait(condition: Callable[[], bool], seconds: float, given_up: Callable[[], bool] = lambda: False) -> bool:
    """Wait for a condition; tells whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end or given_up():
            return False
        time.sleep(0.02)
    return True
