"""The provider process: one connection, from its first message to its last.

Started by the supervisor as ``python -P -m feeds.worker --control-fd N``. What it is to do comes down the pipe, secrets
included; what it does goes into the connection's directory, and answers go up the pipe (see `messages`).

    Start -> take the name, its rings and counters -> session: connect, subscribe -> Ready, then as told -> Drain

It ends by itself only when trying again cannot help (exit code 78): a wrong configuration, credentials the venue does
not want, no room for its rings, another writer of the same name. Everything else it rides out; a fault of its own ends
it with a traceback and exit code 1, and the supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from feeds import logs
from feeds.child import EXIT_CONFIGURATION, run_child
from feeds.clock import Clock
from feeds.contract import Parameters, Provider
from feeds.intake import Intake
from feeds.logs import get_logger
from feeds.messages import (
    Answer,
    Drain,
    Failed,
    FromProvider,
    Info,
    Problem,
    Ready,
    Start,
    Subscribe,
    ToProvider,
    Unsubscribe,
)
from feeds.picows_transport import PicowsTransport
from feeds.pipe import ControlPipe
from feeds.records import Kind
from feeds.registry import parse_parameters, provider, split_symbols
from feeds.session import Session
from feeds.topics import refusal
from ringbuf.connection import ConnectionWriter
from ringbuf.errors import ProviderError, TickringError, WriterActive

_log = get_logger()

T = TypeVar("T")

#: Seconds in which a predecessor that has lost its supervisor is gone: one for the venue's good-bye, two on a busy
#: machine.
_PREDECESSOR_LEAVES: Final = 3.0
_LOOK_AGAIN: Final = 0.05


class Worker:
    """What runs in a provider process."""

    def __init__(
        self, pipe: ControlPipe[ToProvider], start: Start, found: Provider[Parameters], connection: ConnectionWriter
    ) -> None:
        """Set up the session. Raises what is wrong with the parameters, or SharedMemoryFull."""
        self._pipe = pipe
        self._ready = False
        parameters = parse_parameters(found, start.parameters)
        self._symbols = split_symbols(parameters.symbol)
        clock = Clock()
        letters = Path(start.dead_letters) if start.dead_letters else None
        intake = Intake(found.declaration, found.decoder(), connection, clock, letters)
        kinds = {topic.channel.kind for topic in found.topics(parameters, self._symbols)}
        intake.publisher.require_room(kinds | {Kind.EVENT})
        self.session = Session(
            found, parameters, connection, PicowsTransport(clock.now), intake, clock,
            on_problem=self._on_problem, on_info=lambda text: self._send(Info(text)),
        )  # fmt: skip
        self._tasks: set[asyncio.Task[None]] = set()
        #: Fails when one of the tasks does: nobody waits for them, and none of them may fail unseen.
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _send(self, message: FromProvider) -> None:
        self._pipe.send(message)

    def _on_problem(self, error: ProviderError) -> None:
        if not self._ready:
            self._send(Failed(Problem.of(error), permanent=False))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.broken.done():
            self.broken.set_exception(error)

    async def obey(self) -> None:
        """Ask for the first symbols, then carry out what the supervisor says, until it says drain or is gone."""
        self._begin(self._announce())
        while (message := await self._pipe.receive()) is not None:
            if isinstance(message, Drain):
                break
            if isinstance(message, Subscribe | Unsubscribe):
                self._begin(self._change(message))

    def cancel(self) -> None:
        """Give up what is still being waited for."""
        for task in self._tasks:
            task.cancel()
        self.broken.cancel()

    async def _announce(self) -> None:
        """Subscribe to the first symbols, and say so when the venue has answered."""
        answers = await self.session.topics.subscribe(self._symbols, patient=True)
        refused = refusal(answers)
        if refused is not None:
            self._send(Failed(Problem.of(refused), permanent=False))
        self._ready = True
        self._send(Ready(answers))

    async def _change(self, message: Subscribe | Unsubscribe) -> None:
        change = self.session.topics.subscribe if isinstance(message, Subscribe) else self.session.topics.unsubscribe
        try:
            answers = await change(split_symbols(message.symbol))
        except TickringError as error:
            self._send(Answer(message.id, [], Problem.of(error)))
            return
        self._send(Answer(message.id, answers))


async def main(pipe: ControlPipe[ToProvider], stopping: asyncio.Event) -> int:
    """Run one provider process; gives its exit code."""
    stop = asyncio.create_task(_set(stopping))
    try:
        start = await _unless(stop, pipe.receive())
        if not isinstance(start, Start):
            return EXIT_CONFIGURATION if start is not None else 0
        logs.configure("provider", start.name)
        return await _run(pipe, start, stop)
    except TickringError as error:
        _log.error("cannot go on", error=str(error))
        pipe.send(Failed(Problem.of(error), permanent=True))
        return EXIT_CONFIGURATION
    finally:
        stop.cancel()


async def _run(pipe: ControlPipe[ToProvider], start: Start, stop: asyncio.Task[None]) -> int:
    found: Provider[Parameters] = provider(start.provider)
    parse_parameters(found, start.parameters)  # before anything is made under the connection's name
    connection = await _unless(stop, _taken(start.name))
    if connection is None:
        return 0
    with connection:
        return await _work(Worker(pipe, start, found, connection), stop)


async def _taken(name: str) -> ConnectionWriter:
    """Take the connection's name; a predecessor whose supervisor has died may still be leaving it.

    Raises:
        WriterActive: somebody goes on writing there.
    """
    end = time.monotonic() + _PREDECESSOR_LEAVES
    told = False
    while True:
        try:
            return ConnectionWriter(name)
        except WriterActive as error:
            if time.monotonic() > end:
                raise
            if not told:
                _log.info("waiting for a predecessor to leave", reason=str(error))
                told = True
        await asyncio.sleep(_LOOK_AGAIN)


async def _unless(stop: asyncio.Task[None], work: Coroutine[Any, Any, T]) -> T | None:
    """Give what `work` gives, or None if it is to end before."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({working, stop}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()


async def _work(worker: Worker, stop: asyncio.Task[None]) -> int:
    """Run the session until told to end, or until it gives up."""
    running = asyncio.create_task(worker.session.run())
    obeying = asyncio.create_task(worker.obey())
    try:
        await asyncio.wait({running, obeying, stop, worker.broken}, return_when=asyncio.FIRST_COMPLETED)
        broken = worker.broken.exception() if worker.broken.done() else None
    finally:
        obeying.cancel()
        worker.cancel()
        await worker.session.close()
        ends = await asyncio.gather(running, obeying, return_exceptions=True)
    for error in (broken, *ends):
        if isinstance(error, Exception):
            raise error
    return 0


async def _set(event: asyncio.Event) -> None:
    await event.wait()


if __name__ == "__main__":
    sys.exit(run_child(ToProvider, main))
