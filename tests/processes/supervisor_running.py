"""What the tests of the supervisor share: a simulated venue, a supervisor process, and ways to look at both."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil
import pytest
from waiting import wait_until

from ringbuf.errors import NotRunning, VenueUnreachable
from supervisor.client import ControlClient
from supervisor.control import ConnectionStatus, Create, Down, Status

ROOT = Path(__file__).resolve().parents[2]

#: No process of these tests takes longer to end, in seconds.
DEADLINE = 20.0


class _Listening(msgspec.Struct):
    url: str


def environment() -> dict[str, str]:
    """This process's environment, in which the project and these programs are found from everywhere."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}


@contextmanager
def simulator(*arguments: str) -> Iterator[str]:
    """A simulated venue; gives its URL. It ends with the block, or with this process."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "feeds.simulator", "--until-eof", "--symbols=20", "--rate=2000", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment(),
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            yield msgspec.json.decode(process.stdout.readline(), type=_Listening).url
        finally:
            process.kill()


def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


DEAD_URL = "ws://127.0.0.1:9/stream"


def create(url: str, name: str | None = "c", symbol: str = "btcusdt", /, **fields: object) -> Create:
    """A request for a connection; other fields of Create, or parameters of the provider, by name."""
    own = {key: fields.pop(key) for key in list(fields) if key in Create.__struct_fields__}
    parameters = {"symbol": symbol, "url": url, **fields}
    return msgspec.structs.replace(Create(0, "binance", parameters, name), **own)


def ask(client: ControlClient, request: Create) -> ConnectionStatus:
    """Send a Create made before and give the connection's status."""
    return client.request(lambda number: msgspec.structs.replace(request, id=number)).connections[0]


def status(client: ControlClient, name: str = "c") -> ConnectionStatus:
    return client.request(lambda number: Status(number, name)).connections[0]


@contextmanager
def instance() -> Iterator[Path]:
    """Directories for a whole module, as the fixtures ``runtime`` and ``everywhere`` have them for one test."""
    runtime = Path(tempfile.mkdtemp(prefix=f"tickring-test-{os.getpid()}-", dir="/dev/shm"))
    kept = Path(tempfile.mkdtemp(prefix="tickring-state-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TICKRING_RUNTIME_DIR", str(runtime))
        patch.setenv("TICKRING_STATE_DIR", str(kept))
        patch.delenv("TICKRING_INSTANCE", raising=False)
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        try:
            yield runtime
        finally:
            shutil.rmtree(runtime, ignore_errors=True)
            shutil.rmtree(kept, ignore_errors=True)


@contextmanager
def supervisor(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor process that answers, its output in the state directory; ended and waited for with the block."""
    log = Path(os.environ["TICKRING_STATE_DIR"]) / "supervisor-output"
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(),
        ) as process,
    ):  # fmt: skip
        try:
            wait_until(lambda: process.poll() is not None or answers(), "the supervisor answers")
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            family = children(process.pid)
            process.terminate()
            try:
                process.wait(DEADLINE)
            finally:
                process.kill()
                _, left = psutil.wait_procs(family, timeout=DEADLINE)
                for child in left:
                    child.kill()


def warm_up() -> None:
    """Let a supervisor that serves a whole module start what it keeps: the recorder."""
    with ControlClient.connect() as client, suppress(VenueUnreachable):
        ask(client, create(DEAD_URL, "warm"))


def answers() -> bool:
    try:
        ControlClient.connect().close()
    except NotRunning:
        return False
    return True


def locked() -> bool:
    """Whether a supervisor is there, and be it on its way out."""
    path = rings() / "supervisor.lock"
    if not path.exists():
        return False
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def down(*, forget: bool = True) -> None:
    """End the supervisor and wait until the conversation with it has ended."""
    with ControlClient.connect() as client:
        client.request(lambda number: Down(number, forget))
        wait_until(lambda: client.ended, "the supervisor has gone")


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


async def until(condition: Callable[[], object], what: str) -> None:
    """`wait_until` for a test that runs an event loop."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE} s: {what}") from None


def alive(pid: int | None) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(pid: int | None) -> None:
    """Kill a process as the out-of-memory killer does, and wait until it is gone."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), f"{pid} has gone")


def state() -> Path:
    """The instance's state directory."""
    return Path(os.environ["TICKRING_STATE_DIR"]) / "default"


def rings() -> Path:
    """The instance's runtime directory."""
    return Path(os.environ["TICKRING_RUNTIME_DIR"]) / "default"


def leftovers() -> list[str]:
    """What a connection leaves when it should have left nothing: directories of rings, results files."""
    instance = rings()
    directories = [it.name for it in instance.iterdir() if it.is_dir()] if instance.is_dir() else []
    results = state() / "results"
    return directories + ([it.name for it in results.iterdir()] if results.is_dir() else [])
