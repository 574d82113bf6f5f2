"""What clients ask of a supervisor, and what it refuses. One supervisor serves most of these tests."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from processes.supervisor_running import (
    DEAD_URL,
    alive,
    answers,
    ask,
    children,
    create,
    down,
    environment,
    leftovers,
    state,
    status,
    supervisor,
    unused_port,
)
from waiting import wait_until

from ringbuf.errors import (
    AddressInUse,
    ConnectionExists,
    NotRunning,
    ParameterError,
    ResultsFileError,
    SubscriptionRefused,
    TickringError,
    UnauthorizedError,
    UnknownConnection,
    UnknownProvider,
    UnsafePath,
    VenueUnreachable,
)
from supervisor.client import ControlClient, Make
from supervisor.control import EXIT_ALREADY_RUNNING, Authorize, Kill, Outcome, Status, Stop, Subscribe, Unsubscribe
from supervisor.roster import load, save


@pytest.fixture
def client(running: int) -> Iterator[ControlClient]:
    """A client of it, after whom no connection is left."""
    with ControlClient.connect() as found:
        yield found
        for connection in found.request(Status).connections:
            found.request(lambda number, name=connection.name: Kill(number, name, "t0ken"))  # type: ignore[misc]
        assert leftovers() == []
        assert load(state() / "connections.json") == []


# ---- names --------------------------------------------------------------------------------------------------------


def test_a_name_that_was_left_out_is_asset_type_and_provider_numbered_if_taken(
    client: ControlClient, venue: str
) -> None:
    assert [ask(client, create(venue, None)).name for _ in range(2)] == ["crypto_binance", "crypto_binance_2"]
    client.request(lambda number: Kill(number, "crypto_binance"))
    assert ask(client, create(venue, None)).name == "crypto_binance"


@pytest.mark.parametrize("name", ["", "all", "../x", "a/b", ".hidden", "-x", "x" * 64, "a b", "ä", "a\0"])
def test_a_name_that_cannot_be_one_is_refused(client: ControlClient, venue: str, name: str) -> None:
    with pytest.raises(ParameterError, match="cannot name a"):
        ask(client, create(venue, name))


@pytest.mark.parametrize("name", ["control.sock", "supervisor.lock", "family.lock"])
def test_the_supervisors_own_files_cannot_be_connections(client: ControlClient, venue: str, name: str) -> None:
    with pytest.raises(UnsafePath, match="not a directory"):
        ask(client, create(venue, name))
    assert answers()


def test_a_taken_name_is_refused_and_its_connection_unharmed(client: ControlClient, venue: str) -> None:
    first = ask(client, create(venue))
    with pytest.raises(ConnectionExists, match="Kill it first, or choose another name"):
        ask(client, create(venue, symbol="ethusdt"))
    assert status(client) == first


def test_of_two_callers_at_the_same_moment_one_wins(client: ControlClient, venue: str) -> None:
    def attempt(_: int) -> str:
        with ControlClient.connect() as own:
            try:
                return ask(own, create(venue)).name
            except ConnectionExists:
                return "exists"

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(attempt, range(4))) == ["c", "exists", "exists", "exists"]
    assert [it.state for it in client.request(Status).connections] == ["ready"]


def test_a_name_whose_first_attempt_failed_is_free(client: ControlClient, venue: str) -> None:
    with pytest.raises(VenueUnreachable):
        ask(client, create(DEAD_URL))
    assert ask(client, create(venue)).state == "ready"


# ---- creates that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"provider": "nosuch"}, UnknownProvider, "choose from binance"),
        ({"feed": "gossip"}, ParameterError, "choose from trade, aggregate_trade, quote"),
        ({"feed": ""}, ParameterError, "no feed given"),
        ({"flavour": "sweet"}, ParameterError, "no parameter 'flavour'"),
        ({"symbol": "!"}, ParameterError, "cannot be a Binance symbol"),
        ({"symbol": " , "}, ParameterError, "no symbol given"),
        ({"symbol": "nosuchcoin"}, SubscriptionRefused, "nosuchcoin@trade: .*unknown stream"),
        ({"url": "http://127.0.0.1/"}, ParameterError, "url"),
        ({"url": DEAD_URL}, VenueUnreachable, "127.0.0.1:9"),
        ({"limit": 0}, ParameterError, "at least 1"),
        ({"limit": -5}, ParameterError, "at least 1"),
        ({"sleep_time": 0.0}, ParameterError, "between 0.01 and 3600"),
        ({"sleep_time": 3601.0}, ParameterError, "between 0.01 and 3600"),
        ({"broadcast_port": 65536}, ParameterError, "between 0 and 65535"),
        ({"broadcast_port": -1}, ParameterError, "between 0 and 65535"),
        ({"broadcast_host": ""}, ParameterError, "broadcast_host is empty"),
        ({"broadcast_host": "192.0.2.1", "start_broadcast": True}, AddressInUse, "cannot be bound"),
        ({"auth_token": ""}, ParameterError, "auth_token is empty"),
        ({"table_name": "a;b"}, ParameterError, "table"),
        ({"results_file": "relative.db"}, ParameterError, "absolute"),
        ({"results_file": "/nonexistent/results.db"}, ResultsFileError, "no directory"),
        ({"results_file": "/"}, ResultsFileError, "choose another results_file|Choose another results_file"),
    ],
)
def test_a_create_that_fails_says_why_and_leaves_nothing(
    client: ControlClient, running: int, venue: str, fields: dict[str, object], error: type[TickringError], words: str
) -> None:
    before = children(running)
    given = {"save_results": True, **fields}
    with pytest.raises(error, match=words):
        ask(client, create(str(given.pop("url", venue)), "c", str(given.pop("symbol", "btcusdt")), **given))
    assert client.request(Status).connections == []
    assert children(running) == before
    assert leftovers() == []


def test_a_results_file_that_is_no_database_is_refused_and_left_alone(
    client: ControlClient, venue: str, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine " * 1000)
    with pytest.raises(ResultsFileError, match="no SQLite database"):
        ask(client, create(venue, results_file=str(path)))
    assert path.read_text() == "mine " * 1000
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_list_that_cannot_be_written_makes_no_connection(client: ControlClient, venue: str) -> None:
    (state() / "connections.json.new").mkdir()
    try:
        with pytest.raises(TickringError, match="cannot be written"):
            ask(client, create(venue))
    finally:
        (state() / "connections.json.new").rmdir()
    assert client.request(Status).connections == []


# ---- parameters that take effect -------------------------------------------------------------------------------------


def test_every_parameter_of_the_results_file_takes_effect(client: ControlClient, venue: str, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    made = ask(
        client, create(venue, results_file=str(path), table_name="ticks", limit=7, sleep_time=0.01, save_results=True)
    )
    assert (made.results_file, made.table_name, made.limit, made.save_results) == (str(path), "ticks", 7, True)

    def newest() -> int:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            count, last = database.execute("SELECT count(*), max(id) FROM ticks").fetchone()
            assert count <= 7
            return int(last or 0)

    wait_until(lambda: newest() > 20, "more rows than the limit have gone through the file")
    client.request(lambda number: Kill(number, "c"))
    assert path.exists()
    assert newest() > 20


def test_a_file_that_was_there_is_kept(client: ControlClient, venue: str, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (x)")
    ask(client, create(venue, results_file=str(path), save_results=False))
    client.request(lambda number: Kill(number, "c"))
    assert path.exists()


def test_a_file_that_we_made_goes_unless_it_is_to_be_saved(client: ControlClient, venue: str, tmp_path: Path) -> None:
    for save_results in (False, True):
        path = tmp_path / f"{save_results}.db"
        ask(client, create(venue, results_file=str(path), save_results=save_results))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client.request(lambda number: Kill(number, "c"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["True.db"]


def test_a_create_that_fails_deletes_the_file_that_it_made_even_if_it_was_to_be_saved(
    client: ControlClient, tmp_path: Path
) -> None:
    with pytest.raises(VenueUnreachable):
        ask(client, create(DEAD_URL, results_file=str(tmp_path / "results.db"), save_results=True))
    assert list(tmp_path.iterdir()) == []


def test_addresses_are_shared_and_a_taken_port_gives_the_next_one_and_is_said(
    client: ControlClient, venue: str
) -> None:
    lines: list[str] = []
    port = unused_port()
    with ControlClient.connect(lines.append) as maker:
        first, second = (
            ask(maker, create(venue, name, start_broadcast=True, broadcast_port=port)) for name in ("a", "b")
        )
        assert first.broadcast_address == second.broadcast_address == f"ws://127.0.0.1:{port}"
        assert first.broadcast_pid == second.broadcast_pid
        taken = ask(maker, create(venue, "d", start_broadcast=True, broadcast_host="localhost", broadcast_port=port))
        assert taken.broadcast_pid != first.broadcast_pid
        assert taken.broadcast_address is not None
        assert taken.broadcast_address.startswith("ws://localhost:")
        if taken.broadcast_address != f"ws://localhost:{port}":  # localhost may be ::1 first, where it is free
            assert f"BROADCAST INFO:     Port {port} is already in use. Using {port + 1} instead." in lines
        maker.request(lambda number: Kill(number, "a"))
        assert alive(second.broadcast_pid)
        assert status(maker, "b").is_broadcasting
        maker.request(lambda number: Kill(number, "b"))
        assert not alive(second.broadcast_pid)


def test_two_first_connections_of_an_address_at_the_same_moment_share_it(client: ControlClient, venue: str) -> None:
    port = unused_port()
    with ThreadPoolExecutor(3) as threads:
        made = list(
            threads.map(
                lambda name: ask(client, create(venue, name, start_broadcast=True, broadcast_port=port)),
                ("a", "b", "d"),
            )
        )
    assert {it.broadcast_address for it in made} == {f"ws://127.0.0.1:{port}"}
    assert len({it.broadcast_pid for it in made}) == 1


def test_the_status_has_every_connection_and_what_each_was_made_with(client: ControlClient, venue: str) -> None:
    ask(client, create(venue, "a", "btcusdt,ETH/USDT", auth_token="t0ken"))  # noqa: S106
    ask(client, create(venue, "b", "SOL-USDT", feed="trade,quote"))
    first, second = client.request(Status).connections
    assert (first.name, first.auth_required, first.subscribed_symbols) == ("a", True, "BTCUSDT,ETHUSDT")
    assert (second.name, second.auth_required, second.subscribed_symbols) == ("b", False, "SOLUSDT")
    for found in (first, second):
        assert (found.provider, found.state, found.restarts, found.last_error) == ("binance", "ready", 0, "")
        assert alive(found.provider_pid)
        assert (found.is_running, found.is_broadcasting, found.broadcast_address) == (True, False, None)
    with pytest.raises(UnknownConnection, match="Connections: a, b"):
        status(client, "nosuch")


# ---- tokens --------------------------------------------------------------------------------------------------------


def requests(token: str | None) -> list[Make]:
    """Everything that needs a connection's token."""
    return [
        lambda number: Authorize(number, "c", token),
        lambda number: Subscribe(number, "c", "ethusdt", token),
        lambda number: Unsubscribe(number, "c", "ethusdt", token),
        lambda number: Stop(number, "c", token),
        lambda number: Kill(number, "c", token),
    ]


def test_every_function_needs_the_token_and_the_right_one(client: ControlClient, venue: str) -> None:
    ask(client, create(venue, auth_token="t0ken"))  # noqa: S106
    before = status(client)
    for request in requests(None):
        with pytest.raises(UnauthorizedError, match="required"):
            client.request(request)
    for wrong in ("", "t0ke", "t0ken ", "T0KEN", "tökén", "t0ken\0"):
        for request in requests(wrong):
            with pytest.raises(UnauthorizedError, match="Invalid"):
                client.request(request)
    assert status(client) == before
    for request in requests("t0ken"):
        assert isinstance(client.request(request), Outcome)


def test_a_token_is_not_needed_where_there_is_none_and_harms_nothing(client: ControlClient, venue: str) -> None:
    ask(client, create(venue))
    assert client.request(lambda number: Authorize(number, "c", "any")).connections[0].name == "c"


def test_secrets_are_in_the_list_of_the_user_and_nowhere_else(client: ControlClient, running: int, venue: str) -> None:
    secret = "s3cr3t-t0ken-XYZ"  # noqa: S105
    url = f"{venue}?key={secret}"
    made = ask(client, create(url, auth_token=secret, start_broadcast=True, broadcast_port=0))
    assert secret not in repr(made)
    with pytest.raises(UnauthorizedError) as refused:
        client.request(lambda number: Stop(number, "c", f"{secret}!"))
    assert secret not in str(refused.value)
    with pytest.raises(TickringError) as failed:
        ask(client, create(f"{DEAD_URL}?key={secret}", "d", auth_token=secret))
    assert secret not in str(failed.value)
    for process in [psutil.Process(running), *children(running)]:
        assert secret not in " ".join(process.cmdline())
        assert secret not in str(process.environ())
    path = state() / "connections.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (load(path)[0].auth_token, load(path)[0].parameters["url"]) == (secret, url)
    client.request(lambda number: Kill(number, "c", secret))
    for found in [*state().parent.rglob("*"), *Path(os.environ["TICKRING_RUNTIME_DIR"]).rglob("*")]:
        if found.is_file():
            assert secret.encode() not in found.read_bytes(), found


# ---- its own life ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("everywhere")
def test_a_second_supervisor_of_an_instance_refuses(client: ControlClient, running: int) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor"], capture_output=True, env=environment(), timeout=20, check=False
    )
    assert done.returncode == EXIT_ALREADY_RUNNING
    assert b"tickring down" in done.stderr
    assert client.request(Status).connections == []
    assert client.supervisor_pid == running


@pytest.mark.usefixtures("everywhere", "runtime")
def test_down_keeps_the_list_and_the_next_one_brings_it_back_with_tokens(venue: str, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with supervisor():
        with ControlClient.connect() as client:
            ask(client, create(venue, "a", results_file=str(path), auth_token="t0ken"))  # noqa: S106
            ask(client, create(venue, "b", start_broadcast=True, broadcast_port=unused_port()))
            ask(client, create(venue, "stopped"))
            client.request(lambda number: Subscribe(number, "a", "ethusdt", "t0ken"))
            client.request(lambda number: Stop(number, "stopped"))
            address = status(client, "b").broadcast_address
        down(forget=False)
        assert leftovers() == []
        assert not path.exists()  # ours, and not to be saved: down is its end
    with supervisor():
        with ControlClient.connect() as client:
            wait_until(
                lambda: [it.state for it in client.request(Status).connections] == ["ready", "ready", "stopped"],
                "all are back as they were",
            )
            back = {it.name: it for it in client.request(Status).connections}
            assert (back["a"].subscribed_symbols, back["a"].auth_required) == ("BTCUSDT,ETHUSDT", True)
            wait_until(lambda: status(client, "b").broadcast_address == address, "the same address as before")
            with pytest.raises(UnauthorizedError):
                client.request(lambda number: Kill(number, "a"))
        down(forget=True)
        assert leftovers() == []
    assert load(state() / "connections.json") == []


@pytest.mark.usefixtures("everywhere", "runtime")
def test_what_cannot_be_brought_back_is_told_and_stays_listed(venue: str, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with supervisor():
        with ControlClient.connect() as client:
            ask(client, create(venue, "a", results_file=str(path), save_results=True))
        down(forget=False)
    listed = load(state() / "connections.json")
    listed[0].made_results_file = False
    strange = load(state() / "connections.json")[0]
    strange.name, strange.provider = "strange", "nosuch"
    save(state() / "connections.json", [*listed, strange])
    path.unlink()
    path.mkdir()
    with supervisor(), ControlClient.connect() as client:
        wait_until(lambda: "no plain file" in status(client, "a").last_error, "what is wrong is in the status")
        wait_until(lambda: status(client, "a").state == "ready", "the provider runs all the same")
        with pytest.raises(ConnectionExists):
            ask(client, create(venue, "strange"))
        path.rmdir()
        wait_until(lambda: status(client, "a").last_error == "", "the results file is made when it can be")
        assert path.is_file()
        down(forget=False)
    assert [it.name for it in load(state() / "connections.json")] == ["a", "strange"]


@pytest.mark.usefixtures("everywhere", "runtime")
def test_going_down_while_a_connection_is_made_ends_that_and_says_so(tmp_path: Path) -> None:
    """The venue accepts the socket and never answers: without the end it would take 25 s."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent, supervisor() as process, ThreadPoolExecutor(1) as threads:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/"
        with ControlClient.connect() as maker:
            making = threads.submit(ask, maker, create(url, results_file=str(tmp_path / "r.db"), save_results=True))
            wait_until(lambda: leftovers() == ["c"], "it is being made")
            down(forget=False)
            with pytest.raises(NotRunning, match="going down"):
                making.result(20)
        assert process.wait(20) == 0
        assert leftovers() == []
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("everywhere", "runtime")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_in_good_order(venue: str, how: str) -> None:
    import signal

    with supervisor() as process:
        with ControlClient.connect() as client:
            ask(client, create(venue))
            family = children(process.pid)
            process.send_signal(signal.Signals[how])
            wait_until(lambda: client.ended, "clients are told")
        assert process.wait(20) == 0
        assert not any(alive(child.pid) for child in family)
        assert leftovers() == []
    assert [it.name for it in load(state() / "connections.json")] == ["c"]
