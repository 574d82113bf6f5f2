"""One child process: started, talked to, stopped.

Children are forked and exec'd from the main thread with nothing inherited but their end of the control pipe and the
family's lock (see `family`). Stopping climbs a ladder, each step only if the one before did not help in time::

    drain message, or the pipe's end --2 s--> SIGTERM --8 s--> SIGKILL
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from feeds.pipe import ControlPipe, Expected
from supervisor.places import open_log

M = TypeVar("M")

# DESIGN, supervision: drain, SIGTERM after 2 s, SIGKILL after 10 s.
DRAIN_WITHIN: Final = 2.0
TERMINATE_WITHIN: Final = 8.0


class StopStep(StrEnum):
    """Which step of the ladder ended a child."""

    DRAINED = "drained"
    TERMINATED = "SIGTERM"
    KILLED = "SIGKILL"


class ChildProcess(Generic[M]):
    """A running child. For the supervisor's event loop."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: ControlPipe[M]) -> None:
        """Use `ChildProcess.start`."""
        self._process = process
        self.pipe = pipe

    @classmethod
    async def start(
        cls, module: str, title: str, expected: Expected[M], log: Path, inherited: Sequence[int] = ()
    ) -> ChildProcess[M]:
        """Start ``python -P -m module``.

        Args:
            module: what to run.
            title: what it is for; shows in ps.
            expected: the messages it sends.
            log: where its stderr is appended.
            inherited: descriptors it is to have beside its end of the pipe.

        Raises:
            OSError: the machine has no process, descriptor or disk for it; nothing is left behind.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            pipe = await ControlPipe.open(ours, expected)
            try:
                process = await _run(module, title, theirs.fileno(), log, inherited)
            except BaseException:
                pipe.close()
                raise
        return cls(process, pipe)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end and give the exit code; minus the signal's number if one killed it."""
        return await self._process.wait()

    async def stop(
        self,
        drain: msgspec.Struct | None = None,
        *,
        drain_within: float = DRAIN_WITHIN,
        terminate_within: float = TERMINATE_WITHIN,
    ) -> StopStep:
        """End the child and give the step that did it. Several callers may; the first one's ladder counts.

        Args:
            drain: the message that asks it to end; without one, the pipe's end does.
            drain_within: how long it may take before SIGTERM, in seconds.
            terminate_within: how long after that before SIGKILL, in seconds.
        """
        try:
            if drain is None:
                self.pipe.close()
            else:
                self.pipe.send(drain)
            if await self._ended(drain_within):
                return StopStep.DRAINED
            self._signal(signal.SIGTERM)
            if await self._ended(terminate_within):
                return StopStep.TERMINATED
            self._signal(signal.SIGKILL)
            await self._process.wait()
            return StopStep.KILLED
        finally:
            self.pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _ended(self, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                await self._process.wait()
        except TimeoutError:
            return False
        return True


async def _run(
    module: str, title: str, control: int, log: Path, inherited: Sequence[int]
) -> asyncio.subprocess.Process:
    descriptor = open_log(log)
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module, "--control-fd", str(control), "--title", title,
            pass_fds=(control, *inherited), stdin=asyncio.subprocess.DEVNULL, stdout=descriptor, stderr=descriptor,
            # A session of its own keeps the terminal's Ctrl-C from reaching it; the supervisor decides.
            # One thread for BLAS: nothing here multiplies matrices, and its pool would cost memory.
            start_new_session=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
    finally:
        os.close(descriptor)
