"""Names as small numbers, and their life across growth, restarts and closing."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes.stream import stream_bytes, stream_dtype

from ringbuf import ConnectionWriter, RingReader, SymbolTable
from ringbuf.errors import RingCorrupt, RingNotFound, SymbolError
from ringbuf.symbols import Namespace


def test_ids_count_from_one_in_each_namespace(runtime: Path) -> None:
    table = SymbolTable(runtime, write=True)
    assert [table.intern(name) for name in ("BTCUSDT", "ETHUSDT", "BTCUSDT")] == [1, 2, 1]
    assert table.intern("binance", Namespace.EXCHANGE) == 1
    assert table.intern("BTCUSDT", Namespace.EXCHANGE) == 2
    assert table.names() == ["", "BTCUSDT", "ETHUSDT"]
    assert table.names(Namespace.EXCHANGE) == ["", "binance", "BTCUSDT"]
    assert (table.id("ETHUSDT"), table.id("ethusdt"), table.id("binance")) == (2, None, None)
    assert (table.name(2), table.name(0), table.name(3)) == ("ETHUSDT", "", "")
    table.close()


def test_a_slot_is_these_bytes(runtime: Path) -> None:
    table = SymbolTable(runtime, write=True)
    table.intern("Börse", Namespace.EXCHANGE)
    table.close()
    assert (runtime / "symbols").read_bytes()[64:128] == b"\x06\x01" + "Börse".encode().ljust(62, b"\0")


def test_ids_survive_a_restart_of_the_writer(runtime: Path) -> None:
    for added in range(1, 4):
        table = SymbolTable(runtime, write=True)
        assert table.names() == ["", *(f"S{i}" for i in range(1, added))]
        assert table.intern(f"S{added}") == added
        table.close()


def test_an_attached_reader_sees_names_beyond_the_first_chunk(runtime: Path) -> None:
    writer = SymbolTable(runtime, write=True)
    reader = SymbolTable(runtime)
    expected = [""]
    for i in range(2600):  # the file holds 1,024, then 2,048, then 4,096
        name = f"SYMBOL-{i}"
        assert writer.intern(name) == i + 1
        expected.append(name)
        if i in (0, 1022, 1023, 1024, 2047, 2048):
            assert reader.names() == expected
    assert reader.id("SYMBOL-2599") == 2600
    assert SymbolTable.names(reader) == expected == writer.names()
    reader.close()
    writer.close()


@pytest.mark.parametrize("name", ["", "x" * 63, "é" * 32])
def test_a_name_that_fits_no_slot_is_refused_and_changes_nothing(runtime: Path, name: str) -> None:
    table = SymbolTable(runtime, write=True)
    with pytest.raises(SymbolError, match="1 to 62 bytes"):
        table.intern(name)
    assert table.intern("x" * 62) == 1
    table.close()


def test_a_full_namespace_refuses_one_more(runtime: Path) -> None:
    """The exchange field of a record has 16 bits; what fills it is real."""
    table = SymbolTable(runtime, write=True)
    for i in range(65535):
        table.intern(str(i), Namespace.EXCHANGE)
    with pytest.raises(SymbolError, match="no more than 65535 names of exchanges"):
        table.intern("one more", Namespace.EXCHANGE)
    assert table.intern("65534", Namespace.EXCHANGE) == 65535
    assert table.intern("a symbol") == 1
    table.close()


def test_a_table_that_is_not_there_is_not_found(runtime: Path) -> None:
    with pytest.raises(RingNotFound):
        SymbolTable(runtime)


@pytest.mark.fault
@pytest.mark.parametrize("damage", [b"\x03\x02ABC", b"\x00\x00", b"\x3f\x00" + b"A" * 62, b"\x01\x00\xff"])
def test_a_slot_that_is_no_name_is_damage_not_a_crash(runtime: Path, damage: bytes) -> None:
    table = SymbolTable(runtime, write=True)
    table.intern("GOOD")
    table.intern("BAD")
    reader = SymbolTable(runtime)
    with (runtime / "symbols").open("r+b") as file:
        file.seek(64 + 64)
        file.write(damage)
    for write in (False, True):
        with pytest.raises(RingCorrupt, match=r"slot 1 of .* is no name"):
            SymbolTable(runtime, write=write)
    table.close()
    assert reader.names() == ["", "GOOD", "BAD"]
    reader.close()


@pytest.mark.fault
def test_damage_does_not_keep_a_reader_from_closing(runtime: Path) -> None:
    writer, reader = SymbolTable(runtime, write=True), SymbolTable(runtime)
    writer.intern("GOOD")
    with (runtime / "symbols").open("r+b") as file:
        file.seek(64)
        file.write(b"\0")
    with pytest.raises(RingCorrupt):
        reader.names()
    reader.close()
    reader.close()
    assert reader.names() == [""]
    writer.close()


def test_records_keep_their_names_after_their_reader_is_closed(runtime: Path) -> None:
    """Also names that nobody has asked for before: a record's names are written before the record."""
    with ConnectionWriter("venue") as writer:
        ring = writer.ring("trade", stream_dtype(), 64)
        reader = RingReader(writer.directory, "trade")
        writer.symbols.intern("BTCUSDT")
        ring.publish(stream_bytes(0, 1), 1)
        records = reader.read()
        reader.close()
        reader.close()
        writer.symbols.intern("LATER")
        assert records.names() == ["", "BTCUSDT"]
        assert records.names(Namespace.EXCHANGE) == [""]
        assert reader.symbols.name(2) == ""
        assert reader.symbols.id("LATER") is None
