"""The client, against a real broadcaster: what it takes for an address, what it gives, and how it ends."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from processes.broadcaster_running import Feed, RunningBroadcaster, broadcaster
from processes.running import line, running

from feeds.records import Kind
from ringbuf.errors import (
    NotRunning,
    ParameterError,
    SupervisorError,
    TickringError,
    UnauthorizedError,
    UnknownConnection,
)
from supervisor.listen import address, listen, messages, public_address


@contextmanager
def _serving(auth_token: str | None = None, **limits: float) -> Iterator[tuple[RunningBroadcaster, Feed]]:
    with broadcaster(**limits) as server, Feed("c") as feed:
        server.bind()
        server.serve("c", auth_token)
        yield server, feed


@contextmanager
def _once_open(server: RunningBroadcaster, act: Callable[[], object]) -> Iterator[None]:
    """Do something when somebody listens, while the test itself waits for messages."""

    def wait_and_act() -> None:
        server.wait_for_notice("connection open")
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("ws://127.0.0.1:6666", "ws://127.0.0.1:6666"),
        ("http://127.0.0.1:6666/", "ws://127.0.0.1:6666"),
        ("https://example.com/c", "wss://example.com/c"),
        ("127.0.0.1:6666", "ws://127.0.0.1:6666"),
        ("localhost:6666/crypto", "ws://localhost:6666/crypto"),
        ("[::1]:6666", "ws://[::1]:6666"),
        ("ws://me:secret@127.0.0.1:6666/c?auth_token=secret#x", "ws://127.0.0.1:6666/c"),
    ],
)
def test_addresses_are_taken_as_people_write_them_and_shown_without_secrets(written: str, shown: str) -> None:
    assert public_address(written) == shown


def test_the_query_travels_on() -> None:
    assert address("127.0.0.1:6666/c?auth_token=t").geturl() == "ws://127.0.0.1:6666/c?auth_token=t"


@pytest.mark.parametrize(
    "written", ["", "ws://", "ftp://x", "127.0.0.1:x", "ws://a b", ":6666", "ws://h:99999?k=secret"]
)
def test_what_is_no_address_is_one_clear_error(written: str) -> None:
    with pytest.raises(ParameterError, match="is no websocket address") as error:
        listen(written)
    assert "secret" not in str(error.value)


def test_messages_come_one_by_one_until_the_server_ends_the_stream(runtime: Path) -> None:
    with _serving() as (server, feed):
        stream = messages(server.url())
        with _once_open(server, lambda: feed.publish(Kind.TRADE, 3)):
            got = [orjson.loads(next(stream)) for _ in range(3)]
        assert [record["seq"] for record in got] == [0, 1, 2]
        server.withdraw("c")
        assert list(stream) == []


def test_closing_the_iterator_closes_the_connection(runtime: Path) -> None:
    with _serving() as (server, feed):
        stream = messages(f"127.0.0.1:{server.port}")
        with _once_open(server, lambda: feed.publish(Kind.TRADE, 1)):
            next(stream)
        assert isinstance(stream, Generator)
        stream.close()
        server.wait_for_notice("connection closed")


def test_listen_writes_a_line_a_message_and_never_comes_back_after_the_end(runtime: Path) -> None:
    with _serving() as (server, feed):
        written: list[str] = []

        def act() -> None:
            feed.publish(Kind.TRADE, 2)
            server.withdraw("c")  # what was published before is still sent
            server.serve("c")

        with _once_open(server, act):
            listen(f"http://127.0.0.1:{server.port}", write=written.append)
        address_line, first, second, end = written
        assert address_line == f"Listening for messages from ws://127.0.0.1:{server.port}\n"
        assert [orjson.loads(text)["seq"] for text in (first, second)] == [0, 1]
        assert end == "Disconnected from server.\n"
        assert sum("[accepted]" in text for text in server.texts()) == 1


def test_a_token_opens_the_stream_and_shows_nowhere(runtime: Path) -> None:
    with _serving("s3cret") as (server, _):
        for url, token in ((server.url("/c"), "s3cret"), (server.url("/c?auth_token=s3cret"), None)):
            written: list[str] = []
            server.notices.clear()

            def act() -> None:
                server.withdraw("c")
                server.serve("c", "s3cret")

            with _once_open(server, act):
                listen(url, token, write=written.append)
            assert written == [f"Listening for messages from {server.url('/c')}\n", "Disconnected from server.\n"]


@pytest.mark.parametrize("token", ["wrong-s3cret", None])
def test_a_refused_token_raises_with_what_to_do_and_without_the_token(runtime: Path, token: str | None) -> None:
    with _serving("right", token=0.2) as (server, _):
        written: list[str] = []
        with pytest.raises(UnauthorizedError, match=r"Invalid authentication token.*auth_token") as error:
            listen(server.url(), token, write=written.append)
        assert written == [f"Listening for messages from ws://127.0.0.1:{server.port}\n"]
        assert "s3cret" not in str(error.value)


def test_a_token_that_no_header_can_hold_is_refused_without_being_shown(runtime: Path) -> None:
    with pytest.raises(ParameterError, match="the token cannot be sent") as error:
        listen("127.0.0.1:6666", "s3cret\r\nX: y")
    assert "s3cret" not in str(error.value)


def test_a_refused_handshake_raises_what_the_status_means(runtime: Path) -> None:
    with _serving() as (server, _):
        cases: list[tuple[str, dict[str, object], type[TickringError], str]] = [
            (server.url("/d"), {}, UnknownConnection, "404: No connection of that name"),
            (server.url(), {"origin": "http://evil.example"}, UnauthorizedError, "403: This server answers pages"),
            (server.url(), {"colour": "red"}, ParameterError, "colour"),
        ]
        for url, options, error, words in cases:
            with pytest.raises(error, match=words):
                next(messages(url, None, **options))


def test_nothing_there_and_something_else_there_are_not_running() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def answer() -> None:
            stranger, _ = other.accept()
            with stranger:
                stranger.recv(4096)
                stranger.sendall(b"220 mail.example ready\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NotRunning, match=f"nothing answers as a broadcaster at ws://127.0.0.1:{port} "):
            listen(f"127.0.0.1:{port}")
        thread.join()
    with pytest.raises(NotRunning, match=r"refused.*tickring status"):
        listen(f"127.0.0.1:{port}")


def test_a_server_that_is_killed_is_told_and_is_an_error_for_programs(runtime: Path) -> None:
    with _serving() as (server, _):
        written: list[str] = []
        with _once_open(server, server.process.kill):
            listen(server.url(), write=written.append)
        assert written[-1] == f"The process hosting {server.url().removesuffix('/')} was terminated.\n"
    with _serving() as (server, _), _once_open(server, server.process.kill), pytest.raises(NotRunning):
        next(messages(server.url()))


def test_a_client_that_was_found_too_slow_is_told(runtime: Path) -> None:
    with _serving(stalled=0.3) as (server, feed):
        stream = messages(server.url())
        with _once_open(server, lambda: feed.publish(Kind.TRADE, 1)):
            next(stream)
        while not any("too slow" in text for text in server.texts()):  # nobody takes anything meanwhile
            feed.publish(Kind.TRADE, 500)
            server.poll()
        with pytest.raises(SupervisorError):
            list(stream)


def test_ctrl_c_ends_the_client_alone(runtime: Path) -> None:
    with _serving() as (server, feed), running("broadcaster_listening", server.url()) as client:
        assert line(client).startswith("Listening for messages")
        feed.publish(Kind.TRADE, 1)
        assert orjson.loads(line(client))["seq"] == 0
        client.send_signal(signal.SIGINT)
        assert line(client) == f"Stopped listening to {server.url().removesuffix('/')}"
        assert client.wait(20) == 0
        server.wait_for_notice("connection closed")
        assert server.process.poll() is None
