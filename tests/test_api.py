"""The Python API as a user has it: `import tickring`, and a session that begins and ends by itself."""

from __future__ import annotations

import inspect
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psutil
import pytest
from processes.supervisor_running import (
    DEAD_URL,
    alive,
    answers,
    children,
    environment,
    kill,
    leftovers,
    locked,
    state,
    supervisor,
)
from pydantic import Field, SecretStr
from waiting import wait_until

import tickring
from feeds.binance import Binance, BinanceParameters
from supervisor import api
from supervisor.api import close_session
from supervisor.client import ControlClient
from supervisor.roster import load


@pytest.fixture
def session(running: int) -> Iterator[int]:
    """This process's conversation with it, after which no connection is left."""
    try:
        yield running
        for status in tickring.get_client_status().to_dict("records"):
            tickring.kill(status["name"], "t0ken")
        assert leftovers() == []
    finally:
        close_session()


@pytest.fixture
def own_session(runtime: Path, everywhere: None) -> Iterator[None]:
    """No supervisor runs; one that a call starts has ended at the end of the test."""
    try:
        yield
    finally:
        close_session()
        wait_until(lambda: not locked(), "the session's supervisor has ended")
        wait_until(lambda: not supervisors(), "its process has gone")


def supervisors() -> list[int]:
    """Those that sessions of this process and its children have started."""
    found = []
    for child in children(os.getpid()):
        with suppress(psutil.NoSuchProcess):
            if alive(child.pid) and child.cmdline()[2:] == ["-m", "supervisor", "--session"]:
                found.append(child.pid)
    return found


# ---- shapes --------------------------------------------------------------------------------------------------------


def test_a_connection_is_made_looked_at_changed_and_killed(
    session: int, venue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tickring.create_connection("binance", symbol="btc-usdt,ethusdt", feed="trade,quote", url=venue)
    status = made.results.status
    assert (status.name, status.subscribed_symbols, status.is_running) == ("crypto_binance", "BTCUSDT,ETHUSDT", True)
    assert (made.provider, made.warnings, made.chart) == ("binance", None, None)
    assert list(made.results.model_dump()) == ["status"]

    assert tickring.get_client_status("crypto_binance").results == status
    assert tickring.get_client_status().to_dict("records") == [status.model_dump()]
    assert tickring.get_client_status("all").to_df()["name"].tolist() == ["crypto_binance"]

    changed = tickring.subscribe("crypto_binance", "SOL/USDT").results
    assert changed.subscribed_symbols == "BTCUSDT,ETHUSDT,SOLUSDT"
    assert [(it.topic, it.state) for it in changed.answers or []] == [
        ("solusdt@trade", "acknowledged"), ("solusdt@bookTicker", "acknowledged")
    ]  # fmt: skip
    refused = tickring.subscribe("crypto_binance", "nosuchcoin").results
    assert {it.state for it in refused.answers or []} == {"refused"}
    assert refused.subscribed_symbols == "BTCUSDT,ETHUSDT,SOLUSDT"
    removed = tickring.unsubscribe("crypto_binance", "btcusdt,ethusdt").results
    assert removed.subscribed_symbols == "SOLUSDT"
    assert {it.state for it in removed.answers or []} == {"removed"}

    stopped = tickring.stop_connection("crypto_binance").results
    assert (stopped.is_running, stopped.provider_pid, stopped.answers) == (False, None, None)
    tickring.stop_connection("crypto_binance")
    killed = tickring.kill("crypto_binance")
    assert killed.results == "Clients crypto_binance killed."
    printed = capsys.readouterr().out.splitlines()
    for line in (
        "PROVIDER INFO:      WebSocket connection established.",
        "PROVIDER INFO:      subscribed to: btcusdt@trade, btcusdt@bookTicker, ethusdt@trade, ethusdt@bookTicker",
        "PROVIDER INFO:      subscribed to: solusdt@trade, solusdt@bookTicker",
        "PROVIDER INFO:      unsubscribed to: btcusdt@trade, btcusdt@bookTicker, ethusdt@trade, ethusdt@bookTicker",
        "Disconnected from the provider WebSocket.",
        "Not connected to the provider WebSocket.",
    ):
        assert printed.count(line) == 1, line


def test_the_defaults_are_the_documents(session: int) -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(tickring.create_connection).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    assert defaults == {
        "name": None, "auth_token": None, "results_file": None, "save_results": False, "table_name": "records",
        "limit": 1000, "sleep_time": 0.25, "broadcast_host": "127.0.0.1", "broadcast_port": 6666,
        "start_broadcast": False, "connect_kwargs": None,
    }  # fmt: skip


def test_what_was_asked_for_is_in_extra_without_secrets(
    session: int, venue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tickring.create_connection("binance", symbol="btcusdt", url=f"{venue}?key=hidden", auth_token="t0ken")  # noqa: S106
    arguments = made.extra["metadata"]["arguments"]
    assert list(arguments) == ["provider_choices", "standard_params", "extra_params"]
    assert arguments["provider_choices"] == {"provider": "binance"}
    assert arguments["standard_params"]["auth_token"] == "********"  # noqa: S105
    assert arguments["standard_params"]["broadcast_port"] == 6666
    assert arguments["extra_params"] == {"url": venue}
    for result in (
        tickring.get_results("crypto_binance", "t0ken"),
        tickring.subscribe("crypto_binance", "ethusdt", "t0ken"),
        tickring.unsubscribe("crypto_binance", "ethusdt", "t0ken"),
        tickring.stop_connection("crypto_binance", "t0ken"),
        tickring.kill("crypto_binance", "t0ken"),
    ):
        assert "t0ken" not in repr(result.model_dump())


def test_a_providers_keys_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Keyed(BinanceParameters):
        api_key: SecretStr | None = Field(default=None)

    class KeyedVenue(Binance):
        parameters = Keyed

    monkeypatch.setattr(api, "provider_named", lambda _: KeyedVenue())
    shown = api._without_secrets("keyed", {"api_key": "hidden", "feed": "trade", "url": "wss://u:p@host/p?k=hidden"})
    assert shown == {"api_key": "********", "feed": "trade", "url": "wss://host/p"}


def test_results_join_the_file_and_the_rings_and_are_never_an_interval_late(session: int, venue: str) -> None:
    tickring.create_connection("binance", "slow", symbol="btcusdt,ethusdt", url=venue, sleep_time=3600, limit=50)
    with tickring.attach("slow", "trade", wait=20.0) as ring:
        wait_until(lambda: ring.published > 100, "records")
        before = ring.published
        result = tickring.get_results("slow")
        assert len(result.results) == 50
        assert result.results[-1]["seq"] >= before - 1
        assert {record["type"] for record in result.to_dict("records")} == {"trade"}
        frame = result.to_df()
        assert str(frame["date"].dtype) == "datetime64[ns, UTC]"
        assert frame["seq"].is_monotonic_increasing
        assert set(frame["symbol"]) <= {"BTCUSDT", "ETHUSDT", "btcusdt", "ethusdt"}
        status = tickring.get_client_status("slow").to_dict("records")[0]
        with closing(sqlite3.connect(f"{Path(status['results_file']).as_uri()}?mode=ro", uri=True)) as database:
            assert database.execute("SELECT count(*) FROM records").fetchone() == (0,)
    tickring.stop_connection("slow")
    assert len(tickring.get_results("slow").results) == 50  # a stopped connection's results stay


def test_a_partial_refusal_is_a_warning(session: int, venue: str) -> None:
    """The simulated venue refuses a whole request for one bad stream, so it is asked for by a second one."""
    made = tickring.create_connection("binance", symbol="btcusdt", url=venue)
    assert made.warnings is None
    answered = tickring.subscribe("crypto_binance", "nosuchcoin").results.answers or []
    assert "unknown stream nosuchcoin@trade" in answered[0].reason


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: tickring.create_connection("nosuch", symbol="a"), tickring.UnknownProvider),
        (lambda: tickring.create_connection("binance", symbol="b", url=DEAD_URL), tickring.ParameterError),
        (lambda: tickring.create_connection("binance", symbol="btcusdt", url=DEAD_URL), tickring.VenueUnreachable),
        (lambda: tickring.create_connection("binance", symbol="btcusdt", limit="5"), tickring.ParameterError),  # type: ignore[arg-type]
        (lambda: tickring.create_connection("binance", symbol="b", connect_kwargs={}), tickring.ParameterError),
        (lambda: tickring.get_client_status("nosuch"), tickring.UnknownConnection),
        (lambda: tickring.get_results("nosuch"), tickring.UnknownConnection),
        (lambda: tickring.get_results("all"), tickring.ParameterError),
        (lambda: tickring.subscribe("nosuch", "a"), tickring.UnknownConnection),
        (lambda: tickring.unsubscribe("nosuch", "a"), tickring.UnknownConnection),
        (lambda: tickring.stop_connection("nosuch"), tickring.UnknownConnection),
        (lambda: tickring.kill("nosuch"), tickring.UnknownConnection),
        (lambda: tickring.kill("all"), tickring.ParameterError),
    ],
)
def test_what_cannot_be_done_raises_what_is_wrong(
    session: int, call: Callable[[], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call()


def test_symbols_that_cannot_be_changed_change_nothing(session: int, venue: str) -> None:
    before = tickring.create_connection("binance", symbol="btcusdt", url=venue).results.status
    changes: list[Callable[[], object]] = [
        lambda: tickring.subscribe("crypto_binance", "ethusdt,!!"),
        lambda: tickring.subscribe("crypto_binance", ""),
        lambda: tickring.unsubscribe("crypto_binance", "ethusdt"),
        lambda: tickring.unsubscribe("crypto_binance", "btcusdt"),
    ]
    for change in changes:
        with pytest.raises(tickring.ParameterError):
            change()
    assert tickring.get_client_status("crypto_binance").results == before
    again = tickring.subscribe("crypto_binance", "BTC-USDT").results
    assert again.subscribed_symbols == "BTCUSDT"  # twice is once


def test_listeners_need_the_connections_token(session: int, venue: str) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    made = tickring.create_connection(
        "binance", symbol="btcusdt", url=venue, auth_token="t0ken", start_broadcast=True, broadcast_port=0  # noqa: S106
    )  # fmt: skip
    address = made.results.status.broadcast_address
    with connect(f"{address}/?auth_token=t0ken", proxy=None) as listener:
        assert "BTCUSDT" in str(listener.recv(timeout=20)).upper()
    with connect(f"{address}/?auth_token=wrong", proxy=None) as listener:
        with suppress(ConnectionClosed):
            assert "price" not in str(listener.recv(timeout=20))  # words about the token
            listener.recv(timeout=20)
        assert (listener.close_code, "t0ken" in str(listener.close_reason)) == (1008, False)


# ---- threads, forks, sessions ----------------------------------------------------------------------------------------


def test_eight_threads_call_at_once(session: int, venue: str) -> None:
    tickring.create_connection("binance", symbol="btcusdt", url=venue)

    def work(number: int) -> int:
        if number % 2:
            return len(tickring.get_client_status().to_dict("records"))
        return len(tickring.get_results("crypto_binance").results) >= 0

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(work, range(80))) == {1}


def test_a_fork_has_a_conversation_of_its_own_and_leaves_its_parents_alone(session: int) -> None:
    tickring.get_client_status()
    parents = api._conversation.client()
    child = os.fork()
    if child == 0:  # whatever happens, it must not come back into the test runner
        code = 1
        try:
            tickring.get_client_status()
            code = 0 if api._conversation.client() is not parents else 2
            close_session()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert not parents.ended
    tickring.get_client_status()
    assert api._conversation.client() is parents


def test_a_fork_while_another_thread_calls_does_not_hang(session: int) -> None:
    with api._conversation._lock:  # as a thread does that is just connecting
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(20)
                tickring.get_client_status()
                close_session()
                code = 0
            finally:
                os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_the_first_call_starts_a_supervisor_that_ends_with_its_last_client(
    own_session: None, venue: str, tmp_path: Path
) -> None:
    assert not answers()
    kept, made, was_there = tmp_path / "kept.db", tmp_path / "made.db", tmp_path / "was_there.db"
    was_there.touch()
    for name, path, save_results in (("a", kept, True), ("b", made, False), ("d", was_there, False)):
        tickring.create_connection(
            "binance", name, symbol="btcusdt", url=venue, results_file=str(path), save_results=save_results
        )
    pid = api._conversation.client().supervisor_pid
    family = children(pid)
    with ControlClient.connect() as other:
        close_session()
        assert other.supervisor_pid == pid
        assert tickring.get_client_status("a").results  # another conversation of the same session
        close_session()
    wait_until(lambda: not alive(pid), "the supervisor has ended")
    assert not any(alive(child.pid) for child in family)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.db", "was_there.db"]
    assert leftovers() == []
    assert load(state() / "connections.json") == []


def test_two_scripts_at_the_same_moment_share_one_session(own_session: None, venue: str) -> None:
    with ExitStack() as stack:
        scripts = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "processes.supervisor_session", venue, name],
                    env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )
            for name in ("a", "b")
        ]  # fmt: skip
        said = []
        for script in scripts:
            assert script.stdout is not None
            said.append(next(line.strip() for line in script.stdout if line.startswith("made")))
        assert {line.partition(" of ")[0] for line in said} == {"made a", "made b"}
        with ControlClient.connect() as client:
            pid = client.supervisor_pid
        assert supervisors() == [pid]
        for script in scripts:
            assert script.stdin is not None
            script.stdin.close()
            assert script.wait(20) == 0
    wait_until(lambda: not alive(pid), "the session has ended with its last client")
    assert leftovers() == []


def test_a_session_that_was_killed_comes_back_with_the_next_call(own_session: None, venue: str) -> None:
    tickring.create_connection("binance", symbol="btcusdt", url=venue)
    pid = api._conversation.client().supervisor_pid
    kill(pid)
    wait_until(lambda: api._conversation.client().supervisor_pid != pid, "another supervisor")
    wait_until(lambda: tickring.get_client_status("crypto_binance").to_dict("records")[0]["provider_pid"], "it is back")
    tickring.kill("crypto_binance")


def test_a_session_does_not_forget_what_is_not_its_own(own_session: None, venue: str) -> None:
    """`tickring up`, a connection, `tickring down`; then a script."""
    from processes.supervisor_running import ask, create, down

    with supervisor():
        with ControlClient.connect() as client:
            ask(client, create(venue, "kept"))
        down(forget=False)
    tickring.create_connection("binance", "mine", symbol="btcusdt", url=venue)
    close_session()
    wait_until(lambda: not locked(), "the session has ended")
    assert leftovers() == []
    assert [it.name for it in load(state() / "connections.json")] == ["kept"]
