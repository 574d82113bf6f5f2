"""Frames, held against another implementation: websockets' protocol without a network."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from websockets.frames import EXTERNAL_CLOSE_CODES, Close, Frame
from websockets.protocol import Protocol, Side, State

from supervisor.frames import (
    LARGEST_MESSAGE,
    CloseCode,
    Closing,
    Inbound,
    Message,
    Opcode,
    Ping,
    Received,
    TextFrames,
    Violation,
    close_payload,
    count_whole,
    may_be_sent,
    server_frame,
)

_BORDERS = [0, 1, 125, 126, 127, 65535, 65536]


def masked(opcode: int, payload: bytes, *, fin: bool = True, reserved: int = 0) -> bytes:
    """A client's frame, legal or not; the mask is zero, so the payload stands there as it is."""
    length = len(payload)
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if length < 126:
        head += bytes([128 | length])
    else:
        head += bytes([254]) + length.to_bytes(2, "big") if length < 65536 else bytes([255]) + length.to_bytes(8, "big")
    return head + bytes(4) + payload


def _as_client_reads(data: bytes) -> list[Frame]:
    client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    client.receive_data(data)
    assert client.parser_exc is None
    frames = client.events_received()
    assert all(isinstance(frame, Frame) for frame in frames)
    return [frame for frame in frames if isinstance(frame, Frame)]


def test_a_text_frame_is_these_bytes() -> None:
    assert server_frame(Opcode.TEXT, b"hi") == b"\x81\x02hi"
    assert server_frame(Opcode.TEXT, bytes(126))[:4] == b"\x81\x7e\x00\x7e"
    assert server_frame(Opcode.BINARY, bytes(65536))[:10] == b"\x82\x7f" + (65536).to_bytes(8, "big")


@pytest.mark.parametrize("length", _BORDERS)
def test_a_client_reads_every_length_as_it_was_sent(length: int) -> None:
    payload = bytes(index % 251 for index in range(length))
    (frame,) = _as_client_reads(server_frame(Opcode.BINARY, payload))
    assert (int(frame.opcode), bytes(frame.data), frame.fin) == (Opcode.BINARY, payload, True)


def test_joined_frames_are_the_frames_one_after_another() -> None:
    payloads = [b"x" * length for length in (*_BORDERS, *_BORDERS)]
    joined = TextFrames().join(payloads)
    assert joined == b"".join(server_frame(Opcode.TEXT, payload) for payload in payloads)
    assert [frame.data for frame in _as_client_reads(joined)] == payloads


@given(st.lists(st.sampled_from(_BORDERS), max_size=5), st.data())
def test_whole_frames_are_counted_up_to_any_byte(lengths: list[int], data: st.DataObject) -> None:
    frames = [server_frame(Opcode.TEXT, bytes(length)) for length in lengths]
    whole = b"".join(frames)
    size = data.draw(st.integers(0, len(whole)))
    ends = [sum(map(len, frames[: index + 1])) for index in range(len(frames))]
    assert count_whole(whole, size) == sum(end <= size for end in ends)


def test_a_close_reason_is_cut_at_a_whole_character() -> None:
    payload = close_payload(CloseCode.SLOW, "ü" * 100)
    assert len(payload) <= 125
    assert Close.parse(payload) == Close(4008, "ü" * 61)


def test_the_close_codes_a_peer_may_send_are_those_of_the_registry() -> None:
    assert {code for code in range(65536) if may_be_sent(code)} == EXTERNAL_CLOSE_CODES | set(range(3000, 5000))


_PAYLOADS = st.sampled_from([b"", b"abc", b"\xc3\xa4"])
_DATA = st.tuples(st.sampled_from([0, 1, 2]), _PAYLOADS, st.booleans(), st.sampled_from([0, 0, 0, 0, 4, 2, 1]))
_CONTROL = st.tuples(st.sampled_from([9, 10]), _PAYLOADS, st.just(True), st.just(0))
_CLOSES = st.sampled_from([0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000])
_CLOSE = st.tuples(
    st.just(8), _CLOSES.map(lambda code: code.to_bytes(2, "big")) | st.just(b""), st.just(True), st.just(0)
)


@given(st.lists(_DATA | _CONTROL | _CLOSE, max_size=8))
def test_a_client_s_frames_are_judged_as_another_server_judges_them(frames: list[tuple[int, bytes, bool, int]]) -> None:
    # websockets refuses a close inside a message, which RFC 6455, 5.4, allows as for all control frames.
    first_close = next((index for index, frame in enumerate(frames) if frame[0] == Opcode.CLOSE), len(frames))
    starts_and_ends = [fin for opcode, _, fin, _ in frames[:first_close] if opcode <= Opcode.BINARY]
    assume(first_close == len(frames) or not starts_and_ends or starts_and_ends[-1])
    server = Protocol(Side.SERVER, state=State.OPEN, max_size=LARGEST_MESSAGE)
    server.receive_data(b"".join(masked(op, data, fin=fin, reserved=bits) for op, data, fin, bits in frames))
    inbound = Inbound()
    judged = [inbound.take(Opcode(op), data, fin=fin, reserved=bits > 0) for op, data, fin, bits in frames]

    ended = [received.code for received in judged if isinstance(received, Closing | Violation)]
    theirs = server.close_sent
    assert ended == ([] if theirs is None else [CloseCode.NORMAL if theirs.code == 1005 else theirs.code])
    pings = [
        frame for frame in server.events_received() if isinstance(frame, Frame) and int(frame.opcode) == Opcode.PING
    ]
    assert [received.data for received in judged if isinstance(received, Ping)] == [ping.data for ping in pings]


def _after(*frames: tuple[Opcode, bytes, bool]) -> Received | None:
    inbound = Inbound()
    received = None
    for opcode, payload, fin in frames:
        received = inbound.take(opcode, payload, fin=fin)
    return received


def test_fragments_make_one_message_with_control_frames_between_them() -> None:
    text = "größer".encode()
    received = _after(
        (Opcode.TEXT, text[:3], False), (Opcode.PING, b"", True), (Opcode.CONTINUATION, text[3:], True)
    )  # the cut goes through a character
    assert received == Message(text)


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_text_that_is_not_utf8_is_refused_and_binary_is_not(bad: bytes) -> None:
    refused = _after((Opcode.TEXT, bad, True))
    assert isinstance(refused, Violation)
    assert refused.code == CloseCode.INVALID_TEXT
    assert _after((Opcode.BINARY, bad, True)) == Message(bad)
    reason = _after((Opcode.CLOSE, b"\x03\xe8" + bad, True))
    assert isinstance(reason, Violation)
    assert reason.code == CloseCode.INVALID_TEXT


def test_a_message_may_be_as_large_as_the_limit_and_no_larger_also_in_fragments() -> None:
    half = bytes(LARGEST_MESSAGE // 2)
    assert isinstance(_after((Opcode.BINARY, half, False), (Opcode.CONTINUATION, half, True)), Message)
    refused = _after((Opcode.BINARY, half + b"x", False), (Opcode.CONTINUATION, half, True))
    assert isinstance(refused, Violation)
    assert refused.code == CloseCode.TOO_BIG


def test_nothing_counts_after_a_close_or_a_violation() -> None:
    assert _after((Opcode.CLOSE, b"\x03\xe8", True), (Opcode.TEXT, b"more", True)) is None
    assert _after((Opcode.CONTINUATION, b"", True), (Opcode.CONTINUATION, b"", True)) is None


def test_a_close_code_cut_in_half_is_refused() -> None:
    assert isinstance(_after((Opcode.CLOSE, b"\x03", True)), Violation)
