"""Start the programs of this folder, talk with them, and be sure that none outlives its test."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]

#: Seconds that any of these programs may run: below the tests' own limit, so that a hanging one fails only its test.
_LONGEST = 40.0


@contextmanager
def running(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m processes.MODULE ARGUMENTS`` with pipes to its standard streams.

    It is killed when the block ends, and after 40 s in any case: its next line is empty then.
    """
    path = os.pathsep.join((str(_TESTS), str(_TESTS.parent)))
    with subprocess.Popen(
        [sys.executable, "-m", f"processes.{module}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(_LONGEST, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            watchdog.join()
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints; empty when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    """Send the line that it waits for."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
