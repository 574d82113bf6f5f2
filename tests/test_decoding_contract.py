"""Bytes between a decoder, numpy and C: every one of them at the place that the documentation draws."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from feeds import binance
from feeds.decoding import STAGED, Sink
from feeds.publisher import Publisher
from feeds.records import DEFAULT_CAPACITY, DTYPES, EventCode, Flag, Kind, Side, c_header
from feeds.registry import provider, provider_names
from ringbuf import ConnectionWriter
from ringbuf.writer import BATCH_FRACTION

#: The offsets as the drawings of `feeds.records` have them; a change there is a change of every reader's world.
COMMON = {"seq": 0, "date": 8, "received": 16, "symbol": 24, "exchange": 28, "flags": 30}
DRAWN: dict[Kind, dict[str, int]] = {
    Kind.TRADE: {
        "last_price": 32, "last_size": 40, "trade_id": 48, "sequence": 56, "published": 64, "condition_1": 72,
        "condition_2": 74, "condition_3": 76, "condition_4": 78, "side": 80, "_reserved": 81,
    },
    Kind.QUOTE: {
        "bid_price": 32, "bid_size": 40, "ask_price": 48, "ask_size": 56, "sequence": 64, "published": 72,
        "bid_exchange": 80, "ask_exchange": 82, "condition_1": 84, "condition_2": 86, "condition_3": 88,
        "condition_4": 90, "_reserved": 92,
    },
    Kind.CANDLE: {
        "open": 32, "high": 40, "low": 48, "close": 56, "volume": 64, "quote_volume": 72, "vwap": 80,
        "taker_buy_volume": 88, "taker_buy_quote_volume": 96, "close_date": 104, "trades": 112, "interval": 120,
        "_reserved": 124,
    },
    Kind.LEVEL: {"price": 32, "size": 40, "update_id": 48, "orders": 56, "side": 60, "_reserved": 61},
    Kind.PRICE: {"price": 32, "published": 40, "_reserved": 48},
    Kind.EVENT: {"value": 32, "at_seq": 40, "code": 48, "at_kind": 50, "socket": 52, "text": 56},
}  # fmt: skip
SIZES = {Kind.TRADE: 128, Kind.QUOTE: 128, Kind.CANDLE: 128, Kind.LEVEL: 64, Kind.PRICE: 64, Kind.EVENT: 128}


def offsets(kind: Kind) -> dict[str, int]:
    fields = DTYPES[kind].fields
    assert fields is not None
    return {name: int(field[1]) for name, field in fields.items()}


@pytest.mark.parametrize("kind", Kind)
def test_every_field_lies_where_it_is_drawn(kind: Kind) -> None:
    assert offsets(kind) == COMMON | DRAWN[kind]
    assert DTYPES[kind].itemsize == SIZES[kind]


@pytest.mark.parametrize("kind", Kind)
def test_there_are_no_holes_and_all_is_little_endian(kind: Kind) -> None:
    end = 0
    for name, offset in sorted(offsets(kind).items(), key=lambda item: item[1]):
        assert offset == end, name
        end += DTYPES[kind][name].itemsize
        assert DTYPES[kind][name].byteorder in "<|=", name
    assert end == DTYPES[kind].itemsize


def test_the_numbers_that_records_carry_do_not_change() -> None:
    assert {flag.name: flag.value for flag in Flag} == {
        "DATE_IS_RECEIVED": 1, "TRADE_ID_HASHED": 2, "AGGREGATE": 4, "CORRECTION": 8, "FINAL": 16, "SNAPSHOT": 32,
        "LAST_OF_UPDATE": 64,
    }  # fmt: skip
    assert [(code.name, code.value) for code in EventCode] == [
        ("CONNECTED", 1), ("SUBSCRIBED", 2), ("UNSUBSCRIBED", 3), ("REJECTED", 4), ("STALE", 5), ("LIVE", 6),
        ("GAP", 7), ("OUT_OF_ORDER", 8), ("DISCONNECTED", 9), ("RECONNECTED", 10), ("DECODE_ERROR", 11),
        ("WRITER_REPLACED", 12), ("CLOCK_STEP", 13), ("DROPPED", 14),
    ]  # fmt: skip
    assert [side.value for side in Side] == [-1, 0, 1]


# ---- the decoder's packed fields, read through numpy ----------------------------------------------------------------

TIMES = (1_700_000_000_000_000_001, 1_700_000_000_000_000_002)


def test_a_packed_trade_reads_back_field_by_field() -> None:
    buffer = bytearray(DTYPES[Kind.TRADE].itemsize)
    binance._pack_trade(buffer, 0, 1, TIMES[0], TIMES[1], 2, 3, 4, 5.5, 6.5, 2**64 - 7, 8, TIMES[0], 9, 10, 11, 12, -1)
    row = np.frombuffer(buffer, DTYPES[Kind.TRADE])[0].item()
    assert row == (1, TIMES[0], TIMES[1], 2, 3, 4, 5.5, 6.5, 2**64 - 7, 8, TIMES[0], 9, 10, 11, 12, -1, bytes(47))


def test_a_packed_quote_reads_back_field_by_field() -> None:
    buffer = bytearray(DTYPES[Kind.QUOTE].itemsize)
    binance._pack_quote(buffer, 0, 1, TIMES[0], TIMES[1], 2, 3, 4, 5.5, 6.5, 7.5, 8.5, 9, TIMES[1])
    row = np.frombuffer(buffer, DTYPES[Kind.QUOTE])[0].item()
    assert row == (1, TIMES[0], TIMES[1], 2, 3, 4, 5.5, 6.5, 7.5, 8.5, 9, TIMES[1], *[0] * 6, bytes(36))


def test_a_packed_event_reads_back_field_by_field(runtime: Path) -> None:
    with ConnectionWriter("events") as connection:
        publisher = Publisher(connection)
        publisher.event(
            EventCode.GAP, TIMES[0], symbol=9, value=-5, at=(Kind.QUOTE, 2**63), socket=3, text="btcusdt@bookTicker"
        )
        row = np.frombuffer(publisher.sink[Kind.EVENT].buffer, DTYPES[Kind.EVENT])[0].item()
    # Kinds are numbered from 1 in events: 0 is "at no record".
    assert row == (0, TIMES[0], TIMES[0], 9, 0, 0, -5, 2**63, 7, 2, 3, b"btcusdt@bookTicker")


# ---- the sink -------------------------------------------------------------------------------------------------------


def test_a_sink_has_an_empty_staging_buffer_of_whole_slots_for_every_kind() -> None:
    sink = Sink()
    for kind in Kind:
        staging = sink[kind]
        assert (staging.kind, staging.count, staging.base_seq, staging.capacity) == (kind, 0, 0, STAGED)
        assert len(staging.buffer) == len(staging.view) == STAGED * DTYPES[kind].itemsize
        assert not any(staging.buffer)


def test_what_is_staged_at_most_is_one_publish_of_the_smallest_ring() -> None:
    assert all(DEFAULT_CAPACITY[kind] // BATCH_FRACTION >= STAGED for kind in Kind)
    assert 2**13 // BATCH_FRACTION >= STAGED  # DESIGN's smallest capacity


@pytest.mark.parametrize("name", provider_names())
def test_every_provider_keeps_the_contract_of_declarations(name: str) -> None:
    found = provider(name)
    declaration = found.declaration
    assert declaration.name == name
    kinds = {channel.kind for channel in declaration.channels}
    assert len(set(declaration.feeds)) == len(declaration.feeds)
    for kind, numbering in declaration.numbering.items():
        assert kind in kinds
        assert DTYPES[kind][numbering.field] == np.dtype("<u8")
    parameters = found.parameters.model_validate({"symbol": declaration.example})
    (topic, *_) = found.topics(parameters, [declaration.example])
    assert topic.channel in declaration.channels
    assert re.match(r"wss://", found.url(parameters, [topic]))
    assert found.decoder().decode([], 0, 0, Sink()) == (0, [])
    assert found.decoder() is not found.decoder()


# ---- C --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler here")
def test_a_c_compiler_lays_the_records_out_as_numpy_does(tmp_path: Path) -> None:
    (tmp_path / "records.h").write_text(c_header())
    lines = [
        '#include "records.h"',
        '#include "records.h"',
        "#include <stddef.h>",
        "#include <stdio.h>",
        "int main(void) {",
    ]
    for kind in Kind:
        lines.append(f'    printf("{kind} sizeof %zu\\n", sizeof(struct tickring_{kind}));')
        lines += [
            f'    printf("{kind} {name} %zu\\n", offsetof(struct tickring_{kind}, {name.lstrip("_")}));'
            for name in offsets(kind)
        ]
    lines += [f'    printf("flag {flag.name} %d\\n", TICKRING_FLAG_{flag.name});' for flag in Flag]
    (tmp_path / "offsets.c").write_text("\n".join([*lines, "    return 0;", "}"]))
    program = tmp_path / "offsets"
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", program, tmp_path / "offsets.c"],
        check=True,
        timeout=30,
    )
    printed = subprocess.run([program], check=True, capture_output=True, text=True, timeout=10).stdout.split("\n")
    expected = [
        line
        for kind in Kind
        for line in (
            f"{kind} sizeof {DTYPES[kind].itemsize}",
            *(f"{kind} {name} {offset}" for name, offset in offsets(kind).items()),
        )
    ]
    assert printed == [*expected, *(f"flag {flag.name} {flag.value}" for flag in Flag), ""]
