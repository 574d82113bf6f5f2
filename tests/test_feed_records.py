"""The record kinds as numpy, pandas and C see them."""

from __future__ import annotations

import numpy as np
import pytest

from feeds.records import DATA_KINDS, DEFAULT_CAPACITY, DTYPES, KIND_NUMBER, NO_TIME, Flag, Kind, c_header
from ringbuf.layout import Header, encode


@pytest.mark.parametrize("kind", Kind)
def test_a_ring_can_be_made_of_every_kind(kind: Kind) -> None:
    assert DTYPES[kind].itemsize in (64, 128)
    assert encode(Header(bytes(16), "some", kind, DTYPES[kind], DEFAULT_CAPACITY[kind], 0))


def test_a_missing_time_is_numpys_not_a_time() -> None:
    record = np.zeros(1, DTYPES[Kind.TRADE])
    record["published"].view("<i8")[:] = NO_TIME
    assert np.isnat(record["published"][0])


def test_times_view_as_dates_without_a_copy() -> None:
    record = np.zeros(1, DTYPES[Kind.QUOTE])
    record["date"].view("<i8")[:] = 1_723_161_255_342_000_000
    assert str(record["date"][0]) == "2024-08-08T23:54:15.342000000"


def test_flags_are_one_bit_each_and_fit_their_field() -> None:
    bits = [flag.value for flag in Flag]
    assert all(bit & (bit - 1) == 0 for bit in bits)
    assert sum(bits) < 2**16


def test_kinds_are_numbered_in_the_order_that_readers_merge_by() -> None:
    assert [KIND_NUMBER[kind] for kind in Kind] == list(range(6))
    assert list(KIND_NUMBER) == ["trade", "quote", "candle", "level", "price", "event"]
    assert Kind.EVENT not in DATA_KINDS
    assert len(DATA_KINDS) == 5


def test_capacities_are_designs() -> None:
    assert DEFAULT_CAPACITY[Kind.TRADE] == DEFAULT_CAPACITY[Kind.QUOTE] == 2**17
    assert {DEFAULT_CAPACITY[kind] for kind in Kind} == {2**17, 2**14}


def test_the_header_names_every_field_of_every_kind_and_every_flag() -> None:
    header = c_header()
    for kind in Kind:
        body = header.partition(f"struct tickring_{kind} {{")[2].partition("}")[0]
        for name in DTYPES[kind].names or ():
            assert f" {name.lstrip('_')};" in body or f" {name.lstrip('_')}[" in body, (kind, name)
    assert header.count("#define TICKRING_FLAG_") == len(Flag)
    assert c_header() == header
