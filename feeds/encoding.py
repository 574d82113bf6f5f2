"""Records as JSON objects: the one vocabulary of ring, DataFrame, REST, snapshot and listener.

A trade reads ``{"date":"2024-11-12T04:51:33.083000+00:00","symbol":"BTCUSDT","type":"trade","exchange":"binance",
"last_price":0.00239,...}``. The rules, for every kind:

* keys are the record's field names, in the order of the DataFrame's columns; ``type`` is the kind;
* times are RFC 3339 in UTC with six digits, nine where the last three are not zero;
* what is unknown is left out (NaN, NaT, no name; zero for numbers that cannot be zero), so NaN is never written;
* integers beyond 2**53 are strings, because JavaScript would round them;
* floats are the shortest text that gives the same float again.

Work is done by column: a column that is unknown in all records costs nothing a record, and a time that repeats, as
`received` does within a batch, is written once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import orjson

from feeds.records import NO_TIME, EventCode, Kind
from ringbuf.frames import column_order
from ringbuf.records import Records, namespace_of

#: What a JSON object of ours can hold.
Value: TypeAlias = str | int | float

# Numbers for which zero is a value and not "unknown".
_ZERO_COUNTS: Final = frozenset({"seq", "volume", "trades", "value"})
_LARGEST_EXACT: Final = 2**53

_KINDS: Final = tuple(Kind)


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def format_time(ns: int) -> str:
    """Write ns since 1970 as RFC 3339 in UTC: six digits, nine where needed."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    digits = f"{fraction:09d}" if fraction % 1000 else f"{fraction // 1000:06d}"
    return f"{_second(seconds)}.{digits}+00:00"


def objects(records: Records) -> list[dict[str, Value]]:
    """Give one JSON-ready dict a record."""
    keys: list[str] = []
    columns: list[list[Value | None]] = []
    whole = True
    for name in column_order(records.array.dtype.names or ()):
        column = _column(records, name)
        if column is None:
            continue
        keys.append(name)
        columns.append(column)
        whole = whole and None not in column
    rows = zip(*columns, strict=True)
    if whole:
        return [dict(zip(keys, row, strict=True)) for row in rows]
    return [{key: value for key, value in zip(keys, row, strict=True) if value is not None} for row in rows]


def lines(records: Records) -> list[bytes]:
    """Give one JSON text a record, in UTF-8."""
    dumps = orjson.dumps
    return [dumps(record) for record in objects(records)]


def _column(records: Records, name: str) -> list[Value | None] | None:
    """Give a column's values with None for unknown ones, or None if all are unknown."""
    if name == "type":
        return [records.kind] * len(records)
    values = records[name]
    namespace = namespace_of(name)
    if namespace is not None:
        names: list[Value | None] = [text or None for text in records.names(namespace)]
        return _known([names[number] for number in values.tolist()])
    if values.dtype.kind == "M":
        return _times(values.view("<i8").tolist())
    if values.dtype.kind == "f":
        unknown = np.isnan(values)
        return None if unknown.all() else _without(values.tolist(), unknown)
    if values.dtype.kind == "S":
        return _known([text.decode(errors="replace") or None for text in values.tolist()])
    if name in ("code", "at_kind"):
        return _words(name, values.tolist())
    return _integers(values.tolist(), zero_counts=name in _ZERO_COUNTS)


def _known(values: list[Value | None]) -> list[Value | None] | None:
    return values if any(value is not None for value in values) else None


def _without(values: list[float], unknown: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[Value | None]:
    if not unknown.any():
        return list(values)
    return [None if gone else value for value, gone in zip(values, unknown.tolist(), strict=True)]


def _times(values: list[int]) -> list[Value | None] | None:
    texts: list[Value | None] = []
    last, text = NO_TIME, None
    for value in values:
        if value != last:
            last, text = value, None if value == NO_TIME else format_time(value)
        texts.append(text)
    return _known(texts)


def _integers(values: list[int], *, zero_counts: bool) -> list[Value | None] | None:
    if not zero_counts and not any(values):
        return None
    if zero_counts and max(values, default=0) <= _LARGEST_EXACT:
        return list(values)
    return [
        None if value == 0 and not zero_counts else value if abs(value) <= _LARGEST_EXACT else str(value)
        for value in values
    ]


def _words(name: str, values: list[int]) -> list[Value | None]:
    """Give an event's numbers as words; `at_kind` is stored one higher, so that 0 is "none"."""
    if name == "code":
        return [EventCode(value).name.lower() for value in values]
    return [_KINDS[value - 1].value if value else None for value in values]
