"""How numbers, times and prices are written for people. Pure."""

from __future__ import annotations

from decimal import Decimal

_MILLISECOND = 1_000_000
_SECOND = 1_000_000_000


def count(number: int) -> str:
    """Write a whole number: ``12,345``."""
    return f"{number:,}"


def short(number: int) -> str:
    """Write a whole number in at most seven characters: ``12,345``, ``1.23M``, ``45.6M``."""
    if number < 1_000_000:
        return count(number)
    unit, scale = ("M", 1e6) if number < 1_000_000_000 else ("G", 1e9)
    value = number / scale
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{unit}"


def rate(per_second: float | None) -> str:
    """Write a rate: ``1,234``, ``3.2`` when it is small, ``-`` when it is not known."""
    if per_second is None:
        return "-"
    return f"{per_second:,.0f}" if per_second >= 10 or per_second == 0 else f"{per_second:.1f}"


def lag(ns: int | None) -> str:
    """Write a lag: the upper bound of its bucket, ``<0.2ms``; ``<0`` means that the venue's clock is ahead."""
    if ns is None:
        return "-"
    if ns <= 0:
        return "<0"
    if ns < _SECOND:
        milliseconds = ns / _MILLISECOND
        return f"<{milliseconds:.1f}ms" if milliseconds < 10 else f"<{milliseconds:.0f}ms"
    return f"<{ns / _SECOND:.1f}s"


def duration(seconds: float) -> str:
    """Write how long: ``0.3s``, ``12s``, ``4m05s``, ``3h20m``, ``2d04h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def clock(seconds: float) -> str:
    """Write elapsed time: ``00:07``, ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def size(amount: float) -> str:
    """Write bytes: ``16.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable: the last unit returns")


def decimals(number: float) -> int:
    """How many digits after the point a float's shortest text has: 2 for 61837.63, 8 for 8.42e-06."""
    exponent = Decimal(repr(number)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def plain(number: float) -> str:
    """Write a float without exponent, as the venue wrote it: ``0.00000842``, ``61837.63``, ``100``."""
    return f"{number:.{decimals(number)}f}" if number == number and abs(number) != float("inf") else str(number)


def time_of_day(text: str) -> str:
    """Give the time of an RFC 3339 text in UTC: ``04:51:33.083000``."""
    return text[11:].removesuffix("+00:00")
