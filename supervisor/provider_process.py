"""A connection's provider process: started, asked, and started again when it dies.

The policy (see `policy`) decides, this carries out. The first start is special: whoever makes a connection wants to
know whether the venue accepts it, so the first failure is an error and no second attempt. Every later start goes on
trying for as long as the policy says.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from feeds.messages import Answer, Drain, Failed, FromProvider, Info, Ready, Start, Subscribe, TopicAnswer, Unsubscribe
from ringbuf.errors import DeadlinePassed, ProviderError, TickringError, VenueUnreachable
from supervisor.child_process import ChildProcess, StopStep
from supervisor.policy import Event, Policy, ProviderState, death

_log = structlog.get_logger()

#: Connecting and acknowledging may take ten seconds each (see `feeds.contract`); this leaves both their time.
READY_WITHIN: Final = 25.0
ANSWER_WITHIN: Final = 15.0


class ProviderProcess:
    """One connection's provider. For the supervisor's event loop."""

    def __init__(self, name: str, log: Path, make_start: Callable[[], Start], on_line: Callable[[str], None]) -> None:
        """Describe it; `start` begins.

        Args:
            name: the connection's.
            log: where its stderr goes.
            make_start: gives its first message, as the connection is at that moment.
            on_line: takes lines for people.
        """
        self.name = name
        self.log = log
        self._make_start = make_start
        self._on_line = on_line
        self.policy = Policy()
        #: When the state was entered, ns UTC.
        self.since = time.time_ns()
        #: What went wrong last; empty if nothing did.
        self.last_error = ""
        self._child: ChildProcess[FromProvider] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._ids = itertools.count(1)
        self._first: asyncio.Future[list[TopicAnswer]] | None = None
        self._stopped = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        """Whether it is meant to run and has not given up."""
        return self.policy.state not in (ProviderState.STOPPED, ProviderState.STOPPING, ProviderState.FAILED)

    def _is(self, state: ProviderState) -> bool:
        return self.policy.state is state

    def _happened(self, event: Event) -> None:
        before = self.policy
        self.policy = before.after(event, time.monotonic())
        if self.policy.state is not before.state:
            self.since = time.time_ns()
            _log.info("provider", connection=self.name, state=self.policy.state, was=before.state, because=event)

    async def start_first(self) -> list[TopicAnswer]:
        """Start, and give what the venue said to the first symbols.

        Raises:
            TickringError: what went wrong; the process has ended then.
        """
        self._first = asyncio.get_running_loop().create_future()
        self.start()
        try:
            async with asyncio.timeout(READY_WITHIN):
                return await self._first
        except TimeoutError as error:
            await self.stop()
            raise DeadlinePassed(
                f"{self.name}: the provider was not ready within {READY_WITHIN:g} s. See its log: {self.log}."
            ) from error
        except TickringError:
            await self.stop()
            raise
        finally:
            self._first = None

    def start(self) -> None:
        """Start, and keep it running from now on."""
        self._happened(Event.START)
        if self._keeper is None or self._keeper.done():
            self._stopped.clear()
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while self._is(ProviderState.STARTING):
            try:
                await self._live()
            except OSError as error:  # no process, no descriptors, no disk for the log: passing troubles of the machine
                self.last_error = f"the provider process could not be started: {error.strerror}"
                _log.error("provider not started", connection=self.name, error=str(error))
                self._happened(Event.DIED)
            if self._first is not None and not self._first.done():
                self._first.set_exception(ProviderError(f"{self.name}: {self.last_error}. See its log: {self.log}."))
            if self._is(ProviderState.BACKOFF):
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self.policy.due - time.monotonic())):
                        await self._stopped.wait()
                self._happened(Event.TIME_UP)

    async def _live(self) -> None:
        """One process, from its start to its end."""
        child: ChildProcess[FromProvider] = await ChildProcess.start(
            "feeds.worker",
            f"provider {self.name}",
            FromProvider,  # type: ignore[arg-type]  # a union is what the decoder wants; mypy has no word for it
            self.log,
        )
        self._child = child
        child.pipe.send(self._make_start())
        while (message := await child.pipe.receive()) is not None:
            self._said(message)
        code = await child.wait()
        self._child = None
        child.pipe.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(VenueUnreachable(f"{self.name}: the provider process ended. It is started again."))
        if self.policy.state is not ProviderState.STOPPING:
            self.last_error = self.last_error or f"the provider process ended with exit code {code}"
            _log.error("provider died", connection=self.name, exit_code=code, reason=self.last_error)
            self._on_line(f"PROVIDER ERROR:     the provider process ended ({code}).")
        self._happened(death(code))

    def _said(self, message: FromProvider) -> None:
        match message:
            case Ready(answers):
                self.last_error = ""
                self._happened(Event.READY)
                if self._first is not None and not self._first.done():
                    self._first.set_result(answers)
            case Failed(problem):
                self.last_error = problem.message
                if self._first is not None and not self._first.done():
                    self._first.set_exception(problem.error())
            case Answer(number):
                waiting = self._waiting.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Info(text):
                self._on_line(f"PROVIDER INFO:      {text}")

    async def change(self, kind: type[Subscribe | Unsubscribe], symbols: str) -> list[TopicAnswer]:
        """Subscribe to or unsubscribe from symbols on the running connection.

        Raises:
            TickringError: what the provider says is wrong with the request.
            DeadlinePassed: it did not answer.
        """
        child = self._child
        if child is None or self.policy.state is not ProviderState.READY:
            raise VenueUnreachable(
                f"{self.name} is not connected ({self.policy.state}): {self.last_error or 'starting'}."
            )
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        child.pipe.send(kind(number, symbols))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer: Answer = await future
        except TimeoutError as error:
            raise DeadlinePassed(
                f"{self.name}: no answer within {ANSWER_WITHIN:g} s. See its log: {self.log}."
            ) from error
        finally:
            self._waiting.pop(number, None)
        if answer.problem is not None:
            raise answer.problem.error()
        return answer.answers

    async def stop(self) -> StopStep | None:
        """End the process, and give the step that did it; None if there was none."""
        self._happened(Event.STOP)
        self._stopped.set()
        child = self._child
        step = None if child is None else await child.stop(Drain())
        if self._keeper is not None:
            await self._keeper
        if step not in (None, StopStep.DRAINED):
            _log.warning("provider did not drain", connection=self.name, ended_by=step)
        return step
