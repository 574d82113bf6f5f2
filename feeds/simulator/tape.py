r"""Frames ready to be sent: one lap of websocket frames, end to end in memory, of which any stretch is one write.

Every frame is built once, with its header; servers do not mask. A stretch of frames is then a slice, 64 KiB of it a
single system call, and a frame costs the sender a few nanoseconds. A client that subscribed to some of the streams gets
a tape of those frames only (`select`)::

    frame       0               1        2                 ...
    blob        |81 7e 00 a2 {…}|81 7e …|81 7e …           |
    offsets     0               166      270   ...
    index       which frame of the whole lap it is: two tapes of one lap are compared by it
    numbers     where digits stand that rise from lap to lap:  value = first + lap * growth, twelve digits
    times       where the thirteen digits of the sending time in ms stand

A payload of a `marked` tape marks those places with runs of NUMBER and TIME, control characters that JSON text cannot
hold. `render` copies the stretch and writes the digits, vectorised; a tape without marks (a capture) is sent as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ringbuf.errors import ParameterError

#: Twelve digits: a number that rises from lap to lap.
NUMBER: Final = b"\x02" * 12
#: Thirteen digits: the time of sending, in ms since 1970.
TIME: Final = b"\x01" * 13

_LARGEST_NUMBER: Final = 10 ** len(NUMBER) - 1
_GROUP: Final = 10_000
#: The four digits of every number below 10,000: three look-ups write twelve digits.
_DIGITS: Final = np.frombuffer(b"".join(b"%04d" % n for n in range(_GROUP)), np.uint8).reshape(_GROUP, 4)

_FIN_TEXT: Final = 0x81
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127


class TapeFrame(NamedTuple):
    """One message for a tape.

    Attributes:
        stream: The stream that it belongs to.
        payload: The message; NUMBER and TIME where digits are written at sending.
        numbers: For each NUMBER, in order: its value in lap 0 and what a lap adds.
    """

    stream: str
    payload: bytes
    numbers: tuple[tuple[int, int], ...] = ()


def server_frame(payload: bytes, first_byte: int = _FIN_TEXT) -> bytes:
    """Put the header of an unmasked frame before a payload: an unfragmented text message unless told."""
    return _header(len(payload), first_byte) + payload


def _header(length: int, first_byte: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first_byte, length))
    if length < 1 << 16:
        return bytes((first_byte, _LENGTH_16)) + length.to_bytes(2, "big")
    return bytes((first_byte, _LENGTH_64)) + length.to_bytes(8, "big")


@dataclass(frozen=True, slots=True, eq=False)
class _Marks:
    """Places in the blob: byte position and frame of each, and for numbers the value in lap 0 and its growth."""

    at: NDArray[np.int64]
    frame: NDArray[np.int64]
    first: NDArray[np.int64]
    growth: NDArray[np.int64]

    def moved(self, chosen: NDArray[np.int64], old: NDArray[np.int64], new: NDArray[np.int64]) -> _Marks:
        """Keep the marks of the chosen frames, at their places in a blob of only those."""
        place = np.full(len(old) - 1, -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.frame] >= 0
        frame = place[self.frame[kept]]
        at = self.at[kept] - old[self.frame[kept]] + new[frame]
        return _Marks(at, frame, self.first[kept], self.growth[kept])


class Tape:
    """One lap of frames, or a client's selection of them. Immutable.

    Attributes:
        lap: Frames in the whole lap, whatever was selected.
        count: Frames on this tape.
        laps: How many laps the numbers last; None where nothing is numbered.
    """

    def __init__(self, frames: Sequence[TapeFrame], *, marked: bool = False) -> None:
        headers = [_header(len(frame.payload), _FIN_TEXT) for frame in frames]
        blob = b"".join(part for pair in zip(headers, frames, strict=True) for part in (pair[0], pair[1].payload))
        lengths = [len(header) + len(frame.payload) for header, frame in zip(headers, frames, strict=True)]
        self.lap = self.count = len(frames)
        self.streams = tuple(dict.fromkeys(frame.stream for frame in frames))
        numbered = {stream: number for number, stream in enumerate(self.streams)}
        self._stream = np.array([numbered[frame.stream] for frame in frames], np.int64)
        self._blob = memoryview(blob)
        self._offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        self._index = np.arange(len(frames), dtype=np.int64)
        numbers = np.array([pair for frame in frames for pair in frame.numbers], np.int64).reshape(-1, 2)
        self._numbers = self._find(blob if marked else b"", NUMBER, numbers)
        self._times = self._find(blob if marked else b"", TIME, None)
        self.laps = self._lasting()

    def _find(self, blob: bytes, mark: bytes, numbers: NDArray[np.int64] | None) -> _Marks:
        """Find every run of a mark; runs are longer than any header, whose bytes may look like a mark."""
        at, start = list[int](), -1
        while (start := blob.find(mark, start + 1)) >= 0:
            at.append(start)
            start += len(mark) - 1
        places = np.array(at, np.int64)
        if numbers is None:
            numbers = np.zeros((len(at), 2), np.int64)
        if len(numbers) != len(at):
            raise ParameterError(f"the frames have {len(at)} places for numbers, but {len(numbers)} numbers")
        frame = np.searchsorted(self._offsets, places, "right") - 1
        return _Marks(places, frame, numbers[:, 0].copy(), numbers[:, 1].copy())

    def _lasting(self) -> int | None:
        if not len(self._numbers.at):
            return None
        room = (_LARGEST_NUMBER - self._numbers.first) // np.maximum(1, self._numbers.growth)
        return int(room.min()) + 1

    def select(self, streams: Collection[str]) -> Tape:
        """Give the tape of the frames of these streams; unknown names select nothing."""
        numbers = [number for number, stream in enumerate(self.streams) if stream in streams]
        if len(numbers) == len(self.streams):
            return self
        chosen = np.flatnonzero(np.isin(self._stream, numbers))
        part = object.__new__(Tape)
        part.lap, part.count, part.laps = self.lap, len(chosen), self.laps
        part.streams = tuple(self.streams[number] for number in numbers)
        part._stream = np.searchsorted(numbers, self._stream[chosen])
        starts, ends = self._offsets[chosen].tolist(), self._offsets[chosen + 1].tolist()
        part._blob = memoryview(b"".join([self._blob[start:end] for start, end in zip(starts, ends, strict=True)]))
        part._offsets = np.concatenate([[0], np.cumsum(np.diff(self._offsets)[chosen])]).astype(np.int64)
        part._index = self._index[chosen]
        part._numbers = self._numbers.moved(chosen, self._offsets, part._offsets)
        part._times = self._times.moved(chosen, self._offsets, part._offsets)
        return part

    def find(self, frame: int) -> int:
        """Give the place on this tape of the first frame that is frame `frame` of the lap, or later."""
        return int(self._index.searchsorted(frame))

    def reach(self, start: int, size: int) -> int:
        """Give the frame of the lap up to which a write of at most `size` bytes goes from place `start` of this tape.

        At least one frame is taken, however large; the lap's length says that the tape ends within the write.
        """
        if start >= self.count:
            return self.lap
        stop = max(start + 1, int(self._offsets.searchsorted(self._offsets[start] + size, "right")) - 1)
        return int(self._index[stop]) if stop < self.count else self.lap

    def render(self, start: int, stop: int, lap: int, time_ms: int) -> memoryview:
        """Give the bytes of the frames at places `start` to `stop`, as they are sent in lap `lap` at `time_ms`."""
        begin, end = int(self._offsets[start]), int(self._offsets[stop])
        stretch = self._blob[begin:end]
        if not len(self._numbers.at) and not len(self._times.at):
            return stretch
        out = np.frombuffer(stretch, np.uint8).copy()
        self._write_numbers(out, begin, start, stop, lap)
        first, last = self._times.frame.searchsorted((start, stop))
        at = self._times.at[first:last] - begin
        out[at[:, None] + np.arange(len(TIME))] = np.frombuffer(b"%013d" % time_ms, np.uint8)
        return out.data

    def _write_numbers(self, out: NDArray[np.uint8], begin: int, start: int, stop: int, lap: int) -> None:
        marks = self._numbers
        first, last = marks.frame.searchsorted((start, stop))
        values = marks.first[first:last] + lap * marks.growth[first:last]
        upper, low = np.divmod(values, _GROUP)
        high, middle = np.divmod(upper, _GROUP)
        at = (marks.at[first:last] - begin)[:, None] + np.arange(4)
        for place, group in ((0, high), (4, middle), (8, low)):
            out[at + place] = _DIGITS[group]
