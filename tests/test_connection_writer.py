"""One connection's directory as its writer holds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from processes.stream import stream_bytes, stream_dtype

from ringbuf import ConnectionWriter, Counter, attach, read_counters
from ringbuf.errors import ParameterError, RingCorrupt, RingNotFound, WriterActive


def descriptors() -> set[str]:
    return {str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}


def test_a_connection_begins_with_names_counters_and_a_lock(runtime: Path) -> None:
    with ConnectionWriter("venue") as writer:
        assert writer.directory == runtime / "default" / "venue"
        assert sorted(path.name for path in writer.directory.iterdir()) == ["counters", "symbols", "writer.lock"]
        assert {path.stat().st_mode & 0o777 for path in writer.directory.iterdir()} == {0o600}
        assert read_counters(writer.directory).values[Counter.PID] == os.getpid()


def test_a_ring_appears_when_it_is_asked_for_and_only_once(runtime: Path) -> None:
    with ConnectionWriter("venue") as writer:
        with pytest.raises(RingNotFound):
            attach("venue", "trade")
        ring = writer.ring("trade", stream_dtype(), 64)
        assert writer.ring("trade", stream_dtype(), 64) is ring
        assert writer.rings == {"trade": ring}
        assert writer.ring("quote", stream_dtype(), 64) is not ring
        ring.publish(stream_bytes(0, 3), 3)
        with attach("venue", "trade") as reader:
            assert reader.read()["seq"].tolist() == [0, 1, 2]
            assert reader.header.kind == "trade"


def test_two_connections_have_nothing_in_common(runtime: Path) -> None:
    with ConnectionWriter("one") as one, ConnectionWriter("two") as two:
        one.symbols.intern("BTCUSDT")
        assert two.symbols.names() == [""]


@pytest.mark.parametrize("name", ["", "a/b", ".."])
def test_an_impossible_name_is_refused(runtime: Path, name: str) -> None:
    with pytest.raises(ParameterError, match="cannot name"):
        ConnectionWriter(name)
    with ConnectionWriter("venue") as writer, pytest.raises(ParameterError, match="cannot name"):
        writer.ring(name, stream_dtype(), 64)


def test_closing_frees_the_name_and_leaves_the_files_to_readers(runtime: Path) -> None:
    writer = ConnectionWriter("venue")
    writer.ring("trade", stream_dtype(), 64).publish(stream_bytes(0, 3), 3)
    with pytest.raises(WriterActive):
        ConnectionWriter("venue")
    writer.close()
    writer.close()
    with attach("venue", "trade") as reader:
        assert len(reader.read()) == 3
        assert not reader.writer_alive
        with ConnectionWriter("venue") as successor:
            ring = successor.ring("trade", stream_dtype(), 64)
            assert (ring.tail, ring.epoch, ring.continued) == (3, 2, True)
            assert reader.writer_alive


def test_an_error_inside_the_block_closes_everything_even_while_views_are_held(runtime: Path) -> None:
    held = []

    def fail() -> None:
        with ConnectionWriter("venue") as writer:
            ring = writer.ring("trade", stream_dtype(), 64)
            ring.publish(stream_bytes(0, 3), 3)
            held.append(ring.recent(0))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    ConnectionWriter("venue").close()
    assert held.pop()["seq"].tolist() == [0, 1, 2]


@pytest.mark.fault
@pytest.mark.parametrize("name", ["symbols", "counters"])
def test_a_damaged_table_is_one_clear_error_and_keeps_nothing_open_or_locked(runtime: Path, name: str) -> None:
    with ConnectionWriter("venue") as writer:
        pass
    content = (writer.directory / name).read_bytes()
    (writer.directory / name).write_bytes(b"NOTABLE!" + content[8:])
    before = descriptors()
    with pytest.raises(RingCorrupt, match=f"{name} cannot be used: magic") as caught:
        ConnectionWriter("venue")
    assert descriptors() == before
    assert f"remove {writer.directory} and start it again" in str(caught.value)
    (writer.directory / name).write_bytes(content)
    ConnectionWriter("venue").close()
