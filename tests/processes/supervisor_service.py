"""A service that does nothing, carefully: it writes down what it is told, and answers as the name in it asks.

Each request is a line in the file that ``SERVICE_DIARY`` names: pid, connection. The connection's name decides:
``refused`` is answered with a problem, ``fatal`` by SIGKILL of itself the first time in the life of the diary, and
``silent`` not at all.
"""

from __future__ import annotations

import os
import signal
import sys
from asyncio import Event
from pathlib import Path

from feeds.child import run_child
from feeds.messages import Problem
from feeds.pipe import ControlPipe
from ringbuf.errors import ResultsFileError
from supervisor.messages import Done, Notice, ToRecorder


def is_new(name: str) -> bool:
    """Write a request down, and tell whether it is the first of its name."""
    diary = Path(os.environ["SERVICE_DIARY"])
    known = diary.read_text() if diary.exists() else ""
    with diary.open("a") as file:
        file.write(f"{os.getpid()} {name}\n")
    return f" {name}\n" not in known


async def main(pipe: ControlPipe[ToRecorder], stopping: Event) -> int:
    while (message := await pipe.receive()) is not None:
        name = message.connection
        if is_new(name) and name == "fatal":
            os.kill(os.getpid(), signal.SIGKILL)
        if name != "silent":
            pipe.send(Notice(name, f"heard of {name}"))
            refused = Problem.of(ResultsFileError("no such thing.")) if name == "refused" else None
            pipe.send(Done(message.id, refused))
    return 0


if __name__ == "__main__":
    sys.exit(run_child(ToRecorder, main))
