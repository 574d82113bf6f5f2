"""Tell one process from another that later got the same pid."""

from __future__ import annotations

import os
from functools import cache

import psutil


@cache
def _own_start(pid: int) -> int:
    return int(psutil.Process(pid).create_time() * 1e9)


def process_start(pid: int) -> int:
    """Give the start of a live process in ns since 1970 (the kernel's clock ticks, about 10 ms exact), else 0."""
    if pid == os.getpid():
        return _own_start(pid)
    try:
        process = psutil.Process(pid)
        # A zombie has ended: only its parent has not looked yet.
        return 0 if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 1e9)
    except psutil.Error:
        return 0


def is_alive(pid: int, start: int) -> bool:
    """Tell whether the process that had this pid and start time still runs."""
    return pid > 0 and abs(process_start(pid) - start) < 1_000_000_000
