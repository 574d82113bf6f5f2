"""A child process that echoes lines, ends with the code it is told, or fails."""

from __future__ import annotations

import asyncio
import sys

from feeds.child import run_child
from feeds.messages import Info
from feeds.pipe import ControlPipe


async def main(pipe: ControlPipe[Info], stopping: asyncio.Event) -> int:
    stop = asyncio.create_task(stopping.wait())
    pipe.send(Info("started"))
    try:
        while True:
            receiving = asyncio.create_task(pipe.receive())
            await asyncio.wait({stop, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                receiving.cancel()
                pipe.send(Info("stopping"))
                return 3
            message = receiving.result()
            if message is None:
                return 0
            if message.text == "fail":
                raise ZeroDivisionError("asked to")
            if message.text.startswith("end "):
                return int(message.text.removeprefix("end "))
            pipe.send(message)
    finally:
        stop.cancel()


if __name__ == "__main__":
    sys.exit(run_child(Info, main))
