"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import msgspec
import psutil

#: What the figures depend on most.
_LIBRARIES = ("numpy", "msgspec", "picows", "uvloop", "orjson", "pydantic", "structlog")


class Machine(msgspec.Struct, frozen=True):
    """The machine's description."""

    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    libraries: dict[str, str]
    #: Load average of 1, 5 and 15 minutes before the first benchmark: above zero, somebody else is at work.
    load: list[float]


def this_machine() -> Machine:
    """Describe this machine."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        load=[round(load, 2) for load in os.getloadavg()],
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    except OSError:
        pass  # no /proc here: the architecture must do
    return platform.machine()
