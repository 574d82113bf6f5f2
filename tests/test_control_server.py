"""The control socket as its clients meet it, the ill-behaved ones above all. One supervisor serves all these tests."""

from __future__ import annotations

import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from processes.supervisor_running import DEAD_URL, answers, ask, create, instance, leftovers, rings, supervisor, warm_up
from waiting import wait_until

from feeds.pipe import LARGEST, Splitter, pack
from ringbuf.errors import ControlError, TickringError, UnknownConnection, VenueUnreachable
from supervisor.client import ControlClient
from supervisor.control import (
    PROTOCOL,
    FromSupervisor,
    Hello,
    Kill,
    Outcome,
    Refusal,
    Status,
    Welcome,
)

#: No answer takes longer, in seconds.
PATIENCE = 20.0


@pytest.fixture(scope="module")
def running() -> Iterator[Path]:
    """The control socket of a supervisor that runs for the whole module."""
    with instance() as directory, supervisor():
        warm_up()
        yield directory / "default" / "control.sock"


class Raw:
    """A conversation byte by byte."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._splitter: Splitter[FromSupervisor] = Splitter(FromSupervisor)
        self._got: list[FromSupervisor] = []

    def send(self, *messages: msgspec.Struct) -> None:
        self.socket.sendall(b"".join(map(pack, messages)))

    def receive(self) -> FromSupervisor | None:
        """The next message; None if the supervisor has ended the conversation."""
        while not self._got:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:  # it did not even read all that we sent
                return None
            if not data:
                return None
            self._got += self._splitter.feed(data)
        return self._got.pop(0)

    def greet(self) -> None:
        self.send(Hello(PROTOCOL, "test"))
        assert isinstance(self.receive(), Welcome)


@contextmanager
def raw(path: Path) -> Iterator[Raw]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        connected.settimeout(PATIENCE)
        connected.connect(str(path))
        yield Raw(connected)


def test_the_socket_and_its_directory_are_the_users_alone(running: Path) -> None:
    assert stat.S_ISSOCK(running.stat().st_mode)
    assert stat.S_IMODE(running.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.parent.stat().st_mode) == 0o700


def test_a_greeting_is_answered_with_version_and_pid(running: Path) -> None:
    with raw(running) as client:
        client.send(Hello(PROTOCOL, "0.0"))
        welcome = client.receive()
        assert isinstance(welcome, Welcome)
        assert welcome.protocol == PROTOCOL
        assert welcome.pid > 1


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1, 2**40])
def test_another_protocol_is_refused_with_what_to_do(running: Path, protocol: int) -> None:
    with raw(running) as client:
        client.send(Hello(protocol, "9.9"))
        refusal = client.receive()
        assert isinstance(refusal, Refusal)
        assert refusal.id == 0
        assert isinstance(refusal.problem.error(), ControlError)
        assert "tickring down, tickring up" in refusal.problem.message
        assert client.receive() is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("<I", LARGEST + 1),
        struct.pack("<I", 4) + b"\xff\xfe\x00\x01",
        struct.pack("<I", 2) + b"{}",
        struct.pack("<I", 200_000) + b"[" * 200_000,
        pack(Status(1)),  # no hello
        struct.pack("<I", 15) + b'{"call":"down"}',  # no hello, no id
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
def test_garbage_ends_its_own_conversation_and_no_other(running: Path, data: bytes, *, greeted: bool) -> None:
    with raw(running) as good, raw(running) as bad:
        good.greet()
        if greeted:
            bad.greet()
        bad.socket.sendall(data)
        if greeted and data == pack(Status(1)):
            assert isinstance(bad.receive(), Outcome)
            return
        assert bad.receive() is None
        good.send(Status(7))
        outcome = good.receive()
        assert isinstance(outcome, Outcome)
        assert outcome.id == 7


def test_a_message_that_comes_byte_by_byte_is_understood(running: Path) -> None:
    with raw(running) as client:
        for byte in pack(Hello(PROTOCOL, "slow")):
            client.socket.sendall(bytes([byte]))
        assert isinstance(client.receive(), Welcome)


def test_a_second_hello_is_ignored(running: Path) -> None:
    with raw(running) as client:
        client.greet()
        client.send(Hello(PROTOCOL, "again"), Status(3))
        outcome = client.receive()
        assert isinstance(outcome, Outcome)
        assert outcome.id == 3


def test_requests_of_one_client_are_carried_out_beside_each_other(running: Path) -> None:
    """The connection that is being made waits for a name server or a dead port; the status does not wait for it."""
    with raw(running) as client:
        client.greet()
        client.send(msgspec.structs.replace(create(DEAD_URL, "dead"), id=1), Status(2))
        assert [type(message) for message in (client.receive(), client.receive())] == [Outcome, Refusal]


def test_a_client_that_vanishes_in_the_middle_of_a_request_leaves_it_to_be_finished(running: Path, venue: str) -> None:
    with raw(running) as client:
        client.greet()
        client.send(msgspec.structs.replace(create(venue, "kept"), id=1))
    with ControlClient.connect() as other:
        wait_until(
            lambda: [it.state for it in other.request(Status).connections if it.name == "kept"] == ["ready"],
            "the connection is made",
        )
        other.request(lambda number: Kill(number, "kept"))
    assert leftovers() == []


def test_a_client_that_vanishes_in_the_middle_of_a_request_that_fails_leaves_nothing(running: Path) -> None:
    with raw(running) as client:
        client.greet()
        client.send(msgspec.structs.replace(create(DEAD_URL, "gone"), id=1))
    with ControlClient.connect() as other:
        wait_until(lambda: not other.request(Status).connections, "the name is free again")
    wait_until(lambda: leftovers() == [], "nothing is left")


def test_a_client_that_does_not_read_slows_nobody(running: Path) -> None:
    with raw(running) as slow, ControlClient.connect() as quick:
        slow.greet()
        slow.socket.setblocking(False)
        requests = b"".join(pack(Status(number)) for number in range(20_000))
        sent = 0
        for _ in range(200):  # more answers than its socket can hold
            try:
                sent += slow.socket.send(requests[sent : sent + 65536])
            except BlockingIOError:
                break
        begin = time.monotonic()
        assert quick.request(Status).connections == []
        assert time.monotonic() - begin < PATIENCE


def test_a_fault_of_ours_is_an_answer(running: Path) -> None:
    """A results file beyond the length of any path makes `exists` fail in a way that nobody foresaw."""
    with ControlClient.connect() as client:
        with pytest.raises(TickringError):
            ask(client, create(DEAD_URL, "c", results_file="/" + "x" * 5000))
        with pytest.raises(TickringError):
            ask(client, create(DEAD_URL, "c", results_file="/tmp/\0.db"))  # noqa: S108
        assert client.request(Status).connections == []


def test_errors_come_with_their_class_and_words(running: Path) -> None:
    with ControlClient.connect() as client:
        with pytest.raises(UnknownConnection, match="Client nosuch not connected"):
            client.request(lambda number: Status(number, "nosuch"))
        with pytest.raises(VenueUnreachable):
            ask(client, create(DEAD_URL))


def test_after_all_that_it_still_answers(running: Path) -> None:
    assert answers()
    assert sorted(entry.name for entry in rings().iterdir()) == ["control.sock", "family.lock", "supervisor.lock"]
