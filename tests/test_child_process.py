"""Children as real processes, obedient and stubborn: what starts them, ends them, and is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from processes.supervisor_running import alive

from feeds.messages import Drain, Info
from supervisor.child_process import ChildProcess, StopStep

pytestmark = pytest.mark.usefixtures("everywhere")

#: The module that these children run.
MODULE = "processes.supervisor_child"


@asynccontextmanager
async def child(title: str, log: Path, inherited: tuple[int, ...] = ()) -> AsyncIterator[ChildProcess[Info]]:
    """A child that has said that it runs."""
    process = await ChildProcess.start(MODULE, title, Info, log, inherited)
    try:
        yield process
    finally:
        await process.stop(drain_within=0.0, terminate_within=0.0)


def descriptors(pid: int) -> dict[int, str]:
    """What a process's open descriptors point to."""
    return {int(entry.name): str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.parametrize("drain", [Drain(), None])
@pytest.mark.parametrize(
    ("title", "within", "step", "code"),
    [
        ("obedient", 20.0, StopStep.DRAINED, 0),
        ("deaf", 0.05, StopStep.TERMINATED, -signal.SIGTERM),
        ("stubborn", 0.05, StopStep.KILLED, -signal.SIGKILL),
    ],
)
def test_the_ladder_ends_every_child_by_the_first_step_that_helps(
    tmp_path: Path, title: str, within: float, step: StopStep, code: int, drain: Drain | None
) -> None:
    async def main() -> None:
        async with child(title, tmp_path / "log") as process:
            assert await process.pipe.receive() == Info(title)
            assert alive(process.pid)
            later = 20.0 if step is not StopStep.KILLED else 0.05
            assert await process.stop(drain, drain_within=within, terminate_within=later) is step
            assert await process.wait() == code
            assert not psutil.pid_exists(process.pid)  # not even as a zombie
            assert process.pipe.closed
            assert await process.stop() is StopStep.DRAINED  # doing so twice is harmless

    asyncio.run(main())


def test_a_child_inherits_its_end_of_the_pipe_and_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        given = os.open(tmp_path, os.O_RDONLY)
        try:
            async with child("deaf", tmp_path / "log", (given,)) as process:
                await process.pipe.receive()
                found = await asyncio.to_thread(descriptors, process.pid)
                assert found.pop(0) == "/dev/null"
                assert found.pop(1) == found.pop(2) == str(tmp_path / "log")
                assert found.pop(given) == str(tmp_path)
                (pipe,) = found.values()
                assert pipe.startswith("socket:")
                assert os.getsid(process.pid) == process.pid
                assert psutil.Process(process.pid).cmdline()[1:4] == ["-P", "-m", MODULE]
        finally:
            os.close(given)

    asyncio.run(main())


def test_what_cannot_be_started_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with pytest.raises(FileNotFoundError):
            await ChildProcess.start(MODULE, "obedient", Info, tmp_path / "no" / "log")
        await asyncio.sleep(0)  # the transport closes its socket in the next round
        await asyncio.sleep(0)
        assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    asyncio.run(main())


def test_the_log_takes_what_a_child_says_and_is_private(tmp_path: Path) -> None:
    async def main() -> None:
        process = await ChildProcess.start("processes.no_such_program", "t", Info, tmp_path / "log")
        assert await process.pipe.receive() is None
        assert await process.wait() == 1
        await process.stop()

    asyncio.run(main())
    assert "No module named" in (tmp_path / "log").read_text()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_directory_of_the_same_name_in_the_working_directory_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "feeds").mkdir()
    (tmp_path / "feeds" / "__init__.py").write_text("raise SystemExit(99)")
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "__init__.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with child("obedient", tmp_path / "log") as process:
            assert await process.pipe.receive() == Info("obedient")

    asyncio.run(main())
