"""Start the programs of this folder, talk with them, and be sure that none outlives its test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]


@contextmanager
def running(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m processes.MODULE ARGUMENTS`` with pipes to its standard streams; killed at the end if it runs."""
    path = os.pathsep.join((str(_TESTS), str(_TESTS.parent)))
    with subprocess.Popen(
        [sys.executable, "-m", f"processes.{module}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints; empty when it has ended. The test's own time limit bounds the wait."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    """Send the line that it waits for."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
