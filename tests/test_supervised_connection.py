"""A connection with its services, in one event loop with the test: what it lets in, wants, and leaves."""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from processes.supervisor_running import alive, leftovers, state, until

from feeds.backoff import Backoff
from ringbuf.connection import ConnectionWriter
from ringbuf.errors import ParameterError, ResultsFileError, UnauthorizedError, UnsafePath, WriterActive
from supervisor import connection as connection_module
from supervisor.child_process import ChildProcess
from supervisor.connection import Connection
from supervisor.places import state_directory
from supervisor.roster import Settings
from supervisor.services import Services

pytestmark = pytest.mark.usefixtures("everywhere", "runtime")


def settings(url: str, **changed: object) -> Settings:
    found = Settings(
        name="c", provider="binance", parameters={"url": url}, symbols=["BTCUSDT"], auth_token=None,
        results_file=str(state_directory() / "results" / "c.db"), made_results_file=True, save_results=False,
        table_name="records", limit=1000, sleep_time=0.25, broadcast_host="127.0.0.1", broadcast_port=0,
        broadcasting=False, running=True,
    )  # fmt: skip
    for name, value in changed.items():
        setattr(found, name, value)
    return found


@asynccontextmanager
async def connection(found: Settings) -> AsyncIterator[tuple[Connection, list[str]]]:
    lines: list[str] = []
    services = Services(lambda _, line: lines.append(line), backoff=Backoff(base=0.0, cap=0.0, floor=0.01))
    made = Connection(found, services, lambda _, line: lines.append(line))
    try:
        yield made, lines
    finally:
        await made.end()
        await services.stop()
        assert leftovers() == []


def test_a_token_is_compared_in_constant_time(venue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def seen(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", seen)
    found = Connection(settings(venue, auth_token="geheim-ü"), Services(lambda *_: None), lambda *_: None)  # noqa: S106
    found.check("geheim-ü")
    for wrong in ("geheim-u", "", "geheim-ü "):
        with pytest.raises(UnauthorizedError):
            found.check(wrong)
    assert compared == [("geheim-ü".encode(), it.encode()) for it in ("geheim-ü", "geheim-u", "", "geheim-ü ")]


def test_symbols_are_wanted_once_and_never_none(venue: str) -> None:
    async def main() -> None:
        async with connection(settings(venue)) as (found, lines):
            await found.make()
            await found.subscribe("btc-usdt,ETHUSDT,eth/usdt")
            assert found.settings.symbols == ["BTCUSDT", "ETHUSDT"]
            answers = await found.subscribe("nosuchcoin")
            assert [it.state for it in answers] == ["refused"]
            assert found.settings.symbols == ["BTCUSDT", "ETHUSDT"]
            assert any(line.startswith("PROVIDER ERROR:     nosuchcoin@trade refused: ") for line in lines)
            with pytest.raises(ParameterError, match="all that c is subscribed to"):
                await found.unsubscribe("BTCUSDT,ETHUSDT")
            with pytest.raises(ParameterError, match="not subscribed to SOLUSDT"):
                await found.unsubscribe("btcusdt,solusdt")
            assert found.settings.symbols == ["BTCUSDT", "ETHUSDT"]

    asyncio.run(main())


def test_a_provider_that_hangs_is_ended_by_the_last_step_of_the_ladder(
    venue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = ChildProcess.stop.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "drain_within", 0.1)
    monkeypatch.setitem(defaults, "terminate_within", 0.1)

    async def main() -> None:
        async with connection(settings(venue)) as (found, _):
            await found.make()
            pid = found.process.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            await found.end()
            assert not alive(pid)

    asyncio.run(main())


def test_a_name_that_somebody_else_writes_is_refused_and_not_touched(venue: str) -> None:
    async def main() -> None:
        services = Services(lambda *_: None)
        found = Connection(settings(venue), services, lambda *_: None)
        with pytest.raises(WriterActive, match=r"Stop it first, or use another name|already writes"):
            await found.make()
        await services.stop()

    writer = ConnectionWriter("c")
    try:
        asyncio.run(main())
        assert writer.directory.is_dir()
    finally:
        writer.close()


def test_what_an_earlier_connection_of_the_name_left_is_gone(venue: str) -> None:
    writer = ConnectionWriter("c")
    directory = writer.directory
    writer.close()
    (directory / "old").write_text("x")

    async def main() -> None:
        async with connection(settings(venue)) as (found, _):
            await found.make()
            assert not (directory / "old").exists()

    asyncio.run(main())


def test_ending_twice_or_without_having_lived_is_harmless(venue: str) -> None:
    async def main() -> None:
        async with connection(settings(venue)) as (found, _):
            await found.end()
            await found.make()
            await asyncio.gather(found.end(), found.end())
            await found.end()

    asyncio.run(main())


def test_a_directory_that_cannot_be_removed_does_not_stop_the_end(venue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with connection(settings(venue)) as (found, _):
            await found.make()
            with monkeypatch.context() as patch:
                patch.setattr(connection_module.shutil, "rmtree", refuse)  # type: ignore[attr-defined]
                await found.end()
            assert found.process.pid is None
            assert list((state() / "results").iterdir()) == []

    def refuse(_: Path) -> None:
        raise OSError(39, "Directory not empty")

    asyncio.run(main())


def test_a_results_file_that_is_refused_is_an_error_before_the_venue_is_asked(venue: str) -> None:
    async def main() -> None:
        async with connection(settings(venue, results_file=str(state() / "logs"))) as (found, lines):
            with pytest.raises(ResultsFileError):
                await found.make()
            assert lines == []

    asyncio.run(main())


def test_bringing_back_never_waits_and_tells_what_is_missing(venue: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    results_file = str(tmp_path / "file" / "results.db")

    async def main() -> None:
        listed = settings(venue, results_file=results_file, broadcast_host="192.0.2.1", broadcasting=True)
        async with connection(listed) as (found, lines):
            found.bring_back()
            await until(lambda: "is no directory" in found.status().last_error, "the trouble is in the status")
            await until(lambda: found.status().state == "ready", "the provider runs all the same")
            await until(lambda: [line for line in lines if "192.0.2.1" in line], "the other trouble is told, too")
            assert not found.status().is_broadcasting

    asyncio.run(main())


def test_a_directory_of_rings_that_is_not_ours_is_refused(venue: str, runtime: Path, tmp_path: Path) -> None:
    (runtime / "default").mkdir(mode=0o700)
    (runtime / "default" / "c").symlink_to(tmp_path)
    (tmp_path / "precious").touch()

    async def main() -> None:
        services = Services(lambda *_: None)
        found = Connection(settings(venue), services, lambda *_: None)
        with pytest.raises(UnsafePath):
            await found.make()
        with pytest.raises(UnsafePath):
            found.bring_back()
        await found.end(made=False)
        await services.stop()

    asyncio.run(main())
    assert (tmp_path / "precious").exists()
