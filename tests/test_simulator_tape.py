"""The tape: frames with headers, selections, and digits that rise from lap to lap."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from feeds.simulator.tape import NUMBER, TIME, Tape, TapeFrame, server_frame
from ringbuf.errors import ParameterError

NOW = 1_723_161_254_087


def whole(tape: Tape, lap: int = 0) -> bytes:
    return bytes(tape.render(0, tape.count, lap, NOW))


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_a_frame_is_what_the_reference_implementation_builds(length: int) -> None:
    payload = b"x" * length
    assert server_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


def test_a_tape_is_its_frames_end_to_end_untouched() -> None:
    payloads = [b"one", b"2" * 300, NUMBER + TIME, b"four"]
    tape = Tape([TapeFrame("s", payload) for payload in payloads])
    assert whole(tape) == b"".join(server_frame(payload) for payload in payloads)
    assert bytes(tape.render(1, 2, 5, NOW)) == server_frame(payloads[1])
    assert tape.laps is None


def test_numbers_rise_by_their_growth_and_times_are_those_of_sending() -> None:
    frames = [
        TapeFrame("a", b"id=" + NUMBER + b" t=" + TIME, ((100_000_000_000, 7),)),
        TapeFrame("b", b"nothing"),
        TapeFrame("a", NUMBER + b"/" + NUMBER, ((100_000_000_006, 7), (123_456_789_012, 1_000_000))),
    ]
    tape = Tape(frames, marked=True)
    expected = [b"id=100000000021 t=1723161254087", b"nothing", b"100000000027/123459789012"]
    assert whole(tape, lap=3) == b"".join(server_frame(payload) for payload in expected)
    assert bytes(tape.render(2, 3, 0, NOW)) == server_frame(b"100000000006/123456789012")


def test_rendering_leaves_the_tape_as_it_was() -> None:
    tape = Tape([TapeFrame("a", NUMBER, ((100_000_000_000, 1),))], marked=True)
    first = whole(tape)
    assert whole(tape, 9) != first
    assert whole(tape) == first


def test_header_bytes_that_look_like_marks_are_no_marks() -> None:
    long = b"y" * 0x0202
    tape = Tape([TapeFrame("a", long), TapeFrame("a", NUMBER, ((100_000_000_000, 1),))], marked=True)
    assert whole(tape) == server_frame(long) + server_frame(b"100000000000")


def test_a_selection_has_the_frames_of_its_streams_with_their_numbers() -> None:
    frames = [
        TapeFrame(stream, b"%s " % stream.encode() + NUMBER + TIME, ((100_000_000_000 + i, 10),))
        for i, stream in enumerate("abcabcaab")
    ]
    tape = Tape(frames, marked=True)
    part = tape.select({"a", "c", "unknown"})
    wanted = [b"%s %d%d" % (s.encode(), 100_000_000_020 + i, NOW) for i, s in enumerate("abcabcaab") if s != "b"]
    assert whole(part, 2) == b"".join(server_frame(payload) for payload in wanted)
    assert (part.lap, part.count, part.streams) == (9, 6, ("a", "c"))
    again = part.select({"c"})
    assert whole(again) == server_frame(b"c 1000000000021723161254087") + server_frame(b"c 1000000000051723161254087")


def test_places_of_two_selections_are_compared_by_the_frame_of_the_lap() -> None:
    tape = Tape([TapeFrame(stream, b"x" * 100) for stream in "abbbabbba"])
    part = tape.select({"a"})
    assert [part.find(frame) for frame in (0, 1, 4, 5, 8, 9)] == [0, 1, 1, 2, 2, 3]
    assert part.reach(0, 204) == 8  # two frames of 102 bytes fit, the third is frame 8 of the lap
    assert part.reach(0, 1) == 4  # one frame is always taken
    assert part.reach(0, 10_000) == 9
    assert part.reach(3, 10_000) == 9


def test_a_selection_of_everything_is_the_tape_and_of_nothing_is_empty() -> None:
    tape = Tape([TapeFrame("a", b"1"), TapeFrame("b", b"2")])
    assert tape.select({"a", "b", "c"}) is tape
    nothing = tape.select(())
    assert (nothing.count, nothing.reach(0, 100), whole(nothing)) == (0, 2, b"")


def test_laps_end_before_a_number_would_need_a_thirteenth_digit() -> None:
    tape = Tape([TapeFrame("a", NUMBER, ((999_999_999_990, 4),))], marked=True)
    assert tape.laps == 3
    assert whole(tape, tape.laps - 1) == server_frame(b"999999999998")


def test_numbers_that_do_not_match_their_marks_are_refused() -> None:
    with pytest.raises(ParameterError, match="1 places for numbers, but 2 numbers"):
        Tape([TapeFrame("a", NUMBER, ((1, 1), (2, 2)))], marked=True)
