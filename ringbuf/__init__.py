"""Rings: fixed-dtype records in shared memory, one writer, any number of readers, the oldest overwritten.

    layout      what a ring file holds, byte by byte
    ordering    the four points where the order of loads and stores matters
    writer      publishing by batch, taking over from a writer that died
    reader      copying, validating, counting what was lost
    records     what a read gives: a private array with its gap and its symbol names
    symbols     names as small numbers, shared by all rings of a connection
    counters    what a provider counts, and the state of every topic
    connection  one connection's directory, seen by its writer
    directory   where everything lies, and which paths are safe
    waiting     how a reader waits

Nothing else of the project is imported here.
"""

from ringbuf.connection import ConnectionWriter
from ringbuf.counters import Counter, Counters, TopicState, read_counters
from ringbuf.reader import RingReader, attach
from ringbuf.records import Gap, Records
from ringbuf.symbols import SymbolTable
from ringbuf.waiting import Backoff
from ringbuf.writer import RingWriter

__all__ = [
    "Backoff",
    "ConnectionWriter",
    "Counter",
    "Counters",
    "Gap",
    "Records",
    "RingReader",
    "RingWriter",
    "SymbolTable",
    "TopicState",
    "attach",
    "read_counters",
]
