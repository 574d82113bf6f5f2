"""A real broadcaster process: what it serves, where, to whom, and how it ends."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import orjson
import pytest
from processes.broadcaster_raw import RawListener
from processes.broadcaster_running import Feed, broadcaster
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from feeds.encoding import objects
from feeds.records import KIND_NUMBER, Kind
from ringbuf import RingReader
from supervisor.broadcaster import is_local, presented_tokens


def _take(listener: ClientConnection, count: int) -> list[dict[str, object]]:
    return [orjson.loads(listener.recv(timeout=20)) for _ in range(count)]


def _in_rings(feed: Feed, *kinds: Kind) -> list[dict[str, object]]:
    """Every record of the rings as its JSON reads, in the order of received, kind and seq."""
    keyed: list[tuple[tuple[int, int, int], dict[str, object]]] = []
    for kind in kinds:
        with RingReader(feed.writer.directory, kind) as reader:
            while len(records := reader.read()):
                keyed += [
                    ((received, KIND_NUMBER[kind], seq), {**record})
                    for received, seq, record in zip(
                        records["received"].tolist(), records["seq"].tolist(), objects(records), strict=True
                    )
                ]
    return [record for _, record in sorted(keyed, key=lambda pair: pair[0])]


def test_two_listeners_get_every_record_once_in_order_through_a_writer_s_restarts(runtime: Path) -> None:
    with broadcaster() as running:
        running.bind()
        running.serve("c")
        with connect(running.url(), proxy=None) as first, connect(running.url("/c"), proxy=None) as second:
            got: list[dict[str, object]] = []
            for _ in range(3):
                with Feed("c") as feed:
                    for _ in range(5):
                        feed.publish(Kind.TRADE, 200)
                        feed.publish(Kind.QUOTE, 100)
                    got += _take(first, 1500)
                    expected = _in_rings(feed, Kind.TRADE, Kind.QUOTE)
            assert _take(second, 4500) == got
            # The whole may come in several looks at the rings; each ring's order holds over all of them.
            for kind in ("trade", "quote"):
                assert [it for it in got if it["type"] == kind] == [it for it in expected if it["type"] == kind]
            assert len(got) == len(expected) == 4500


def test_connections_share_an_address_and_a_path_picks_one(runtime: Path) -> None:
    with broadcaster() as running, Feed("one") as one, Feed("two") as two:
        running.bind()
        running.serve("one")
        running.serve("two")
        with (
            connect(running.url(), proxy=None) as default,
            connect(running.url("/one"), proxy=None) as first,
            connect(running.url("/two"), proxy=None) as second,
        ):
            one.publish(Kind.TRADE, 1)
            two.publish(Kind.QUOTE, 1)
            assert [_take(listener, 1)[0]["type"] for listener in (default, first, second)] == [
                "trade", "trade", "quote"
            ]  # fmt: skip
        for path in ("/three", "/one/more", "/ONE", "//one", "/..%2Fone"):
            with pytest.raises(InvalidStatus) as refused, connect(running.url(path), proxy=None):
                pass
            assert refused.value.response.status_code == 404


def test_an_address_without_connections_answers_404(runtime: Path) -> None:
    with broadcaster() as running:
        running.bind()
        with RawListener(running.port) as listener:
            assert listener.status == 404


def test_the_notices_read_as_the_toolkit_prints_them(runtime: Path) -> None:
    with broadcaster() as running:
        running.bind()
        running.serve("one")
        running.serve("two")
        with connect(running.url("/?auth_token=none"), proxy=None) as listener:
            port = listener.local_address[1]
        running.wait_for_notice("connection closed", "one")
        assert [(notice.connection, notice.text) for notice in running.notices] == [
            ("one", f"Stream results from ws://127.0.0.1:{running.port}"),
            ("two", f"Stream results from ws://127.0.0.1:{running.port}/two"),
            ("one", f"('127.0.0.1', {port}) - \"WebSocket /\" [accepted]"),
            ("one", "connection open"),
            ("one", "connection closed"),
        ]


def test_withdrawing_a_connection_closes_its_listeners_only(runtime: Path) -> None:
    with broadcaster() as running, Feed("one") as one, Feed("two") as two:
        running.bind()
        running.serve("one")
        running.serve("two", "token")
        waiting = RawListener(running.port, "/two")  # it has presented no token yet
        with (
            waiting,
            connect(running.url("/one"), proxy=None) as stays,
            connect(running.url("/two?auth_token=token"), proxy=None) as goes,
        ):
            two.publish(Kind.TRADE, 1)
            _take(goes, 1)
            assert running.withdraw("two") is None
            with pytest.raises(ConnectionClosed):
                goes.recv(timeout=20)
            assert (goes.close_code, goes.close_reason) == (1001, "two is not broadcast any more")
            assert waiting.read_to_end() is not None
            one.publish(Kind.TRADE, 1)
            assert _take(stays, 1)[0]["seq"] == 0
            with RawListener(running.port, "/two") as refused:
                assert refused.status == 404
            assert running.serve("two") is None
            with connect(running.url("/two"), proxy=None) as again:
                two.publish(Kind.TRADE, 1)
                assert _take(again, 1)[0]["seq"] == 1


def test_a_taken_port_gives_the_next_free_one_and_says_so(runtime: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, broadcaster() as running:
        port = taken.getsockname()[1]
        done = running.bind(port=port)
        assert done.problem is None
        assert port < done.port < port + 100
        running.serve("c")
        running.wait_for_notice(f"Port {port} is already in use. Using {done.port} instead.", "")
        running.wait_for_notice(f"Stream results from ws://127.0.0.1:{done.port}", "c")
        with connect(running.url(), proxy=None):
            pass


def test_an_address_that_cannot_be_bound_is_one_clear_error_and_another_may_be_tried(runtime: Path) -> None:
    with socket.create_server(("127.0.0.1", 65535)), broadcaster() as running:
        for host, port, words in (
            ("192.0.2.1", 6666, "192.0.2.1:6666 cannot be bound"),
            ("no.such.host.invalid", 6666, "cannot be bound"),
            ("127.0.0.1", 65535, "no port of 127.0.0.1 from 65535 on is free"),
            ("127.0.0.1", 70000, "no port of 127.0.0.1"),
        ):
            problem = running.bind(host, port).problem
            assert problem is not None
            assert problem.type == "AddressInUse"
            assert words in problem.message
        assert running.bind().problem is None


def test_requests_that_make_no_sense_are_answered_and_change_nothing(runtime: Path) -> None:
    with broadcaster() as running:
        early = running.serve("c")
        running.bind()
        assert running.serve("c") is None
        problems = [early, running.serve("c"), running.withdraw("d"), running.serve("../c"), running.bind().problem]
        types = [problem.type for problem in problems if problem is not None]
        assert types == ["ControlError", "ControlError", "UnknownConnection", "ParameterError", "ControlError"]


@pytest.mark.parametrize("how", ["SIGTERM", "the pipe's end"])
def test_it_says_good_bye_to_everyone_and_ends_with_0(runtime: Path, how: str) -> None:
    with broadcaster() as running:
        running.bind()
        running.serve("c")
        with connect(running.url(), proxy=None) as listener, RawListener(running.port) as deaf:
            running.wait_for_notice("connection open")
            if how == "SIGTERM":
                running.process.send_signal(signal.SIGTERM)
            else:
                running.pipe.close()
            with pytest.raises(ConnectionClosed):
                listener.recv(timeout=20)
            assert listener.close_code == 1001
            assert running.process.wait(20) == 0
            close = deaf.read_to_end()  # it never answered, and did not hold up anything
            assert close is not None
            assert close.code == 1001


def test_an_interrupt_of_the_terminal_does_not_end_it(runtime: Path) -> None:
    with broadcaster() as running:
        running.bind()
        running.process.send_signal(signal.SIGINT)
        assert running.serve("c") is None


def test_pages_of_other_machines_are_refused_and_programs_are_not(runtime: Path) -> None:
    with broadcaster() as running:
        running.bind()
        running.serve("c")
        for origin, status in (("http://evil.example:6666", 403), ("null", 403), ("http://localhost:8000", 101)):
            with RawListener(running.port, headers=(f"Origin: {origin}",)) as listener:
                assert listener.status == status
        with RawListener(running.port) as listener:
            assert listener.status == 101


def test_a_server_bound_to_all_interfaces_answers_every_page(runtime: Path) -> None:
    with broadcaster() as running:
        running.bind("0.0.0.0")
        running.serve("c")
        with RawListener(running.port, headers=("Origin: http://evil.example",)) as listener:
            assert listener.status == 101


def test_what_is_no_websocket_handshake_hurts_nobody(runtime: Path) -> None:
    with broadcaster() as running, Feed("c") as feed:
        running.bind()
        running.serve("c")
        with connect(running.url(), proxy=None) as listener:
            for request in (
                b"GET / HTTP/1.1\r\n\r\n",
                b"POST /c HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01\r\n\r\n",
                b"x" * 20000,
                b"",
            ):
                with socket.create_connection(("127.0.0.1", running.port), timeout=20) as stranger:
                    stranger.sendall(request)
                    stranger.shutdown(socket.SHUT_WR)
                    while stranger.recv(65536):
                        pass
            feed.publish(Kind.TRADE, 2)
            assert [record["seq"] for record in _take(listener, 2)] == [0, 1]


@pytest.mark.parametrize(
    ("origin", "local"),
    [
        (None, True),
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:8080", True),
        ("http://app.localhost", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://10.0.0.1", False),
        ("null", False),
        ("", False),
        ("http://[nonsense", False),
    ],
)
def test_whether_an_origin_is_of_this_machine(origin: str | None, local: bool) -> None:
    assert is_local(origin) is local


@pytest.mark.parametrize(
    ("query", "authorization", "tokens"),
    [
        ("", [], ()),
        ("auth_token=a+b%2Fc&x=1", [], (b"a+b/c",)),
        ("auth_token=1&auth_token=2", ["Basic Zm9v", "bearer  3 "], (b"1", b"2", b"3")),
        ("auth_tokens=1&x=auth_token=2", ["Bearer"], (b"",)),
    ],
)
def test_the_tokens_of_a_handshake(query: str, authorization: list[str], tokens: tuple[bytes, ...]) -> None:
    assert presented_tokens(query, authorization) == tokens
