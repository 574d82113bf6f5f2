"""The broadcaster: one process per address, which serves ring records to websocket listeners.

::

    supervisor --Bind, Serve, Withdraw--> |             | <-- handshake /NAME --- listener
                <---- Done, Notice ------ | broadcaster | --- one JSON text a record --> listener
    rings ------- read by it alone -----> |             | --- ...

Connections share an address: ``/NAME`` picks one, ``/`` is the only or first one. It reads rings as any other reader
does and knows nothing of providers: both start, stop and crash independently, and a listener stays connected while a
provider restarts. Run by the supervisor as ``python -P -m supervisor.broadcaster --control-fd N``.

What a handshake is answered::

    403   a browser's page that is not of this machine (its Origin is no loopback name) asks a server that is bound to
          the loopback interface: a web page must not read what only local programs were meant to reach. A server that
          was bound to another interface is public by its owner's wish, and only its tokens guard it.
    404   no connection of that name is served here
    101   else. A listener that must present a token is told what is wrong by a message and close code 1008, because a
          browser's script never sees an HTTP status.

A token is in the URL (``?auth_token=``), an ``Authorization: Bearer`` header, or the first message; it appears in no
notice and no log. Ended by SIGTERM or the pipe's end: every listener is closed with 1001, exit code 0.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from picows import (
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from feeds.child import run_child
from feeds.messages import Problem
from feeds.pipe import ControlPipe
from ringbuf.directory import check_name
from ringbuf.errors import AddressInUse, ControlError, TickringError, UnknownConnection
from supervisor.frames import LARGEST_MESSAGE, CloseCode
from supervisor.listener_socket import Admission, ListenerSocket, token_bytes
from supervisor.listeners import Limits
from supervisor.messages import Bind, Done, FromService, Notice, Serve, ToBroadcaster
from supervisor.stream import Stream

#: How many ports after a taken one are tried.
PORTS: Final = 100
#: What an orderly end may take, in seconds; the supervisor allows one.
FAREWELL: Final = 0.5
#: Clients send little: a small buffer for each (the library's own default costs 16 KiB a listener).
_READ_BUFFER: Final = 4096


class Served:
    """A connection that is served, with what its listeners must present."""

    def __init__(self, stream: Stream, token: bytes | None, task: asyncio.Task[None]) -> None:
        self.stream = stream
        self.token = token
        self.task = task


class Broadcaster:
    """One address and the connections served there. For one thread, on an event loop."""

    def __init__(
        self,
        send: Callable[[FromService], None],
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `send` takes messages to the supervisor, `clock` gives seconds that never go back."""
        self._send = send
        self._limits = limits or Limits()
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._address = ""
        self._local = True
        self._served: dict[str, Served] = {}
        self._sockets: set[ListenerSocket] = set()
        #: Set when a stream has failed, which is a fault of ours: the process ends and is started anew.
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def bind(self, host: str, port: int) -> int:
        """Listen on the address, or on the next free port, and give the port.

        Raises:
            AddressInUse: the host cannot be bound, or none of a hundred ports is free.
            ControlError: it listens already.
        """
        if self._server is not None:
            raise ControlError(f"this broadcaster listens on {self._address} already; start another one.")
        server = None
        for candidate in range(port, min(port + PORTS, 65536)):
            server = await self._try_bind(host, candidate)
            if server is not None:
                break
        if server is None:
            raise AddressInUse(f"no port of {host} from {port} on is free ({PORTS} tried): choose another with --port.")
        names = [listening.getsockname() for listening in server.sockets]
        bound = int(names[0][1])
        self._server = server
        self._address = f"ws://{f'[{host}]' if ':' in host else host}:{bound}"
        self._local = all(ipaddress.ip_address(name[0].partition("%")[0]).is_loopback for name in names)
        if port not in (0, bound):
            self._send(Notice("", f"Port {port} is already in use. Using {bound} instead."))
        return bound

    async def _try_bind(self, host: str, port: int) -> asyncio.Server | None:
        try:
            return await ws_create_server(
                self._answer,
                host,
                port,
                max_frame_size=LARGEST_MESSAGE,
                read_buffer_init_size=_READ_BUFFER,
                enable_auto_pong=False,  # ours are counted
            )
        except (OSError, UnicodeError, OverflowError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                return None
            raise AddressInUse(
                f"{host}:{port} cannot be bound ({error}): give a host name or address of this machine and a port "
                "that you may use."
            ) from error

    def serve(self, connection: str, auth_token: str | None) -> None:
        """Serve a connection's records from now on.

        Raises:
            ControlError: no address is bound yet, or the connection is served already.
            ParameterError: the name cannot be a connection's.
        """
        check_name(connection)
        if self._server is None:
            raise ControlError(f"{connection} cannot be served: no address is bound.")
        if connection in self._served:
            raise ControlError(f"{connection} is served already on {self._address}: withdraw it first.")

        def tell(text: str) -> None:
            self._send(Notice(connection, text))

        stream = Stream(connection, self._limits, tell, self._clock)
        task = asyncio.get_running_loop().create_task(stream.run())
        task.add_done_callback(self._stream_ended)
        path = f"/{connection}" if self._served else ""
        self._served[connection] = Served(stream, None if auth_token is None else token_bytes(auth_token), task)
        tell(f"Stream results from {self._address}{path}")

    def _stream_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.failed.done():
            self.failed.set_exception(task.exception() or RuntimeError("a stream ended by itself"))

    def withdraw(self, connection: str) -> None:
        """Close a connection's listeners and serve it no more.

        Raises:
            UnknownConnection: it is not served here.
        """
        served = self._served.pop(connection, None)
        if served is None:
            raise UnknownConnection(f"{connection} is not served on {self._address or 'this address'}.")
        served.stream.flush()
        for listener in [listener for listener in self._sockets if listener.stream is served.stream]:
            listener.end(CloseCode.GOING_AWAY, f"{connection} is not broadcast any more")
        served.task.cancel()

    async def carry_out(self, request: ToBroadcaster) -> Done:
        """Do what the supervisor asks, and give the answer."""
        port = 0
        try:
            if isinstance(request, Bind):
                port = await self.bind(request.host, request.port)
            elif isinstance(request, Serve):
                self.serve(request.connection, request.auth_token)
            else:
                self.withdraw(request.connection)
        except TickringError as error:
            return Done(request.id, Problem.of(error))
        return Done(request.id, port=port)

    def _answer(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        """Decide on a handshake. Called by the transport library before it is answered."""
        path, _, query = request.path.decode("utf-8", "replace").partition("?")
        if self._local and not is_local(request.headers.get("Origin")):
            return _refusal(403, "This server answers pages of this machine only.")
        name = unquote(path.removeprefix("/")) or next(iter(self._served), "")
        served = self._served.get(name)
        if served is None:
            return _refusal(404, "No connection of that name is broadcast here.")
        # Firefox sends "keep-alive, Upgrade", which is right (RFC 6455, 4.2.1) and which the library would refuse.
        if "upgrade" in [word.strip().lower() for word in request.headers.get("Connection", "").split(",")]:
            request.headers["Connection"] = "Upgrade"
        authorization = request.headers.getall("Authorization", [])
        return ListenerSocket(
            served.stream,
            Admission(served.token, presented_tokens(query, authorization)),
            f"/{name}" if path != "/" else path,
            self._limits,
            lambda text: self._send(Notice(name, text)),
            self._clock,
            self._sockets,
        )

    async def close(self) -> None:
        """Say good-bye to every listener and listen no more. Takes half a second at most."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._served):
            self.withdraw(connection)
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                for listener in list(self._sockets):
                    await listener.gone.wait()
        for listener in list(self._sockets):
            listener.cut()


def is_local(origin: str | None) -> bool:
    """Tell whether a handshake comes from a program, which sends no Origin, or from a page of this machine."""
    if origin is None:
        return True
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def presented_tokens(query: str, authorization: list[str]) -> tuple[bytes, ...]:
    """Give every token that a handshake presents, in its URL's query and its Authorization headers."""
    pairs = [part.partition("=") for part in query.split("&")]
    tokens = [unquote_to_bytes(value) for key, _, value in pairs if key == "auth_token"]
    for header in authorization:
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "bearer":
            tokens.append(value.strip().encode("utf-8", "surrogateescape"))
    return tuple(tokens)


def _refusal(status: int, text: str) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, text.encode()), None)


async def serve_supervisor(pipe: ControlPipe[ToBroadcaster], stopping: asyncio.Event, limits: Limits | None) -> int:
    """Carry out the supervisor's requests until it stops us or its pipe ends; give the exit code."""
    broadcaster = Broadcaster(pipe.send, limits)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        while True:
            receive = asyncio.ensure_future(pipe.receive())
            await asyncio.wait((receive, stop, broadcaster.failed), return_when=asyncio.FIRST_COMPLETED)
            if broadcaster.failed.done():
                broadcaster.failed.result()
            request = receive.result() if receive.done() else None
            if request is None or stopping.is_set():
                receive.cancel()
                return 0
            pipe.send(await broadcaster.carry_out(request))
    finally:
        stop.cancel()
        await broadcaster.close()


async def main(pipe: ControlPipe[ToBroadcaster], stopping: asyncio.Event) -> int:
    """Run a broadcaster with its usual limits."""
    return await serve_supervisor(pipe, stopping, None)


if __name__ == "__main__":
    sys.exit(run_child(ToBroadcaster, main))
