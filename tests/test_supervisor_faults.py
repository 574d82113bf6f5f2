"""SIGKILL for every process of the house: what stays, what heals, and that nothing is counted twice or lost unseen."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from processes.supervisor_running import (
    alive,
    ask,
    children,
    create,
    down,
    environment,
    kill,
    leftovers,
    rings,
    state,
    status,
    supervisor,
    unused_port,
)
from waiting import wait_until
from websockets.sync.client import connect

from ringbuf import RingReader, attach
from ringbuf.errors import SharedMemoryFull, VenueUnreachable
from supervisor.client import ControlClient
from supervisor.control import ConnectionStatus, Kill, Outcome, Status, Stop, Subscribe, Unsubscribe

pytestmark = pytest.mark.fault


class Row(msgspec.Struct):
    """What these tests look at in a row of results."""

    type: str
    seq: int


@pytest.fixture
def client(running: int) -> Iterator[ControlClient]:
    """A client of it, after whom no connection is left."""
    with ControlClient.connect() as found:
        yield found
        for connection in found.request(Status).connections:
            found.request(lambda number, name=connection.name: Kill(number, name))  # type: ignore[misc]
        assert leftovers() == []


@pytest.fixture
def own(runtime: Path, everywhere: None) -> Iterator[tuple[ControlClient, int]]:
    """A supervisor of the test's own, for a test that kills the recorder: a client of it, and its pid."""
    with supervisor() as process, ControlClient.connect() as found:
        yield found, process.pid
        for connection in found.request(Status).connections:
            found.request(lambda number, name=connection.name: Kill(number, name))  # type: ignore[misc]
        assert leftovers() == []


def rows(path: str) -> list[int]:
    """The sequence numbers of all rows, in the table's order."""
    with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)) as database:
        texts = database.execute("SELECT message FROM records ORDER BY id").fetchall()
    return [msgspec.json.decode(text, type=Row).seq for (text,) in texts]


def exactly(path: str, more_than: int) -> bool:
    """Whether the file has so many rows, each record of the ring once and in order from the first on."""
    found = rows(path)
    assert found == list(range(len(found)))
    return len(found) > more_than


def becomes(client: ControlClient, what: str, condition: Callable[[ConnectionStatus], object]) -> ConnectionStatus:
    """Wait until the connection's status is so, and give it."""
    found = wait_until(lambda: next((it for it in [status(client)] if condition(it)), None), what)
    assert found is not None
    return found


def ready_again(client: ControlClient, restarts: int) -> ConnectionStatus:
    return becomes(client, "ready again", lambda it: (it.state, it.restarts) == ("ready", restarts))


@contextmanager
def attached() -> Iterator[RingReader]:
    with attach("c", "trade", wait=20.0) as reader:
        yield reader


def reads_on(reader: RingReader) -> None:
    """New records come to a reader that has been attached all the time."""
    while len(reader.read()):
        pass
    cursor = reader.cursor
    assert len(reader.read(timeout=20.0)) > 0
    assert reader.cursor > cursor


def test_a_killed_provider_is_restarted_with_readers_attached_and_shown_in_the_status(
    client: ControlClient, venue: str
) -> None:
    made = ask(client, create(venue, limit=None, sleep_time=0.02))
    with attached() as reader:
        reads_on(reader)
        kill(made.provider_pid)
        found = ready_again(client, 1)
        assert "SIGKILL" in found.last_error
        assert found.is_running
        assert found.provider_pid not in (None, made.provider_pid)
        reads_on(reader)
        wait_until(lambda: exactly(made.results_file, reader.cursor), "the recorder has all of it, once")


@pytest.mark.parametrize("provider", ["backoff", "stopped"])
def test_without_a_provider_symbols_change_for_later_and_are_answered(
    client: ControlClient, venue: str, provider: str
) -> None:
    made = ask(client, create(venue))
    if provider == "stopped":
        client.request(lambda number: Stop(number, "c"))
    else:
        stop_restarting(made)
        wait_until(lambda: status(client).state == "backoff", "the provider waits to be started again")
    outcome = client.request(lambda number: Subscribe(number, "c", "ethusdt,SOL-USDT"))
    assert [(it.symbol, it.state) for it in outcome.answers] == [("ETHUSDT", "requested"), ("SOLUSDT", "requested")]
    assert all(provider in it.reason and it.topic == "" for it in outcome.answers)
    outcome = client.request(lambda number: Unsubscribe(number, "c", "btcusdt"))
    assert [(it.symbol, it.state) for it in outcome.answers] == [("BTCUSDT", "removed")]
    assert outcome.connections[0].subscribed_symbols == "ETHUSDT,SOLUSDT"
    if provider == "backoff":
        stop = client.request(lambda number: Stop(number, "c"))
        assert (stop.connections[0].state, stop.connections[0].is_running) == ("stopped", False)


def stop_restarting(made: ConnectionStatus) -> None:
    """Kill every provider of a connection until the pauses between are long enough to look at."""
    pid = made.provider_pid
    with ControlClient.connect() as client:
        for restarts in (1, 2):
            kill(pid)
            pid = ready_again(client, restarts).provider_pid
        kill(pid)


def test_a_connection_in_backoff_is_killed_at_once(client: ControlClient, venue: str) -> None:
    made = ask(client, create(venue))
    stop_restarting(made)
    assert isinstance(client.request(lambda number: Kill(number, "c")), Outcome)
    assert client.request(Status).connections == []


def recorder(running: int) -> int:
    (found,) = [it for it in children(running) if "supervisor.recorder" in it.cmdline()]
    return int(found.pid)


def test_a_killed_recorder_heals_and_goes_on_exactly(own: tuple[ControlClient, int], venue: str) -> None:
    client, running = own
    made = ask(client, create(venue, limit=None, sleep_time=0.02))
    wait_until(lambda: exactly(made.results_file, 0), "something is recorded")
    count = len(rows(made.results_file))
    pid = recorder(running)
    kill(pid)
    wait_until(lambda: exactly(made.results_file, count + 100), "it records again")
    assert recorder(running) != pid
    assert status(client).last_error == ""


def test_what_a_new_recorder_refuses_is_told_and_insisted_on(own: tuple[ControlClient, int], venue: str) -> None:
    """Somebody locks the results file while the recorder is dead."""
    client, running = own
    made = ask(client, create(venue, limit=None, sleep_time=0.02))
    wait_until(lambda: exactly(made.results_file, 0), "something is recorded")
    with closing(sqlite3.connect(made.results_file, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        kill(recorder(running))
        found = wait_until(lambda: status(client).last_error, "the trouble is in the status")
        assert "Another program writes it" in found
        assert status(client).state == "ready"
        database.execute("ROLLBACK")
    count = len(rows(made.results_file))
    wait_until(lambda: exactly(made.results_file, count + 10), "it is recorded again, and nothing was lost")
    wait_until(lambda: status(client).last_error == "", "the trouble is over")


def test_a_connection_is_killed_with_its_results_file_while_the_recorder_is_dead(
    own: tuple[ControlClient, int], venue: str
) -> None:
    client, running = own
    made = ask(client, create(venue))
    kill(recorder(running))
    client.request(lambda number: Kill(number, "c"))
    assert not Path(made.results_file).exists()


def test_a_killed_broadcaster_comes_back_on_the_same_port_and_serves_the_same(
    client: ControlClient, venue: str
) -> None:
    made = ask(client, create(venue, start_broadcast=True, broadcast_port=0, auth_token=None))
    assert made.broadcast_address is not None
    kill(made.broadcast_pid)
    found = becomes(client, "another broadcaster", lambda it: alive(it.broadcast_pid))
    assert found.broadcast_address == made.broadcast_address

    def listens() -> bool:
        try:
            with connect(f"{made.broadcast_address}/c", proxy=None) as listener:
                return "BTCUSDT" in str(listener.recv(timeout=20)).upper()
        except OSError:
            return False

    wait_until(listens, "listeners find it where it was")


def test_a_port_that_was_taken_meanwhile_gives_the_next_one_and_the_status_says_so(
    client: ControlClient, venue: str
) -> None:
    import socket

    made = ask(client, create(venue, start_broadcast=True, broadcast_port=unused_port()))
    assert made.broadcast_address is not None
    port = int(made.broadcast_address.rpartition(":")[2])
    kill(made.broadcast_pid)
    with socket.create_server(("127.0.0.1", port)):
        found = becomes(client, "another address", lambda it: it.broadcast_address != made.broadcast_address)
        assert found.is_broadcasting
        with connect(f"{found.broadcast_address}/c", proxy=None) as listener:
            assert listener.recv(timeout=20)


@pytest.mark.usefixtures("everywhere", "runtime")
def test_a_killed_supervisor_loses_nothing(venue: str) -> None:
    port = unused_port()
    with supervisor() as first, ControlClient.connect() as client:
        made = ask(client, create(venue, limit=None, sleep_time=0.02, start_broadcast=True, broadcast_port=port))
        client.request(lambda number: Subscribe(number, "c", "ethusdt"))
        with attached() as reader:
            reads_on(reader)
            family = children(first.pid)
            assert len(family) == 3
            # The next one comes at once, while the children of the killed one are still leaving.
            first.kill()
            with supervisor() as second, ControlClient.connect() as again:
                assert second.pid != first.pid
                wait_until(lambda: not any(alive(child.pid) for child in family), "no child outlives its supervisor")
                assert reader.cursor == reader.published or len(reader.read()) > 0  # the ring can still be read
                found = becomes(again, "the connection is back", lambda it: it.state == "ready")
                assert (found.subscribed_symbols, found.results_file) == ("BTCUSDT,ETHUSDT", made.results_file)
                reads_on(reader)
                wait_until(lambda: exactly(made.results_file, reader.cursor), "the recorder goes on exactly")
                wait_until(lambda: status(again).broadcast_pid, "it is broadcast again")
                assert status(again).broadcast_address == f"ws://127.0.0.1:{port}"
                down()
    assert leftovers() == []
    assert not Path(made.results_file).exists()


@pytest.mark.usefixtures("everywhere", "runtime")
def test_every_child_ends_when_its_supervisor_is_killed_and_none_comes(venue: str) -> None:
    with supervisor() as process, ControlClient.connect() as client:
        ask(client, create(venue, start_broadcast=True, broadcast_port=0))
        family = children(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not any(alive(child.pid) for child in family), "no child outlives its supervisor")
        with attach("c", "trade") as reader:
            assert reader.published > 0
            assert len(reader.tail(5)) == min(5, reader.published)


@pytest.mark.usefixtures("everywhere", "runtime")
def test_no_room_for_rings_is_an_error_and_leaves_nothing(venue: str) -> None:
    """A limit on the size of files stands for a full /dev/shm: reserving the ring fails in the same call."""
    with supervisor() as process, ControlClient.connect() as client:
        limits = (2**20, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        with pytest.raises((SharedMemoryFull, VenueUnreachable), match=r"MiB|room"):
            ask(client, create(venue))
        assert client.request(Status).connections == []
        assert leftovers() == []
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.usefixtures("everywhere", "runtime")
def test_a_hostile_working_directory_is_not_imported_from(
    venue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("feeds", "supervisor", "ringbuf"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("import os; os._exit(99)")
    (tmp_path / "asyncio.py").write_text("import os; os._exit(99)")
    monkeypatch.chdir(tmp_path)
    with supervisor(), ControlClient.connect() as client:
        assert ask(client, create(venue)).state == "ready"


@pytest.mark.usefixtures("everywhere", "runtime")
def test_a_supervisor_that_hangs_up_in_the_middle_of_its_start_leaves_the_instance_usable() -> None:
    for delay in (0.05, 0.25):
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor"],
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(delay)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (0, -signal.SIGTERM)
    with supervisor(), ControlClient.connect() as client:
        assert client.request(Status).connections == []
    assert not (rings() / "control.sock").exists()
    assert (state() / "connections.json").read_text().count("name") == 0
