"""How numbers, times and prices are written."""

from __future__ import annotations

import pytest

from cli import formats

_MS = 1_000_000


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "-"),
        (0, "<0"),
        (200_000, "<0.2ms"),
        (1_600_000, "<1.6ms"),
        (51_200_000, "<51ms"),
        (1_638 * _MS, "<1.6s"),
    ],
)
def test_a_lag_is_the_bound_of_its_bucket(ns: int | None, text: str) -> None:
    assert formats.lag(ns) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0.34, "0.3s"), (9.96, "10s"), (59.4, "59s"), (245, "4m05s"), (12_000, "3h20m"), (187_200, "2d04h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("price", "text"),
    [(61837.63, "61837.63"), (8.42e-06, "0.00000842"), (100.0, "100"), (2710231100.0, "2710231100"), (0.1, "0.1")],
)
def test_a_price_is_written_without_exponent_as_the_venue_wrote_it(price: float, text: str) -> None:
    assert formats.plain(price) == text
    assert float(text) == price


def test_what_is_no_number_is_written_all_the_same() -> None:
    assert (formats.plain(float("nan")), formats.plain(float("-inf"))) == ("nan", "-inf")


@pytest.mark.parametrize(("number", "digits"), [(61837.63, 2), (8.42e-06, 8), (100.0, 0), (5e20, 0), (0.0, 0)])
def test_decimals_count_the_digits_after_the_point(number: float, digits: int) -> None:
    assert formats.decimals(number) == digits


@pytest.mark.parametrize(("rate", "text"), [(None, "-"), (0.0, "0"), (3.21, "3.2"), (9.9, "9.9"), (12_345.6, "12,346")])
def test_small_rates_have_a_digit_after_the_point(rate: float | None, text: str) -> None:
    assert formats.rate(rate) == text


def test_a_large_number_is_short_where_room_is_short() -> None:
    numbers = (999_999, 1_234_567, 45_600_000, 123_456_789, 2_345_678_901)
    assert [formats.short(n) for n in numbers] == ["999,999", "1.23M", "45.6M", "123M", "2.35G"]


def test_elapsed_time_and_sizes() -> None:
    assert [formats.clock(s) for s in (0.9, 67.2, 3723)] == ["00:00", "01:07", "1:02:03"]
    assert [formats.size(n) for n in (512, 2048, 16 * 2**20, 5 * 2**40)] == [
        "512 B",
        "2.0 KiB",
        "16.0 MiB",
        "5120.0 GiB",
    ]


def test_a_time_of_day_is_the_times_own_digits() -> None:
    assert formats.time_of_day("2024-11-12T04:51:33.083000+00:00") == "04:51:33.083000"
