"""Readers and writers as processes of their own, on tiny rings, over thousands of laps; every record is checked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from processes.ring_reader import Seen
from processes.running import go, line, running

CAPACITY = 64

pytestmark = pytest.mark.stress


def race(how: str, *, readers: int, words: int, laps: int) -> list[Seen]:
    """Attach readers to a ring of 64 slots, let its writer go round it so often, and give what the readers saw."""
    until = CAPACITY * laps
    with ExitStack() as stack:
        writer = stack.enter_context(running("ring_writer", "venue", "trade", words, CAPACITY, "publish", until))
        assert line(writer) == "ready 0"
        processes = [stack.enter_context(running("ring_reader", "venue", "trade", 1, how)) for _ in range(readers)]
        assert [line(process) for process in processes] == ["attached"] * readers
        go(writer)
        seen = [msgspec.json.decode(line(process), type=Seen) for process in processes]
        assert writer.wait() == 0
    assert {one.tail for one in seen} == {until}
    return seen


@pytest.mark.parametrize(
    ("how", "words", "laps"),
    [("plain", 8, 20_000), ("plain", 64, 5_000), ("slow", 8, 5_000), ("slow", 64, 3_000)],
)
def test_no_reader_gets_a_torn_record_and_every_record_is_received_or_lost(
    runtime: Path, how: str, words: int, laps: int
) -> None:
    for seen in race(how, readers=2, words=words, laps=laps):
        assert seen.torn == 0
        assert seen.inexact == 0
        assert not seen.fell
        assert seen.start + seen.received + seen.lost == seen.tail
        assert seen.received > 0
        assert seen.reasons <= {"overwritten"}


@pytest.mark.parametrize("words", [8, 64])
def test_the_slow_reader_without_validation_gets_torn_records(runtime: Path, words: int) -> None:
    """The test of the test: were the copies whole by themselves, the one above would prove nothing.

    The only difference from the slow reader above is that the look at `intent` after the copy is left out. The writer
    goes on until this reader has found a torn record, which takes it a few reads; the test's time limit is the bound.
    """
    with running("ring_writer", "venue", "trade", words, CAPACITY, "endless") as writer:
        assert line(writer) == "ready 0"
        with running("ring_reader", "venue", "trade", 2, "unvalidated") as reader:
            assert line(reader) == "attached"
            seen = msgspec.json.decode(line(reader), type=Seen)
    assert seen.torn > 0
