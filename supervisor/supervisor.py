"""The supervisor: owns the list of connections and carries out what clients ask.

It holds no data and no sockets of venues. Requests for one connection are carried out one after the other, those for
different ones at the same time. Every change of the list is on disk before it is confirmed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from feeds.contract import Parameters, Provider
from feeds.logs import get_logger
from feeds.messages import TopicAnswer
from feeds.registry import parse_parameters, provider, split_symbols
from ringbuf.directory import check_name, instance_directory
from ringbuf.errors import ConnectionExists, NotRunning, ParameterError, TickringError, UnknownConnection
from supervisor import control
from supervisor.connection import Connection
from supervisor.control import Outcome, Request
from supervisor.family import Family
from supervisor.places import state_directory
from supervisor.roster import Settings, load, save
from supervisor.services import OnLine, Services
from supervisor.snapshots import check_table_name

_log = get_logger()

#: Children that have lost their supervisor end within three seconds (see `feeds.child` and each of them); this is for
#: a loaded machine. Seconds.
PREDECESSOR_LEAVES: Final = 10.0

# READING: paced commits; below 10 ms SQLite would do nothing else, above an hour a ring cannot be trusted to hold.
_SLEEP_TIME: Final = (0.01, 3600.0)


class Supervisor:
    """All connections of one instance. For one event loop."""

    def __init__(self, *, session: bool = False) -> None:
        """Read the list; nothing is started yet.

        Args:
            session: what is made from now on belongs to a session, and is forgotten at the end.

        Raises:
            SupervisorError: the list cannot be read.
            UnsafePath: the directories cannot be used.
        """
        self._session = session
        self._file = state_directory() / "connections.json"
        self._connections: dict[str, Connection] = {}
        #: Connections of the list that this tickring cannot make anything of. They stay listed.
        self._unusable: dict[str, Settings] = {}
        #: The requests that are making connections.
        self._making: set[asyncio.Task[object]] = set()
        #: Set when the supervisor is to end; nothing new is begun then.
        self.ending = asyncio.Event()
        #: Whether it is to forget all its connections then.
        self.forgetting = False
        remembered = load(self._file)
        self._family = Family(instance_directory(create=True))
        self._services = Services(self._line, inherited=(self._family.descriptor,))
        for settings in remembered:
            self._remember(settings)

    def _line(self, connection: str, text: str) -> None:
        found = self._connections.get(connection)
        if found is not None:
            found.line(text)

    def _remember(self, settings: Settings) -> None:
        try:
            check_name(settings.name)
            self._connections[settings.name] = self._connection(settings, lambda _, __: None)
        except TickringError as error:
            self._unusable[settings.name] = settings
            _log.error("connection not restored", connection=settings.name, error=str(error))

    def _connection(self, settings: Settings, on_line: OnLine) -> Connection:
        return Connection(settings, self._services, on_line, inherited=(self._family.descriptor,))

    def _save(self) -> None:
        listed = [connection.settings for connection in self._connections.values()]
        save(self._file, [*listed, *self._unusable.values()])

    # ---- life -------------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Bring back every connection of the list, once what a killed predecessor left has ended.

        Requests are carried out meanwhile. What cannot be brought back is told in the log and the status.
        """
        listed = list(self._connections.values())
        if not await self._family.gather(PREDECESSOR_LEAVES):
            _log.error("processes of an earlier supervisor are still there", after=PREDECESSOR_LEAVES)
        for connection in listed:
            async with connection.lock:
                if self._connections.get(connection.settings.name) is not connection or self.ending.is_set():
                    continue  # somebody has killed it meanwhile
                try:
                    connection.bring_back()
                except TickringError as error:
                    connection.trouble = str(error)
                    _log.error("connection not restored", connection=connection.settings.name, error=str(error))

    async def shut_down(self) -> None:
        """End every process, in the order in which data flows: providers, broadcasters, recorder.

        The list stays as it is, for the next supervisor; less what was made for a session, and empty if the supervisor
        is forgetting. The processes, the rings, and the results files that were not to be saved end in any case.
        """
        self.ending.set()
        making = list(self._making)
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        ended = list(self._connections.values())
        self._connections = {} if self.forgetting else {c.settings.name: c for c in ended if not self._is_over(c)}
        if self.forgetting:
            self._unusable = {}
        try:
            self._save()
        except TickringError as error:
            _log.error("list not saved", error=str(error))
        for fault in await asyncio.gather(*(connection.end() for connection in ended), return_exceptions=True):
            if isinstance(fault, Exception):
                _log.error("connection not ended in order", error=repr(fault))
        await self._services.stop()
        self._family.close()

    def _is_over(self, connection: Connection) -> bool:
        return self._session and connection.settings.session

    # ---- requests ---------------------------------------------------------------------------------------------------

    async def carry_out(self, request: Request, on_line: OnLine) -> Outcome:
        """Do what a client asks and give the outcome.

        Args:
            request: what it asks.
            on_line: takes (connection, line) of a connection that it makes.

        Raises:
            TickringError: what cannot be done, and why.
            NotRunning: the supervisor is going down.
        """
        match request:
            case control.Status():
                return Outcome(request.id, [c.status() for c in self._named(request.name)])
            case control.Down():
                self.forgetting = self.forgetting or request.forget
                self.ending.set()
                return Outcome(request.id, [c.status() for c in self._connections.values()])
            case control.Authorize():
                return Outcome(request.id, [self._one(request.name, request.auth_token).status()])
            case control.Create():
                return await self._create(request, on_line)
            case control.Subscribe() | control.Unsubscribe():
                return await self._change(request)
            case control.Stop():
                return await self._stop(request)
            case control.Kill():
                return await self._kill(request)

    def _check_up(self) -> None:
        if self.ending.is_set():
            raise NotRunning("the supervisor is going down.")

    def _named(self, name: str) -> list[Connection]:
        if name == "all":
            return list(self._connections.values())
        connection = self._connections.get(name)
        if connection is None:
            known = ", ".join(sorted(self._connections)) or "none is there"
            raise UnknownConnection(f"Client {name} not connected. Connections: {known}.")
        return [connection]

    def _one(self, name: str, auth_token: str | None) -> Connection:
        if name == "all":
            raise ParameterError("'all' is not one connection: name it.")
        (connection,) = self._named(name)
        connection.check(auth_token)
        return connection

    @asynccontextmanager
    async def _changing(self, name: str, auth_token: str | None) -> AsyncIterator[Connection]:
        """Have a connection to oneself; it is still there, and the caller may change it."""
        connection = self._one(name, auth_token)
        async with connection.lock:
            self._check_up()
            if self._connections.get(name) is not connection:
                raise UnknownConnection(f"Client {name} not connected: somebody else has just killed it.")
            yield connection

    async def _create(self, request: control.Create, on_line: OnLine) -> Outcome:
        self._check_up()
        found: Provider[Parameters] = provider(request.provider)
        parameters = parse_parameters(found, request.parameters)
        name = check_name(request.name) if request.name is not None else self._free_name(parameters, request.provider)
        if name == "all":
            raise ParameterError("'all' cannot name a connection: it means all of them.")
        if name in self._taken():
            raise ConnectionExists(f"Client {name} already connected. Kill it first, or choose another name.")
        connection = self._connection(self._settings(request, name, found, parameters), on_line)
        self._connections[name] = connection  # the name is taken from now on, also for a second caller
        async with connection.lock, self._shown_as_making():
            try:
                answers = await connection.make()
                self._save()
            except BaseException as error:
                await connection.end(made=False)
                del self._connections[name]
                if isinstance(error, asyncio.CancelledError):
                    self._check_up()  # `shut_down` has cancelled it: the client is to hear why
                raise
        return Outcome(request.id, [connection.status()], answers)

    @asynccontextmanager
    async def _shown_as_making(self) -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has one
        self._making.add(task)
        try:
            yield
        finally:
            self._making.discard(task)

    def _taken(self) -> set[str]:
        return {*self._connections, *self._unusable}

    def _free_name(self, parameters: Parameters, provider_name: str) -> str:
        """READING: a name that was left out is the asset type and the provider, numbered if taken."""
        asset_type = getattr(parameters, "asset_type", None)
        base = f"{asset_type}_{provider_name}" if asset_type else provider_name
        name, number = base, 2
        taken = self._taken()
        while name in taken:
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
        if not request.broadcast_host:  # to a socket that means every interface of this machine
            raise ParameterError("broadcast_host is empty: name an address of this machine.")
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
            broadcasting=request.start_broadcast, running=True, session=self._session,
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
        async with self._changing(request.name, request.auth_token) as connection:
            if isinstance(request, control.Subscribe):
                answers: list[TopicAnswer] = await connection.subscribe(request.symbol)
            else:
                answers = await connection.unsubscribe(request.symbol)
            self._save()
        return Outcome(request.id, [connection.status()], answers)

    async def _stop(self, request: control.Stop) -> Outcome:
        async with self._changing(request.name, request.auth_token) as connection:
            was_running = connection.process.running
            await connection.stop()
            self._save()
        line = "Disconnected from" if was_running else "Not connected to"
        return Outcome(request.id, [connection.status()], lines=[f"{line} the provider WebSocket."])

    async def _kill(self, request: control.Kill) -> Outcome:
        async with self._changing(request.name, request.auth_token) as connection:
            was_running = connection.process.running
            await connection.end()
            # `shut_down` may have been faster with the same.
            self._connections.pop(request.name, None)
            self._save()
        return Outcome(request.id, [], lines=["Disconnected from the provider WebSocket."] if was_running else [])
