"""Which processes belong to a supervisor: all of them hold one lock, so that a successor can wait for the last.

::

    supervisor --opens--> family.lock (flock, shared) --inherited--> every child

When a supervisor is killed, its children notice the end of their pipes and leave in good order: a last snapshot, a
good-bye to the venue and to listeners. That may take them a second or two, in which they hold what the successor
needs: results files, ports, names. An flock belongs to the open file and not to the process: it falls when the last one
that inherited it has closed it or has ended, however that came. So the successor asks for the same lock, exclusively.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Final

from ringbuf.directory import open_file

_LOOK_AGAIN: Final = 0.02


class Family:
    """This supervisor's hold on the lock. For its event loop; `close` it."""

    def __init__(self, directory: Path) -> None:
        """Open the lock in an instance's runtime directory. Raises as `open_file` does."""
        #: What every child is to inherit.
        self.descriptor = open_file(directory / "family.lock", write=True, create=True)

    async def gather(self, within: float) -> bool:
        """Wait until no process of a predecessor is left, then hold the lock for ours.

        Args:
            within: how long, in seconds.

        Returns:
            Whether all of them have gone. If not, ours hold the lock beside them.
        """
        end = asyncio.get_running_loop().time() + within
        gone = False
        while not gone and asyncio.get_running_loop().time() < end:
            gone = self._lock(fcntl.LOCK_EX)
            if not gone:
                await asyncio.sleep(_LOOK_AGAIN)
        self._lock(fcntl.LOCK_SH)
        return gone

    def _lock(self, how: int) -> bool:
        try:
            fcntl.flock(self.descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Leave the lock to the children that are left; doing so twice is harmless."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
