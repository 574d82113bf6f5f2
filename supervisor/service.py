"""The recorder or a broadcaster, kept running: a child that is told the same again after every death.

::

    first request --> start --> told what stands --> requests go through --> dies --> pause --.
                        ^                                                                     |
                        +---------------------------------------------------------------------+

Requests are answered one by one with the same id. What a service has to know (`standing`) is remembered here, not
there: a service that dies is started again after a pause and told all of it before anything else, so its death loses
nothing but time. A request that comes in the meantime, or was under way when it died, is sent after that. What a new
process refuses is told to `Standing.on_done`; its owner decides what becomes of it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import msgspec

from feeds.backoff import Backoff
from feeds.logs import get_logger
from feeds.messages import Problem
from ringbuf.errors import DeadlinePassed, SupervisorError, TickringError
from supervisor.child_process import ChildProcess
from supervisor.messages import Done, FromService, Notice
from supervisor.policy import HEALTHY_AFTER

_log = get_logger()

R = TypeVar("R", bound=msgspec.Struct)

#: Makes a request with the id it is given.
Make: TypeAlias = Callable[[int], R]

#: A service answers at once; this is for one that hangs, in seconds.
ANSWER_WITHIN = 15.0


@dataclass(frozen=True)
class Standing(Generic[R]):
    """Something that a service has to know for as long as it stands."""

    make: Make[R]
    #: Gets the answer, problem included, each time a new process was told.
    on_done: Callable[[Done], None]


class Service(Generic[R]):
    """One service process. For the supervisor's event loop."""

    def __init__(
        self,
        module: str,
        title: str,
        log: Path,
        standing: Callable[[], Iterable[Standing[R]]],
        on_notice: Callable[[Notice], None],
        *,
        backoff: Backoff | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        """Describe the service; it starts with the first request.

        Args:
            module: what to run.
            title: what it is for, as ps and the log show it.
            log: where its stderr goes.
            standing: gives what makes a new process what the last one was, in the order of telling.
            on_notice: takes its lines for people.
            backoff: pauses between restarts.
            inherited: see `ChildProcess.start`.
        """
        self._module = module
        self._title = title
        self._log_file = log
        self._standing = standing
        self._on_notice = on_notice
        self._backoff = backoff or Backoff()
        self._inherited = inherited
        self._ids = itertools.count(1)
        #: Everything that waits for an answer.
        self._waiting: dict[int, asyncio.Future[Done]] = {}
        #: Those of them that are sent again to the next process.
        self._requests: dict[int, Make[R]] = {}
        self._child: ChildProcess[FromService] | None = None
        #: Whether the process has been told what stands, so that requests may go through.
        self._told = False
        self._keeper: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return self._child.pid if self._child else None

    async def request(self, make: Make[R]) -> Done:
        """Ask the service for something and give its answer; after its death, ask the next process.

        Raises:
            TickringError: the problem it answered with.
            SupervisorError: its process cannot be started, or is going down.
            DeadlinePassed: it did not answer; what was asked for may still be done.
        """
        if self._ending.is_set():
            raise SupervisorError(f"the {self._title} is going down.")
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        number = next(self._ids)
        self._requests[number] = make
        if self._told and self._child is not None:
            self._child.pipe.send(make(number))
        try:
            done = await self._answer(number)
        finally:
            del self._requests[number]
        if done.problem is not None:
            raise done.problem.error()
        return done

    async def _answer(self, number: int) -> Done:
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                done: Done = await answer
                return done
        except TimeoutError as error:
            raise DeadlinePassed(
                f"the {self._title} did not answer within {ANSWER_WITHIN:g} s. See its log: {self._log_file}."
            ) from error
        finally:
            del self._waiting[number]

    # ---- the process ------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Start the process, and start it again when it dies, until `stop`."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._ending.is_set():
            started = loop.time()
            await self._try_to_live()
            if loop.time() - started >= HEALTHY_AFTER:
                failures = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.delay(failures)):
                    await self._ending.wait()
            failures += 1
        self._fail_requests(SupervisorError(f"the {self._title} has ended."))

    async def _try_to_live(self) -> None:
        try:
            await self._live()
        except OSError as error:
            _log.error("service not started", service=self._title, error=str(error))
            self._fail_requests(SupervisorError(f"the {self._title} cannot be started: {error}. It is tried again."))
        # A fault of ours must not leave the service without anyone who looks after it.
        except Exception as error:  # noqa: BLE001
            _log.exception("service failed", service=self._title)
            self._fail_requests(SupervisorError(f"the {self._title} failed: {error!r}. See the supervisor's log."))

    def _fail_requests(self, error: TickringError) -> None:
        for number in self._requests:
            answer = self._waiting.get(number)
            if answer is not None and not answer.done():
                answer.set_exception(error)

    async def _live(self) -> None:
        """One process, from its start to its end."""
        child: ChildProcess[FromService] = await ChildProcess.start(
            self._module,
            self._title,
            FromService,
            self._log_file,
            self._inherited,
        )
        self._child = child
        _log.info("service started", service=self._title, pid=child.pid)
        telling = asyncio.create_task(self._tell(child))
        try:
            if not self._ending.is_set():  # else the end came while it was started
                await self._listen(child)
        finally:
            self._told = False
            telling.cancel()
            (fault,) = await asyncio.gather(telling, return_exceptions=True)
            if isinstance(fault, Exception):
                _log.error("service was not told what stands", service=self._title, error=repr(fault))
            await child.stop()  # its pipe has ended; if it has not, it hangs
            self._child = None
        if not self._ending.is_set():
            _log.error("service died", service=self._title, pid=child.pid, exit_code=await child.wait())

    async def _tell(self, child: ChildProcess[FromService]) -> None:
        """Tell a new process what stands, and then what is waiting."""
        for standing in list(self._standing()):
            number = next(self._ids)
            child.pipe.send(standing.make(number))
            try:
                done = await self._answer(number)
            except DeadlinePassed as error:
                done = Done(number, Problem.of(error))
            if done.problem is not None:
                _log.error("service cannot go on", service=self._title, problem=done.problem.message)
            standing.on_done(done)
        self._told = True
        for number, make in self._requests.items():
            child.pipe.send(make(number))

    async def _listen(self, child: ChildProcess[FromService]) -> None:
        while (message := await child.pipe.receive()) is not None:
            if isinstance(message, Notice):
                self._on_notice(message)
            elif (answer := self._waiting.get(message.id)) is not None and not answer.done():
                answer.set_result(message)

    async def stop(self) -> None:
        """End the process for good; it finishes what it has."""
        self._ending.set()
        if self._child is not None:
            step = await self._child.stop()
            _log.info("service stopped", service=self._title, step=step)
        if self._keeper is not None:
            await self._keeper
