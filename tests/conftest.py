"""Fixtures that every test file shares: a private runtime directory, the captures, and the check that nothing stays."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes.recorder_parts import Market
from processes.supervisor_running import environment, instance, simulator, supervisor, warm_up

#: Real frames of real venues; they stand beside the checkout and are never copied into it.
CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures"


_PREFIX = "tickring-test-"


def pytest_configure() -> None:
    """Give this run a temporary directory of its own, so that what is left in it can only be ours."""
    os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="tickring-tests-")
    tempfile.tempdir = None  # asked anew, it follows the environment


def pytest_unconfigure() -> None:
    """Remove it, pytest's own files in it included."""
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


def _temporary_files() -> set[Path]:
    """What lies in the run's temporary directory, less pytest's own."""
    return {path for path in Path(tempfile.gettempdir()).iterdir() if not path.name.startswith("pytest-of-")}


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of real captures."""
    if not CAPTURES.is_dir():
        pytest.fail(f"the captures are missing: expected them in {CAPTURES}")
    return CAPTURES


@pytest.fixture(scope="session")
def venue() -> Iterator[str]:
    """The URL of one simulated Binance for the whole run, which refuses streams that it does not have."""
    with simulator("--refuse-unknown") as url:
        yield url


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started find the project from any working directory, without its installation."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of this test alone, in shared memory, and a state directory beside it; both removed."""
    parent = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - rings belong in shared memory
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    state = Path(tempfile.mkdtemp(prefix="tickring-state-"))
    monkeypatch.setenv("TICKRING_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("TICKRING_STATE_DIR", str(state))
    monkeypatch.delenv("TICKRING_INSTANCE", raising=False)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="module")
def running() -> Iterator[int]:
    """The pid of a supervisor of an instance of its own, for the tests of a module that do not kill it."""
    with instance(), supervisor() as process:
        warm_up()
        yield process.pid


@pytest.fixture
def market(runtime: Path) -> Iterator[Market]:
    """Small rings that a test writes itself."""
    market = Market()
    yield market
    market.close()


@pytest.fixture
def large_market(runtime: Path) -> Iterator[Market]:
    """The same with rings of the usual size."""
    market = Market(capacity=2**17)
    yield market
    market.close()


def _descriptors() -> set[str]:
    """What this process's open descriptors point to, less the ones that come and go with the test runner."""
    targets = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            targets.add(f"{entry.name} -> {entry.readlink()}")
        except OSError:
            continue  # the descriptor of the listing itself
    return {t for t in targets if "/proc/" not in t and "anon_inode" not in t}


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Fail the test that leaves a process, an open descriptor, shared memory or a temporary file behind."""
    me = psutil.Process()
    before = set(me.children(recursive=True))  # what fixtures of a wider scope run
    shared = Path("/dev/shm")  # noqa: S108
    files = set(shared.iterdir()) if shared.is_dir() else set()
    descriptors = _descriptors() if Path("/proc/self/fd").is_dir() else set()
    temporary = _temporary_files()
    yield
    children = [told for child in set(me.children(recursive=True)) - before if (told := _alive(child))]
    leftover = {str(p) for p in (set(shared.iterdir()) if shared.is_dir() else set()) - files if _mine(p)}
    opened = (_descriptors() if Path("/proc/self/fd").is_dir() else set()) - descriptors
    assert not children, f"processes left behind: {children}"
    assert not leftover, f"shared memory left behind: {sorted(leftover)}"
    assert not opened, f"descriptors left open: {sorted(opened)}"
    assert not _temporary_files() - temporary, f"temporary files left: {_temporary_files() - temporary}"


def _mine(path: Path) -> bool:
    try:
        # Another test run on this machine has directories of its own; they are none of our business.
        others = path.name.startswith(_PREFIX) and not path.name.startswith(f"{_PREFIX}{os.getpid()}-")
        return path.name.startswith("tickring") and not others and path.stat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _alive(process: psutil.Process) -> str:
    """Say which process this is; empty if it has ended, be it reaped or not."""
    try:
        # One that is just ending has lost its memory, and with it the command line, before it is a zombie.
        command = "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
    return command and f"{process.pid} {command}"
