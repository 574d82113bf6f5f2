"""The supervisor process: ``python -P -m supervisor``.

    take the instance's lock -> read the list -> listen -> bring the connections back -> carry out requests -> shut down

It ends on SIGTERM, SIGINT (twice: at once), a client's `down`, or, when it was started for a session, when its last
client has left; then it forgets the connections made in it, because they were the session's.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import fcntl
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from feeds import logs
from feeds.logs import get_logger
from ringbuf.directory import instance_directory, open_file
from ringbuf.errors import AlreadyRunning, TickringError
from supervisor.control import EXIT_ALREADY_RUNNING
from supervisor.control_server import ControlServer
from supervisor.places import control_socket
from supervisor.supervisor import Supervisor

_log = get_logger()

#: A session's last client may be a script whose next line starts another; seconds.
_DESERTED_GRACE = 1.0
#: A session's first client comes at once, or never; seconds.
_FIRST_CLIENT_WITHIN = 30.0


def take_lock() -> int:
    """Make this process the instance's only supervisor. The kernel frees the lock at its end, however it ends.

    Raises:
        AlreadyRunning: another one runs.
    """
    path = instance_directory(create=True) / "supervisor.lock"
    descriptor = open_file(path, write=True, create=True)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise AlreadyRunning(
            f"a supervisor already runs for {path.parent}: use it, or end it with `tickring down`."
        ) from error
    return descriptor


async def supervise(*, session: bool = False) -> None:
    """Run the supervisor until it is told to end.

    Args:
        session: end with the last client and forget the connections.

    Raises:
        AlreadyRunning: another supervisor runs for this instance.
        TickringError: the directories or the list cannot be used.
    """
    lock = take_lock()
    try:
        server = ControlServer(control_socket(create=True))
        supervisor = Supervisor(session=session)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _end, supervisor)
        await server.start(supervisor)
        _log.info("supervisor up", pid=os.getpid(), session=session)
        restoring = asyncio.create_task(supervisor.restore())
        await _until_end(supervisor, server, restoring, session=session)
        _log.info("supervisor going down", forget=supervisor.forgetting)
        server.refuse_clients()
        await supervisor.shut_down()
        await server.close()
        _log.info("supervisor down")
    finally:
        os.close(lock)


def _end(supervisor: Supervisor) -> None:
    if supervisor.ending.is_set():  # the second time: somebody means it
        os._exit(130)
    supervisor.ending.set()


async def _until_end(
    supervisor: Supervisor, server: ControlServer, restoring: asyncio.Task[None], *, session: bool
) -> None:
    """Wait for the end, however it comes: a fault of ours in restoring is one, too."""
    ending = asyncio.create_task(supervisor.ending.wait())
    waiting: set[asyncio.Task[Any]] = {ending, restoring}
    if session:
        waiting.add(asyncio.create_task(_deserted(supervisor, server)))
    while not ending.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if (fault := task.exception()) is not None:
                _log.error("supervisor failed", error=repr(fault))
                supervisor.ending.set()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def _deserted(supervisor: Supervisor, server: ControlServer) -> None:
    """Wait until the session's clients have all been there and left; that is the end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_CLIENT_WITHIN):
            await server.visited.wait()
    while server.clients:
        server.deserted.clear()
        await server.deserted.wait()
        await asyncio.sleep(_DESERTED_GRACE)
    # At once, before anybody else is let in: who comes now finds nobody, and starts a supervisor of his own.
    supervisor.ending.set()
    server.refuse_clients()


def main() -> int:
    """Run as a process; gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m supervisor", description="The tickring supervisor.")
    parser.add_argument("--session", action="store_true", help="end with the last client, and forget its connections")
    arguments = parser.parse_args()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    logs.configure("supervisor")
    try:
        asyncio.run(supervise(session=arguments.session))
    except AlreadyRunning as error:
        _log.error("supervisor cannot run", error=str(error))
        return EXIT_ALREADY_RUNNING
    except TickringError as error:
        _log.error("supervisor cannot run", error=str(error))
        return error.exit_code
    except KeyboardInterrupt:  # before the handlers stood
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
