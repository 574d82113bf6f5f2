"""A broadcaster with other limits than usual: ``TICKRING_TEST_LIMITS`` holds them as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from feeds.child import run_child
from feeds.pipe import ControlPipe
from supervisor.broadcaster import serve_supervisor
from supervisor.listeners import Limits
from supervisor.messages import ToBroadcaster


async def main(pipe: ControlPipe[ToBroadcaster], stopping: asyncio.Event) -> int:
    return await serve_supervisor(pipe, stopping, Limits(**json.loads(os.environ["TICKRING_TEST_LIMITS"])))


if __name__ == "__main__":
    sys.exit(run_child(ToBroadcaster, main))
