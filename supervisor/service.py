"""The recorder or a broadcaster, kept running: a child that is told the same again after every death.

Requests are answered one by one with the same id. What a service has to know (`standing`) is remembered here, not
there: a service that dies is started again after a pause and told all of it before anything else, so its death loses
nothing but time. A request that was under way when it died is answered by that second telling.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import msgspec
import structlog

from feeds.backoff import Backoff
from ringbuf.errors import DeadlinePassed
from supervisor.child_process import ChildProcess
from supervisor.messages import Done, FromService, Notice
from supervisor.policy import HEALTHY_AFTER

_log = structlog.get_logger()

R = TypeVar("R", bound=msgspec.Struct)

#: Makes a request with the id it is given.
Make: TypeAlias = Callable[[int], R]

#: A service answers at once; this is for one that hangs, in seconds.
ANSWER_WITHIN = 15.0


class Service(Generic[R]):
    """One service process. For the supervisor's event loop."""

    def __init__(
        self,
        module: str,
        title: str,
        log: Path,
        standing: Callable[[], Iterable[Make[R]]],
        on_notice: Callable[[Notice], None],
        backoff: Backoff | None = None,
    ) -> None:
        """Describe the service; it starts with the first request.

        Args:
            module: what to run.
            title: what it is for, as ps and the log show it.
            log: where its stderr goes.
            standing: gives the requests that make a new process what the last one was.
            on_notice: takes its lines for people.
            backoff: pauses between restarts.
        """
        self._module = module
        self._title = title
        self._log_file = log
        self._standing = standing
        self._on_notice = on_notice
        self._backoff = backoff or Backoff()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Done]] = {}
        self._child: ChildProcess[FromService] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return self._child.pid if self._child else None

    async def request(self, make: Make[R]) -> Done:
        """Ask the service for something and give its answer.

        Raises:
            TickringError: the problem it answered with.
            DeadlinePassed: it did not answer.
        """
        child = await self._running()
        done = await self._ask(child, make)
        if done.problem is not None:
            raise done.problem.error()
        return done

    async def _running(self) -> ChildProcess[FromService]:
        async with self._starting:
            if self._child is None:
                self._stopping = False
                self._child = await self._start()
                self._keeper = asyncio.create_task(self._keep(self._child))
            return self._child

    async def _start(self) -> ChildProcess[FromService]:
        child: ChildProcess[FromService] = await ChildProcess.start(
            self._module,
            self._title,
            FromService,  # type: ignore[arg-type]  # a union is what the decoder wants; mypy has no word for it
            self._log_file,
        )
        _log.info("service started", service=self._title, pid=child.pid)
        return child

    async def _ask(self, child: ChildProcess[FromService], make: Make[R]) -> Done:
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        child.pipe.send(make(number))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                done: Done = await answer
                return done
        except TimeoutError as error:
            raise DeadlinePassed(
                f"the {self._title} did not answer within {ANSWER_WITHIN:g} s. See its log: {self._log_file}."
            ) from error
        finally:
            self._waiting.pop(number, None)

    async def _keep(self, child: ChildProcess[FromService]) -> None:
        """Read what the process says; start it again when it dies."""
        loop = asyncio.get_running_loop()
        failures, started = 0, loop.time()
        while True:
            await self._listen(child)
            code = await child.wait()
            child.pipe.close()
            if self._stopping:
                return
            _log.error("service died", service=self._title, pid=child.pid, exit_code=code)
            failures = 0 if loop.time() - started >= HEALTHY_AFTER else failures + 1
            await asyncio.sleep(self._backoff.delay(failures))
            started = loop.time()
            child = self._child = await self._start()
            self._telling = asyncio.create_task(self._tell_again(child))

    async def _tell_again(self, child: ChildProcess[FromService]) -> None:
        for make in self._standing():
            with suppress(DeadlinePassed):
                done = await self._ask(child, make)
                if done.problem is not None:
                    _log.error("service cannot go on", service=self._title, problem=done.problem.message)

    async def _listen(self, child: ChildProcess[FromService]) -> None:
        while (message := await child.pipe.receive()) is not None:
            if isinstance(message, Notice):
                self._on_notice(message)
            elif (answer := self._waiting.get(message.id)) is not None and not answer.done():
                answer.set_result(message)

    async def stop(self) -> None:
        """End the process; it finishes what it has."""
        self._stopping = True
        child, self._child = self._child, None
        if child is not None:
            step = await child.stop()
            _log.info("service stopped", service=self._title, step=step)
        for task in (self._keeper, self._telling):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
