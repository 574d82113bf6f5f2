"""The header of a ring file: golden bytes, and every field that can contradict the others."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from processes.stream import stream_dtype

from feeds.records import DTYPES
from ringbuf import layout
from ringbuf.errors import RingCorrupt, RingVersionError
from ringbuf.layout import Header

PATH = Path("/runtime/venue/trade.ring")
DTYPE = np.dtype([("seq", "<u8"), ("price", "<f8")])
HEADER = Header(bytes(range(1, 17)), "venue", "trade", DTYPE, 64, 1_700_000_000_000_000_000)


def test_a_header_is_these_bytes() -> None:
    page = layout.encode(HEADER)
    assert len(page) == 4096
    assert page[:64] == (
        b"TICKRING" + b"\x01\0\0\0" + b"\0\x10\0\0" + bytes(range(1, 17)) + b"\x10\0\0\0" + b"\x22\0\0\0"
        b"\x40\0\0\0\0\0\0\0" + (1_700_000_000_000_000_000).to_bytes(8, "little") + bytes(8)
    )  # fmt: skip
    assert page[64:256] == bytes(192)
    assert page[256:384] == b"venue".ljust(128, b"\0")
    assert page[384:448] == b"trade".ljust(64, b"\0")
    assert page[576:].rstrip(b"\0") == b'[["seq", "<u8"], ["price", "<f8"]]'


def test_the_live_words_are_aligned_and_the_writers_two_share_one_cache_line() -> None:
    words = (
        layout.INTENT, layout.TAIL, layout.EPOCH, layout.WRITER_PID, layout.WRITER_START, layout.HEARTBEAT,
        layout.STATE, layout.VOID_END,
    )  # fmt: skip
    assert [word * 8 for word in words] == [64, 72, 128, 136, 144, 152, 160, 168]
    assert layout.INTENT * 8 // 64 == layout.TAIL * 8 // 64 != layout.EPOCH * 8 // 64


@pytest.mark.parametrize("dtype", [DTYPE, stream_dtype(64), *DTYPES.values()])
def test_a_header_is_read_back_as_it_was_written(dtype: np.dtype[np.void]) -> None:
    header = Header(bytes(range(16)), "Börse-1", "quote", dtype, 2**17, 1)
    assert layout.decode(layout.encode(header), header.file_size, PATH) == header
    assert header.file_size == 4096 + 2**17 * dtype.itemsize


def number(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda page: struct.pack_into(form, page, offset, value)


def text(offset: int, value: bytes) -> Callable[[bytearray], None]:
    def write(page: bytearray) -> None:
        page[offset : offset + len(value)] = value

    return write


def dtype_text(value: bytes) -> Callable[[bytearray], None]:
    def write(page: bytearray) -> None:
        page[576:] = value.ljust(4096 - 576, b"\0")
        struct.pack_into("<I", page, 36, len(value))

    return write


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (text(0, b"NORINGAT"), "magic"),
        (text(0, bytes(8)), "magic"),
        (number(12, "<I", 8192), "header_size"),
        (text(16, bytes(16)), "ring_id"),
        (number(32, "<I", 24), "slot_size"),
        (number(36, "<I", 5), "dtype"),
        (number(36, "<I", 4000), "dtype_size"),
        (number(36, "<I", 2**32 - 1), "dtype_size"),
        (number(40, "<Q", 63), "capacity"),
        (number(40, "<Q", 0), "capacity"),
        (number(40, "<Q", 4), "capacity"),
        (number(40, "<Q", 2**63), "bytes where its header asks for"),
        (number(40, "<Q", 128), "bytes where its header asks for"),
        (text(256, b"\xff"), "connection"),
        (text(384, b"\xff"), "kind"),
        (dtype_text(b""), "dtype"),
        (dtype_text(b"[" * 3000), "dtype"),
        (dtype_text(b"17"), "dtype"),
        (dtype_text(b'[["price", "<f8"], ["seq", "<u8"]]'), "dtype"),
        (dtype_text(b'[["seq", "<u8"], ["price", "O"]]'), "dtype"),
        (dtype_text(b'[["seq", "<u8"], ["price", "nonsense"]]'), "dtype"),
        (dtype_text(b'[["seq", "<u8"], ["seq", "<u8"]]'), "dtype"),
    ],
)
def test_a_damaged_field_is_named(damage: Callable[[bytearray], None], field: str) -> None:
    page = bytearray(layout.encode(HEADER))
    damage(page)
    with pytest.raises(RingCorrupt, match=field) as caught:
        layout.decode(bytes(page), HEADER.file_size, PATH)
    assert str(PATH) in str(caught.value)


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_another_version_is_told_apart_from_damage(version: int) -> None:
    page = bytearray(layout.encode(HEADER))
    number(8, "<I", version)(page)
    with pytest.raises(RingVersionError, match=f"version {version}, this tickring reads version 1"):
        layout.decode(bytes(page), HEADER.file_size, PATH)


@pytest.mark.parametrize("size", [0, 63, 4095])
def test_a_file_shorter_than_a_header_is_corrupt(size: int) -> None:
    with pytest.raises(RingCorrupt, match=f"{size} bytes, less than a header"):
        layout.decode(layout.encode(HEADER)[:size], size, PATH)


@pytest.mark.parametrize("size", [4096, HEADER.file_size - 1, HEADER.file_size + 1])
def test_a_file_of_another_size_than_its_header_asks_for_is_corrupt(size: int) -> None:
    with pytest.raises(RingCorrupt, match="truncated or foreign"):
        layout.decode(layout.encode(HEADER), size, PATH)


@pytest.mark.parametrize(
    ("dtype", "capacity", "connection", "complaint"),
    [
        (np.dtype([("price", "<f8")]), 64, "venue", "first field must be seq"),
        (np.dtype([("seq", "<i8")]), 64, "venue", "first field must be seq"),
        (np.dtype("<u8"), 64, "venue", "first field must be seq"),
        (np.dtype([("seq", "<u8"), ("side", "i1"), ("price", "<f8")], align=True), 64, "venue", "no holes"),
        (np.dtype([("seq", "<u8"), ("prices", "<f8", (3,))]), 64, "venue", "plain"),
        (np.dtype([("seq", "<u8"), ("pair", [("a", "<u4"), ("b", "<u4")])]), 64, "venue", "plain"),
        (DTYPE, 63, "venue", "power of two"),
        (DTYPE, 4, "venue", "at least 8"),
        (DTYPE, 64, "v" * 129, "longer than 128 bytes"),
        (stream_dtype(400), 64, "venue", "does not fit the header"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused_before_anything_is_written(
    dtype: np.dtype[np.void], capacity: int, connection: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        layout.encode(Header(bytes(16), connection, "trade", dtype, capacity, 0))


@pytest.mark.parametrize(
    ("tail", "intent", "epoch", "field"),
    [(11, 10, 1, "tail"), (0, 2**63, 1, "intent"), (0, 0, 2**63, "epoch"), (2**64 - 1, 5, 1, "tail")],
)
def test_live_words_that_no_writer_leaves_are_named(tail: int, intent: int, epoch: int, field: str) -> None:
    layout.check_words(10, 10, 1, PATH)
    layout.check_words(10, 18, 1, PATH)
    with pytest.raises(RingCorrupt, match=field):
        layout.check_words(tail, intent, epoch, PATH)


def test_a_ring_says_why_it_does_not_suit_a_writer() -> None:
    other = Header(b"x" * 16, "venue", "trade", DTYPE, 128, 2)
    assert HEADER.difference(HEADER) == ""
    assert HEADER.difference(other) == "its capacity is 64, not 128"
    assert "record layout" in HEADER.difference(Header(b"x" * 16, "venue", "trade", stream_dtype(), 64, 2))
    assert "not the quote ring of venue" in HEADER.difference(Header(b"x" * 16, "venue", "quote", DTYPE, 64, 2))
