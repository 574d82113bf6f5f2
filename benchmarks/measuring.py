"""CPU and wall time of a piece of work, several times over, and of other processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds per unit of work, one entry a run."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, cpu: float, wall: float, units: int) -> None:
        """Take in one run."""
        self.cpu.append(cpu / units)
        self.wall.append(wall / units)


def repeat(runs: int, units: int, work: Callable[[], object]) -> Measured:
    """Run `work`, which does `units` of something, so many times in this process."""
    measured = Measured()
    for _ in range(runs):
        once(measured, units, work)
    return measured


def once(measured: Measured, units: int, work: Callable[[], object]) -> None:
    """Run `work` and take it in as one more run."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    measured.add(time.process_time() - cpu, time.perf_counter() - wall, units)


def cpu_seconds(pid: int) -> float:
    """Give the CPU time that a running process has used, all its threads, to the nanosecond.

    /proc gives it in steps of 10 ms only. The clock's number is made as glibc's clock_getcpuclockid makes it: the
    complement of the pid, shifted by three, and 2 for the scheduler's own count.
    """
    return time.clock_gettime((~pid << 3) | 2)


def pin(core: int, pid: int = 0) -> bool:
    """Keep a process (0: this one) on one core, if there are two at least; tell whether it is so.

    Counted are the cores that this process may use, so that a container's limits hold.
    """
    allowed = sorted(_ALLOWED)
    if len(allowed) < 2:
        return False
    os.sched_setaffinity(pid, {allowed[core % len(allowed)]})
    return True


#: As it was at start: a process that has pinned itself would count one.
_ALLOWED = os.sched_getaffinity(0)
