"""The recorder and the broadcasters as connections see them: ask, and it holds across their deaths.

What a new process refuses after a death (a results file that another program has taken, say), and what cannot be had
when a supervisor brings its connections back, is insisted on: asked for again, with growing pauses, until it is given
or not wanted any more. Meanwhile it is a connection's `trouble`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from feeds.backoff import Backoff
from feeds.logs import get_logger
from ringbuf.errors import DeadlinePassed, TickringError
from supervisor.messages import Bind, Done, Notice, Record, Release, Serve, ToBroadcaster, ToRecorder, Withdraw
from supervisor.places import log_file
from supervisor.roster import Settings
from supervisor.service import Make, Service, Standing

_log = get_logger()

#: Takes (connection, line) for people.
OnLine: TypeAlias = Callable[[str, str], None]


class Services:
    """The recorder, and one broadcaster for each address. For the supervisor's event loop."""

    def __init__(self, on_line: OnLine, *, inherited: Sequence[int] = (), backoff: Backoff | None = None) -> None:
        """Start nothing yet.

        Args:
            on_line: takes (connection, line) for people.
            inherited: see `ChildProcess.start`.
            backoff: pauses between restarts, and between attempts.
        """
        self._on_line = on_line
        self._inherited = inherited
        self._backoff = backoff or Backoff()
        self._recorded: dict[str, Settings] = {}
        self._recorder: Service[ToRecorder] = Service(
            "supervisor.recorder", "recorder", log_file("recorder"), self._recordings, self._recorder_notice,
            backoff=self._backoff, inherited=inherited,
        )  # fmt: skip
        self._broadcasters: dict[tuple[str, int], _Broadcaster] = {}
        #: One change of an address at a time: two first connections of it must not both bind.
        self._addresses: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._insisting: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._troubles: dict[tuple[str, str], str] = {}

    def trouble(self, name: str) -> str:
        """Give what a connection lacks at the moment, in words; empty if nothing."""
        return self._troubles.get(("record", name)) or self._troubles.get(("serve", name)) or ""

    # ---- insisting --------------------------------------------------------------------------------------------------

    def _insist(self, what: str, settings: Settings, attempt: Callable[[Settings], Awaitable[None]]) -> None:
        key = (what, settings.name)
        if key not in self._insisting:
            self._insisting[key] = asyncio.create_task(self._try_until(key, partial(attempt, settings)))

    async def _try_until(self, key: tuple[str, str], attempt: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                await attempt()
                break
            except TickringError as error:
                self._in_trouble(key, str(error))
            # A fault of ours must be seen, and must not end the attempts.
            except Exception as error:  # noqa: BLE001
                _log.exception("attempt failed", what=key[0], connection=key[1])
                self._in_trouble(key, repr(error))
            await asyncio.sleep(self._backoff.delay(failures))
            failures += 1
        self._troubles.pop(key, None)
        del self._insisting[key]

    def _in_trouble(self, key: tuple[str, str], text: str) -> None:
        if self._troubles.get(key) != text:
            self._troubles[key] = text
            _log.error("connection lacks a service", what=key[0], connection=key[1], problem=text)
            self._on_line(key[1], f"ERROR:              {text} It is tried again.")

    async def _relent(self, what: str, name: str) -> None:
        task = self._insisting.pop((what, name), None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._troubles.pop((what, name), None)

    def bring_back(self, settings: Settings) -> None:
        """Record, and if wanted broadcast, a connection of the list: at once, or as soon as it can be had."""
        self._insist("record", settings, self.record)
        if settings.broadcasting:
            self._insist("serve", settings, self.serve)

    # ---- recorder ---------------------------------------------------------------------------------------------------

    def _recorder_notice(self, notice: Notice) -> None:
        self._on_line(notice.connection, f"RECORDER INFO:      {notice.text}")

    def _recordings(self) -> Iterable[Standing[ToRecorder]]:
        return [Standing(_record(it), partial(self._recorded_again, it)) for it in self._recorded.values()]

    def _recorded_again(self, settings: Settings, done: Done) -> None:
        if done.problem is not None and self._recorded.pop(settings.name, None) is not None:
            self._insist("record", settings, self.record)

    async def record(self, settings: Settings) -> None:
        """Snapshot a connection from now on. Raises ResultsFileError for a file that cannot be used."""
        self._recorded[settings.name] = settings
        try:
            await self._recorder.request(_record(settings))
        except DeadlinePassed:
            raise  # it may be done yet: `release` is to know of it
        except TickringError:
            self._recorded.pop(settings.name, None)
            raise

    async def release(self, settings: Settings, *, delete: bool) -> None:
        """Take the last snapshot of a connection and close its file. What goes wrong is logged: the end must go on."""
        await self._relent("record", settings.name)
        if settings.name not in self._recorded:
            return
        try:
            # It stands until this is answered: a recorder that dies first has to open the file again to close it well.
            await self._recorder.request(lambda number: Release(number, settings.name, delete))
        except TickringError as error:
            _log.error("results file not closed in order", connection=settings.name, error=str(error))
        finally:
            self._recorded.pop(settings.name, None)

    # ---- broadcasters -----------------------------------------------------------------------------------------------

    async def serve(self, settings: Settings) -> None:
        """Broadcast a connection from now on. Raises AddressInUse where no port can be bound."""
        key = (settings.broadcast_host, settings.broadcast_port)
        async with self._addresses[key]:
            broadcaster = self._broadcasters.get(key)
            if broadcaster is None:
                broadcaster = self._broadcasters[key] = self._new_broadcaster(key)
            try:
                await broadcaster.serve(settings)
            except BaseException:
                if not broadcaster.served:
                    await self._end(key)
                raise

    def _new_broadcaster(self, address: tuple[str, int]) -> _Broadcaster:
        refused = partial(self._insist, "serve", attempt=self.serve)
        return _Broadcaster(address, self._on_line, refused, inherited=self._inherited, backoff=self._backoff)

    async def _end(self, key: tuple[str, int]) -> None:
        await self._broadcasters.pop(key).stop()

    async def withdraw(self, settings: Settings) -> None:
        """Broadcast a connection no more; the last one ends its broadcaster. What goes wrong is logged."""
        await self._relent("serve", settings.name)
        key = (settings.broadcast_host, settings.broadcast_port)
        async with self._addresses[key]:
            broadcaster = self._broadcasters.get(key)
            if broadcaster is None:
                return
            await broadcaster.withdraw(settings.name)
            if not broadcaster.served:
                await self._end(key)

    def broadcast(self, settings: Settings) -> tuple[str | None, int | None]:
        """Give the address where a connection is broadcast and the process that does it, or (None, None).

        While a broadcaster is between two lives there is no process, but the address holds.
        """
        broadcaster = self._broadcasters.get((settings.broadcast_host, settings.broadcast_port))
        if broadcaster is None or settings.name not in broadcaster.served:
            return None, None
        return broadcaster.address, broadcaster.pid

    async def stop(self) -> None:
        """End all services."""
        for what, name in list(self._insisting):
            await self._relent(what, name)
        await asyncio.gather(*(self._end(key) for key in list(self._broadcasters)), self._recorder.stop())


def _record(settings: Settings) -> Make[ToRecorder]:
    return lambda number: Record(
        number, settings.name, settings.results_file, settings.table_name, settings.limit, settings.sleep_time
    )  # fmt: skip


class _Broadcaster:
    """One address's broadcaster and what it serves."""

    def __init__(
        self,
        address: tuple[str, int],
        on_line: OnLine,
        on_refused: Callable[[Settings], None],
        *,
        inherited: Sequence[int],
        backoff: Backoff,
    ) -> None:
        """Describe it; `serve` begins.

        Args:
            address: where to listen; the next free port if that one is taken.
            on_line: takes lines for people.
            on_refused: told of each connection that a new process could not serve again.
            inherited: see `ChildProcess.start`.
            backoff: see `Service`.
        """
        self._host, self._wanted_port = address
        self._on_line = on_line
        self._on_refused = on_refused
        self._port = 0
        self.served: dict[str, Settings] = {}
        #: Who is to hear what the process says of the address, while nobody is served yet.
        self._first = ""
        self._service: Service[ToBroadcaster] = Service(
            "supervisor.broadcaster", f"broadcaster {self._host}:{self._wanted_port}",
            log_file(f"broadcaster-{self._wanted_port}"), self._standing, self._notice,
            backoff=backoff, inherited=inherited,
        )  # fmt: skip

    def _notice(self, notice: Notice) -> None:
        for name in [notice.connection] if notice.connection else self.served or [self._first]:
            self._on_line(name, f"BROADCAST INFO:     {notice.text}")

    def _standing(self) -> Iterable[Standing[ToBroadcaster]]:
        if self._port == 0:
            return []  # the first Bind is still asked for, and is sent again by itself
        # After a death the same port as before, so that listeners find it again; the next free one if it was taken.
        port = self._port
        bind: Make[ToBroadcaster] = lambda number: Bind(number, self._host, port)  # noqa: E731 - a maker among makers
        served = [Standing(_serve(it), partial(self._served_again, it)) for it in self.served.values()]
        return [Standing(bind, self._bound), *served]

    def _bound(self, done: Done) -> None:
        self._port = done.port  # 0 if it could not be bound: then nothing can be served, and `serve` binds again

    def _served_again(self, settings: Settings, done: Done) -> None:
        if done.problem is not None and self.served.pop(settings.name, None) is not None:
            self._on_refused(settings)

    @property
    def address(self) -> str:
        """Where listeners connect."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return self._service.pid

    async def serve(self, settings: Settings) -> None:
        """Bind the address the first time, and serve a connection there."""
        self._first = settings.name
        if self._port == 0:
            self._bound(await self._service.request(lambda number: Bind(number, self._host, self._wanted_port)))
        try:
            await self._service.request(_serve(settings))
        except TickringError as error:
            if isinstance(error, DeadlinePassed):
                self.served[settings.name] = settings  # it may be done yet: `withdraw` is to know of it
            raise
        except BaseException:
            self.served[settings.name] = settings
            raise
        self.served[settings.name] = settings

    async def withdraw(self, name: str) -> None:
        """Serve a connection no more. The last one is not asked for: its process ends."""
        if name in self.served and len(self.served) > 1:
            try:
                await self._service.request(lambda number: Withdraw(number, name))
            except TickringError as error:
                _log.error("not withdrawn", connection=name, address=self.address, error=str(error))
        self.served.pop(name, None)

    async def stop(self) -> None:
        """End the process."""
        await self._service.stop()


def _serve(settings: Settings) -> Make[ToBroadcaster]:
    return lambda number: Serve(number, settings.name, settings.auth_token)
