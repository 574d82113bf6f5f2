"""The capture reader, on every capture there is and on damaged ones made here."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from feeds.capture import CapturedFrame, CaptureFormat, Direction, detect, read_capture
from ringbuf.errors import CaptureError

HFTBACKTEST = "binance/hftbacktest/examples_spot_btcusdt_20240808.gz"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "capture"


def test_the_binance_capture_gives_every_frame_with_exact_times_and_bytes(captures: Path) -> None:
    frames = list(read_capture(captures / HFTBACKTEST))
    streams = Counter(orjson.loads(frame.payload).get("stream", "snapshot") for frame in frames)
    assert streams == {
        "btcusdt@bookTicker": 28_040,
        "btcusdt@trade": 9_757,
        "btcusdt@depth@100ms": 3_451,
        "snapshot": 1,
    }
    assert len(frames) == 41_249
    assert {frame.direction for frame in frames} == {Direction.RECEIVED}
    assert frames[2] == CapturedFrame(
        1723161254087891268,
        Direction.RECEIVED,
        b'{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000",'
        b'"a":"61837.64000000","A":"1.54698000"}}',
    )
    assert frames[-1] == CapturedFrame(
        1723161599999231384,
        Direction.RECEIVED,
        b'{"stream":"btcusdt@bookTicker","data":{"u":50093421612,"s":"BTCUSDT","b":"61685.99000000","B":"1.25869000",'
        b'"a":"61686.00000000","A":"2.44807000"}}',
    )
    assert frames[0].received_ns == 1723161253937085768


def test_the_binance_capture_is_what_the_file_holds_byte_for_byte(captures: Path) -> None:
    with gzip.open(captures / HFTBACKTEST) as text:
        lines = text.read().splitlines()
    again = [b"%d %s" % (frame.received_ns or 0, frame.payload) for frame in read_capture(captures / HFTBACKTEST)]
    assert again == lines


@pytest.mark.parametrize(
    ("name", "sent", "received"),
    [
        ("coinbase/cryptofeed/COINBASE.ws.28.0", 3, 9_946),
        ("kraken/cryptofeed/KRAKEN.ws.48.0", 1, 49),
        ("kucoin/cryptofeed/KUCOIN.ws.1.0", 13, 4_721),
        ("okx/cryptofeed/OKX.ws.1.0", 3, 410),
    ],
)
def test_a_cryptofeed_log_gives_both_directions(captures: Path, name: str, sent: int, received: int) -> None:
    frames = list(read_capture(captures / name))
    assert Counter(frame.direction for frame in frames) == {Direction.SENT: sent, Direction.RECEIVED: received}
    assert all(frame.connection.startswith("wss://") for frame in frames)
    times = [frame.received_ns for frame in frames]
    assert None not in times


def test_a_fraction_of_a_second_becomes_nanoseconds_exactly(file: Path) -> None:
    file.write_bytes(
        b"wss://venue.example <-> 1652459224.5300605\n"
        b"wss://venue.example <- 1652459225.2987883: hello\n"
        b"1652459225.503749: a\n1652459226: b\n1652459226.1234567899: c\n1700000000.000000001: d\n"
    )
    assert list(read_capture(file)) == [
        CapturedFrame(1652459225298788300, Direction.SENT, b"hello", "wss://venue.example"),
        CapturedFrame(1652459225503749000, Direction.RECEIVED, b"a", "wss://venue.example"),
        CapturedFrame(1652459226000000000, Direction.RECEIVED, b"b", "wss://venue.example"),
        CapturedFrame(1652459226123456789, Direction.RECEIVED, b"c", "wss://venue.example"),
        CapturedFrame(1700000000000000001, Direction.RECEIVED, b"d", "wss://venue.example"),
    ]


def test_triads_give_request_answer_and_data_with_their_connections(captures: Path) -> None:
    frames = list(read_capture(captures / "binance/jkorf/Spot__ExchangeData__Concurrent.txt"))
    assert [(frame.direction, frame.connection, frame.received_ns) for frame in frames] == [
        (Direction.SENT, "1", None),
        (Direction.SENT, "2", None),
        (Direction.RECEIVED, "1", None),
        (Direction.RECEIVED, "2", None),
        (Direction.RECEIVED, "1", None),
        (Direction.RECEIVED, "2", None),
    ]
    assert frames[2].payload == b'{ "result": null, "id": |id| }'


def test_data_of_a_triad_goes_on_over_lines(captures: Path) -> None:
    request, answer, data = read_capture(captures / "binance/jkorf/Spot__ExchangeData__BookTicker.txt")
    assert (request.direction, answer.direction, data.direction) == (
        Direction.SENT,
        Direction.RECEIVED,
        Direction.RECEIVED,
    )
    assert orjson.loads(data.payload)["data"]["u"] == 400900217


def test_every_file_of_the_captures_is_read_or_refused_with_a_clear_error(captures: Path) -> None:
    formats: Counter[str] = Counter()
    refused = []
    for path in sorted(path for path in captures.rglob("*") if path.is_file()):
        try:
            frames = list(read_capture(path))
        except CaptureError as error:
            refused.append((path.name, str(path) in str(error)))
            continue
        assert frames
        assert all(frame.payload for frame in frames)
        formats[detect(path)] += 1
    assert refused == [("MANIFEST.tsv", True), ("README.md", True), ("websocket.json", True)]
    assert formats == {
        CaptureFormat.HFTBACKTEST: 1,
        CaptureFormat.CRYPTOFEED: 5,
        CaptureFormat.EXCHANGE: 111,
        CaptureFormat.LINES: 50,
    }


def test_gzip_is_told_by_content_and_not_by_name(file: Path) -> None:
    text = b'1723161254087891268 {"a":1}\n\n1723161254087891269 {"a":2}'
    file.write_bytes(gzip.compress(text))
    packed = list(read_capture(file))
    file.write_bytes(text)
    assert packed == list(read_capture(file))
    assert [frame.received_ns for frame in packed] == [1723161254087891268, 1723161254087891269]


def test_frames_before_the_damage_are_given(file: Path) -> None:
    file.write_bytes(b'1723161254087891268 {"a":1}\n1723161254087891269 {"a":\n')
    frames: Iterator[CapturedFrame] = read_capture(file)
    assert next(frames).payload == b'{"a":1}'
    with pytest.raises(CaptureError, match=r"line 2: the message is cut off"):
        next(frames)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n\n", "is empty"),
        (b"hello\n", "no known capture format"),
        (bytes(range(256)), "no known capture format"),
        (b'{\n "a": 1\n}\n', "no known capture format"),
        (b'{"a":1}\n{"a":\n', "line 2: expected one JSON message"),
        (b'1723161254087891268 {"a":1}\nnonsense\n', "line 2: expected '<epoch ns> <frame>'"),
        (b'1723161254.5: {"a":1}\nnonsense\n', "line 2: expected '<time>: <frame>'"),
        (b'1723161254.5: {"a":1\n', "line 1: the message is cut off"),
        (gzip.compress(b'1723161254087891268 {"a":1}\n' * 9)[:-12], "gzip data is cut off or damaged"),
        (b"\x1f\x8bnot gzip at all", "gzip data is cut off or damaged"),
        (gzip.compress(b""), "is empty"),
        (b"1723161254087891268 {" + b" " * (16 * 1024 * 1024) + b"}\n", "longer than 16 MiB"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name_and_what_to_do(file: Path, content: bytes, reason: str) -> None:
    file.write_bytes(content)
    with pytest.raises(CaptureError, match=reason) as refusal:
        list(read_capture(file))
    assert str(file) in str(refusal.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="there is no capture"):
        list(read_capture(tmp_path / "nothing"))
    with pytest.raises(CaptureError, match="cannot be read"):
        list(read_capture(tmp_path))
