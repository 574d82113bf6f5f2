"""Listeners of a real broadcaster process: what they send, what they do not take, and the tokens they present."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import orjson
from processes.broadcaster_raw import RawListener, masked
from processes.broadcaster_running import Feed, RunningBroadcaster, broadcaster
from waiting import wait_until
from websockets.sync.client import ClientConnection, connect

from feeds.encoding import lines
from feeds.records import Kind
from ringbuf import RingReader
from supervisor.frames import Opcode, server_frame

_TOKEN = "s3cret/t+k=n"  # noqa: S105 - a test's


def _code(code: int) -> bytes:
    return struct.pack(">H", code)


_ANSWERS: list[tuple[str, bytes, int]] = [
    ("a reserved bit", masked(1, b"x", reserved=4), 1002),
    ("another reserved bit", masked(2, b"x", reserved=1), 1002),
    ("a continuation without a start", masked(0, b"x"), 1002),
    ("a start inside a message", masked(1, b"x", fin=False) + masked(1, b"y"), 1002),
    ("an unknown opcode", masked(3, b"x"), 1002),
    ("a fragmented ping", masked(9, b"x", fin=False), 1002),
    ("a long ping", masked(9, bytes(126)), 1002),
    ("an unknown opcode behind a ping", masked(9, b"x") + masked(3, b"x"), 1002),
    ("no mask", b"\x81\x01x", 1002),
    ("text that is not UTF-8", masked(1, b"\xff\xfe"), 1007),
    ("a large message", masked(2, bytes(65537)), 1009),
    ("a large message in fragments", masked(2, bytes(40000), fin=False) + masked(0, bytes(40000)), 1009),
    *((f"close code {code}", masked(8, _code(code)), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999)),
    ("half a close code", masked(8, b"\x03"), 1002),
    ("a close reason that is not UTF-8", masked(8, _code(1000) + b"\xff"), 1007),
    ("an orderly close", masked(8, _code(1000)), 1000),
    ("an application's close", masked(8, _code(3000) + b"bye"), 3000),
    ("a close without a code", masked(8), 1000),
    ("more after a close", masked(8, _code(1000)) + masked(1, b"more"), 1000),
]


def test_every_illegal_frame_is_closed_with_its_code_and_disturbs_nobody(runtime: Path) -> None:
    with broadcaster() as running, Feed("c") as feed:
        running.bind()
        running.serve("c")
        with connect(running.url(), proxy=None) as bystander:
            for what, sent, code in _ANSWERS:
                with RawListener(running.port) as listener:
                    listener.send(sent)
                    close = listener.read_to_end()
                    assert close is not None, what
                    assert (close.code, listener.objects()) == (code, []), what
                    assert listener.raw.endswith(server_frame(Opcode.CLOSE, close.serialize())), what
            feed.publish(Kind.TRADE, 1)
            assert orjson.loads(bystander.recv(timeout=20))["seq"] == 0
        assert running.texts().count("connection open") <= len(_ANSWERS) + 1
        assert running.process.poll() is None


def test_what_a_library_sends_is_answered(runtime: Path) -> None:
    with broadcaster() as running:
        running.bind()
        running.serve("c")
        with connect(running.url(), proxy=None) as listener:
            assert listener.ping(b"are you there").wait(20)
            for message in (
                "hello",
                '{"event":"subscribe","symbol":"BTCUSDT"}',
                b"\xff\x00",
                "[" * 1000,
                ["in ", "two"],
            ):
                listener.send(message)
                answer = orjson.loads(listener.recv(timeout=20))
                assert answer["type"] == "error"
                assert "cannot send commands yet" in answer["message"]
            listener.send('{"auth_token":"nobody wants one"}')
            assert listener.ping().wait(20)
            listener.close(4321, "enough")
        assert (listener.close_code, listener.close_reason) == (4321, "")


def test_a_listener_on_the_wire_of_firefox_is_accepted(runtime: Path) -> None:
    with broadcaster() as running:
        running.bind()
        running.serve("c")
        with RawListener(running.port, upgrade="keep-alive, Upgrade") as listener:
            assert listener.status == 101


def _refused(running: RunningBroadcaster, path: str, *headers: str, message: str = "") -> None:
    with RawListener(running.port, path, headers) as listener:
        if message:
            listener.send(masked(1, message.encode()))
        close = listener.read_to_end()
        assert close is not None
        assert (close.code, close.reason) == (1008, "Invalid authentication token")
        (error,) = listener.objects()
        assert error["type"] == "error"
        assert "Invalid authentication token" in str(error["message"])


def _next_record(listener: ClientConnection, feed: Feed) -> None:
    """The listener gets records from now on."""
    feed.publish(Kind.TRADE, 1)
    assert orjson.loads(listener.recv(timeout=20))["type"] == "trade"


def test_a_token_may_come_in_the_url_a_header_or_the_first_message_and_shows_nowhere(runtime: Path) -> None:
    with broadcaster(token=0.3) as running, Feed("c") as feed:
        running.bind()
        running.serve("c", _TOKEN)
        for path in (f"/?auth_token={_TOKEN}", "/c?x=1&auth_token=s3cret%2Ft%2Bk%3Dn"):
            with connect(running.url(path), proxy=None) as listener:
                _next_record(listener, feed)
        header = {"Authorization": f"Bearer {_TOKEN}"}
        with connect(running.url(), proxy=None, additional_headers=header) as listener:
            _next_record(listener, feed)
        with connect(running.url(), proxy=None) as listener:
            listener.send("not yet")
            assert "not understood" in str(listener.recv(timeout=20))
            listener.send(orjson.dumps({"auth_token": _TOKEN}), text=True)
            assert listener.ping().wait(20)
            _next_record(listener, feed)
        _refused(running, "/?auth_token=wrong")
        _refused(running, "/?auth_token=")
        _refused(running, "/", "Authorization: Bearer s3cret")
        _refused(running, "/", message='{"auth_token":"wrong"}')
        _refused(running, "/")  # nothing within the time
        running.withdraw("c")
        told = " ".join(running.texts())
        assert told.count("Invalid authentication token") == 5
        assert told.count("connection open") == 4
        assert "s3cret" not in told
        assert "wrong" not in told


def test_without_a_token_any_token_is_ignored(runtime: Path) -> None:
    with broadcaster() as running, Feed("c") as feed:
        running.bind()
        running.serve("c")
        header = {"Authorization": "Bearer whatever"}
        with connect(running.url("/?auth_token=anything"), proxy=None, additional_headers=header) as listener:
            _next_record(listener, feed)


def _all_records(feed: Feed) -> list[bytes]:
    with RingReader(feed.writer.directory, Kind.TRADE, start=0) as reader:
        texts: list[bytes] = []
        while len(records := reader.read()):
            texts += lines(records)
    return texts


def test_a_listener_that_never_reads_is_closed_with_an_exact_count_while_another_gets_everything(runtime: Path) -> None:
    count = 40_000  # 8 MB: more than a socket, a write and the log of this test can hold
    with broadcaster(stalled=0.5, log=2**21) as running, Feed("c", capacity=2**17) as feed:
        running.bind()
        running.serve("c")
        with (
            RawListener(running.port, small=True) as stalled,
            connect(running.url(), proxy=None, compression=None) as listener,
        ):
            texts: list[bytes] = []
            while len(texts) < count:
                feed.publish(Kind.TRADE, 2000)
                texts += [listener.recv(timeout=20, decode=False) for _ in range(2000)]
            assert texts == _all_records(feed)
            notice = running.wait_for_notice("too slow")
            undelivered = int(notice.split(": ")[1].split()[0])
            stalled.read_to_end()  # what the kernel had taken
            received = [message for message in stalled.objects() if message["type"] == "trade"]
            told = sum(int(str(message["lost"])) for message in stalled.objects() if message["type"] == "gap")
            # All that was published before it was closed, which happens between two publications.
            counted = len(received) + undelivered
            assert counted in range(2000, count + 1, 2000)
            assert [message["seq"] for message in received] == list(range(len(received)))
            assert told == 0  # the notice queued behind what it never took
            # Bounded: what the kernel took for it, and one write beside the soft limit.
            assert sum(len(frame.data) for frame in stalled.frames) < 2**20


def test_a_listener_that_is_slow_gets_one_notice_with_the_exact_number_and_goes_on(runtime: Path) -> None:
    with broadcaster(log=2**17, write=2**15, soft=2**14) as running, Feed("c", capacity=2**16) as feed:
        running.bind()
        running.serve("c")
        with RawListener(running.port, small=True) as slow:
            with connect(running.url(), proxy=None, compression=None) as listener:
                for _ in range(100):
                    feed.publish(Kind.TRADE, 200)
                    for _ in range(200):
                        listener.recv(timeout=20, decode=False)
            published = 20_000
            accounted = 0
            while accounted < published or not any(message["type"] == "gap" for message in slow.objects()):
                slow.read()
                messages = slow.objects()
                accounted = sum(int(str(message.get("lost", 1))) for message in messages)
            assert accounted == published
            feed.publish(Kind.TRADE, 3)
            slow.read_until(len(slow.frames) + 3)
            assert [message["seq"] for message in slow.objects()[-3:]] == [20_000, 20_001, 20_002]
            position = 0
            for message in slow.objects():  # every record at its place, every notice exactly as wide as its hole
                if message["type"] == "gap":
                    assert (message["connection"], message["reason"]) == ("c", "slow")
                    position += int(str(message["lost"]))
                else:
                    assert message["seq"] == position
                    position += 1


def test_a_listener_that_only_asks_and_never_reads_is_closed(runtime: Path) -> None:
    with broadcaster(hard=2**16) as running:
        running.bind()
        running.serve("c", "token")
        with (
            RawListener(running.port, small=True) as rude,  # it is not even admitted
            connect(running.url("/?auth_token=token"), proxy=None) as listener,
        ):
            rude.socket.settimeout(0.05)
            questions = masked(9, bytes(125)) * 500
            try:
                for _ in range(2000):
                    rude.send(questions)
            except (TimeoutError, ConnectionError):
                pass  # its own buffers are full, or it has been cut
            running.wait_for_notice("too slow")
            assert listener.ping().wait(20)


def test_a_listener_that_does_not_answer_pings_is_closed(runtime: Path) -> None:
    with broadcaster(ping_interval=0.2, ping_deadline=0.2) as running:
        running.bind()
        running.serve("c")
        with RawListener(running.port) as silent, connect(running.url(), proxy=None) as listener:
            close = silent.read_to_end()
            assert close is not None
            assert (close.code, close.reason) == (4009, "no pong")
            assert [frame.opcode for frame in silent.frames] == [9, 8]
            assert listener.ping().wait(20)  # the library answers


def test_a_listener_that_is_killed_is_noticed_and_hurts_nobody(runtime: Path) -> None:
    program = (
        "import sys; from websockets.sync.client import connect\n"
        "with connect(sys.argv[1], proxy=None) as listener:\n"
        "    while True: print(listener.recv(), flush=True)"
    )
    with broadcaster() as running, Feed("c") as feed:
        running.bind()
        running.serve("c")
        with connect(running.url(), proxy=None) as listener:
            running.wait_for_notice("connection open")
            command = [sys.executable, "-c", program, running.url()]
            with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as process:
                assert process.stdout is not None
                wait_until(lambda: _received(running, 2), "the second listener to be open")
                feed.publish(Kind.TRADE, 1)
                assert orjson.loads(process.stdout.readline())["seq"] == 0
                process.send_signal(signal.SIGKILL)
            running.wait_for_notice("connection closed")
            feed.publish(Kind.TRADE, 1000)
            assert [orjson.loads(listener.recv(timeout=20))["seq"] for _ in range(1001)] == list(range(1001))


def _received(running: RunningBroadcaster, opened: int) -> bool:
    running.poll()
    return running.texts().count("connection open") >= opened
