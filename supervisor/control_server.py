"""The control socket's server: one conversation per client, requests carried out at the same time.

A client that breaks the protocol loses its own conversation and nothing else. A client that leaves in the middle of a
request leaves the request to be finished: what it asked for may already have been half done.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from pathlib import Path

from feeds.logs import get_logger
from feeds.messages import Problem
from feeds.pipe import ControlPipe
from ringbuf.errors import ControlError, SupervisorError, TickringError
from supervisor.control import PROTOCOL, Hello, Line, Refusal, Request, ToSupervisor, Welcome
from supervisor.supervisor import Supervisor
from supervisor.version import version

_log = get_logger()

#: A client says hello at once; one that does not is no client of ours. Seconds.
_HELLO_WITHIN = 5.0


class ControlServer:
    """Listens on the control socket. For the supervisor's event loop."""

    def __init__(self, path: Path) -> None:
        """Set where to listen; `start` begins."""
        self._path = path
        self._server: asyncio.Server | None = None
        self._supervisor: Supervisor | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pipes: set[ControlPipe[ToSupervisor]] = set()
        #: Set by the first client, and whenever the last one has left.
        self.visited = asyncio.Event()
        self.deserted = asyncio.Event()

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self._pipes)

    async def start(self, supervisor: Supervisor) -> None:
        """Listen. The caller holds the supervisor's lock, so a socket file that is there is a dead one's.

        Raises:
            SupervisorError: the socket cannot be made.
        """
        self._supervisor = supervisor
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The directory is 0700 already; the mask closes the moment between bind and chmod all the same.
        mask = os.umask(0o177)
        try:
            listening.bind(str(self._path))
        except OSError as error:
            listening.close()
            raise SupervisorError(f"{self._path} cannot be made: {error.strerror}.") from error
        finally:
            os.umask(mask)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accept, sock=listening)

    def _accept(self) -> ControlPipe[ToSupervisor]:
        pipe: ControlPipe[ToSupervisor] = ControlPipe(ToSupervisor)
        self._pipes.add(pipe)  # counted from the first moment: a session must not end on it
        self._spawn(self._converse(pipe))
        return pipe

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, pipe: ControlPipe[ToSupervisor]) -> None:
        try:
            if await self._greet(pipe):
                while (message := await pipe.receive()) is not None:
                    if not isinstance(message, Hello):
                        self._spawn(self._answer(pipe, message))
            if pipe.failure is not None:
                _log.warning("client broke the control protocol", error=str(pipe.failure))
        finally:
            pipe.close()
            self._pipes.discard(pipe)
            if not self._pipes:
                self.deserted.set()

    async def _greet(self, pipe: ControlPipe[ToSupervisor]) -> bool:
        try:
            async with asyncio.timeout(_HELLO_WITHIN):
                hello = await pipe.receive()
        except TimeoutError:
            return False
        if not isinstance(hello, Hello) or self._supervisor is None or self._supervisor.ending.is_set():
            return False
        if hello.protocol != PROTOCOL:
            problem = ControlError(
                f"this supervisor is tickring {version()} with control protocol {PROTOCOL}, the client is "
                f"{hello.version} with {hello.protocol}. Restart the supervisor with the newer one: "
                "tickring down, tickring up."
            )
            pipe.send(Refusal(0, Problem.of(problem)))
            return False
        self.visited.set()
        pipe.send(Welcome(PROTOCOL, version(), os.getpid()))
        return True

    async def _answer(self, pipe: ControlPipe[ToSupervisor], request: Request) -> None:
        assert self._supervisor is not None  # noqa: S101 - set before the server listens
        try:
            # Lines of a connection made here go to this client; nobody hears them once it has left.
            outcome = await self._supervisor.carry_out(request, lambda name, text: pipe.send(Line(name, text)))
            pipe.send(outcome)
        except TickringError as error:
            pipe.send(Refusal(request.id, Problem.of(error)))
        # A fault of ours must reach the client as an answer, or it waits for ever; and must not end the others.
        except Exception as error:  # noqa: BLE001
            _log.exception("request failed", request=type(request).__name__)
            pipe.send(Refusal(request.id, Problem("TickringError", f"the supervisor failed: {error!r}. See its log.")))

    def refuse_clients(self) -> None:
        """Listen no more; the conversations go on. A client that comes now looks for another supervisor."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def close(self) -> None:
        """Listen no more, finish what has been asked for, and end every conversation."""
        self.refuse_clients()
        for pipe in list(self._pipes):
            pipe.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
