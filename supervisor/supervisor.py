"""The supervisor: owns the list of connections and carries out what clients ask.

It holds no data and no sockets of venues. Requests for one connection are carried out one after the other, those for
different ones at the same time. Every change of the list is on disk before it is confirmed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from feeds.contract import Parameters, Provider
from feeds.messages import TopicAnswer
from feeds.registry import parse_parameters, provider, split_symbols
from ringbuf.directory import check_name
from ringbuf.errors import ConnectionExists, ParameterError, TickringError, UnknownConnection
from supervisor import control
from supervisor.connection import Connection
from supervisor.control import Outcome, Request
from supervisor.messages import Notice
from supervisor.places import state_directory
from supervisor.roster import Settings, load, save
from supervisor.services import Services
from supervisor.snapshots import check_table_name

_log = structlog.get_logger()

#: Told a line of a connection, for the client that made it.
OnLine: TypeAlias = Callable[[str, str], None]

# READING: paced commits; below 10 ms SQLite would do nothing else, above an hour a ring cannot be trusted to hold.
_SLEEP_TIME: Final = (0.01, 3600.0)


class Supervisor:
    """All connections of one instance. For one event loop."""

    def __init__(self, on_line: OnLine) -> None:
        """Read the list; nothing is started yet. Raises SupervisorError if the list cannot be read."""
        self._file = state_directory() / "connections.json"
        self._on_line = on_line
        self._services = Services(self._on_notice)
        self._connections: dict[str, Connection] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._remembered = load(self._file)
        #: Set when the supervisor is to end.
        self.ending = asyncio.Event()
        #: Whether it is to forget its connections then.
        self.forgetting = False

    def _on_notice(self, notice: Notice) -> None:
        self._on_line(notice.connection, f"BROADCAST INFO:     {notice.text}")

    def _save(self) -> None:
        save(self._file, [connection.settings for connection in self._connections.values()])

    # ---- life -------------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Bring back every connection of the list. One that cannot come back is told in the log, and stays listed."""
        for settings in self._remembered:
            try:
                connection = self._connections[settings.name] = Connection(settings, self._services, self._on_line)
                await connection.restore()
            except TickringError as error:
                _log.error("connection not restored", connection=settings.name, error=str(error))
                if settings.name in self._connections:
                    self._connections[settings.name].process.last_error = str(error)
        self._remembered = []

    async def shut_down(self, *, forget: bool) -> None:
        """End every process, in the order in which data flows: providers, recorder, broadcasters.

        Args:
            forget: empty the list; else it stays as it is, for the next supervisor. The processes, the rings, and the
                results files that were not to be saved end in both cases.
        """
        connections = list(self._connections.values())
        if forget:
            self._connections.clear()
        self._save()
        await asyncio.gather(*(connection.end() for connection in connections))
        await self._services.stop()

    # ---- requests ---------------------------------------------------------------------------------------------------

    async def carry_out(self, request: Request) -> Outcome:
        """Do what a client asks and give the outcome. Raises TickringError for what cannot be done."""
        match request:
            case control.Create():
                return await self._create(request)
            case control.Status():
                return Outcome(request.id, [c.status() for c in self._named(request.name)])
            case control.Subscribe() | control.Unsubscribe():
                return await self._change(request)
            case control.Stop():
                return await self._stop(request)
            case control.Kill():
                return await self._kill(request)
            case control.Authorize():
                connection = self._one(request.name, request.auth_token)
                return Outcome(request.id, [connection.status()])
            case control.Down():
                self.forgetting = request.forget
                self.ending.set()
                return Outcome(request.id, [c.status() for c in self._connections.values()])

    def _named(self, name: str) -> list[Connection]:
        if name == "all":
            return list(self._connections.values())
        connection = self._connections.get(name)
        if connection is None:
            known = ", ".join(sorted(self._connections)) or "none is there"
            raise UnknownConnection(f"Client {name} not connected. Connections: {known}.")
        return [connection]

    def _one(self, name: str, auth_token: str | None) -> Connection:
        (connection,) = self._named(name) if name != "all" else (None,)
        if connection is None:
            raise ParameterError("'all' is not one connection: name it.")
        connection.check(auth_token)
        return connection

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _create(self, request: control.Create) -> Outcome:
        found: Provider[Parameters] = provider(request.provider)
        parameters = parse_parameters(found, request.parameters)
        name = check_name(request.name) if request.name is not None else self._free_name(parameters, request.provider)
        if name == "all":
            raise ParameterError("'all' cannot name a connection: it means all of them.")
        async with self._lock(name):
            if name in self._connections:
                raise ConnectionExists(f"Client {name} already connected. Kill it first, or choose another name.")
            settings = self._settings(request, name, found, parameters)
            connection = Connection(settings, self._services, self._on_line)
            self._connections[name] = connection  # the name is taken from now on, also for a second caller
            try:
                answers = await connection.make()
            except BaseException:
                del self._connections[name]
                raise
            self._save()
        return Outcome(request.id, [connection.status()], answers)

    def _free_name(self, parameters: Parameters, provider_name: str) -> str:
        """READING: a name that was left out is the asset type and the provider, numbered if taken."""
        asset_type = getattr(parameters, "asset_type", None)
        base = f"{asset_type}_{provider_name}" if asset_type else provider_name
        name, number = base, 2
        while name in self._connections:
            name, number = f"{base}_{number}", number + 1
        return name

    def _settings(
        self, request: control.Create, name: str, found: Provider[Parameters], parameters: Parameters
    ) -> Settings:
        """Check what is the same for all providers. Raises ParameterError."""
        check_table_name(request.table_name)
        if request.limit is not None and request.limit < 1:
            raise ParameterError(f"limit must be at least 1, not {request.limit}; leave it None to keep all records.")
        low, high = _SLEEP_TIME
        if not low <= request.sleep_time <= high:
            raise ParameterError(
                f"sleep_time must be between {low:g} and {high:g} seconds, not {request.sleep_time:g}."
            )
        if not 0 <= request.broadcast_port <= 65535:
            raise ParameterError(f"broadcast_port must be between 0 and 65535, not {request.broadcast_port}.")
        if request.auth_token == "":
            raise ParameterError("auth_token is empty: leave it out, or give one.")
        topics = found.topics(parameters, split_symbols(parameters.symbol))
        results_file, made = self._results_file(request.results_file, name)
        return Settings(
            name=name, provider=request.provider,
            parameters={key: value for key, value in request.parameters.items() if key != "symbol"},
            symbols=list(dict.fromkeys(topic.symbol for topic in topics)), auth_token=request.auth_token,
            results_file=str(results_file), made_results_file=made, save_results=request.save_results,
            table_name=request.table_name, limit=request.limit, sleep_time=request.sleep_time,
            broadcast_host=request.broadcast_host, broadcast_port=request.broadcast_port,
            broadcasting=request.start_broadcast, running=True,
        )  # fmt: skip

    @staticmethod
    def _results_file(wanted: str | None, name: str) -> tuple[Path, bool]:
        """Give the results file, and whether it will be ours: a file that exists is continued and never deleted."""
        if wanted is None:
            return state_directory() / "results" / f"{name}-{secrets.token_hex(4)}.db", True
        path = Path(wanted).expanduser()
        if not path.is_absolute():
            raise ParameterError(f"results_file must be an absolute path, not {wanted!r}.")
        return path, not path.exists()

    async def _change(self, request: control.Subscribe | control.Unsubscribe) -> Outcome:
        connection = self._one(request.name, request.auth_token)
        async with self._lock(request.name):
            if isinstance(request, control.Subscribe):
                answers: list[TopicAnswer] = await connection.subscribe(request.symbol)
            else:
                answers = await connection.unsubscribe(request.symbol)
            self._save()
        return Outcome(request.id, [connection.status()], answers)

    async def _stop(self, request: control.Stop) -> Outcome:
        connection = self._one(request.name, request.auth_token)
        async with self._lock(request.name):
            was_running = connection.process.running
            await connection.stop()
            self._save()
        line = "Disconnected from" if was_running else "Not connected to"
        return Outcome(request.id, [connection.status()], lines=[f"{line} the provider WebSocket."])

    async def _kill(self, request: control.Kill) -> Outcome:
        connection = self._one(request.name, request.auth_token)
        async with self._lock(request.name):
            if self._connections.get(request.name) is not connection:
                raise UnknownConnection(f"Client {request.name} not connected: somebody else has just killed it.")
            was_running = connection.process.running
            await connection.end()
            del self._connections[request.name]
            self._save()
        return Outcome(request.id, [], lines=["Disconnected from the provider WebSocket."] if was_running else [])
