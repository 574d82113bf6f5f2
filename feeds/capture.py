"""Read captures: websocket frames that someone wrote down, in whatever form, as one typed stream.

A capture is what every provider is tested on, what the simulator replays, and what a user sends with a report. Four
forms are read; the first line that is not blank decides which (`detect`), plain or gzip (told by its magic number)::

    hftbacktest   1723161254087891268 {"stream":"btcusdt@bookTicker","data":{...}}      <epoch ns> <frame>
    cryptofeed    wss://ws.kraken.com <-> 1618678132.368463                             connected
                  wss://ws.kraken.com <- 1618678132.83097: {"event":"subscribe"...      we sent
                  1618678132.831468: {"connectionID":18239578009413566319,...           we received
    exchange      > {"method":"SUBSCRIBE",...   request, with a number after the mark where several run at once
    (jkorf)       < {"result":null,"id":|1|}    acknowledgement; |1| and |*| stand for the client's own id
                  = {"stream":...               data; goes on over the following lines, up to the next mark
    lines         {"ev":"status",...}           one JSON message a line, no times (tardis, vendors, documentation)

Frames are given as they stand in the file, bytes untouched; of an exchange's multi-line data only the white space
around it is taken off. Times are integers: the decimal text of a time is shifted, never made a float, so that
``1652459224.5300605`` is 1652459224530060500 ns. A digit beyond the nanosecond is cut.

Failure: a file that is missing, unreadable, empty, of no known form, cut off or damaged raises `CaptureError` with the
file, the line and what to do. Reading streams, so the frames before the damage have been given by then.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from ringbuf.errors import CaptureError

#: No venue sends larger messages (full books are about 1 MiB; picows refuses frames above 10 MiB).
_LONGEST_LINE: Final = 16 * 1024 * 1024

_GZIP_MAGIC: Final = b"\x1f\x8b"
_NANOSECOND_LINE: Final = re.compile(rb"(\d{16,19}) (.+)", re.DOTALL)
_CONNECTED_LINE: Final = re.compile(rb"(wss?://\S+) <-> (\d+(?:\.\d+)?)$")
_SENT_LINE: Final = re.compile(rb"(wss?://\S+) <- (\d+(?:\.\d+)?): (.*)", re.DOTALL)
_RECEIVED_LINE: Final = re.compile(rb"(\d+(?:\.\d+)?): (.*)", re.DOTALL)
_MARKED_LINE: Final = re.compile(rb"([<>=])(\d*)(?:[ \t]+(.*)|)$", re.DOTALL)


class Direction(Enum):
    """Which way a frame went, seen from the client that captured it."""

    SENT = "sent"
    RECEIVED = "received"


class CaptureFormat(StrEnum):
    """The forms of capture that can be read."""

    HFTBACKTEST = "hftbacktest"
    CRYPTOFEED = "cryptofeed"
    EXCHANGE = "exchange"
    LINES = "lines"


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """One websocket message of a capture.

    Attributes:
        received_ns: When the client's clock saw it, ns since 1970 UTC; None where the capture has no times.
        direction: Sent or received by the client.
        payload: The message, byte for byte.
        connection: The URL or the number that the capture gives the connection; empty where it gives none.
    """

    received_ns: int | None
    direction: Direction
    payload: bytes
    connection: str = ""


def read_capture(path: str | Path) -> Iterator[CapturedFrame]:
    """Give the frames of a capture, in the order of the file.

    Memory is bounded by the longest message (16 MiB), whatever the file's size.

    Args:
        path: A file of one of the formats above, plain or gzip.

    Yields:
        The frames, both directions.

    Raises:
        CaptureError: No such file, not readable, empty, of no known format, cut off or damaged.
    """
    path = Path(path)
    with _opened(path) as lines:
        yield from _PARSERS[_detect_line(lines)](lines)


def detect(path: str | Path) -> CaptureFormat:
    """Say which format a file has, from its first line that is not blank.

    Raises:
        CaptureError: As `read_capture`, less what only the following lines can show.
    """
    with _opened(Path(path)) as lines:
        return _detect_line(lines)


class _Lines:
    """The lines of a file without their ends, counted, blank ones left out; can give one line back."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.number = 0
        self._stream = stream
        self._returned: bytes | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._returned is not None:
            line, self._returned = self._returned, None
            return line
        while line := self._stream.readline(_LONGEST_LINE + 1):
            self.number += 1
            if len(line) > _LONGEST_LINE:
                raise self.damaged("is longer than 16 MiB: this is no text capture of websocket messages")
            if line := line.rstrip(b"\r\n"):
                return line
        raise StopIteration

    def give_back(self, line: bytes) -> None:
        self._returned = line

    def damaged(self, what: str) -> CaptureError:
        return CaptureError(f"{self.path}, line {self.number}: {what}")


@contextmanager
def _opened(path: Path) -> Iterator[_Lines]:
    """Open plain or gzip; whatever goes wrong with the file meanwhile becomes a `CaptureError`."""
    lines: _Lines | None = None
    try:
        with path.open("rb") as raw:
            buffered = io.BufferedReader(raw)
            packed = buffered.peek(2)[:2] == _GZIP_MAGIC
            with gzip.GzipFile(fileobj=buffered) if packed else buffered as stream:
                lines = _Lines(path, stream)  # type: ignore[arg-type]  # GzipFile and BufferedReader share no type
                yield lines
    except FileNotFoundError as error:
        raise CaptureError(f"there is no capture {path}: check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        number = lines.number if lines else 0
        raise CaptureError(
            f"{path}, after line {number}: the gzip data is cut off or damaged ({error}): fetch the file again"
        ) from error
    except OSError as error:
        raise CaptureError(f"the capture {path} cannot be read: {error.strerror or error}") from error


def _detect_line(lines: _Lines) -> CaptureFormat:
    first = next(lines, None)
    if first is None:
        raise CaptureError(f"{lines.path} is empty: it holds no frame")
    lines.give_back(first)
    if _NANOSECOND_LINE.match(first):
        return CaptureFormat.HFTBACKTEST
    if _CONNECTED_LINE.match(first) or _SENT_LINE.match(first) or _RECEIVED_LINE.match(first):
        return CaptureFormat.CRYPTOFEED
    if _MARKED_LINE.match(first):
        return CaptureFormat.EXCHANGE
    if _is_json(first):
        return CaptureFormat.LINES
    raise CaptureError(
        f"{lines.path} is of no known capture format (line {lines.number} begins {first[:40]!r}): give a file of "
        "'<epoch ns> <frame>' lines, a cryptofeed .ws log, '>' '<' '=' triads, or one JSON message a line"
    )


def _read_hftbacktest(lines: _Lines) -> Iterator[CapturedFrame]:
    for line in lines:
        match = _NANOSECOND_LINE.match(line)
        if match is None:
            raise lines.damaged(f"expected '<epoch ns> <frame>', found {line[:40]!r}: mend or remove the line")
        yield CapturedFrame(int(match[1]), Direction.RECEIVED, _whole(lines, match[2]))


def _read_cryptofeed(lines: _Lines) -> Iterator[CapturedFrame]:
    connection = ""
    for line in lines:
        if match := _RECEIVED_LINE.match(line):
            yield CapturedFrame(_nanoseconds(match[1]), Direction.RECEIVED, _whole(lines, match[2]), connection)
        elif match := _SENT_LINE.match(line):
            connection = match[1].decode("latin-1")
            yield CapturedFrame(_nanoseconds(match[2]), Direction.SENT, _whole(lines, match[3]), connection)
        elif match := _CONNECTED_LINE.match(line):
            connection = match[1].decode("latin-1")
        else:
            raise lines.damaged(f"expected '<time>: <frame>', found {line[:40]!r}: mend or remove the line")


def _read_exchange(lines: _Lines) -> Iterator[CapturedFrame]:
    direction, connection, parts = Direction.RECEIVED, "", list[bytes]()
    for line in lines:
        match = _MARKED_LINE.match(line)
        if match is None:
            parts.append(line)
            continue
        yield from _joined(direction, connection, parts)
        direction = Direction.SENT if match[1] == b">" else Direction.RECEIVED
        connection, parts = match[2].decode("ascii"), [match[3] or b""]
    yield from _joined(direction, connection, parts)


def _joined(direction: Direction, connection: str, parts: list[bytes]) -> Iterator[CapturedFrame]:
    if payload := b"\n".join(parts).strip():
        yield CapturedFrame(None, direction, payload, connection)


def _read_lines(lines: _Lines) -> Iterator[CapturedFrame]:
    for line in lines:
        if not _is_json(line):
            raise lines.damaged(f"expected one JSON message, found {line[:40]!r}: mend or remove the line")
        yield CapturedFrame(None, Direction.RECEIVED, line)


_PARSERS: Final[dict[CaptureFormat, Callable[[_Lines], Iterator[CapturedFrame]]]] = {
    CaptureFormat.HFTBACKTEST: _read_hftbacktest,
    CaptureFormat.CRYPTOFEED: _read_cryptofeed,
    CaptureFormat.EXCHANGE: _read_exchange,
    CaptureFormat.LINES: _read_lines,
}


def _whole(lines: _Lines, payload: bytes) -> bytes:
    """Refuse a JSON message that lost its end: a capture that was cut off must not pass as a shorter one.

    Only the outer brackets are compared: a parse would cost more than all the rest, and a frame that is damaged
    inside is for the decoder to refuse and count, as it would on the wire.
    """
    closing = {b"{": b"}", b"[": b"]"}.get(payload[:1])
    if closing is not None and payload[-1:] != closing:
        raise lines.damaged(f"the message is cut off, it ends {payload[-24:]!r}: mend or remove the line")
    return payload


def _is_json(line: bytes) -> bool:
    if line[:1] not in (b"{", b"["):
        return False
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _nanoseconds(seconds: bytes) -> int:
    """Shift the decimal text of epoch seconds by nine digits: exact, where a float has 53 bits for 61."""
    whole, _, fraction = seconds.partition(b".")
    return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
