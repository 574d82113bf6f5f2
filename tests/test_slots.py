"""The append-only slot file beneath symbols and counters."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ringbuf.errors import RingCorrupt, RingNotFound, RingVersionError, UnsafePath
from ringbuf.slots import SlotFile


def slot(number: int) -> bytes:
    return number.to_bytes(8, "little") * 4


@pytest.fixture
def path(runtime: Path) -> Path:
    return runtime / "table"


def test_a_new_file_is_these_bytes(path: Path) -> None:
    file = SlotFile(path, 32, write=True)
    assert file.append(slot(7)) == 0
    file.close()
    content = path.read_bytes()
    assert len(content) == 64 + 1024 * 32
    assert content[:64] == b"TICKSLOT" + b"\x01\0\0\0" + b"\x20\0\0\0" + b"\x01\0\0\0\0\0\0\0" + bytes(40)
    assert content[64:96] == slot(7)


def test_a_reader_sees_what_is_appended_also_when_the_file_has_grown(path: Path) -> None:
    writer = SlotFile(path, 32, write=True)
    reader = SlotFile(path, 32)
    assert reader.count == 0
    assert [writer.append(slot(i)) for i in range(3000)] == list(range(3000))
    assert reader.count == 3000
    assert reader.copy(0, 3000) == b"".join(slot(i) for i in range(3000))
    assert bytes(reader.slot(2999)) == slot(2999)
    assert reader.slot(5).readonly
    late = SlotFile(path, 32)
    assert bytes(late.slot(2500)) == slot(2500)
    for file in (writer, reader, late):
        file.close()
        file.close()


def test_a_writer_goes_on_where_the_last_one_stopped(path: Path) -> None:
    for i in range(3):
        writer = SlotFile(path, 32, write=True)
        assert writer.append(slot(i)) == i
        writer.close()


def test_an_append_that_never_stored_its_count_is_written_over(path: Path) -> None:
    writer = SlotFile(path, 32, write=True)
    writer.append(slot(1))
    writer.slot(1)[:] = slot(99)  # as far as a writer comes that is killed before the count
    writer.close()
    writer = SlotFile(path, 32, write=True)
    assert writer.count == 1
    assert writer.append(slot(2)) == 1
    assert writer.copy(0, 2) == slot(1) + slot(2)
    writer.close()


def test_only_a_writer_creates(path: Path) -> None:
    with pytest.raises(RingNotFound):
        SlotFile(path, 32)
    assert not path.exists()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("offset", "damage", "field"),
    [
        (0, b"NOSLOTS!", "magic"),
        (12, struct.pack("<I", 64), "slot_size is 64, not 32"),
        (16, struct.pack("<Q", 1025), "count is 1025"),
        (16, struct.pack("<Q", 2**64 - 1), "count"),
    ],
)
@pytest.mark.parametrize("write", [False, True])
def test_a_damaged_file_is_refused_by_the_name_of_its_field(
    path: Path, offset: int, damage: bytes, field: str, write: bool
) -> None:
    SlotFile(path, 32, write=True).close()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(damage)
    with pytest.raises(RingCorrupt, match=field) as caught:
        SlotFile(path, 32, write=write)
    assert f"remove {path.parent} and start it again" in str(caught.value)


@pytest.mark.fault
@pytest.mark.parametrize("size", [0, 10, 63])
def test_a_truncated_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(b"TICKSLOT".ljust(size, b"\0")[:size])
    path.chmod(0o600)
    for write in (False, True):
        with pytest.raises(RingCorrupt, match=f"{size} bytes"):
            SlotFile(path, 32, write=write)


@pytest.mark.fault
def test_a_file_of_another_version_is_refused_as_that(path: Path) -> None:
    SlotFile(path, 32, write=True).close()
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", 2))
    with pytest.raises(RingVersionError, match="version 2, this tickring reads version 1"):
        SlotFile(path, 32)


@pytest.mark.fault
def test_a_link_is_not_followed(path: Path, runtime: Path) -> None:
    SlotFile(runtime / "real", 32, write=True).close()
    path.symlink_to(runtime / "real")
    for write in (False, True):
        with pytest.raises(UnsafePath, match="is a link"):
            SlotFile(path, 32, write=write)


def test_a_count_stored_while_the_reader_maps_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race of mapping: the size is asked first, then the writer grows the file, then the count is loaded."""
    writer = SlotFile(path, 32, write=True)
    for i in range(1024):
        writer.append(slot(i))
    original = SlotFile._open

    def open_then_let_the_writer_grow(self: SlotFile) -> int:
        descriptor = original(self)
        monkeypatch.setattr("ringbuf.slots.mmap.mmap", grow_then_map)
        return descriptor

    from mmap import mmap

    def grow_then_map(descriptor: int, size: int, access: int) -> mmap:
        monkeypatch.setattr("ringbuf.slots.mmap.mmap", mmap)
        writer.append(slot(1024))
        return mmap(descriptor, size, access=access)

    monkeypatch.setattr(SlotFile, "_open", open_then_let_the_writer_grow)
    reader = SlotFile(path, 32)
    assert reader.count == 1025
    assert reader.copy(1024, 1025) == slot(1024)
    reader.close()
    writer.close()
