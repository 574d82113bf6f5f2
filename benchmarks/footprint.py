"""The provider process: how soon it is ready, what that time goes into, and what memory it holds beside its rings.

Ready is what the provider says itself, when the simulated venue has accepted its subscriptions. Memory is counted from
the process's own map: pages of ring files are the rings', everything else is beside them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from benchmarks.captured import capture_path
from benchmarks.figures import Figure, Options, Report
from benchmarks.measuring import Measured, cpu_seconds
from benchmarks.processes import Provider, provider, simulated_venue
from ringbuf.counters import Counter, read_counters
from ringbuf.directory import connection_directory
from ringbuf.errors import TickringError

TITLE: Final = "a provider process: exec to ready, and memory beside its rings"

#: The issue's: seconds, and MB.
_READY_TARGET: Final = 0.4
_MEMORY_TARGET: Final = 60.0
#: A minute of a busy feed, 50,000 records a second.
_MINUTE: Final = 3_000_000
_LOAD_WITHIN: Final = 60.0
#: Whose imports are told one by one: what a module draws in first is counted to it.
_PARTS: Final = ("numpy", "pydantic", "picows", "uvloop", "asyncio", "structlog", "msgspec", "orjson", "psutil")
_IMPORT_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| ( *)(\S+)")


@dataclass
class _Memory:
    """MB of a provider at several points."""

    uss: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    rings: list[float] = field(default_factory=list)

    def look(self, pid: int) -> None:
        """Take in what a process holds now."""
        maps = psutil.Process(pid).memory_maps(grouped=False)
        rings = [m for m in maps if m.path.partition(" ")[0].endswith(".ring")]
        others = [m for m in maps if m not in rings]
        self.rings.append(sum(m.rss for m in rings) / 1e6)
        self.rss.append(sum(m.rss for m in others) / 1e6)
        self.uss.append(sum(m.private_clean + m.private_dirty for m in others) / 1e6)


def run(options: Options) -> Report:
    """Start providers, load one, and take an import apart."""
    starts, load = (2, 100_000) if options.quick else (9, _MINUTE)
    ready, loaded, times = _Memory(), _Memory(), Measured()
    capture = ("--capture", str(capture_path(options.captures)))
    with tempfile.TemporaryDirectory(prefix="bytecode-", dir=os.environ.get("TICKRING_RUNTIME_DIR")) as bytecode:
        environment = _installed(Path(bytecode))
        subprocess.run([sys.executable, "-P", "-c", _IMPORTS], env=environment, check=True)  # compiles, uncounted
        with simulated_venue(*capture, "--speed", "1", "--loop", "forever") as (url, _):
            for number in range(starts):
                with provider(f"start-{number}", url, environment) as running:
                    running.wait_ready()
                    times.add(cpu_seconds(running.pid), time.perf_counter() - running.started_at, 1)
                    ready.look(running.pid)
                    running.drain()
        with (
            simulated_venue(*capture, "--speed", "full", "--loop", "forever") as (url, _),
            provider("loaded", url, environment) as running,
        ):
            running.wait_ready()
            _wait_for(running, load)
            loaded.look(running.pid)
        parts = _import_times(environment, 1 if options.quick else 3)
    figures = [
        # What a user waits is wall time: here it is what is judged, and CPU time is told beside it.
        Figure("exec to ready", "s, wall", times.wall, higher_is_better=False, target=_READY_TARGET),
        Figure("exec to ready, CPU", "s", times.cpu, higher_is_better=False),
        *_memory_figures("at ready", ready),
        *_memory_figures(f"after {load:,} records", loaded),
    ]
    return Report("footprint", TITLE, figures, [_told(parts), *_NOTES])


_IMPORTS: Final = "import feeds.worker, feeds.binance"

_NOTES: Final = [
    "MB are 10^6 bytes; resident counts libraries' pages that other processes share, private does not",
    "imports of a fresh interpreter with bytecode at hand, as an installed package has it",
]


def _installed(bytecode: Path) -> dict[str, str]:
    """Give an environment in which bytecode is kept, in a private place, even where the caller's forbids it."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _memory_figures(when: str, memory: _Memory) -> list[Figure]:
    return [
        Figure(f"{when}: resident beside rings", "MB", memory.rss, higher_is_better=False, target=_MEMORY_TARGET),
        Figure(f"{when}: private beside rings", "MB", memory.uss, higher_is_better=False, target=_MEMORY_TARGET),
        Figure(f"{when}: pages of rings", "MB", memory.rings, higher_is_better=False),
    ]


def _wait_for(running: Provider, records: int) -> None:
    end = time.monotonic() + _LOAD_WITHIN
    while read_counters(connection_directory("loaded")).values[Counter.RECORDS] < records:
        if time.monotonic() > end or not psutil.pid_exists(running.pid):
            raise TickringError(f"the provider did not get {records:,} records within {_LOAD_WITHIN:g} s.")
        time.sleep(0.02)


def _import_times(environment: dict[str, str], runs: int) -> dict[str, float]:
    """Give milliseconds per part, of the quickest run: of nothing but imports, the rest is other people's load."""
    found = []
    for _ in range(runs):
        command = [sys.executable, "-P", "-X", "importtime", "-c", _IMPORTS]
        report = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr
        found.append(_parts_of(report))
    return min(found, key=lambda parts: sum(parts.values()))


def _parts_of(report: str) -> dict[str, float]:
    """Add up the times of modules, each counted to the part that drew it in first.

    The report names children before their parent, indented by two spaces more; so it is walked from its end.
    """
    parts = dict.fromkeys((*_PARTS, "own modules and the rest"), 0.0)
    above: list[str] = []
    for own, indent, module in reversed(_IMPORT_LINE.findall(report)):
        depth = len(indent) // 2
        top = module.partition(".")[0]
        inherited = above[depth - 1] if 0 < depth <= len(above) else "own modules and the rest"
        part = inherited if inherited in _PARTS else top if top in _PARTS else "own modules and the rest"
        del above[depth:]
        above.append(part)
        parts[part] += int(own) / 1000
    return parts


def _told(parts: dict[str, float]) -> str:
    listed = ", ".join(f"{name} {ms:.0f}" for name, ms in sorted(parts.items(), key=lambda part: -part[1]))
    return f"imports, ms with tracing: {listed}; together {sum(parts.values()):.0f}"
