"""The simulator's process: one line when it listens, a clean end, clear errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from feeds.simulator.__main__ import options_of
from feeds.simulator.command import SimulatorOptions
from ringbuf.errors import ParameterError

ROOT = Path(__file__).parents[1]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "feeds.simulator", "--symbols", "2", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def listening(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stdout is not None
    line: dict[str, object] = json.loads(process.stdout.readline())
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_serves_and_ends_on_a_signal(number: signal.Signals) -> None:
    with start() as process:
        line = listening(process)
        assert line["url"] == f"ws://127.0.0.1:{line['port']}/stream"
        assert (line["venue"], line["pid"], line["streams"]) == ("binance", process.pid, 6)
        with connect(f"{line['url']}?streams=btcusdt@trade", compression=None, proxy=None) as websocket:
            assert '"stream":"btcusdt@trade"' in str(websocket.recv(timeout=20))
            process.send_signal(number)
            assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_it_ends_with_its_standard_input_if_asked() -> None:
    with start("--until-eof") as process:
        listening(process)
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--capture", "/nothing/here.gz"), 1, b"there is no capture /nothing/here.gz"),
        (("--speed", "fast"), 2, b"give a factor above 0"),
        (("--symbols", "0"), 2, b"symbols, not 0"),
        (("--rate", "0"), 2, b"events a second above 0"),
        (("--loop", "0"), 2, b"--loop is a number above 0"),
        (("--venue", "nowhere"), 2, b"invalid choice: 'nowhere'"),
    ],
)
def test_wrong_options_end_with_one_clear_line(arguments: tuple[str, ...], code: int, words: bytes) -> None:
    with start(*arguments) as process:
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (code, b"")
    assert words in stderr
    assert b"Traceback" not in stderr


def test_a_port_in_use_is_told() -> None:
    with start("--until-eof") as first:
        port = listening(first)["port"]
        with start("--port", str(port)) as second:
            _, stderr = second.communicate(timeout=20)
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}".encode() in stderr
        first.communicate(timeout=20)
    assert first.returncode == 0


def test_options_are_read_from_the_command_line() -> None:
    assert options_of([]) == SimulatorOptions()
    given = options_of(
        ["--capture", "x.gz", "--speed", "full", "--loop", "forever", "--refuse-unknown", "--port", "6001"]
    )
    assert given == SimulatorOptions(capture=Path("x.gz"), speed=None, loop=None, refuse_unknown=True, port=6001)
    with pytest.raises(ParameterError):
        options_of(["--speed", "-3"])
