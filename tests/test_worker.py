"""The provider process as the supervisor starts it: a real process, a real pipe, a real venue on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import wait_until

from feeds.messages import Answer, Drain, Failed, FromProvider, Info, Ready, Start, Subscribe, Unsubscribe
from feeds.pipe import Splitter, pack
from feeds.records import EventCode, Kind
from ringbuf import ConnectionWriter, attach
from ringbuf.counters import Counter, TopicState, read_counters
from ringbuf.directory import connection_directory
from ringbuf.records import Records

NAME = "crypto"
ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = 78


@dataclass
class Venue:
    """The simulator as a process of its own, so that its loop is not the test's."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def venue(*options: object) -> Iterator[Venue]:
    # It ends with its standard input, so that it does not outlive a test run that is killed.
    arguments = [sys.executable, "-m", "feeds.simulator", "--until-eof", *map(str, options)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield Venue(json.loads(process.stdout.readline())["url"], process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def market() -> Iterator[str]:
    """The URL of a market of five symbols, for every test of this file that harms it in no way."""
    with venue("--symbols", 5, "--rate", 2000) as found:
        yield found.url


@dataclass
class Worker:
    """A provider process and the supervisor's end of its pipe."""

    process: subprocess.Popen[bytes]
    end: socket.socket
    log: Path
    said: list[FromProvider] = field(default_factory=list)
    splitter: Splitter[FromProvider] = field(default_factory=lambda: Splitter(FromProvider))

    def send(self, *messages: Start | Subscribe | Unsubscribe | Drain) -> None:
        self.end.sendall(b"".join(map(pack, messages)))

    def until(self, kind: type[FromProvider]) -> Any:  # noqa: ANN401 - of the kind asked for
        """Read messages until there is one of this kind."""
        while True:
            for i, message in enumerate(self.said):
                if isinstance(message, kind):
                    del self.said[i]
                    return message
            data = self.end.recv(65536)
            assert data, f"the process ended without {kind.__name__}: {self.log.read_text()}"
            self.said += self.splitter.feed(data)

    def ready(self, url: str, **parameters: str) -> Ready:
        self.send(start(url, **parameters))
        answer: Ready = self.until(Ready)
        return answer

    def ends(self) -> int:
        return self.process.wait(timeout=20)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def start(url: str | None = None, provider: str = "binance", letters: str = "", **parameters: str) -> Start:
    given = {"symbol": "btcusdt", "feed": "trade,quote", **parameters}
    return Start(NAME, provider, given if url is None else {**given, "url": url}, letters)


@contextmanager
def worker(directory: Path) -> Iterator[Worker]:
    """Start a process exactly as the supervisor does."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    log = directory / f"worker-{time.monotonic_ns()}.log"
    with ours, log.open("wb") as stderr, subprocess.Popen(
        [sys.executable, "-P", "-m", "feeds.worker", "--control-fd", str(theirs.fileno()), "--title", "provider"],
        pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        theirs.close()
        try:
            yield Worker(process, ours, log)
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def directories(runtime: Path) -> Path:
    return runtime


def counters() -> dict[Counter, int]:
    return read_counters(connection_directory(NAME)).values


def topics() -> dict[str, TopicState]:
    return {topic.native: topic.state for topic in read_counters(connection_directory(NAME)).topics}


def live(*natives: str) -> bool:
    found = topics()
    return all(found.get(native) is TopicState.LIVE for native in natives)


def records(kind: Kind) -> Records:
    with attach(NAME, kind) as ring:
        return ring.tail(2**17)


# ---- life -----------------------------------------------------------------------------------------------------------


def test_start_makes_it_ready_and_records_flow_and_drain_ends_it_with_all_published(
    market: str, tmp_path: Path
) -> None:
    with worker(tmp_path) as provider:
        ready = provider.ready(market)
        assert {(answer.symbol, answer.topic) for answer in ready.answers} == {
            ("BTCUSDT", "btcusdt@trade"), ("BTCUSDT", "btcusdt@bookTicker"),
        }  # fmt: skip
        assert {answer.state for answer in ready.answers} <= {"acknowledged", "live"}
        assert provider.until(Info) == Info("WebSocket connection established.")
        wait_until(lambda: live("btcusdt@trade", "btcusdt@bookTicker"), "both topics are live")
        assert counters()[Counter.PID] == provider.process.pid
        provider.send(Drain())
        assert provider.ends() == 0
        found = counters()
        assert found[Counter.FRAMES] == found[Counter.RECORDS] + found[Counter.CONTROL]
        assert found[Counter.RECORDS] == len(records(Kind.TRADE)) + len(records(Kind.QUOTE))
        assert found[Counter.CONNECTED_SINCE] == 0
        events = records(Kind.EVENT)
        assert (events["code"][-1], events["value"][-1]) == (EventCode.DISCONNECTED, 1000)
        with attach(NAME, Kind.TRADE) as ring:
            assert not ring.writer_alive


def test_drain_publishes_everything_that_was_received(captures: Path, tmp_path: Path) -> None:
    capture = captures / "binance/hftbacktest/examples_spot_btcusdt_20240808.gz"
    with venue("--capture", capture, "--speed", "full", "--start-after", 2) as replay, worker(tmp_path) as provider:
        provider.ready(replay.url)
        wait_until(lambda: counters()[Counter.FRAMES] >= 28_040 + 9_757, "all frames have arrived")
        provider.send(Drain())
        assert provider.ends() == 0
    assert len(records(Kind.QUOTE)) == 28_040
    assert len(records(Kind.TRADE)) == 9_757
    assert counters()[Counter.REJECTED] == counters()[Counter.GAPS] == 0


def test_subscribing_and_unsubscribing_are_answered_by_number_with_what_the_venue_said(tmp_path: Path) -> None:
    with venue("--symbols", 5, "--refuse-unknown") as strict, worker(tmp_path) as provider:
        provider.ready(strict.url, feed="trade")
        provider.send(Subscribe(11, "ethusdt"), Subscribe(12, "nosuch"), Subscribe(13, "b@d"), Subscribe(14, " , "))
        provider.send(Unsubscribe(15, "xrpusdt"))
        answers: dict[int, Answer] = {}
        while len(answers) < 5:
            answer: Answer = provider.until(Answer)
            answers[answer.id] = answer
        assert [topic.topic for topic in answers[11].answers] == ["ethusdt@trade"]
        (refused,) = answers[12].answers
        assert (refused.state, "unknown stream nosuch@trade" in refused.reason) == ("refused", True)
        for number, words in ((13, "'b@d' cannot be"), (14, "no symbol given"), (15, "is not subscribed to XRPUSDT")):
            problem = answers[number].problem
            assert problem is not None
            assert (problem.type, words in problem.message) == ("ParameterError", True)
        provider.send(Unsubscribe(16, "btcusdt"))
        gone: Answer = provider.until(Answer)
        assert [(topic.topic, topic.state) for topic in gone.answers] == [("btcusdt@trade", "removed")]
        assert topics()["btcusdt@trade"] is TopicState.REMOVED


def test_the_end_of_the_pipe_ends_it(market: str, tmp_path: Path) -> None:
    with worker(tmp_path) as provider:
        provider.ready(market)
        provider.end.close()
        assert provider.ends() == 0
    assert counters()[Counter.CONNECTED_SINCE] == 0


@pytest.mark.parametrize("when", ["before start", "ready", "connecting"])
def test_sigterm_ends_it_at_any_time(market: str, tmp_path: Path, when: str) -> None:
    with worker(tmp_path) as provider, socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        if when == "ready":
            provider.ready(market)
        elif when == "connecting":
            provider.send(start(f"ws://127.0.0.1:{mute.getsockname()[1]}/stream"))
            mute.settimeout(20)
            accepted, _ = mute.accept()
            with accepted:
                provider.process.send_signal(signal.SIGTERM)
                assert provider.ends() == 0
            return
        else:
            # The handler stands once the loop runs; that it does shows in the process's own signal mask.
            wait_until(lambda: _catches(provider.process.pid, signal.SIGTERM), "SIGTERM is handled")
        provider.process.send_signal(signal.SIGTERM)
        assert provider.ends() == 0


def _catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_a_venue_that_cannot_be_reached_is_told_each_time_and_waited_for(tmp_path: Path) -> None:
    with worker(tmp_path) as provider:
        provider.send(start("ws://127.0.0.1:1/stream"))
        failed: Failed = provider.until(Failed)
        assert (failed.permanent, failed.problem.type) == (False, "VenueUnreachable")
        assert "ws://127.0.0.1:1/stream cannot be reached" in failed.problem.message
        assert provider.until(Failed) == failed
        provider.send(Drain())
        assert provider.ends() == 0


def test_a_refusal_of_everything_is_told_before_it_is_ready(tmp_path: Path) -> None:
    with venue("--symbols", 2, "--refuse-unknown") as strict, worker(tmp_path) as provider:
        provider.send(start(strict.url, symbol="nosuch", feed="trade"))
        failed: Failed = provider.until(Failed)
        assert (failed.permanent, failed.problem.type) == (False, "SubscriptionRefused")
        assert "unknown stream nosuch@trade" in failed.problem.message
        assert [answer.state for answer in provider.until(Ready).answers] == ["refused"]


# ---- what cannot work -----------------------------------------------------------------------------------------------

TOO_MANY = ",".join(f"s{i}x" for i in range(1025))


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (start(provider="binanc"), "UnknownProvider", "there is no provider 'binanc'"),
        (start(feed="tick"), "ParameterError", "'tick' is no feed of binance"),
        (start(symbol="b@d"), "ParameterError", "'b@d' cannot be a Binance symbol"),
        (start(url="http://x"), "ParameterError", "url: "),
        (start("ws://127.0.0.1:1/", symbol=TOO_MANY, feed="trade"), "ParameterError", "1025 topics"),
        (Start("../up", "binance", {"symbol": "btcusdt"}), "ParameterError", "cannot name a connection"),
    ],
    ids=["provider", "feed", "symbol", "url", "topics", "name"],
)  # fmt: skip
def test_a_configuration_that_cannot_work_is_one_clear_error_and_exit_code_78(
    given: Start, kind: str, words: str, tmp_path: Path
) -> None:
    with worker(tmp_path) as provider:
        provider.send(given)
        while not (failed := provider.until(Failed)).permanent:
            pass  # it tries to connect meanwhile
        assert failed.problem.type == kind
        assert words in failed.problem.message
        assert provider.ends() == CONFIGURATION
        assert words in provider.lines()[-1]["error"]


def test_wrong_parameters_leave_no_directory_behind(tmp_path: Path, runtime: Path) -> None:
    with worker(tmp_path) as provider:
        provider.send(start(feed="tick"))
        assert provider.ends() == CONFIGURATION
    assert list(runtime.rglob(NAME)) == []


def test_a_first_message_that_is_no_start_is_a_fault_of_configuration(tmp_path: Path) -> None:
    with worker(tmp_path) as provider:
        provider.send(Drain())
        assert provider.ends() == CONFIGURATION
    with worker(tmp_path) as provider:
        provider.end.close()
        assert provider.ends() == 0


def test_no_room_in_shared_memory_is_told_before_the_first_record(market: str, tmp_path: Path) -> None:
    """A file system of 8 MiB, mounted in a namespace of the process's own, where that is allowed."""
    mount = tmp_path / "small"
    mount.mkdir()
    script = f'mount -t tmpfs -o size=8m,mode=700 none {mount} && exec "$@"'
    probe = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", "true"], capture_output=True, timeout=20, check=False
    )
    if probe.returncode:
        pytest.skip("no mount namespaces here")
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    log = tmp_path / "log"
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-P", "-m", "feeds.worker"]
    with ours, log.open("wb") as stderr, subprocess.Popen(
        [*command, "--control-fd", str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=stderr,
        env={**os.environ, "TICKRING_RUNTIME_DIR": str(mount), "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        theirs.close()
        try:
            provider = Worker(process, ours, log)
            provider.send(start(market))
            failed: Failed = provider.until(Failed)
            assert (failed.permanent, failed.problem.type) == (True, "SharedMemoryFull")
            assert "--shm-size" in failed.problem.message
            assert provider.said == []  # it has not even connected
            assert provider.ends() == CONFIGURATION
        finally:
            process.kill()


def test_a_second_worker_for_one_name_waits_a_while_and_then_says_who_is_there(market: str, tmp_path: Path) -> None:
    with worker(tmp_path) as first, worker(tmp_path) as second:
        first.ready(market)
        second.send(start(market))
        failed: Failed = second.until(Failed)
        assert (failed.permanent, failed.problem.type) == (True, "WriterActive")
        assert f"another process writes {NAME}" in failed.problem.message
        assert second.ends() == CONFIGURATION
        before = counters()[Counter.RECORDS]
        wait_until(lambda: counters()[Counter.RECORDS] > before, "the first one goes on")


def test_a_successor_waits_for_a_predecessor_that_is_leaving(market: str, tmp_path: Path) -> None:
    """As after the supervisor's death: the old child sees the end of its pipe, the new one is started at once."""
    with worker(tmp_path) as successor:
        with ConnectionWriter(NAME):
            successor.send(start(market))
            wait_until(lambda: "waiting for a predecessor" in successor.log.read_text(), "the successor has tried")
        successor.until(Ready)


# ---- death and succession -------------------------------------------------------------------------------------------


def test_a_killed_worker_is_continued_by_the_next_in_the_same_rings(market: str, tmp_path: Path) -> None:
    with worker(tmp_path) as first:
        first.ready(market)
        wait_until(lambda: live("btcusdt@trade", "btcusdt@bookTicker"), "both topics are live")
        with attach(NAME, Kind.TRADE) as reader:
            ring_id, epoch = reader.ring_id, reader.epoch
            first.process.kill()
            first.process.wait()
            wait_until(lambda: not reader.writer_alive, "the death is seen")
            reader.read()
            tail = reader.published
            with worker(tmp_path) as second:
                second.ready(market, symbol="btcusdt,ethusdt", feed="trade")
                got = wait_until(reader.read, "the reader goes on where it stood")
                assert (reader.ring_id, reader.epoch) == (ring_id, epoch + 1)
                assert int(got["seq"][0]) == tail
                assert got.gaps == ()
                # What the first one wanted and the second does not is not live any more.
                wait_until(lambda: live("btcusdt@trade", "ethusdt@trade"), "the second one's topics are live")
                assert topics()["btcusdt@bookTicker"] is TopicState.REMOVED
    events = records(Kind.EVENT)
    replaced = events.array[events["code"] == EventCode.WRITER_REPLACED]
    assert sorted(replaced["at_kind"].tolist()) == [1, 2]
    assert int(replaced["at_seq"][replaced["at_kind"] == 1][0]) == tail
    assert (events["code"] == EventCode.CONNECTED).sum() == 2


# ---- hygiene --------------------------------------------------------------------------------------------------------


def test_its_log_is_json_lines_without_anything_secret(market: str, tmp_path: Path) -> None:
    with worker(tmp_path) as provider:
        provider.send(start("ws://127.0.0.1:1/stream?token=GEHEIM"))
        failed: Failed = provider.until(Failed)
        assert "GEHEIM" not in failed.problem.message
        provider.until(Failed)
        provider.send(Drain())
        assert provider.ends() == 0
        lines = provider.lines()
    assert lines
    for line in lines:
        assert (line["process"], line["connection"]) == ("provider", NAME)
        assert {"timestamp", "level", "event"} <= line.keys()
        assert "GEHEIM" not in json.dumps(line)


def test_it_has_inherited_nothing_but_its_streams_and_the_pipe(market: str, tmp_path: Path) -> None:
    with (tmp_path / "ours").open("wb") as ours:
        os.set_inheritable(ours.fileno(), False)
        with worker(tmp_path) as provider:
            provider.ready(market)
            process = psutil.Process(provider.process.pid)
            opened = {Path(file.path) for file in process.open_files()}
            directory = connection_directory(NAME)
            assert {path for path in opened if not path.is_relative_to(directory)} <= {provider.log}
            # The pipe, and the pair through which uvloop learns of signals.
            assert len(process.net_connections("unix")) == 3
            arguments = " ".join(process.cmdline())
            assert market not in arguments
            assert "btcusdt" not in arguments
            assert process.children() == []


def test_frames_that_do_not_decode_are_kept_where_it_is_told(captures: Path, tmp_path: Path) -> None:
    capture = tmp_path / "broken.txt"
    good = '{"stream":"btcusdt@trade","data":{"E":1,"s":"BTCUSDT","t":%d,"p":"1","q":"1","T":1,"m":true}}'
    bad = '{"stream":"btcusdt@trade","data":{"E":1,"s":"BTCUSDT","t":%d,"p":"-1","q":"1","T":1,"m":true}}'
    lines = [f"172316125408789{i:04d} {(bad if i % 10 == 5 else good) % i}" for i in range(1, 100)]
    capture.write_text("\n".join(lines) + "\n")
    letters = tmp_path / "letters.jsonl"
    with venue("--capture", capture, "--speed", "full") as replay, worker(tmp_path) as provider:
        provider.send(start(replay.url, letters=str(letters), feed="trade"))
        provider.until(Ready)
        wait_until(lambda: counters()[Counter.REJECTED] == 10, "the broken frames are counted")
        wait_until(lambda: counters()[Counter.MISSED] == 10, "their ids are missing")
        provider.send(Drain())
        assert provider.ends() == 0
    assert counters()[Counter.RECORDS] == 89
    kept = [json.loads(line) for line in letters.read_text().splitlines()]
    assert [json.loads(letter["frame"])["data"]["t"] for letter in kept] == list(range(5, 100, 10))
