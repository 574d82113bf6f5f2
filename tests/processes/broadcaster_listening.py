"""Listen to the address given, until interrupted."""

from __future__ import annotations

import sys

from supervisor.listen import listen


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    listen(sys.argv[1], write=_write)
