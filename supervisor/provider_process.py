"""A connection's provider process: started, asked, and started again when it dies.

The policy (see `policy`) decides, this carries out. The first start is special: whoever makes a connection wants to
know whether the venue accepts it, so the first failure is an error and no second attempt. Every later start goes on
trying for as long as the policy says.

What went wrong is kept as two things: the `trouble` of this life, such as a venue that cannot be reached, which is over
when the provider is ready; and the last `death`, which stays to explain the count of restarts.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from feeds.logs import get_logger
from feeds.messages import Answer, Drain, Failed, FromProvider, Info, Ready, Start, Subscribe, TopicAnswer, Unsubscribe
from ringbuf.errors import DeadlinePassed, ProviderError, TickringError, VenueUnreachable
from supervisor.child_process import ChildProcess, StopStep
from supervisor.policy import Event, Policy, ProviderState, death

_log = get_logger()

#: Connecting and acknowledging may take ten seconds each (see `feeds.contract`); this leaves both their time.
READY_WITHIN: Final = 25.0
ANSWER_WITHIN: Final = 15.0


class ProviderProcess:
    """One connection's provider. For the supervisor's event loop."""

    def __init__(
        self,
        name: str,
        log: Path,
        make_start: Callable[[], Start],
        on_line: Callable[[str], None],
        *,
        inherited: Sequence[int] = (),
        policy: Policy | None = None,
        ready_within: float = READY_WITHIN,
    ) -> None:
        """Describe it; `start` begins.

        Args:
            name: the connection's.
            log: where its stderr goes.
            make_start: gives its first message, as the connection is at that moment.
            on_line: takes lines for people.
            inherited: see `ChildProcess.start`.
            policy: when it is started again.
            ready_within: how long the first start may take, in seconds.
        """
        self.name = name
        self.log = log
        self._make_start = make_start
        self._on_line = on_line
        self._inherited = inherited
        self._ready_within = ready_within
        self.policy = policy or Policy()
        #: When the state was entered, ns UTC.
        self.since = time.time_ns()
        self._trouble = ""
        self._death = ""
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

    @property
    def last_error(self) -> str:
        """What goes wrong now, or why the process died last; empty if nothing did since it was started by hand."""
        return self._trouble or self._death

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
            async with asyncio.timeout(self._ready_within):
                return await self._first
        except TimeoutError as error:
            await self.stop()
            raise DeadlinePassed(
                f"{self.name}: the provider was not ready within {self._ready_within:g} s. See its log: {self.log}."
            ) from error
        except TickringError:
            await self.stop()
            raise
        finally:
            self._first = None

    def start(self) -> None:
        """Start, and keep it running from now on."""
        self._trouble = self._death = ""
        self._happened(Event.START)
        if self._keeper is None or self._keeper.done():
            self._stopped.clear()
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while self._is(ProviderState.STARTING):
            await self._try_to_live()
            self._fail_first()
            if self._is(ProviderState.BACKOFF):
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self.policy.due - time.monotonic())):
                        await self._stopped.wait()
                self._happened(Event.TIME_UP)
        if self._is(ProviderState.STOPPING):  # stopped before there was a process that could end
            self._happened(Event.DIED)
        self._fail_first()

    def _fail_first(self) -> None:
        if self._first is not None and not self._first.done():
            reason = self.last_error or "the provider was stopped"
            self._first.set_exception(ProviderError(f"{self.name}: {reason}. See its log: {self.log}."))

    async def _try_to_live(self) -> None:
        try:
            await self._live()
        except OSError as error:  # no process, no descriptors, no disk for the log: passing troubles of the machine
            self._not_started(error.strerror or str(error))
        except TickringError as error:
            self._not_started(str(error))
        # A fault of ours must not leave the connection without anyone who looks after it.
        except Exception as error:  # noqa: BLE001
            _log.exception("provider process failed", connection=self.name)
            self._not_started(repr(error))

    def _not_started(self, why: str) -> None:
        self._death, self._trouble = f"the provider process could not be started: {why}", ""
        _log.error("provider not started", connection=self.name, reason=why)
        self._happened(Event.DIED)

    async def _live(self) -> None:
        """One process, from its start to its end."""
        child: ChildProcess[FromProvider] = await ChildProcess.start(
            "feeds.worker",
            f"provider {self.name}",
            FromProvider,
            self.log,
            self._inherited,
        )
        self._child = child
        try:
            if self._is(ProviderState.STARTING):  # else it was stopped while it was started
                child.pipe.send(self._make_start())
                while (message := await child.pipe.receive()) is not None:
                    self._said(message)
        finally:
            await child.stop()  # its pipe has ended; if it has not, it hangs
            self._child = None
            self._fail_waiting()
        self._died(await child.wait())

    def _fail_waiting(self) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(VenueUnreachable(f"{self.name}: the provider process ended. It is started again."))

    def _died(self, code: int) -> None:
        if self.policy.state is not ProviderState.STOPPING:
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            # Only a process that gave up says why it ends; of any other death its last words are another matter.
            gave_up = self._trouble if death(code) is Event.GAVE_UP else ""
            self._death, self._trouble = gave_up or f"the provider process ended with {how}", ""
            _log.error("provider died", connection=self.name, exit_code=code, reason=self._death)
            self._on_line(f"PROVIDER ERROR:     {self._death}")
        self._happened(death(code))

    def _said(self, message: FromProvider) -> None:
        match message:
            case Ready(answers):
                self._ready(answers)
            case Failed(problem):
                self._trouble = problem.message
                if self._first is not None and not self._first.done():
                    self._first.set_exception(problem.error())
            case Answer(number):
                waiting = self._waiting.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Info(text):
                self._on_line(f"PROVIDER INFO:      {text}")

    def _ready(self, answers: list[TopicAnswer]) -> None:
        self._trouble = ""
        self._happened(Event.READY)
        if self._first is not None:
            if not self._first.done():
                self._first.set_result(answers)
            return
        # Nobody waits for the answers of a later life; what the venue refuses now must be seen all the same.
        refused = [f"{answer.topic}: {answer.reason}" for answer in answers if answer.state == "refused"]
        if refused:
            self._trouble = f"the venue refused {'; '.join(refused)}"
            self._on_line(f"PROVIDER ERROR:     {self._trouble}")

    async def change(self, kind: type[Subscribe | Unsubscribe], symbols: str) -> list[TopicAnswer]:
        """Subscribe to or unsubscribe from symbols on the running connection.

        Raises:
            TickringError: what the provider says is wrong with the request.
            DeadlinePassed: it did not answer.
        """
        child = self._child
        if child is None or self.policy.state is not ProviderState.READY:
            raise VenueUnreachable(
                f"{self.name} is not connected ({self.policy.state}): {self.last_error or 'no error so far'}."
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
