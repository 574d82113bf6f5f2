"""The main job on real input: captured frames through a venue's socket to a reader, a snapshot and a listener.

Every process is a real one: the simulated venue, the supervisor, the provider, the recorder, the broadcaster, and the
reader. What each of them gives is compared with an independent decode of the capture, field by field.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import websockets.sync.client
from waiting import wait_until

import tickring
from ringbuf.counters import Counter, read_counters
from ringbuf.directory import connection_directory
from supervisor.api import close_session

CAPTURE = "binance/hftbacktest/examples_spot_btcusdt_20240808.gz"
QUOTES, TRADES = 28_040, 9_757
READER = Path(__file__).parent / "processes" / "attached_reader.py"

Row = dict[str, Any]
Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def decoded(captures: Path) -> dict[str, list[Row]]:
    """The capture decoded by nothing of ours: the standard library's JSON and float."""
    rows: dict[str, list[Row]] = {"trade": [], "quote": []}
    with gzip.open(captures / CAPTURE, "rt") as lines:
        for line in lines:
            frame = json.loads(line.split(" ", 1)[1])
            data = frame.get("data", {})
            if frame.get("stream") == "btcusdt@trade":
                rows["trade"].append(
                    {"last_price": float(data["p"]), "last_size": float(data["q"]), "trade_id": data["t"],
                     "side": -1 if data["m"] else 1, "date": data["T"] * 10**6, "published": data["E"] * 10**6,
                     "symbol": data["s"], "exchange": "binance", "flags": 0}
                )  # fmt: skip
            elif frame.get("stream") == "btcusdt@bookTicker":
                rows["quote"].append(
                    {"bid_price": float(data["b"]), "bid_size": float(data["B"]), "ask_price": float(data["a"]),
                     "ask_size": float(data["A"]), "sequence": data["u"], "symbol": data["s"],
                     "exchange": "binance", "flags": 1}
                )  # fmt: skip
    assert (len(rows["trade"]), len(rows["quote"])) == (TRADES, QUOTES)
    return rows


@contextmanager
def venue(*arguments: str) -> Iterator[str]:
    """A simulated venue as a process of its own; gives its URL."""
    command = [sys.executable, "-P", "-m", "feeds.simulator", "--port", "0", "--until-eof", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


@contextmanager
def session() -> Iterator[None]:
    """Whatever supervisor the calls inside start ends here, and is waited for."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    try:
        yield
    finally:
        started = set(me.children(recursive=True)) - before
        close_session()
        _, alive = psutil.wait_procs(started, timeout=20)
        assert not alive


def received(connection: str) -> int:
    """Records that the provider has published."""
    return read_counters(connection_directory(connection)).values[Counter.RECORDS]


def read_in_another_process(connection: str, kind: str, until: int, output: Path, pause: float = 0.0) -> Arrays:
    """Run the attached reader and give what it wrote."""
    subprocess.run(
        [sys.executable, str(READER), connection, kind, str(until), str(output), str(pause)], check=True, timeout=55
    )
    with np.load(output) as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_columns_equal(records: np.ndarray[Any, Any], rows: list[Row], symbols: list[str]) -> None:
    """Hold every field of every record against the independent decode."""
    assert records["seq"].tolist() == list(range(len(rows)))
    assert symbols == [row["symbol"] for row in rows]
    for name in rows[0]:
        if name not in ("symbol", "exchange"):
            column = records[name].view("<i8") if records[name].dtype.kind == "M" else records[name]
            assert column.tolist() == [row[name] for row in rows], name


def assert_objects_equal(objects: list[Row], decoded: dict[str, list[Row]]) -> None:
    """Hold JSON objects against the independent decode: every record once, each kind in order, every field."""
    for kind, rows in decoded.items():
        own = [found for found in objects if found["type"] == kind]
        assert [found["seq"] for found in own] == list(range(len(rows)))
        for found, row in zip(own, rows, strict=True):
            expected = {name: value for name, value in row.items() if name != "flags" or value}
            if "date" in row:
                expected["date"], expected["published"] = when(row["date"]), when(row["published"])
            else:
                expected["date"] = found["received"]  # the venue gives none, and the flag says so
            assert {name: found[name] for name in expected} == expected
            assert set(found) == {*expected, "type", "received", "seq"}


def when(ns: int) -> str:
    """RFC 3339 by the standard library; the capture's times are whole milliseconds."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % 10**9 // 1000:06d}+00:00"


@pytest.mark.usefixtures("runtime")
def test_every_captured_frame_reaches_a_reader_a_snapshot_and_a_listener_with_every_field_equal(
    captures: Path, tmp_path: Path, decoded: dict[str, list[Row]]
) -> None:
    with venue("--capture", str(captures / CAPTURE), "--speed", "100", "--start-after", "4") as url, session():
        status = tickring.create_connection(
            "binance", "real", symbol="btcusdt", feed="trade,quote", url=url, start_broadcast=True, broadcast_port=0,
            results_file=str(tmp_path / "results.db"), limit=None,
        ).results.status  # fmt: skip
        assert status.broadcast_address is not None
        heard: list[Row] = []
        with websockets.sync.client.connect(status.broadcast_address, max_queue=None, close_timeout=1) as listener:
            hearing = threading.Thread(target=lambda: heard.extend(json.loads(frame) for frame in listener))
            hearing.start()
            # The replay begins with the fourth stream that is subscribed to: when everyone is there.
            answers = tickring.subscribe("real", "ethusdt").results.answers
            assert answers is not None
            assert [(answer.topic, answer.state) for answer in answers] == [
                ("ethusdt@trade", "acknowledged"),
                ("ethusdt@bookTicker", "acknowledged"),
            ]
            wait_until(lambda: received("real") == TRADES + QUOTES, "all records are published", 40.0)
            wait_until(lambda: len(heard) == TRADES + QUOTES, "the listener has heard all", 20.0)
        hearing.join()
        for kind, count in (("trade", TRADES), ("quote", QUOTES)):
            output = read_in_another_process("real", kind, count, tmp_path / f"{kind}.npz")
            assert output["account"].tolist() == [0, count, 0, count]
            assert_columns_equal(output["records"], decoded[kind], output["symbols"].tolist())
        assert_objects_equal(heard, decoded)
        assert_objects_equal(tickring.get_results("real").results, decoded)
        values = read_counters(connection_directory("real")).values
        assert (values[Counter.REJECTED], values[Counter.GAPS], values[Counter.MISSED]) == (0, 0, 0)


@pytest.mark.stress
@pytest.mark.usefixtures("runtime")
def test_twenty_laps_of_the_ring_at_full_speed_are_accounted_for_by_a_reader_that_is_too_slow(
    captures: Path, tmp_path: Path
) -> None:
    """The capture is repeated until its quotes have gone round their ring of 2**17 slots twenty times."""
    laps = 20
    loops = laps * 2**17 // QUOTES + 1
    published = loops * QUOTES
    arguments = ("--capture", str(captures / CAPTURE), "--speed", "full", "--loop", str(loops), "--start-after", "2")
    with venue(*arguments) as url, session():
        tickring.create_connection("binance", "fast", symbol="btcusdt", feed="trade,quote", url=url, limit=10)
        output = read_in_another_process("fast", "quote", published, tmp_path / "slow.npz", pause=0.15)
        start, got, lost, cursor = output["account"].tolist()
        assert cursor == published
        assert start + got + lost == published
        assert lost > 0
        values = read_counters(connection_directory("fast")).values
        assert values[Counter.RECORDS] == loops * (QUOTES + TRADES)
        assert values[Counter.REJECTED] == 0
