"""What every child process of the supervisor does: live exactly as long as its control pipe.

A child is started with one descriptor, its end of the control pipe. It ends when told to drain, on SIGTERM, or when
the pipe ends, which is how the supervisor's death reaches it. SIGINT is ignored: the terminal sends it to the whole
group, and the supervisor decides. SIGABRT and SIGUSR1 dump all stacks to the log first.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import uvloop

from feeds.pipe import ControlPipe, Expected

if TYPE_CHECKING:
    from typing import TypeVar

    M = TypeVar("M")

#: Exit code of a configuration that cannot work: the supervisor does not try again (EX_CONFIG of sysexits.h).
EXIT_CONFIGURATION = 78


def control_end(arguments: list[str] | None = None) -> socket.socket:
    """Take the control pipe's end that the command line names: ``--control-fd N``."""
    parser = argparse.ArgumentParser(description="A child process of the tickring supervisor; not for hands.")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--title", default="", help="what this child is for; shows in ps")
    return socket.socket(fileno=parser.parse_args(arguments).control_fd)


def run_child(expected: Expected[M], main: Callable[[ControlPipe[M], asyncio.Event], Awaitable[int]]) -> int:
    """Run a child's `main` on an event loop and give its exit code.

    Args:
        expected: what the supervisor sends: a tagged Struct or a union of them.
        main: gets the pipe and an event that is set when SIGTERM asks it to stop; returns the exit code.
    """
    end = control_end()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def start() -> int:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        pipe = await ControlPipe.open(end, expected)
        try:
            return await main(pipe, stopping)
        finally:
            pipe.close()

    return uvloop.run(start())
