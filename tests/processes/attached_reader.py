"""A reader in a process of its own: attaches to a ring, reads it to a given seq, and writes what it got to a file.

Usage: attached_reader.py CONNECTION KIND UNTIL OUTPUT.npz [PAUSE]

It writes the records, the symbol of each, and (start, received, lost, tail). With PAUSE it sleeps that many seconds
after every read: a reader that is too slow on purpose.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from ringbuf.reader import attach
from ringbuf.records import RecordArray


def main(connection: str, kind: str, until: int, output: str, pause: float) -> None:
    """Read the ring, and write what came of it."""
    with attach(connection, kind, wait=20.0) as ring:
        parts: list[RecordArray] = []
        symbols: list[str] = []
        end = time.monotonic() + 50.0
        while ring.cursor < until and time.monotonic() < end:
            records = ring.read(timeout=0.5)
            if pause:
                symbols = records.symbols()[:1] or symbols
                time.sleep(pause)
            else:
                parts.append(records.array)
                symbols += records.symbols()
        account = np.array([ring.start, ring.received, ring.lost, ring.cursor])
        array = np.concatenate(parts) if parts else np.empty(0, ring.header.dtype)
    np.savez(output, records=array, symbols=np.array(symbols), account=account)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5]) if len(sys.argv) > 5 else 0.0)
