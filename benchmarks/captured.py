"""Real frames of a captured session, in memory."""

from __future__ import annotations

from pathlib import Path

from feeds.capture import Direction, read_capture
from feeds.records import Kind
from ringbuf.errors import CaptureError

#: The busiest capture there is: Binance spot, 28,040 best bid/ask and 9,757 trade frames of ten minutes.
CAPTURE = Path("binance") / "hftbacktest" / "examples_spot_btcusdt_20240808.gz"

#: How the frames of a kind begin.
_BEGINNINGS = {
    Kind.QUOTE: b'{"stream":"btcusdt@bookTicker"',
    Kind.TRADE: b'{"stream":"btcusdt@trade"',
}


def capture_path(captures: Path) -> Path:
    """Give the capture's path.

    Raises:
        CaptureError: it is not there.
    """
    path = captures / CAPTURE
    if not path.is_file():
        raise CaptureError(f"{path} is missing: name the folder of captures with --captures.")
    return path


def captured_frames(captures: Path) -> dict[Kind, list[bytes]]:
    """Give the frames of each kind, oldest first. Raises CaptureError."""
    frames: dict[Kind, list[bytes]] = {kind: [] for kind in _BEGINNINGS}
    for frame in read_capture(capture_path(captures)):
        for kind, beginning in _BEGINNINGS.items():
            if frame.direction is Direction.RECEIVED and frame.payload.startswith(beginning):
                frames[kind].append(frame.payload)
    return frames
