"""The control client: asks a running supervisor, from any thread.

One thread of its own reads what the supervisor says and gives each answer to who waits for it; lines for people go to
a callback. When the supervisor ends, everyone who waits is told.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import msgspec

from feeds.pipe import Splitter, pack
from ringbuf.errors import ControlError, DeadlinePassed, NotRunning, ParameterError, RingNotFound, TickringError
from supervisor.control import (
    EXIT_ALREADY_RUNNING,
    PROTOCOL,
    FromSupervisor,
    Hello,
    Line,
    Outcome,
    Refusal,
    Request,
    Welcome,
)
from supervisor.places import control_socket, log_file, open_log
from supervisor.version import version

#: Longer than the longest a supervisor waits for a venue (see `provider_process`), so that its own words arrive.
ANSWER_WITHIN: Final = 45.0
#: A supervisor answers within half a second of its start; this is for a loaded machine. Seconds.
UP_WITHIN: Final = 15.0
_GREETING_WITHIN: Final = 5.0

#: Makes a request with the id it is given.
Make: TypeAlias = Callable[[int], Request]


class ControlClient:
    """One conversation with the supervisor. Its methods may be called from any thread."""

    def __init__(self, connected: socket.socket, on_line: Callable[[str], None]) -> None:
        """Use `ControlClient.connect`."""
        self._socket = connected
        self._on_line = on_line
        self._splitter: Splitter[FromSupervisor] = Splitter(FromSupervisor)
        self._ids = itertools.count(1)
        self._waiting: dict[int, Future[Outcome]] = {}
        self._lock = threading.Lock()
        #: Another than `_lock`: answers must get through while a request is being sent.
        self._sending = threading.Lock()
        self._ended: TickringError | None = None
        self.supervisor_pid = self._greet()
        self._reader = threading.Thread(target=self._read, name="tickring-control", daemon=True)
        self._reader.start()

    @classmethod
    def connect(cls, on_line: Callable[[str], None] | None = None) -> ControlClient:
        """Find this instance's supervisor.

        Args:
            on_line: takes what connections made here have to tell.

        Raises:
            NotRunning: none answers, or it is going down.
            UnsafePath: its socket stands where others could have put it.
            ControlError: it speaks another version of the protocol.
        """
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(_GREETING_WITHIN)  # a supervisor that hangs does not even accept
        try:
            found.connect(str(control_socket()))
            return cls(found, on_line or (lambda _: None))
        except (FileNotFoundError, ConnectionError, RingNotFound) as error:
            found.close()
            raise NotRunning("no supervisor is running: start one with `tickring up`.") from error
        except TimeoutError as error:
            found.close()
            raise NotRunning("the supervisor does not answer: it hangs. See its log, or kill it.") from error
        except BaseException:
            found.close()
            raise

    def _greet(self) -> int:
        self._socket.sendall(pack(Hello(PROTOCOL, version())))
        while True:
            data = self._socket.recv(65536)
            if not data:
                raise NotRunning("the supervisor ended the conversation: it is going down.")
            for message in self._splitter.feed(data):
                if isinstance(message, Welcome):
                    self._socket.settimeout(None)
                    return message.pid
                if isinstance(message, Refusal):
                    raise message.problem.error()

    def request(self, make: Make, timeout: float = ANSWER_WITHIN) -> Outcome:
        """Ask for something and give the outcome.

        Args:
            make: makes the request with its id.
            timeout: how long to wait, in seconds.

        Raises:
            ParameterError: a value of the wrong type, or one that JSON cannot carry; nothing was sent.
            TickringError: what the supervisor refused it with.
            NotRunning: the supervisor has ended.
            DeadlinePassed: it has not answered; what was asked for may still be done.
        """
        number = next(self._ids)
        packed = _packed(make(number))
        future: Future[Outcome] = Future()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._waiting[number] = future
        try:
            with self._sending:
                self._socket.sendall(packed)
            return future.result(timeout)
        except OSError as error:
            if isinstance(error, TimeoutError):  # a TimeoutError of futures is one of these, too
                raise DeadlinePassed(f"the supervisor has not answered within {timeout:g} s. See its log.") from error
            raise NotRunning("the supervisor has ended.") from error
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def _read(self) -> None:
        ended: TickringError = NotRunning("the supervisor has ended.")
        try:
            while data := self._socket.recv(65536):
                for message in self._splitter.feed(data):
                    self._said(message)
        except OSError:
            pass  # closed by us, or the supervisor was killed
        except ControlError as error:
            ended = error
        with self._lock:
            self._ended = ended
            for future in self._waiting.values():
                future.set_exception(ended)
            self._waiting.clear()

    def _said(self, message: FromSupervisor) -> None:
        if isinstance(message, Line):
            # Whatever is wrong with where lines go (a closed terminal, say), answers must go on coming.
            with suppress(Exception):
                self._on_line(message.text)
        elif isinstance(message, Outcome | Refusal):
            with self._lock:
                future = self._waiting.pop(message.id, None)
            if future is None:
                return  # nobody waits any more
            if isinstance(message, Refusal):
                future.set_exception(message.problem.error())
            else:
                future.set_result(message)

    @property
    def ended(self) -> bool:
        """Whether the conversation is over."""
        return self._ended is not None

    def abandon(self) -> None:
        """In a process that a fork has made: let go of the parent's conversation without ending it."""
        self._socket.close()

    def close(self) -> None:
        """End the conversation; doing so twice is harmless."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(timeout=1.0)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_supervisor(*, session: bool = False, on_line: Callable[[str], None] | None = None) -> ControlClient:
    """Start a detached supervisor, and give a conversation with it once it answers.

    Two callers may do so at the same moment: one supervisor comes up, and both talk to it.

    Args:
        session: end it with its last client.
        on_line: see `ControlClient.connect`.

    Raises:
        NotRunning: it did not come up; the message says where its log is.
    """
    log = log_file("supervisor")
    process: subprocess.Popen[bytes] | None = None
    end = time.monotonic() + UP_WITHIN
    while time.monotonic() < end:
        with suppress(NotRunning):
            client = ControlClient.connect(on_line)
            if process is not None and process.pid != client.supervisor_pid:
                # Another one was faster. Ours must not take over later, when that one has ended and nobody wants any.
                process.terminate()
                process.wait()
            return client
        code = None if process is None else process.poll()
        if process is None or code == EXIT_ALREADY_RUNNING:  # the other one is still coming up, or going down
            process = _spawn(log, session=session)
        elif code is not None:
            break
        time.sleep(0.01)
    raise NotRunning(f"the supervisor did not come up. See its log: {log}.")


def _spawn(log: Path, *, session: bool) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-P", "-m", "supervisor", *(["--session"] if session else [])]
    descriptor = open_log(log)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module with our own arguments
            arguments, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
        )
    finally:
        os.close(descriptor)
    # Somebody has to wait for it, or it stays as a zombie if this process outlives it.
    threading.Thread(target=process.wait, name="tickring-reaper", daemon=True).start()
    return process


def _packed(request: Request) -> bytes:
    """Give a request as bytes, after the same check that the supervisor makes: it would end the conversation."""
    try:
        msgspec.convert(msgspec.to_builtins(request), type(request))
        return pack(request)
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"this cannot be asked for: {error}.") from error
