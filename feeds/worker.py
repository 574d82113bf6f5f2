"""The provider process: one connection, from its first message to its last.

Started by the supervisor as ``python -P -m feeds.worker --control-fd N``. What it is to do comes down the pipe, secrets
included; what it does goes into the connection's directory, and answers go up the pipe (see `messages`).

    Start -> take the name, its rings and counters -> session: connect, subscribe -> Ready, then as told -> Drain

It ends by itself only when trying again cannot help (exit code 78): a wrong configuration, credentials the venue does
not want, no room for its rings. Everything else it rides out.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import structlog

from feeds import logs
from feeds.child import EXIT_CONFIGURATION, run_child
from feeds.clock import Clock
from feeds.contract import Parameters, Provider
from feeds.intake import Intake
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
from feeds.registry import parse_parameters, provider, split_symbols
from feeds.session import Session, refusal
from ringbuf.connection import ConnectionWriter
from ringbuf.errors import ProviderError, TickringError

_log = structlog.get_logger()


class Worker:
    """What runs in a provider process."""

    def __init__(self, pipe: ControlPipe[ToProvider], start: Start, connection: ConnectionWriter) -> None:
        """Set up the session. Raises what is wrong with the configuration."""
        self._pipe = pipe
        self._ready = False
        found: Provider[Parameters] = provider(start.provider)
        parameters = parse_parameters(found, start.parameters)
        self._symbols = split_symbols(parameters.symbol)
        clock = Clock()
        letters = Path(start.dead_letters) if start.dead_letters else None
        intake = Intake(found.declaration, found.decoder(), connection, clock, letters)
        intake.publisher.require_room({topic.channel.kind for topic in found.topics(parameters, self._symbols)})
        self.session = Session(
            found, parameters, connection, PicowsTransport(clock.now), intake, clock,
            on_problem=self._on_problem, on_info=lambda text: self._send(Info(text)),
        )  # fmt: skip

    def _send(self, message: FromProvider) -> None:
        self._pipe.send(message)

    def _on_problem(self, error: ProviderError) -> None:
        if not self._ready:
            self._send(Failed(Problem.of(error), permanent=False))

    async def announce(self) -> None:
        """Subscribe to the first symbols, and say so when the venue has answered."""
        try:
            answers = await self.session.subscribe(self._symbols)
            while all(answer.state in ("requested", "sent") for answer in answers):
                answers = await self.session.subscribe(self._symbols)
        except TickringError as error:
            self._send(Failed(Problem.of(error), permanent=True))
            return
        refused = refusal(answers)
        if refused is not None:
            self._send(Failed(Problem.of(refused), permanent=False))
        self._ready = True
        self._send(Ready(answers))

    async def obey(self) -> None:
        """Carry out what the supervisor says, until it says drain or is gone."""
        tasks: set[asyncio.Task[None]] = set()
        while (message := await self._pipe.receive()) is not None:
            if isinstance(message, Drain):
                break
            if isinstance(message, Subscribe | Unsubscribe):
                task = asyncio.create_task(self._change(message))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        for task in tasks:
            task.cancel()

    async def _change(self, message: Subscribe | Unsubscribe) -> None:
        change = self.session.subscribe if isinstance(message, Subscribe) else self.session.unsubscribe
        try:
            answers = await change(split_symbols(message.symbol))
        except TickringError as error:
            self._send(Answer(message.id, [], Problem.of(error)))
            return
        self._send(Answer(message.id, answers))


async def main(pipe: ControlPipe[ToProvider], stopping: asyncio.Event) -> int:
    """Run one provider process; gives its exit code."""
    start = await pipe.receive()
    if not isinstance(start, Start):
        return EXIT_CONFIGURATION if start is not None else 0
    logs.configure("provider", start.name)
    try:
        with ConnectionWriter(start.name) as connection:
            worker = Worker(pipe, start, connection)
            return await _work(worker, stopping)
    except TickringError as error:
        _log.error("cannot go on", error=str(error))
        pipe.send(Failed(Problem.of(error), permanent=True))
        return EXIT_CONFIGURATION


async def _work(worker: Worker, stopping: asyncio.Event) -> int:
    """Run the session until told to end, or until it gives up."""
    running = asyncio.create_task(worker.session.run())
    others = [asyncio.create_task(c) for c in (worker.announce(), worker.obey(), _set(stopping))]
    announcing, obeying, stop = others
    try:
        await asyncio.wait({running, obeying, stop}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        announcing.cancel()
        await worker.session.close()
        for task in (*others, running):
            if task is not running:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    if worker.session.fatal is not None:
        raise worker.session.fatal
    return 0


async def _set(event: asyncio.Event) -> None:
    await event.wait()


if __name__ == "__main__":
    sys.exit(run_child(ToProvider, main))  # type: ignore[arg-type]  # a union is what the decoder wants; mypy has no word for it
