"""The recorder: the one process that writes results files. ``python -P -m supervisor.recorder --control-fd N``.

::

    supervisor --Record, Commit, Release--> Recorder --- one Recording per connection
               <--Done, Notice------------                 rings --> RingStream --> SnapshotTable --> results file

Recordings share this process and its loop, and nothing else but a results file if they are told to: one's trouble is no
other's. At the pipe's end and on SIGTERM every recording takes a last snapshot and its file is checkpointed and closed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec

from feeds import logs
from feeds.child import run_child
from feeds.messages import Problem
from feeds.pipe import ControlPipe
from ringbuf.errors import ConnectionExists, TickringError, UnknownConnection
from supervisor.messages import Commit, Done, Notice, Record, Release, ToRecorder
from supervisor.recording import OpenFiles, Recording, unforeseen


class Recorder:
    """All recordings of this process, and what the supervisor asks for. For one event loop."""

    def __init__(self, tell: Callable[[Done | Notice], None]) -> None:
        """Begin with none; `tell` takes what goes to the supervisor."""
        self._tell = tell
        self._files = OpenFiles()
        self._recordings: dict[str, tuple[Recording, asyncio.Task[None]]] = {}

    def handle(self, message: ToRecorder) -> None:
        """Carry out a request and answer it."""
        try:
            match message:
                case Record():
                    self._record(message)
                case Commit():
                    self._find(message.connection).snapshot()
                case Release():
                    self._release(message)
        except TickringError as error:
            self._tell(Done(message.id, Problem.of(error)))
        except Exception as error:  # noqa: BLE001 - a fault in one recording must not end the others
            self._tell(Done(message.id, Problem.of(unforeseen(message.connection, error))))
        else:
            self._tell(Done(message.id))

    def _record(self, request: Record) -> None:
        running = self._recordings.get(request.connection)
        if running is None:
            recording = Recording(request, self._files, self._tell)
            self._recordings[request.connection] = recording, asyncio.ensure_future(_run(recording))
        elif msgspec.structs.replace(running[0].request, id=request.id) != request:  # the same again changes nothing
            raise ConnectionExists(
                f"{request.connection} is recorded into {running[0].request.table_name} of "
                f"{running[0].request.results_file} already. Release it first."
            )

    def _find(self, connection: str) -> Recording:
        running = self._recordings.get(connection)
        if running is None:
            raise UnknownConnection(f"{connection} is not recorded.")
        return running[0]

    def _release(self, request: Release) -> None:
        recording = self._find(request.connection)
        self._recordings.pop(request.connection)[1].cancel()
        recording.end(delete=request.delete)

    def end(self) -> None:
        """Take the last snapshots and close all files."""
        while self._recordings:
            _, (recording, task) = self._recordings.popitem()
            task.cancel()
            with suppress(TickringError):  # nobody is left to tell; what is not written the rings still hold
                recording.end(delete=False)


async def _run(recording: Recording) -> None:
    while True:  # noqa: ASYNC110 - it keeps the pace of the rings, which set no event
        await asyncio.sleep(recording.step())


async def main(pipe: ControlPipe[ToRecorder], stopping: asyncio.Event) -> int:
    """Serve the supervisor until the pipe ends or SIGTERM asks to stop."""
    logs.configure("recorder")
    recorder = Recorder(pipe.send)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        while not stop.done():
            receive = asyncio.ensure_future(pipe.receive())
            await asyncio.wait((receive, stop), return_when=asyncio.FIRST_COMPLETED)
            message = receive.result() if receive.done() else None
            if message is None:
                receive.cancel()
                break
            recorder.handle(message)
    finally:
        stop.cancel()
        recorder.end()
    return 0


if __name__ == "__main__":
    sys.exit(run_child(ToRecorder, main))
