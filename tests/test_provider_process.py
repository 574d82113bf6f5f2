"""A provider process as the supervisor keeps it: with the real worker and a simulated venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from processes.supervisor_running import DEAD_URL, alive, kill, simulator, until, unused_port
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve

from feeds.backoff import Backoff
from feeds.messages import Start, Subscribe, Unsubscribe
from ringbuf.errors import DeadlinePassed, ParameterError, ProviderError, SubscriptionRefused, VenueUnreachable
from supervisor.policy import Policy, ProviderState
from supervisor.provider_process import ProviderProcess

pytestmark = pytest.mark.usefixtures("everywhere", "runtime")

#: Restarted at once; or not within the life of a test.
AT_ONCE = Policy(Backoff(base=0.0, cap=0.0, floor=0.01))
NEVER = Policy(Backoff(base=1000.0, cap=1000.0, draw=lambda: 1.0 - 1e-9))


class Bench:
    """A provider process with what it was started with and the lines it gave."""

    def __init__(self, log: Path, url: str, symbol: str, policy: Policy, ready_within: float) -> None:
        self.url, self.symbol = url, symbol
        self.lines: list[str] = []
        self.process = ProviderProcess(
            "c", log, self._start, self.lines.append, policy=policy, ready_within=ready_within
        )  # fmt: skip

    def _start(self) -> Start:
        return Start("c", "binance", {"symbol": self.symbol, "url": self.url})

    def state(self) -> ProviderState:
        return self.process.policy.state

    async def reaches(self, state: ProviderState) -> None:
        await until(lambda: self.state() is state, f"{state}")


@asynccontextmanager
async def bench(
    log: Path, url: str, symbol: str = "btcusdt", policy: Policy = AT_ONCE, ready_within: float = 20.0
) -> AsyncIterator[Bench]:
    found = Bench(log, url, symbol, policy, ready_within)
    try:
        yield found
    finally:
        await found.process.stop()
        assert found.process.pid is None
        assert not found.process.running


def test_it_is_ready_when_the_venue_has_accepted_and_ends_on_request(tmp_path: Path, venue: str) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue, "btcusdt,ETH-USDT") as found:
            process = found.process
            answers = await process.start_first()
            assert [(it.symbol, it.state) for it in answers] == [
                ("BTCUSDT", "acknowledged"),
                ("ETHUSDT", "acknowledged"),
            ]
            assert found.state() is ProviderState.READY
            assert (process.running, process.last_error) == (True, "")
            assert "PROVIDER INFO:      WebSocket connection established." in found.lines
            pid = process.pid
            assert alive(pid)
            assert await process.stop() == "drained"
            assert not alive(pid)
            assert found.state() is ProviderState.STOPPED
            assert await process.stop() is None
            process.start()
            await found.reaches(ProviderState.READY)
            assert process.pid != pid

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "symbol", "error", "words"),
    [
        (DEAD_URL, "btcusdt", VenueUnreachable, "127.0.0.1:9"),
        ("VENUE", "nosuchcoin", SubscriptionRefused, "nosuchcoin@trade"),
        ("VENUE", "?", ParameterError, "cannot be a Binance symbol"),
    ],
)
def test_a_first_start_that_fails_raises_what_was_wrong_and_leaves_no_process(
    tmp_path: Path, venue: str, url: str, symbol: str, error: type[Exception], words: str
) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue if url == "VENUE" else url, symbol) as found:
            with pytest.raises(error, match=words):
                await found.process.start_first()
            assert found.process.pid is None
            assert found.state() is ProviderState.STOPPED

    asyncio.run(main())


def test_a_venue_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    async def silent(websocket: ServerConnection) -> None:
        await websocket.wait_closed()

    async def main() -> None:
        async with serve(silent, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            async with bench(tmp_path / "log", url, ready_within=1.0) as found:
                with pytest.raises(DeadlinePassed, match=r"not ready within 1 s\. See its log"):
                    await found.process.start_first()
                assert found.process.pid is None

    asyncio.run(main())


def test_a_first_start_that_this_machine_cannot_do_is_an_error(tmp_path: Path, venue: str) -> None:
    async def main() -> None:
        async with bench(tmp_path / "no" / "log", venue) as found:
            with pytest.raises(ProviderError, match="could not be started: No such file"):
                await found.process.start_first()

    asyncio.run(main())


def test_a_process_that_is_killed_is_started_again_and_says_why(tmp_path: Path, venue: str) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue) as found:
            process = found.process
            await process.start_first()
            for restarts in (1, 2):
                pid = process.pid
                since = process.since
                await asyncio.to_thread(kill, pid)
                await until(lambda pid=pid: process.pid not in (None, pid), "another process")  # type: ignore[misc]
                await found.reaches(ProviderState.READY)
                assert process.policy.restarts == restarts
                assert process.since > since
                assert process.last_error == "the provider process ended with SIGKILL"
            assert found.lines.count("PROVIDER ERROR:     the provider process ended with SIGKILL") == 2

    asyncio.run(main())


def test_in_backoff_it_answers_what_it_waits_for_and_stops_at_once(tmp_path: Path, venue: str) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue, policy=NEVER) as found:
            process = found.process
            await process.start_first()
            await asyncio.to_thread(kill, process.pid)
            await found.reaches(ProviderState.BACKOFF)
            assert process.running
            with pytest.raises(VenueUnreachable, match=r"backoff.*SIGKILL"):
                await process.change(Subscribe, "ethusdt")
            assert await process.stop() is None
            assert found.state() is ProviderState.STOPPED
            assert process.policy.restarts == 0

    asyncio.run(main())


def test_trouble_of_one_life_is_over_when_the_venue_is_back(tmp_path: Path) -> None:
    port = unused_port()

    async def main() -> None:
        async with bench(tmp_path / "log", f"ws://127.0.0.1:{port}/stream") as found:
            process = found.process
            process.start()
            await until(lambda: process.last_error, "trouble is told")
            assert found.state() is ProviderState.STARTING
            pid = process.pid
            with simulator("--port", str(port)):
                await found.reaches(ProviderState.READY)
                assert (process.pid, process.last_error) == (pid, "")
                # Its death later has nothing to do with that trouble.
                await asyncio.to_thread(kill, pid)
                await until(lambda: process.policy.restarts == 1, "a restart")
                assert "SIGKILL" in process.last_error

    asyncio.run(main())


def test_a_configuration_error_of_a_later_life_is_not_tried_again_until_somebody_starts_it(
    tmp_path: Path, venue: str
) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue) as found:
            process = found.process
            await process.start_first()
            found.symbol = "?"
            await asyncio.to_thread(kill, process.pid)
            await found.reaches(ProviderState.FAILED)
            assert "cannot be a Binance symbol" in process.last_error
            assert (process.running, process.pid) == (False, None)
            found.symbol = "btcusdt"
            process.start()
            assert process.last_error == ""
            await found.reaches(ProviderState.READY)

    asyncio.run(main())


def test_a_refusal_in_a_later_life_is_seen(tmp_path: Path, venue: str) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue) as found:
            await found.process.start_first()
            found.symbol = "btcusdt,nosuchcoin"
            await asyncio.to_thread(kill, found.process.pid)
            await until(lambda: "nosuchcoin@trade" in found.process.last_error, "the venue's refusal is told")
            assert found.state() is ProviderState.READY

    asyncio.run(main())


def test_symbols_change_while_it_runs_answered_per_topic(tmp_path: Path, venue: str) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue) as found:
            process = found.process
            await process.start_first()
            (refused,) = await process.change(Subscribe, "nosuchcoin")
            assert (refused.topic, refused.state) == ("nosuchcoin@trade", "refused")
            assert "unknown stream" in refused.reason
            both = await asyncio.gather(
                process.change(Subscribe, "ethusdt,adausdt"), process.change(Subscribe, "solusdt")
            )
            assert [[(it.topic, it.state) for it in answers] for answers in both] == [
                [("ethusdt@trade", "acknowledged"), ("adausdt@trade", "acknowledged")],
                [("solusdt@trade", "acknowledged")],
            ]
            (removed,) = await process.change(Unsubscribe, "btcusdt")
            assert (removed.topic, removed.state) == ("btcusdt@trade", "removed")
            with pytest.raises(ParameterError, match="not subscribed"):
                await process.change(Unsubscribe, "xrpusdt")

    asyncio.run(main())


def test_a_change_under_way_when_the_process_dies_is_told(tmp_path: Path) -> None:
    async def deaf_to_changes(websocket: ServerConnection) -> None:
        async for message in websocket:
            if '"id":1' in str(message).replace(" ", ""):
                await websocket.send('{"result":null,"id":1}')

    async def main() -> None:
        async with serve(deaf_to_changes, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            async with bench(tmp_path / "log", url, policy=NEVER) as found:
                await found.process.start_first()
                changing = asyncio.create_task(found.process.change(Subscribe, "ethusdt"))
                await asyncio.sleep(0)
                await asyncio.to_thread(kill, found.process.pid)
                with pytest.raises(VenueUnreachable, match="ended"):
                    await changing

    asyncio.run(main())


@pytest.mark.parametrize("rounds", [0, 3])
def test_a_stop_while_it_starts_leaves_no_process(tmp_path: Path, venue: str, rounds: int) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue) as found:
            first = asyncio.create_task(found.process.start_first())
            for _ in range(rounds + 1):
                await asyncio.sleep(0)
            await found.process.stop()
            with pytest.raises(ProviderError, match="the provider was stopped"):
                await first
            assert found.state() is ProviderState.STOPPED
            found.process.start()
            assert found.state() is ProviderState.STARTING

    asyncio.run(main())


def test_a_fault_of_ours_is_a_death_like_any_other(tmp_path: Path, venue: str) -> None:
    async def main() -> None:
        async with bench(tmp_path / "log", venue) as found:
            await found.process.start_first()
            found.symbol = object()  # type: ignore[assignment]  # no message can carry it
            await asyncio.to_thread(kill, found.process.pid)
            with capture_logs():  # the development log draws a traceback for a second
                await until(lambda: found.process.policy.restarts > 2, "it is tried again and again")
            assert "could not be started: TypeError" in found.process.last_error
            found.symbol = "btcusdt"
            await found.reaches(ProviderState.READY)

    asyncio.run(main())
