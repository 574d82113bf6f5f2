"""Names as small numbers: the symbols and exchanges of one connection, shared by all its rings.

A slot of the file ``symbols`` is 64 bytes::

    0         1            2                                    64
    +---------+------------+------------------------------------+
    | length  | namespace  | name, utf-8, zero-padded           |
    +---------+------------+------------------------------------+

An id is a name's place among the names of its namespace, counted from 1; id 0 is "no name". Ids are never reused and
survive a restart of the writer, so a ring's old records keep their names. Symbols fit a u32 and exchanges a u16, as
the record fields do.
"""

from __future__ import annotations

from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Final

from ringbuf.errors import RingCorrupt, RingError, SymbolError
from ringbuf.slots import SlotFile

_SLOT: Final = 64
_LONGEST: Final = _SLOT - 2


class Namespace(IntEnum):
    """What a name names."""

    SYMBOL = 0
    EXCHANGE = 1


def namespace_of(column: str) -> Namespace | None:
    """Tell which names a column's ids stand for, if any."""
    if column == "symbol":
        return Namespace.SYMBOL
    return Namespace.EXCHANGE if column.endswith("exchange") else None


#: The largest id of each namespace: what its record field can hold.
_LARGEST: Final = {Namespace.SYMBOL: 2**32 - 1, Namespace.EXCHANGE: 2**16 - 1}


class SymbolTable:
    """The names of one connection. One writer may `intern`; readers see new names at their next `names` or `name`.

    For one thread.
    """

    def __init__(self, directory: Path, *, write: bool = False) -> None:
        """Open the table in a connection's directory. Raises as `SlotFile` does."""
        self._slots = SlotFile(directory / "symbols", _SLOT, write=write)
        self._names: dict[Namespace, list[str]] = {namespace: [""] for namespace in Namespace}
        self._ids: dict[tuple[Namespace, str], int] = {}
        self._seen = 0
        self._closed = False
        try:
            self._refresh()
        except BaseException:
            self._slots.close()
            raise

    def _refresh(self) -> None:
        if self._closed:
            return
        count = self._slots.count
        if count == self._seen:
            return
        block = self._slots.copy(self._seen, count)
        for start in range(0, len(block), _SLOT):
            self._remember(*self._decode(block[start : start + _SLOT]))
            self._seen += 1

    def _decode(self, slot: bytes) -> tuple[Namespace, str]:
        length = slot[0]
        try:
            if not 0 < length <= _LONGEST:
                raise ValueError(f"a name of {length} bytes")
            return Namespace(slot[1]), slot[2 : 2 + length].decode()
        except ValueError as error:
            path = self._slots.path
            raise RingCorrupt(
                f"slot {self._seen} of {path} is no name ({error}). Stop the connection, remove {path.parent} and "
                "start it again."
            ) from error

    def _remember(self, namespace: Namespace, name: str) -> int:
        names = self._names[namespace]
        self._ids[namespace, name] = len(names)
        names.append(name)
        return len(names) - 1

    def intern(self, name: str, namespace: Namespace = Namespace.SYMBOL) -> int:
        """Give the id of a name, adding it if it is new. Only for the writer.

        Raises:
            SymbolError: the name is empty or longer than 62 bytes, or its namespace is full.
            SharedMemoryFull: the file cannot grow.
        """
        known = self._ids.get((namespace, name))
        if known is not None:
            return known
        encoded = name.encode()
        if not 0 < len(encoded) <= _LONGEST:
            raise SymbolError(f"{name[:80]!r} cannot be stored as a name: it must have 1 to {_LONGEST} bytes.")
        if len(self._names[namespace]) > _LARGEST[namespace]:
            raise SymbolError(f"no more than {_LARGEST[namespace]} names of {namespace.name.lower()}s can be stored.")
        self._slots.append(bytes((len(encoded), namespace)) + encoded.ljust(_LONGEST, b"\0"))
        self._seen += 1
        return self._remember(namespace, name)

    def id(self, name: str, namespace: Namespace = Namespace.SYMBOL) -> int | None:
        """Give the id of a name, or None if nobody has written it yet."""
        self._refresh()
        return self._ids.get((namespace, name))

    def name(self, number: int, namespace: Namespace = Namespace.SYMBOL) -> str:
        """Give the name of an id; an id nobody has written gives ``""``."""
        names = self.names(namespace)
        return names[number] if number < len(names) else ""

    def names(self, namespace: Namespace = Namespace.SYMBOL) -> list[str]:
        """Every name, the list's index being its id; index 0 is ``""``. The list is live: do not change it."""
        self._refresh()
        return self._names[namespace]

    def close(self) -> None:
        """Unmap the table; every name written until now stays known, so that records read before keep theirs.

        A name is written before the first record that has it is published. Doing so twice is harmless.
        """
        with suppress(RingError):  # a damaged table must not keep its reader from closing
            self._refresh()
        self._closed = True
        self._slots.close()
