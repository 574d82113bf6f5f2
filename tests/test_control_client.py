"""The control client: from many threads, with what cannot be sent, and when the supervisor hangs or goes."""

from __future__ import annotations

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes.supervisor_running import alive, answers, ask, create, down, kill, rings
from waiting import wait_until

from feeds.pipe import pack
from ringbuf.errors import ControlError, DeadlinePassed, NotRunning, ParameterError
from supervisor import client as client_module
from supervisor.client import ControlClient, start_supervisor
from supervisor.control import Kill, Refusal, Status, Welcome


def test_it_finds_the_supervisor_and_asks(running: int) -> None:
    with ControlClient.connect() as client:
        assert client.supervisor_pid == running
        assert client.request(Status).connections == []
    client.close()  # twice is harmless
    with pytest.raises(NotRunning):
        client.request(Status)


def test_eight_threads_ask_at_once(running: int) -> None:
    with ControlClient.connect() as client, ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: client.request(Status), range(400)))
        assert len({outcome.id for outcome in outcomes}) == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": "5"}, {"limit": 5.5}, {"limit": True}, {"sleep_time": "fast"}, {"save_results": 1},
        {"broadcast_port": None}, {"auth_token": 5}, {"auth_token": "\ud800"}, {"results_file": Path("/x")},
        {"stale_after": object()}, {"provider": None},
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_an_error_of_the_callers_and_the_conversation_goes_on(
    running: int, fields: dict[str, object]
) -> None:
    with ControlClient.connect() as client:
        with pytest.raises(ParameterError, match="cannot be asked for"):
            ask(client, create("ws://127.0.0.1:9/", **fields))
        assert client.request(Status).connections == []


def test_lines_reach_who_made_the_connection_and_a_broken_terminal_harms_nothing(running: int, venue: str) -> None:
    lines: list[str] = []

    def broken(line: str) -> None:
        lines.append(line)
        raise ValueError("I/O operation on closed file.")

    with ControlClient.connect(broken) as maker, ControlClient.connect(lines.append) as other:
        ask(maker, create(venue, start_broadcast=True, broadcast_port=0))
        # Before the answer, because that is when it happened.
        assert "PROVIDER INFO:      WebSocket connection established." in lines
        assert "PROVIDER INFO:      subscribed to: btcusdt@trade" in lines
        assert any(line.startswith("BROADCAST INFO:     Stream results from ws://127.0.0.1:") for line in lines)
        before = len(lines)
        assert other.request(lambda number: Kill(number, "c")).lines == ["Disconnected from the provider WebSocket."]
        assert maker.request(Status).connections == []
        assert not [line for line in lines[before:] if "established" in line]


def test_a_supervisor_that_hangs_is_told_in_time(running: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_GREETING_WITHIN", 0.2)
    with ControlClient.connect() as client:
        os.kill(running, signal.SIGSTOP)
        try:
            with pytest.raises(DeadlinePassed, match=r"within 0\.1 s"):
                client.request(Status, timeout=0.1)
            with pytest.raises(NotRunning, match="hangs"):
                ControlClient.connect()
        finally:
            os.kill(running, signal.SIGCONT)
        assert client.request(Status).connections == []  # the late answer of the first is nobody's


class Impostor:
    """A control socket that answers each message with the next of these, and then ends the conversation."""

    def __init__(self, *answers: bytes) -> None:
        directory = rings()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(directory / "control.sock"))
        self._listening.listen()
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        connected, _ = self._listening.accept()
        with connected:
            for answer in self._answers:
                connected.recv(1000)
                connected.sendall(answer)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listening.close()


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"", NotRunning, "going down"),
        (b"\x02\0\0\0{}", ControlError, "cannot be understood"),
        (b"\xff\xff\xff\xff", ControlError, "over the limit"),
    ],
)
def test_what_is_no_supervisor_is_no_supervisor(
    runtime: Path, answer: bytes, error: type[Exception], words: str
) -> None:
    with Impostor(answer), pytest.raises(error, match=words):
        ControlClient.connect()


def test_garbage_in_the_middle_ends_the_conversation_with_its_reason(runtime: Path) -> None:
    with Impostor(pack(Welcome(1, "x", 1)), b"\xff\xff\xff\xff"):
        client = ControlClient.connect()
        with pytest.raises(ControlError, match="over the limit"):
            client.request(Status)
        client.close()


def test_a_refusal_that_nobody_waits_for_is_ignored(runtime: Path) -> None:
    from feeds.messages import Problem

    with Impostor(pack(Welcome(1, "x", 1)), pack(Refusal(99, Problem("NotRunning", "?")))):
        client = ControlClient.connect()
        with pytest.raises(NotRunning, match="has ended"):
            client.request(Status)
        client.close()


@pytest.mark.parametrize("socket_file", [False, True])
def test_nobody_there_says_how_to_start_one(runtime: Path, *, socket_file: bool) -> None:
    if socket_file:  # one that a killed supervisor left
        (runtime / "default").mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
            dead.bind(str(runtime / "default" / "control.sock"))
    with pytest.raises(NotRunning, match="start one with `tickring up`"):
        ControlClient.connect()


@pytest.mark.usefixtures("everywhere")
def test_two_callers_at_the_same_moment_get_one_supervisor(runtime: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        clients = list(threads.map(lambda _: start_supervisor(), range(4)))
    assert len({client.supervisor_pid for client in clients}) == 1
    pid = clients[0].supervisor_pid
    for client in clients:
        client.close()
    assert alive(pid)  # it is detached
    down()
    wait_until(lambda: not alive(pid), "the supervisor has gone")


@pytest.mark.usefixtures("everywhere")
def test_who_waits_is_told_when_the_supervisor_is_killed(runtime: Path) -> None:
    client = start_supervisor()
    os.kill(client.supervisor_pid, signal.SIGSTOP)
    waiting = threading.Thread(target=kill, args=(client.supervisor_pid,))
    waiting.start()
    with pytest.raises(NotRunning, match="has ended"):
        client.request(Status)
    waiting.join()
    client.close()
    assert not answers()


@pytest.mark.usefixtures("everywhere")
def test_one_that_cannot_come_up_is_told_with_its_log(runtime: Path) -> None:
    state = Path(os.environ["TICKRING_STATE_DIR"]) / "default"
    state.mkdir(mode=0o700)
    (state / "connections.json").write_text("{")
    with pytest.raises(NotRunning, match="See its log"):
        start_supervisor()
    assert "Mend it, or move it away" in (state / "logs" / "supervisor.log").read_text()
    assert (state / "connections.json").read_text() == "{"
