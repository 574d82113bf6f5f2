"""The recorder and the broadcasters as connections see them: ask, and it holds across their deaths."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from ringbuf.errors import TickringError
from supervisor.messages import Bind, Commit, Notice, Record, Release, Serve, ToBroadcaster, ToRecorder, Withdraw
from supervisor.places import log_file
from supervisor.roster import Settings
from supervisor.service import Make, Service

_log = structlog.get_logger()


class Services:
    """The recorder, and one broadcaster for each address. For the supervisor's event loop."""

    def __init__(self, on_notice: Callable[[Notice], None]) -> None:
        """Start nothing yet; `on_notice` takes lines for people."""
        self._on_notice = on_notice
        self._recorded: dict[str, Settings] = {}
        self._recorder: Service[ToRecorder] = Service(
            "supervisor.recorder", "recorder", log_file("recorder"), self._recordings, on_notice
        )
        self._broadcasters: dict[tuple[str, int], _Broadcaster] = {}

    # ---- recorder ---------------------------------------------------------------------------------------------------

    def _recordings(self) -> Iterable[Make[ToRecorder]]:
        return [_record(settings) for settings in self._recorded.values()]

    async def record(self, settings: Settings) -> None:
        """Snapshot a connection from now on. Raises ResultsFileError for a file that cannot be used."""
        await self._recorder.request(_record(settings))
        self._recorded[settings.name] = settings

    async def commit(self, settings: Settings) -> None:
        """Take a snapshot of a connection now."""
        await self._recorder.request(lambda number: Commit(number, settings.name))

    async def release(self, settings: Settings, *, delete: bool) -> None:
        """Take the last snapshot of a connection and close its file. What goes wrong is logged: the end must go on."""
        if self._recorded.pop(settings.name, None) is None:
            return
        try:
            await self._recorder.request(lambda number: Release(number, settings.name, delete))
        except TickringError as error:
            _log.error("results file not closed in order", connection=settings.name, error=str(error))

    # ---- broadcasters -----------------------------------------------------------------------------------------------

    async def serve(self, settings: Settings) -> None:
        """Broadcast a connection from now on. Raises AddressInUse where no port can be bound."""
        key = (settings.broadcast_host, settings.broadcast_port)
        broadcaster = self._broadcasters.get(key)
        if broadcaster is None:
            broadcaster = self._broadcasters[key] = _Broadcaster(*key, self._on_notice)
        try:
            await broadcaster.serve(settings)
        except TickringError:
            if not broadcaster.served:
                del self._broadcasters[key]
                await broadcaster.stop()
            raise

    async def withdraw(self, settings: Settings) -> None:
        """Broadcast a connection no more; the last one ends its broadcaster."""
        key = (settings.broadcast_host, settings.broadcast_port)
        broadcaster = self._broadcasters.get(key)
        if broadcaster is None:
            return
        await broadcaster.withdraw(settings.name)
        if not broadcaster.served:
            del self._broadcasters[key]
            await broadcaster.stop()

    def broadcast(self, settings: Settings) -> tuple[str | None, int | None]:
        """Give the address where a connection is broadcast and the process that does it, or (None, None)."""
        broadcaster = self._broadcasters.get((settings.broadcast_host, settings.broadcast_port))
        if broadcaster is None or settings.name not in broadcaster.served:
            return None, None
        return broadcaster.address, broadcaster.pid

    async def stop(self) -> None:
        """End all services."""
        for broadcaster in self._broadcasters.values():
            await broadcaster.stop()
        self._broadcasters.clear()
        await self._recorder.stop()


def _record(settings: Settings) -> Make[ToRecorder]:
    return lambda number: Record(
        number, settings.name, settings.results_file, settings.table_name, settings.limit, settings.sleep_time
    )  # fmt: skip


class _Broadcaster:
    """One address's broadcaster and what it serves."""

    def __init__(self, host: str, port: int, on_notice: Callable[[Notice], None]) -> None:
        self._host = host
        self._wanted_port = port
        self._port = 0
        self.served: dict[str, Settings] = {}
        self._service: Service[ToBroadcaster] = Service(
            "supervisor.broadcaster",
            f"broadcaster {host}:{port}",
            log_file(f"broadcaster-{port}"),
            self._standing,
            on_notice,
        )

    def _standing(self) -> Iterable[Make[ToBroadcaster]]:
        # After a death the same port as before, so that listeners find it again.
        port = self._port or self._wanted_port
        bind: Make[ToBroadcaster] = lambda number: Bind(number, self._host, port)  # noqa: E731 - a maker among makers
        return [bind, *(_serve(settings) for settings in self.served.values())]

    @property
    def address(self) -> str:
        """Where listeners connect."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process's id."""
        return self._service.pid

    async def serve(self, settings: Settings) -> None:
        """Bind the address the first time, and serve a connection there."""
        if self._port == 0:
            done = await self._service.request(lambda number: Bind(number, self._host, self._wanted_port))
            self._port = done.port
        await self._service.request(_serve(settings))
        self.served[settings.name] = settings

    async def withdraw(self, name: str) -> None:
        """Serve a connection no more."""
        if self.served.pop(name, None) is not None:
            await self._service.request(lambda number: Withdraw(number, name))

    async def stop(self) -> None:
        """End the process."""
        await self._service.stop()


def _serve(settings: Settings) -> Make[ToBroadcaster]:
    return lambda number: Serve(number, settings.name, settings.auth_token)
