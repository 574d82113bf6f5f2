"""What a read gives: a private array of records, what was lost before it, and the names its ids stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ringbuf.symbols import Namespace, namespace_of

if TYPE_CHECKING:
    import pandas as pd

RecordArray: TypeAlias = np.ndarray[tuple[int], np.dtype[np.void]]

#: Gives the names of a namespace, index = id; called when names are wanted, because new ones appear.
Names: TypeAlias = Callable[[Namespace], list[str]]


class Loss(StrEnum):
    """Why a reader did not get records."""

    #: The writer was a whole ring ahead.
    OVERWRITTEN = "overwritten"
    #: A writer died before it had finished them.
    VOID = "void"
    #: Another ring took the name. The old one was read to its end; what came between is unknown.
    REPLACED = "replaced"


@dataclass(frozen=True)
class Gap:
    """A stretch of records that a reader did not get: `count` of them from seq `first` on."""

    first: int
    count: int
    reason: Loss


class Records:
    """Records of one kind, copied out of a ring: they stay as they are, whatever the writer does.

    `array` is the structured array, one row a record, columns by name: ``records["last_price"]`` is a column.
    Iterating gives one dict a record with names in place of ids, for a look; for speed use the columns.
    """

    def __init__(
        self, array: RecordArray, connection: str, kind: str, names: Names, gaps: tuple[Gap, ...] = ()
    ) -> None:
        self.array = array
        self.connection = connection
        self.kind = kind
        #: What was lost directly before or within these records, oldest first; usually empty.
        self.gaps = gaps
        self._names = names

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, column: str) -> np.ndarray[tuple[int], np.dtype[Any]]:
        return self.array[column]

    def __repr__(self) -> str:
        lost = f", {self.lost} lost before" if self.lost else ""
        return f"<{len(self)} {self.kind} records of {self.connection}{lost}>"

    @property
    def lost(self) -> int:
        """How many records the gaps are."""
        return sum(gap.count for gap in self.gaps)

    def names(self, namespace: Namespace = Namespace.SYMBOL) -> list[str]:
        """The names that ids stand for; index 0 is the empty name."""
        return self._names(namespace)

    def symbols(self) -> list[str]:
        """The symbol of every record."""
        names = self.names()
        return [names[number] for number in self.array["symbol"].tolist()]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        columns = [name for name in self.array.dtype.names or () if not name.startswith("_")]
        namespaces = [namespace_of(column) for column in columns]
        for row in self.array:
            record = dict(zip(columns, (row[column] for column in columns), strict=True))
            for column, namespace in zip(columns, namespaces, strict=True):
                if namespace is not None:
                    record[column] = self.names(namespace)[int(record[column])]
                elif isinstance(record[column], bytes):
                    record[column] = record[column].decode(errors="replace")
            yield record

    def to_numpy(self) -> RecordArray:
        """The structured array itself."""
        return self.array

    def to_pandas(self) -> pd.DataFrame:
        """Give a DataFrame: date, symbol, type, exchange, then the kind's own columns.

        Symbols and exchanges are categorical, times ``datetime64[ns, UTC]``; unknown times are NaT, unknown names NaN.

        Raises:
            ParameterError: pandas is not installed.
        """
        from ringbuf.frames import to_pandas  # here because pandas is optional

        return to_pandas(self)
