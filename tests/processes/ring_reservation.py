"""Take a connection and a ring of 4 MiB where there may be no room; print the error: ``... ring_reservation [BYTES]``.

With BYTES no file of this process may grow larger than that.
"""

from __future__ import annotations

import resource
import sys

from processes.stream import stream_dtype
from ringbuf import ConnectionWriter
from ringbuf.errors import SharedMemoryFull


def main() -> None:
    """See the module."""
    if len(sys.argv) > 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
    try:
        with ConnectionWriter("venue") as writer:
            writer.ring("trade", stream_dtype(), 2**16)
    except SharedMemoryFull as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    main()
