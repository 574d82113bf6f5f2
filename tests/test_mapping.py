"""A ring file in memory: read-only for readers, alive as long as it is mapped, closed without a fuss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from feeds.records import DTYPES, Kind
from ringbuf import layout
from ringbuf.connection import ConnectionWriter
from ringbuf.mapping import RingMapping

CAPACITY = 64


@pytest.fixture
def path(runtime: Path) -> Iterator[Path]:
    """A ring with three records whose writer is still there."""
    with ConnectionWriter("mapped") as connection:
        dtype = DTYPES[Kind.TRADE]
        records = np.zeros(3, dtype)
        records["seq"] = range(3)
        connection.ring("trade", dtype, CAPACITY).publish(memoryview(records.tobytes()), 3)
        yield connection.directory / "trade.ring"


def test_a_reader_s_mapping_shows_the_writer_s_records_and_cannot_change_them(path: Path) -> None:
    mapping = RingMapping(path)
    assert mapping.words[layout.TAIL] == 3
    assert mapping.records["seq"][:3].tolist() == [0, 1, 2]
    assert len(mapping.records) == CAPACITY
    with pytest.raises(TypeError):
        mapping.words[layout.TAIL] = 9
    with pytest.raises(ValueError, match="read-only"):
        mapping.records["seq"][0] = 9
    mapping.close()


def test_it_outlives_the_file_s_name(path: Path) -> None:
    mapping = RingMapping(path)
    path.rename(path.with_name("gone"))
    path.with_name("gone").unlink()
    assert mapping.records["seq"][:3].tolist() == [0, 1, 2]
    mapping.close()


def test_a_view_that_is_still_held_does_not_fail_the_close_and_stays_whole(path: Path) -> None:
    mapping = RingMapping(path)
    held = mapping.records[:3]
    mapping.close()
    mapping.close()
    assert mapping.closed
    assert held["seq"].tolist() == [0, 1, 2]
