"""A stream of records whose every field follows from `seq`, so that any record can be checked by itself.

A record is some u64 words: the seq, then `seq XOR constant` with another constant for every word. A torn record, half
of one seq and half of another, cannot satisfy all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ringbuf.records import Gap, RecordArray

_GOLDEN = 0x9E3779B97F4A7C15


def stream_dtype(words: int = 8) -> np.dtype[np.void]:
    """The dtype of a record of `words` u64 fields; 8 make the 64 bytes of the smallest kinds."""
    return np.dtype([("seq", "<u8"), *((f"w{i}", "<u8") for i in range(1, words))])


def _constants(words: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.arange(words, dtype=np.uint64) * np.uint64(_GOLDEN)


def stream(first: int, count: int, words: int = 8) -> RecordArray:
    """The records with seq `first` to `first + count - 1`."""
    seqs = np.arange(first, first + count, dtype=np.uint64)
    return np.bitwise_xor.outer(seqs, _constants(words)).view(stream_dtype(words)).reshape(count)


def stream_bytes(first: int, count: int, words: int = 8) -> memoryview:
    """The same as `RingWriter.publish` wants it."""
    return memoryview(stream(first, count, words).tobytes())


def count_torn(records: RecordArray) -> int:
    """How many of these records have a field that does not follow from their seq."""
    if not len(records):
        return 0
    matrix = np.ascontiguousarray(records).view("<u8").reshape(len(records), -1)
    return int(
        np.count_nonzero((matrix != np.bitwise_xor.outer(matrix[:, 0], _constants(matrix.shape[1]))).any(axis=1))
    )


def is_exactly(records: RecordArray, before: int, after: int, gaps: Iterable[Gap]) -> bool:
    """Whether a read that moved the cursor from `before` to `after` gave all records but those its gaps name."""
    expected = np.ones(after - before, dtype=bool)
    for gap in gaps:
        expected[gap.first - before : gap.first - before + gap.count] = False
    return bool(np.array_equal(np.flatnonzero(expected).astype(np.uint64) + np.uint64(before), records["seq"]))
