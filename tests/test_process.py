"""A process is known by its pid and its start; one that has ended is not alive, whoever has its pid now."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
from waiting import wait_until

from ringbuf.process import is_alive, process_start

SECOND = 1_000_000_000


def test_this_process_is_alive_with_its_own_start_and_no_other() -> None:
    start = process_start(os.getpid())
    assert start == int(psutil.Process().create_time() * 1e9)
    assert is_alive(os.getpid(), start)
    assert not is_alive(os.getpid(), start - 2 * SECOND)
    assert not is_alive(0, start)


def test_a_child_is_alive_until_it_ends_and_a_zombie_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        start = process_start(child.pid)
        assert start > process_start(os.getpid())
        assert is_alive(child.pid, start)
        child.kill()
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, "it is a zombie")
        assert not is_alive(child.pid, start)
    assert process_start(child.pid) == 0
